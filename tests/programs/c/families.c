/* Forks without exec, in the way that the first argument names.
 *
 *   threads N    N children of a program whose other threads allocate all the time
 *   signals N    N children made in the handler of a signal that comes at any time, mostly during an allocation; each then
 *                goes on where the signal came
 *   numbers N    the same by a raw system call; `clone N` and `clone3 N` by others
 *   paths N      the same while the allocations come by ever other paths, some hundred in all
 *   clones       children by raw system calls, then two that share their parent's memory, and calls that make none
 *   many N       N children, one after the other
 *   idle         a child that allocates nothing
 *   outlive F    a child that goes on until the file F is there; the parent ends at once
 *
 * Each child allocates 20011 bytes and frees them, 20021 bytes and keeps them, frees the inherited block of
 * 10007 bytes, and ends with 3. */
#include "say.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define use(p) __asm__ volatile("" : : "r"(p) : "memory")
static void *inherited;

__attribute__((noipa)) static void child_work(void) {
    void *freed = malloc(20011), *kept = malloc(20021);
    use(freed);
    use(kept);
    free(freed);
    free(inherited);
}
__attribute__((noipa)) static void child(void) { child_work(); _exit(3); }
static void ended_well(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) if (errno != EINTR) { say("{\"failed\":\"no child\"}\n"); return; }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 3) say("{\"failed\":\"child's status %x\"}\n", (unsigned)status);
}

static volatile int stop;
static void *churn(void *size) {
    while (!stop) { void *p = malloc((size_t)size), *q = malloc(24); use(p); use(q); free(p); free(q); }
    return NULL;
}
static void threads(int n) {
    pthread_t all[3];
    for (size_t i = 0; i < 3; i++) pthread_create(&all[i], NULL, churn, (void *)(100 + 1000 * i));
    for (int i = 0; i < n; i++) { pid_t pid = fork(); if (pid == 0) child(); ended_well(pid); }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(all[i], NULL);
}

static pid_t by_clone(void) { return (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L); }
static pid_t by_clone3(void) {
    uint64_t arguments[8] = { [4] = SIGCHLD };
    return (pid_t)syscall(SYS_clone3, arguments, sizeof arguments);
}
static pid_t by_number(void) { return (pid_t)syscall(SYS_fork); }
static pid_t (*forks)(void) = fork;
static volatile int wanted, forked_child;
static void handler(int s) {
    (void)s;
    if (wanted <= 0 || forked_child) return;
    wanted--;
    pid_t pid = forks();
    if (pid == 0) { forked_child = 1; return; }
    ended_well(pid);
}
static void *from(unsigned path, int left);
#define TURN(name, bytes) __attribute__((noipa)) static void *name(unsigned path, int left) { \
    volatile char frame[bytes]; \
    frame[0] = 1; \
    void *block = left == 0 ? malloc(56) : from(path >> 1 | path << 31, left - 1); \
    use(&frame); \
    return block; }
TURN(narrow, 16)
TURN(wide, 64)
static void *from(unsigned path, int left) { return path & 1 ? wide(path, left) : narrow(path, left); }
__attribute__((noipa)) static void signals(int n, int paths) {
    struct sigaction a = { .sa_flags = SA_RESTART };
    a.sa_handler = handler;
    sigaction(SIGUSR1, &a, NULL);
    unsigned next = 1;
    #define BLOCK (next = next * 1103515245 + 12345, from((next >> 16) % (unsigned)paths * 2654435761u, paths == 1 ? 0 : 60))
    for (int i = 0; paths > 1 && i < 20000; i++) { void *p = BLOCK; use(p); free(p); }
    wanted = n;
    pid_t parent = getpid(), pest = fork();
    if (pest == 0) {
        unsigned random = 1;
        for (;;) {
            random = random * 1103515245 + 12345;
            for (volatile unsigned i = (random >> 8) % 30000; i > 0; i--) continue;
            if (getppid() != parent || kill(parent, SIGUSR1) != 0) _exit(0);
        }
    }
    while (wanted > 0 && !forked_child) { void *p = paths == 1 ? malloc(56) : BLOCK; use(p); free(p); }
    if (forked_child) child();
    kill(pest, SIGKILL);
    waitpid(pest, NULL, 0);
}

static int sharing(void *size) { void *p = malloc((size_t)size); use(p); free(p); _exit(3); }
static void clones(void) {
    pid_t pid = by_clone();
    if (pid == 0) child();
    ended_well(pid);
    if ((pid = by_clone3()) == 0) child();
    ended_well(pid);
    must(syscall(SYS_clone3, NULL, 0) == -1 && errno == EINVAL);
    must(syscall(SYS_clone3, NULL, 64) == -1 && errno == EFAULT);
    must(syscall(SYS_clone3, (void *)-100, 64) == -1 && errno == EFAULT);
    must(syscall(SYS_clone, (long)CLONE_THREAD, 0L, 0L, 0L, 0L) == -1 && errno == EINVAL);
    static char stack[1 << 16] __attribute__((aligned(64)));
    ended_well(clone(sharing, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)30011));
    ended_well(clone(sharing, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)30013));
}

static void outlive(const char *file) {
    if (fork() != 0) return;
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    void *before = malloc(20031);
    use(before);
    while (access(file, F_OK) != 0) usleep(2000);
    child();
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "", *what = argc > 2 ? argv[2] : "";
    inherited = malloc(10007);
    if (!strcmp(how, "threads")) threads(atoi(what));
    if (!strcmp(how, "signals")) signals(atoi(what), 1);
    if (!strcmp(how, "numbers")) forks = by_number;
    if (!strcmp(how, "clone")) forks = by_clone;
    if (!strcmp(how, "clone3")) forks = by_clone3;
    if (forks != fork) signals(atoi(what), 1);
    if (!strcmp(how, "paths")) signals(atoi(what), 512);
    if (!strcmp(how, "clones")) clones();
    if (!strcmp(how, "many")) for (int i = atoi(what); i > 0; i--) { pid_t pid = fork(); if (pid == 0) child(); ended_well(pid); }
    if (!strcmp(how, "idle")) { pid_t pid = fork(); if (pid == 0) _exit(3); ended_well(pid); }
    if (!strcmp(how, "outlive")) outlive(what);
    free(inherited);
    return 0;
}
