"""Parses a source of the standard library again and again. Run with PYTHONMALLOC=malloc."""
import ast
import sys
import typing

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
with open(typing.__file__) as file:
    text = file.read()
total = 0
for _ in range(rounds):
    total += sum(1 for _ in ast.walk(ast.parse(text)))
print(f"SELF total={total}", file=sys.stderr)
