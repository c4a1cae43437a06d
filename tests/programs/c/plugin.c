/* A library to load and unload. The name of its function is given by -DNAME, so that two of the same layout differ
 * in nothing but that. */
#include <stdlib.h>
void *NAME(size_t n);
__attribute__((noipa)) void *NAME(size_t n) { void *p = malloc(n); __asm__ volatile("" : : "r"(p) : "memory"); return p; }
void *entry(size_t n);
__attribute__((noipa)) void *entry(size_t n) { void *p = NAME(n); __asm__ volatile("" : : "r"(p) : "memory"); return p; }
