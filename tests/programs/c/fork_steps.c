/* A child is forked in a signal handler that interrupts a call of the allocator, at every STRIDE-th instruction of it: this process
 * traces a child of its own that makes the call, steps it, and sends the signal.
 *
 *   fork_steps WHAT STRIDE FORK...     FORK: fork, _Fork, number
 *
 *   ordinary   a call like those before
 *   path       one from where none came from before
 *   first      the first one of the process
 *   deep       one from so deep inside that more memory is needed to remember the stack; only the instructions after system calls
 *   fill       some hundred ones, among which a buffer becomes full
 *   shell      `system`
 *   sealed     as `path`, after a filter for system calls
 *
 * Each child goes on with the call, then allocates 20021 bytes and ends with 3. Prints the number of children, and what went wrong. */
#include "say.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>

#define use(p) __asm__ volatile("" : : "r"(p) : "memory")
extern pid_t _Fork(void) __attribute__((weak));
static pid_t by_number(void) { return (pid_t)syscall(SYS_fork); }
static pid_t (*forks)(void);
static volatile int is_child;
/* The call is over. */
static volatile unsigned long done;
/* Where the signal came. */
static volatile unsigned long at[2];

static void handler(int s, siginfo_t *info, void *context) {
    (void)s, (void)info;
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int status, error = errno;
    pid_t pid = forks();
    if (pid == 0) { is_child = 1; errno = error; return; }
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    at[0] = (unsigned long)registers[REG_RIP];
    at[1] = (unsigned long)registers[REG_RSP];
    if (status != 3 << 8) say("{\"failed\":\"a child's status %x\"}\n", (unsigned)status);
    errno = error;
    __asm__ volatile("int3");
}

__attribute__((noipa)) static void pair(void) { void *p = malloc(56); use(p); free(p); }
__attribute__((noipa)) static void elsewhere(void) { void *p = malloc(57); use(p); free(p); }
__attribute__((noipa)) static void path(void) { elsewhere(); use(0); }
__attribute__((noipa)) static void down(int left) { if (left) down(left - 1); else pair(); use(left); }
static void deep(void) { down(1100); }
static void fill(void) { for (int i = 0; i < 300; i++) pair(); }
/* A child that was forked in the middle has not started the shell. */
static void shell(void) { int result = system(":"); must(is_child || result == 0); }
__attribute__((noipa)) static void child_work(void) { void *p = malloc(20021); use(p); }

static void seal(void) {
    struct sock_filter allow = { .code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW };
    struct sock_fprog all = { .len = 1, .filter = &allow };
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all));
}

static void traced(const char *what) {
    struct sigaction action = { .sa_flags = SA_SIGINFO };
    action.sa_sigaction = handler;
    must(!sigaction(SIGUSR1, &action, NULL));
    void (*call)(void) = pair;
    if (!strcmp(what, "path") || !strcmp(what, "sealed")) call = path;
    if (!strcmp(what, "deep")) call = deep;
    if (!strcmp(what, "fill")) call = fill;
    if (!strcmp(what, "shell")) call = shell;
    if (strcmp(what, "first")) for (int i = call == fill ? 1500 : 3; i > 0; i--) pair();
    if (!strcmp(what, "sealed")) seal();
    must(!ptrace(PTRACE_TRACEME, 0, 0, 0));
    raise(SIGSTOP);
    call();
    done = 1;
    if (is_child) { child_work(); _exit(3); }
    raise(SIGSTOP);
    _exit(4);
}

static int status;
static int goes(int how, pid_t pid, long signal) {
    for (;;) {
        must(!ptrace(how, pid, 0, signal));
        if (waitpid(pid, &status, 0) != pid) say("{\"failed\":\"it is gone\"}\n");
        if (!WIFSTOPPED(status)) return 0;
        signal = WSTOPSIG(status);
        /* It was blocked. */
        if (signal != SIGCHLD && signal != SIGUSR1) return (int)signal;
    }
}
static unsigned long word(pid_t pid, volatile unsigned long *place) {
    return (unsigned long)ptrace(PTRACE_PEEKDATA, pid, place, 0);
}

int main(int argc, char **argv) {
    must(argc > 3);
    long stride = atol(argv[2]), children = 0, steps = 0;
    for (int i = 3; i < argc; i++) {
        forks = !strcmp(argv[i], "number") ? by_number : !strcmp(argv[i], "_Fork") && _Fork ? _Fork : fork;
        pid_t pid = fork();
        if (pid == 0) traced(argv[1]);
        must(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
        int stopped = SIGTRAP;
        long near = 0, after = strcmp(argv[1], "deep") ? 0 : 1200;
        for (long left = i; stopped == SIGTRAP; left--) {
            int how = after && near-- <= 0 ? PTRACE_SYSCALL : PTRACE_SINGLESTEP;
            stopped = goes(how, pid, 0);
            if (how == PTRACE_SYSCALL) near = after;
            steps++;
            if (stopped != SIGTRAP || left > 0 || word(pid, &done)) continue;
            left = stride;
            stopped = goes(PTRACE_CONT, pid, SIGUSR1);
            children++;
            struct user_regs_struct now = { .rip = 0 };
            while (stopped == SIGTRAP && (now.rip != word(pid, &at[0]) || now.rsp != word(pid, &at[1]))) {
                stopped = goes(PTRACE_SINGLESTEP, pid, 0);
                must(!ptrace(PTRACE_GETREGS, pid, 0, &now));
            }
        }
        if (stopped != SIGSTOP) say("{\"failed\":\"it stopped with %d, status %x\"}\n", stopped, (unsigned)status);
        if (stopped) goes(PTRACE_CONT, pid, 0);
        if (status != 4 << 8) say("{\"failed\":\"status %x\"}\n", (unsigned)status);
    }
    say("{\"children\":%ld,\"steps\":%ld}\n", children, steps);
    return 0;
}
