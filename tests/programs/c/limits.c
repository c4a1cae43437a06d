/* Limits the size of files, as the first argument says, and makes 1,000 blocks of 40 bytes afterwards:
 *
 *   child_by_number   a forked child, before its first call of the allocator, by a system call that nobody sees
 *
 * Says on standard output what must be the same in a native run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define must(condition) do { if (!(condition)) { dprintf(1, "FAILED: %s\n", #condition); _exit(91); } } while (0)
#define is(name) (!strcmp(how, name))

static void rounds(int n) {
    for (int i = 0; i < n; i++) { void *p = malloc(40); must(p); __asm__ volatile("" : : "r"(p) : "memory"); free(p); }
}

static long by_number(long number, long a, long b, const void *c, void *d) {
    long result;
    register void *r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    struct rlimit none = { 0, 0 };
    int status;
    rounds(1);
    pid_t child = fork();
    if (child == 0) {
        if is("child_by_number") must(by_number(SYS_prlimit64, 0, RLIMIT_FSIZE, &none, NULL) == 0);
        else _exit(92);
        rounds(1000);
        _exit(3);
    }
    must(waitpid(child, &status, 0) == child);
    dprintf(1, "%d\n", status);
    return 0;
}
