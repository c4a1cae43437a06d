/* Starts the program that the second argument names, with 300 variables (`many`: 4200) and little to do it with.
 *
 * `thread`: `posix_spawn` on a stack of 16 KiB. `handler`: `vfork` and `execve` on an alternate one of 8 KiB.
 * `many`: `vfork` and `execve` 100 times, which must not make this process grow. `actions`: `posix_spawn` that
 * duplicates descriptor 3, which is not open. `nowhere`: with pointers that lead nowhere. Ends with 0 if all went as it should. */
#include "say.h"
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *env[4201], *argv_of_child[] = { "tight", NULL };
static const char *path;

static void ends_with_0(pid_t child) {
    int status;
    must(waitpid(child, &status, 0) == child && status == 0);
}

static void by_vfork(void) {
    pid_t child = vfork();
    if (child == 0) {
        execve(path, argv_of_child, env);
        _exit(90);
    }
    ends_with_0(child);
}

static void *on_thread(void *unused) {
    pid_t child;
    must(posix_spawn(&child, path, NULL, NULL, argv_of_child, env) == 0);
    ends_with_0(child);
    return unused;
}

static void on_signal(int signal) {
    (void)signal;
    by_vfork();
}

static void thread(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    must(pthread_attr_setstacksize(&attributes, 16384) == 0);
    must(pthread_create(&thread, &attributes, on_thread, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
}

static void handler(void) {
    stack_t stack = { .ss_sp = aligned_alloc(4096, 8192), .ss_size = 8192 };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
    must(sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    must(raise(SIGUSR1) == 0);
}

static long pages(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file != NULL && fscanf(file, "%ld", &pages) == 1);
    fclose(file);
    return pages;
}

static void many(void) {
    for (int i = 0; i < 5; i++) by_vfork();
    long before = pages();
    for (int i = 0; i < 100; i++) by_vfork();
    /* An array of the child's variables has nine. */
    must(pages() - before < 400);
}

static void actions(void) {
    pid_t child;
    posix_spawn_file_actions_t actions;
    must(posix_spawn_file_actions_init(&actions) == 0);
    close(3);
    must(posix_spawn_file_actions_adddup2(&actions, 3, 3) == 0);
    must(posix_spawn(&child, path, &actions, NULL, argv_of_child, env) == EBADF);
}

static void nowhere(void) {
    pid_t child;
    /* Not for the compiler to see. */
    char *volatile nothing = (char *)8, *wrong[] = { nothing, NULL }, **none = (char **)nothing;
    must(execve(nothing, argv_of_child, env) == -1 && errno == EFAULT);
    must(execve(path, none, env) == -1 && errno == EFAULT);
    must(execve(path, argv_of_child, none) == -1 && errno == EFAULT);
    must(execv(path, wrong) == -1 && errno == EFAULT);
    must(execvpe(path, argv_of_child, wrong) == -1 && errno == EFAULT);
    must(syscall(SYS_execve, path, argv_of_child, wrong) == -1 && errno == EFAULT);
    must(posix_spawn(&child, path, NULL, NULL, argv_of_child, none) == EFAULT);
}

int main(int argc, char **argv) {
    must(argc > 2);
    path = argv[2];
    int count = strcmp(argv[1], "many") ? 300 : 4200;
    for (int i = 0; i < count; i++) {
        env[i] = malloc(16);
        snprintf(env[i], 16, "V%d=%d", i, i);
    }
    if (!strcmp(argv[1], "thread")) thread();
    if (!strcmp(argv[1], "handler")) handler();
    if (!strcmp(argv[1], "many")) many();
    if (!strcmp(argv[1], "actions")) actions();
    if (!strcmp(argv[1], "nowhere")) nowhere();
    return 0;
}
