/* What a test program did, as JSON lines on standard output. Nothing here allocates, and what is printed by
 * construction: each call is followed by a note of what it must have done.
 *
 *   made(p, n)       a block of n bytes was allocated; it ends with the process unless `ended` follows
 *   ended(p, how)    that block ended: "free" or "realloc"
 *   failed_call()    a call failed and changed nothing else
 *   unknown_free()   a block was freed that no hooked function allocated
 *   answer(name, v)  a result that must be the same in a native run
 *   must(condition)  else the test fails
 *   report()         prints the blocks and the sums: once, at the end
 */
#ifndef SAY_H
#define SAY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Some programs use only a part. */
#define SAY __attribute__((unused)) static

struct said_block { void *ptr; size_t size; const char *end; };
static struct said_block said_blocks[512];
static size_t said_count;
static unsigned long said_allocs, said_bytes, said_frees, said_freed, said_reallocs, said_failed, said_unknown;

SAY void say_line(const char *line, int length) {
    for (int done = 0; done < length;) {
        ssize_t n = write(1, line + done, (size_t)(length - done));
        if (n < 0) _exit(99);
        done += (int)n;
    }
}
#define say(...) do { char say_buffer[1024]; int say_length = snprintf(say_buffer, sizeof say_buffer, __VA_ARGS__); \
    say_line(say_buffer, say_length); } while (0)

SAY void made(void *ptr, size_t size) {
    if (!ptr || said_count == sizeof said_blocks / sizeof *said_blocks) { say("{\"failed\":\"no block of %zu\"}\n", size); return; }
    struct said_block block = { ptr, size, "exit" };
    said_blocks[said_count++] = block;
    said_allocs++; said_bytes += size;
}
SAY void ended(void *ptr, const char *how) {
    for (size_t i = said_count; i-- > 0;) {
        if (said_blocks[i].ptr != ptr || strcmp(said_blocks[i].end, "exit")) continue;
        said_blocks[i].end = how;
        said_frees++; said_freed += said_blocks[i].size;
        if (!strcmp(how, "realloc")) said_reallocs++;
        return;
    }
    say("{\"failed\":\"ended a block that was never made\"}\n");
}
SAY void failed_call(void) { said_failed++; }
SAY void unknown_free(void) { said_unknown++; }
SAY void answer(const char *name, unsigned long value) { say("{\"answer\":{\"%s\":%lu}}\n", name, value); }
#define must(condition) do { if (!(condition)) say("{\"failed\":\"line %d: %s\"}\n", __LINE__, #condition); } while (0)
SAY void report(void) {
    for (size_t i = 0; i < said_count; i++)
        say("{\"block\":{\"ptr\":%lu,\"size\":%zu,\"end\":\"%s\"}}\n", (unsigned long)(uintptr_t)said_blocks[i].ptr,
            said_blocks[i].size, said_blocks[i].end);
    say("{\"tally\":{\"total_allocations\":%lu,\"total_allocated\":%lu,\"total_deallocations\":%lu,\"total_deallocated\":%lu,"
        "\"reallocations\":%lu,\"failed_allocations\":%lu,\"unknown_frees\":%lu}}\n",
        said_allocs, said_bytes, said_frees, said_freed, said_reallocs, said_failed, said_unknown);
}
#endif
