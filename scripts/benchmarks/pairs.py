#!/usr/bin/env python3
"""What one pair of malloc and free costs, at fixed stack depths; what starting costs; what a loop sustains.

  pairs.py --build DIR [--rounds N] [--best N] [--count N] [--starts N] [--tools native,memscope,heaptrack,full] [--full FILE] --out FILE

Each round runs every tool --best times, in turn, on every shape of `pairs` (workloads/src/pairs.c). Its figure is the
difference of the least times, the tool's and the native one: on a virtual machine whose cores are shared with others the same
pair natively takes 12 or 20 ns, changing every few milliseconds. The program itself measures the CPU time of its own threads.
A memscope run is then analysed, and its counts compared with those of the counting library: where they differ, or the
recording is incomplete, the row is marked VOID. One JSON line per figure. The tool `full` is memscope with the library
--full, which unwinds all of every stack; it runs in the shapes where every stack is new.
"""
import argparse, glob, json, os, resource, shutil, statistics, subprocess, sys, tempfile, time

SHAPES = {  # name: (mode, depth, leaves, threads, share of --count)
    "depth 8": ("hold", 8, 1, 1, 1.0),
    "depth 25": ("hold", 25, 1, 1, 1.0),
    "depth 60": ("hold", 60, 1, 1, 1.0),
    "depth 25, 4 leaves": ("hold", 25, 4, 1, 1.0),
    "depth 25, 4 threads": ("hold", 25, 1, 4, 0.5),
    "depth 25, random paths": ("paths", 25, 1, 1, 0.2),
}


def command(tool, out, argv, full):
    if tool == "native":
        return argv
    if tool == "full":
        return ["env", "LD_PRELOAD=" + full, "MEMSCOPE_OUTPUT=" + out + "/rec", "MEMSCOPE_QUIET=1"] + argv
    if tool == "heaptrack":
        return ["heaptrack", "-o", out + "/ht"] + argv
    return ["memscope-cli", "run", "--quiet", "--export", "none", "-o", out + "/rec", "--"] + argv


def last_json(text):
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise ValueError(f"no figures in {text[-300:]!r}")


def truth(build, argv):
    path = tempfile.mktemp(prefix="count.")
    env = dict(os.environ, LD_PRELOAD=os.path.join(build, "libcount.so"), COUNT_OUT=path)
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    with open(path) as f:
        row = json.loads(f.readline())
    os.unlink(path)
    return row["allocs"], row["frees"]


def analysed(out, expected):
    """(events, bytes of trace, seconds of analysis), or why the run does not count."""
    size = sum(os.path.getsize(os.path.join(out, "rec", n)) for n in os.listdir(out + "/rec") if n.endswith(".trace"))
    before = time.monotonic()
    ran = subprocess.run(["memscope-cli", "analyze", "--allocations", "none", out + "/rec", out + "/s.json"], capture_output=True, text=True)
    seconds = time.monotonic() - before
    if ran.returncode:
        return f"analyze: {ran.stderr.strip()[:200]}"
    with open(out + "/s.json") as f:
        snapshot = json.load(f)
    stats = snapshot["processes"][0]["stats"]
    got = stats["total_allocations"], stats["total_deallocations"]
    if not snapshot["complete"]:
        return f"incomplete: {snapshot['incomplete_reason']}"
    if got != expected:
        return f"counts {got}, not {expected}"
    return sum(got), size, seconds


def analysed_on_one_core(out):
    """CPU seconds of an analysis that has one core; or a text: what went wrong."""
    core = str(min(os.sched_getaffinity(0)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(["taskset", "-c", core, "memscope-cli", "analyze", "--allocations", "none", out + "/rec", out + "/s.json"],
                         capture_output=True, text=True)
    if ran.returncode:
        return f"analysis on one core: status {ran.returncode}: {ran.stderr.strip()[-200:]}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_on_one_core(out):
    """CPU seconds of the reader alone on one core: no symbols, no JSON; or a text: what went wrong."""
    core = str(min(os.sched_getaffinity(0)))
    trace = max(glob.glob(out + "/rec/*.trace"), key=os.path.getsize)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(["taskset", "-c", core, "gen_trace", "measure", trace, "--allocations", "none"], capture_output=True, text=True)
    if ran.returncode:
        return f"reader on one core: status {ran.returncode}: {ran.stderr.strip()[-200:]}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(tool, argv, expected, full=None, one_core=False):
    out = tempfile.mkdtemp(prefix="pairs.")
    try:
        ran = subprocess.run(command(tool, out, argv, full), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ran.returncode:
            return {"void": f"status {ran.returncode}: {ran.stderr.strip()[-200:]}"}
        row = last_json(ran.stderr + ran.stdout)
        if tool in ("memscope", "full"):
            seen = analysed(out, expected)
            if isinstance(seen, str):
                return dict(row, void=seen)
            row.update(events=seen[0], trace_bytes=seen[1], analysis_s=seen[2])
            if one_core:
                taken = analysed_on_one_core(out)
                if isinstance(taken, str):
                    return dict(row, void=taken)
                row["analysis_one_core_s"] = taken
                taken = read_on_one_core(out)
                if isinstance(taken, str):
                    return dict(row, void=taken)
                row["reader_one_core_s"] = taken
        return row
    finally:
        shutil.rmtree(out)


def shapes(args, put):
    pairs = os.path.join(args.build, "pairs")
    for name, (mode, depth, leaves, threads, share) in SHAPES.items():
        argv = [pairs, mode, str(depth), str(leaves), str(threads), str(int(args.count * share))]
        expected = truth(args.build, argv)
        tools = [tool for tool in args.tools.split(",") if tool != "full" or mode == "paths"]
        for number in range(args.rounds):
            tried = {tool: [] for tool in tools}
            for _ in range(args.best):
                for tool in tools:
                    tried[tool].append(run(tool, argv, expected, args.full))
            rows = {tool: least(tried[tool]) for tool in tools}
            for tool, row in rows.items():
                row.update(kind="pairs", shape=name, threads=threads, tool=tool, round=number, best_of=args.best)
                if "ns" in row and "ns" in rows.get("native", {}):
                    row["added"] = row["ns"] - rows["native"]["ns"]
                put(row)
                print(f"{name:24} {tool:10} r{number} {row.get('ns', 0):8.1f} ns a pair, added {row.get('added', 0):8.1f} {row.get('void', '')}", flush=True)


def least(tried):
    """The run with the least CPU time; or one that does not count, if any does not."""
    void = [row for row in tried if "void" in row]
    row = void[0] if void else min(tried, key=lambda row: row["cpu_ns"])
    if "cpu_ns" in row:
        row["ns"] = row["cpu_ns"] / row["pairs"]
    return row


def starts(args, put):
    """Wall time of a program that does nothing, natively and with the library preloaded, in turn."""
    library = subprocess.run(["memscope-cli", "preload-path"], capture_output=True, text=True, check=True).stdout.strip()
    true = shutil.which("true")
    folder = tempfile.mkdtemp(prefix="starts.")
    added = []
    try:
        for number in range(args.starts):
            took = []
            for preload in (False, True):
                rec = os.path.join(folder, str(number))
                env = {"PATH": os.environ["PATH"]}
                if preload:
                    env.update(LD_PRELOAD=library, MEMSCOPE_OUTPUT=rec, MEMSCOPE_QUIET="1")
                before = time.perf_counter_ns()
                subprocess.run([true], env=env, check=True)
                took.append(time.perf_counter_ns() - before)
            added.append(took[1] - took[0])
            shutil.rmtree(rec, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    row = {"kind": "start", "tool": "memscope", "pairs": len(added), "added_ms": statistics.median(added) / 1e6}
    put(row)
    print(f"starting `true`: {row['added_ms']:.3f} ms added, median of {len(added)} pairs", flush=True)


def sustained(args, put):
    """A loop that only mallocs and frees, long enough to be bound by the writer: pairs a second of wall time."""
    count = max(20_000_000, args.count * 4)
    argv = [os.path.join(args.build, "pairs"), "hold", "8", "1", "1", str(count)]
    expected = truth(args.build, argv)
    tried = [run("memscope", argv, expected, one_core=True) for _ in range(min(args.best, 3))]
    void = [row for row in tried if "void" in row]
    row = void[0] if void else min(tried, key=lambda row: row["wall_ns"])
    row.update(kind="sustained", tool="memscope")
    if "wall_ns" in row:
        row["rate"] = row["pairs"] / row["wall_ns"] * 1e9
    put(row)
    print(f"sustained: {row.get('rate', 0) / 1e6:.1f} M pairs/s {row.get('void', '')}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", required=True)
    ap.add_argument("--tools", default="native,memscope,heaptrack")
    ap.add_argument("--full", help="libmemscope.so with the feature `full`")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--best", type=int, default=5, help="runs of each tool in a round, of which the fastest counts")
    ap.add_argument("--count", type=int, default=5_000_000)
    ap.add_argument("--starts", type=int, default=500)
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    with open(args.out, "a") as sink:
        def put(row):
            sink.write(json.dumps(row) + "\n")
            sink.flush()
        shapes(args, put)
        if "memscope" in args.tools:
            starts(args, put)
            sustained(args, put)


if __name__ == "__main__":
    main()
