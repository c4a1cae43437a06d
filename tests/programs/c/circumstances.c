/* Puts itself into the circumstances that the first argument names, then works: 60,000 blocks of 40 bytes, freed at once,
 * one of 10007 kept, one of 10009 freed. Says on standard output what must be the same in a native run. The
 * second argument is a folder or a file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <alloca.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 60000
static void *volatile kept;

static void say(const char *text) { if (write(1, text, strlen(text)) < 0) _exit(90); }
#define must(condition) do { if (!(condition)) { say("FAILED: " #condition "\n"); _exit(91); } } while (0)

static void rounds(int n) {
    for (int i = 0; i < n; i++) { void *p = malloc(40); must(p); __asm__ volatile("" : : "r"(p) : "memory"); free(p); }
}
static void work(void) {
    kept = malloc(10007);
    free(malloc(10009));
    rounds(ROUNDS);
    say("worked\n");
}

/* --- descriptors --- */
static void own_files(const char *folder) {
    enum { FILES = 40 };
    int fds[FILES];
    char path[4096], text[32];
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/own-%d", folder, i);
        must((fds[i] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644)) == 3 + i);
    }
    /* Where ours may have been. */
    for (int fd = 190; fd < 210; fd++) must(dup2(fds[fd % FILES], fd) == fd);
    for (int fd = 790; fd < 820; fd++) must(dup2(fds[fd % FILES], fd) == fd);
    for (int i = 0; i < FILES; i++) { int n = snprintf(text, sizeof text, "file %d\n", i); must(write(fds[i], text, (size_t)n) == n); }
    work();
    /* The writer's next look. */
    usleep(200000);
    rounds(1000);
    for (int i = 0; i < FILES; i++) {
        char wanted[32];
        int n = snprintf(wanted, sizeof wanted, "file %d\n", i);
        must(pread(fds[i], text, sizeof text, 0) == n && !memcmp(text, wanted, (size_t)n));
    }
    for (int fd = 43; fd < 790; fd++) must(fd >= 190 && fd < 210 ? 1 : fcntl(fd, F_GETFD) == -1);
}

/* --- seccomp --- */
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define LOAD BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define FEW ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_futex), ALLOW(SYS_brk)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
static struct sock_filter rules[] = { LOAD, FEW, KILL };
static struct sock_fprog filter = { sizeof rules / sizeof *rules, rules };
/* One that lets further filters be asked for, and one that forbids nothing. */
static struct sock_filter open_rules[] = { LOAD, FEW, ALLOW(SYS_prctl), ALLOW(SYS_seccomp), KILL };
static struct sock_fprog open_filter = { sizeof open_rules / sizeof *open_rules, open_rules };
static struct sock_filter no_rules[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
static struct sock_fprog no_filter = { 1, no_rules };

static volatile int go;
static void *churns(void *unused) {
    while (!go) sched_yield();
    rounds(1000);
    return unused;
}
static void sandbox(int flags) {
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (flags < 0) must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
    else must(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter));
}
static void sandbox_again(void) {
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &open_filter));
}
static void on_alarm(int unused) { (void)unused; }

/* --- little stack --- */
static void *little_stack(void *unused) {
    char *low, here;
    pthread_attr_t attributes;
    size_t size;
    must(!pthread_getattr_np(pthread_self(), &attributes));
    must(!pthread_attr_getstack(&attributes, (void **)&low, &size));
    must(!pthread_attr_destroy(&attributes));
    size_t left = (size_t)(&here - low);
    memset(alloca(left - 4096), 1, 64);
    rounds(ROUNDS);
    free(malloc(10037));
    return unused;
}
static void with_little_stack(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    must(!pthread_attr_init(&attributes));
    must(!pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN));
    must(!pthread_create(&thread, &attributes, little_stack, NULL));
    must(!pthread_join(thread, NULL));
    must(!pthread_attr_destroy(&attributes));
}
static void on_signal(int unused) { (void)unused; free(malloc(10039)); }
static void on_little_signal_stack(void) {
    static char stack[1 << 16] __attribute__((aligned(4096)));
    /* What the kernel needs for its frame, and 4 KiB. */
    size_t size = (size_t)getauxval(51) + 4096;
    stack_t alternative = { .ss_sp = stack + sizeof stack - size, .ss_size = size };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
    memset(stack, 0x5a, sizeof stack - size);
    must(!sigaltstack(&alternative, NULL) && !sigaction(SIGUSR1, &action, NULL));
    for (int i = 0; i < 1000; i++) { raise(SIGUSR1); rounds(10); }
    for (size_t i = 0; i < sizeof stack - size; i++) must(stack[i] == 0x5a);
}

static void limit(int resource, rlim_t to) {
    struct rlimit now;
    must(!getrlimit(resource, &now));
    now.rlim_cur = to;
    must(!setrlimit(resource, &now));
}
static size_t address_space(void) {
    char text[128] = "";
    int fd = open("/proc/self/statm", O_RDONLY);
    must(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return strtoul(text, NULL, 10) * 4096;
}
static void empty_and_remove(const char *folder) {
    DIR *all = opendir(folder);
    struct dirent *entry;
    /* In a native run it is not there. */
    if (!all) return;
    while ((entry = readdir(all))) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) empty_and_remove(path);
        else unlink(path);
    }
    closedir(all);
    must(!rmdir(folder));
}

static void fill(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0);
    while (write(fd, path, 1) == 1) {}
    close(fd);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "nothing", *where = argc > 2 ? argv[2] : ".";
    int status = 7;
    /* The heap is large enough for all that follows. */
    mallopt(M_TOP_PAD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    free(malloc(1));
#define is(name) (!strcmp(how, name))
    /* Where no buffer fills, there is no thread of ours, which would look at the disk sooner or later. */
    if (strncmp(how, "fills", 5)) rounds(5000);
    if is("nothing") work();
    else if is("closed") { close_range(3, ~0U, 0); own_files(where); }
    else if is("closed_early") { kept = malloc(10007); close_range(0, ~0U, 0); must(open("/dev/null", O_RDWR) == 0); rounds(ROUNDS); free(malloc(10009)); }
    else if is("few") { int fd; limit(RLIMIT_NOFILE, 4); must((fd = open("/dev/null", O_RDWR)) == 3); must(open("/dev/null", O_RDWR) == -1 && errno == EMFILE); work(); close(fd); must(open("/dev/null", O_RDWR) == 3); }
    else if is("daemon") {
        must(!daemon(0, 0));
        work();
        int fd = open(where, O_WRONLY | O_CREAT, 0644);
        must(fd >= 0 && write(fd, "done\n", 5) == 5);
        return status;
    }
    else if is("chdir") { must(!chdir("/")); work(); }
    else if is("chroot") { must(!chroot(where) && !chdir("/")); work(); }
    else if is("setuid") { must(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534)); work(); }
    else if is("umask_all") { umask(0777); if (!fork()) { rounds(ROUNDS); _exit(0); } int ended; must(wait(&ended) > 0 && ended == 0); work(); }
    else if is("umask_none") { umask(0); if (!fork()) { rounds(ROUNDS); _exit(0); } int ended; must(wait(&ended) > 0 && ended == 0); work(); }
    else if is("seccomp") { sandbox(-1); work(); }
    else if is("seccomp_call") { sandbox(0); work(); }
    else if is("seccomp_all") { pthread_t t; must(!pthread_create(&t, NULL, churns, NULL)); rounds(1000); go = 1; pthread_join(t, NULL); sandbox(SECCOMP_FILTER_FLAG_TSYNC); work(); }
    else if is("seccomp_kept_busy") { rounds(200000); sandbox(SECCOMP_FILTER_FLAG_TSYNC); work(); }
    /* What comes back is a descriptor. */
    else if is("seccomp_listener") { must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter) > 2); work(); }
    else if is("seccomp_listener_all") { must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, &filter) > 2); work(); }
    else if is("seccomp_flood") { sandbox(SECCOMP_FILTER_FLAG_TSYNC); work(); rounds(1000000); }
    else if is("seccomp_flood_one") { sandbox(-1); work(); rounds(2000000); }
    else if is("seccomp_strict") { must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)); work(); syscall(SYS_exit, status); }
    else if is("seccomp_refused") { must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0xff00, &filter) == -1 && errno == EINVAL); must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1, NULL) == -1 && errno == EFAULT); work(); }
    /* A second filter is refused, the first one stays. */
    else if is("seccomp_twice") { struct sock_fprog none = { 0, NULL }; sandbox_again(); must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &none) == -1 && errno == EINVAL); must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0xff00, &filter) == -1 && errno == EINVAL); work(); }
    /* A thread that has a filter can't get into strict mode. */
    else if is("seccomp_strict_refused") { sandbox_again(); must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == -1 && errno == EINVAL); work(); }
    /* How libraries find out which ways there are. */
    else if is("seccomp_probe") { must(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL) == -1 && errno == EINVAL); must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == -1 && errno == EFAULT); work(); }
    else if is("seccomp_by_number") { must(!syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); must(!syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0)); work(); }
    /* The child's filter is not its parent's, which goes on: a child of it is on record. */
    else if is("seccomp_vfork") {
        int ended;
        pid_t child = vfork();
        if (!child) { if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &no_filter)) _exit(1); _exit(3); }
        must(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 3);
        if (!(child = fork())) { rounds(1000); _exit(4); }
        must(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 4);
        work();
    }
    else if is("namespace") { int fd; rounds(100000); usleep(20000); must((fd = open("/proc/self/ns/mnt", O_RDONLY)) >= 0); must(!setns(fd, CLONE_NEWNS) && !close(fd)); must(!unshare(CLONE_NEWNS)); work(); }
    else if is("seccomp_fork") { pid_t child; int ended; struct sigaction alarm_action = { .sa_handler = on_alarm }; sigaction(SIGALRM, &alarm_action, NULL); work(); if (!(child = fork())) { sandbox(-1); rounds(1000); _exit(3); } must(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 3); }
    else if is("memory") { limit(RLIMIT_AS, address_space() + (4 << 20)); must(!malloc(256 << 20) && errno == ENOMEM); work(); }
    else if is("no_memory") { limit(RLIMIT_AS, address_space()); must(!malloc(256 << 20) && errno == ENOMEM); work(); }
    else if is("file_size") { limit(RLIMIT_FSIZE, 0); work(); }
    else if is("file_size_small") { limit(RLIMIT_FSIZE, 100000); work(); rounds(400000); }
    else if is("deleted") { rounds(ROUNDS); empty_and_remove(where); work(); usleep(300000); rounds(ROUNDS); }
    /* More than all the buffers hold. */
    else if is("grows") { work(); for (int i = 0; i < 50000; i++) must(malloc(24 + (size_t)(i * 7919) % 4096)); rounds(1000000); }
    /* Less than one, but more than a page of the trace. */
    else if is("fills") { fill(where); for (int i = 0; i < 700; i++) { rounds(1); must(malloc(100 + (size_t)(i * 7919) % 4096)); } say("worked\n"); }
    else if is("fills_and_starts") { fill(where); must(!system("exec /bin/true")); must(!unlink(where)); work(); }
    else if is("little_stack") { with_little_stack(); work(); }
    else if is("little_signal_stack") { on_little_signal_stack(); work(); }
    else return 92;
    return status;
}
