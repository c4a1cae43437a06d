/* Limits the size of files, as the first argument says, and makes 1,000 blocks of 40 bytes afterwards, or works under a limit that was
 * set before:
 *
 *   child_by_number   a forked child, before its first call of the allocator, by a system call that nobody sees
 *   child             the same by the function
 *   child_memory      it limits its address space to less than it has
 *   child_leaves      it gives up its rights instead
 *   child_filters     it forbids itself all system calls but a few
 *   often             sets it a thousand times to what it is or to more
 *   threads           four threads make and free as many blocks as the second argument says, of sizes that nobody can foresee
 *
 * Says on standard output what must be the same in a native run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
static struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ALLOW(SYS_exit_group), ALLOW(SYS_brk), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};
static struct sock_fprog filter = { sizeof rules / sizeof *rules, rules };

static int often(void) {
    struct rlimit now;
    must(getrlimit(RLIMIT_FSIZE, &now) == 0);
    for (int i = 0; i < 1000; i++) must(setrlimit(RLIMIT_FSIZE, &now) == 0);
    /* Nowhere; and only asked for. */
    must(setrlimit(RLIMIT_FSIZE, (struct rlimit *)8) == -1 && prlimit(0, RLIMIT_FSIZE, NULL, &now) == 0);
    rounds(1000);
    return 0;
}

static long pairs;
static void *churns(void *seed) {
    enum { KEPT = 64 };
    uint64_t x = (uintptr_t)seed;
    void *kept[KEPT] = { NULL };
    for (long i = 0; i < pairs; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        free(kept[x % KEPT]);
        must(kept[x % KEPT] = malloc(1 + (x >> 20) % 2000));
    }
    for (int i = 0; i < KEPT; i++) free(kept[i]);
    return NULL;
}

static int threads(void) {
    pthread_t all[4];
    for (uintptr_t i = 0; i < 4; i++) must(!pthread_create(&all[i], NULL, churns, (void *)(4711 + i)));
    for (int i = 0; i < 4; i++) must(!pthread_join(all[i], NULL));
    return 0;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    struct rlimit none = { 0, 0 };
    int status;
    rounds(1);
    if is("often") return often();
    if is("threads") { pairs = argc > 2 ? atol(argv[2]) : 0; return threads(); }
    pid_t child = fork();
    if (child == 0) {
        if is("child_by_number") must(by_number(SYS_prlimit64, 0, RLIMIT_FSIZE, &none, NULL) == 0);
        else if is("child") must(setrlimit(RLIMIT_FSIZE, &none) == 0);
        else if is("child_memory") { none.rlim_cur = none.rlim_max = 1 << 20; must(setrlimit(RLIMIT_AS, &none) == 0); }
        else if is("child_leaves") must(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
        else if is("child_filters") must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
        else _exit(92);
        rounds(1000);
        _exit(3);
    }
    must(waitpid(child, &status, 0) == child);
    dprintf(1, "%d\n", status);
    return 0;
}
