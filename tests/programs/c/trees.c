/* Starts other programs in the way that the first argument names. What is started is this program again, as `leaf N`: it
 * prints its environment, allocates N bytes and frees them, N+2 bytes and keeps them, and ends with 7. The parent has
 * a block of 10007 bytes from start to end, and frees one of 10009 bytes afterwards. Ends with what its child ended
 * with.
 *
 * The environment of the child is the second argument's: `same`, `own` (two variables around preloaded libraries) or
 * `none`. */
#include "say.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <wordexp.h>

extern char **environ;
#define use(p) __asm__ volatile("" : : "r"(p) : "memory")

static int leaf(size_t n) {
    for (char **entry = environ; *entry; entry++) { say_line(*entry, (int)strlen(*entry)); say_line("\n", 1); }
    void *freed = malloc(n), *kept = malloc(n + 2);
    use(freed);
    use(kept);
    free(freed);
    return 7;
}

static int status_of(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0) must(errno == EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define in_child(call) do { pid_t child = fork(); if (child == 0) { call; _exit(90); } return status_of(child); } while (0)

static int start(const char *how, char **env, const char *self, const char *command) {
    char *argv[] = { "trees", "leaf", "20011", NULL };
    const char *base = strrchr(self, '/') + 1;
    pid_t child;
    if (!strcmp(how, "execve")) in_child(execve(self, argv, env));
    if (!strcmp(how, "execv")) in_child(environ = env; execv(self, argv));
    if (!strcmp(how, "execvp")) in_child(environ = env; execvp(self, argv));
    if (!strcmp(how, "execvpe")) in_child(execvpe(base, argv, env));
    if (!strcmp(how, "execl")) in_child(environ = env; execl(self, "trees", "leaf", "20011", (char *)NULL));
    if (!strcmp(how, "execlp"))
        in_child(environ = env; execlp(self, "trees", "leaf", "20011", "4", "5", "6", "7", "8", "9", (char *)NULL));
    if (!strcmp(how, "execle"))
        in_child(execle(self, "trees", "leaf", "20011", "4", "5", "6", "7", "8", "9", (char *)NULL, env));
    if (!strcmp(how, "fexecve")) in_child(fexecve(open(self, O_RDONLY | O_CLOEXEC), argv, env));
    if (!strcmp(how, "execveat")) in_child(execveat(open(self, O_PATH | O_CLOEXEC), "", argv, env, AT_EMPTY_PATH));
    if (!strcmp(how, "syscall_execve")) in_child(syscall(SYS_execve, self, argv, env));
    if (!strcmp(how, "syscall_execveat"))
        in_child(syscall(SYS_execveat, open(self, O_PATH | O_CLOEXEC), "", argv, env, AT_EMPTY_PATH));
    if (!strcmp(how, "syscall_vfork")) {
        if ((child = vfork()) == 0) { syscall(SYS_execve, self, argv, env); _exit(90); }
        return status_of(child);
    }
    if (!strcmp(how, "pidfd_spawn")) {
        int (*spawn)(int *, const char *, const void *, const void *, char *const *, char *const *) = dlsym(RTLD_DEFAULT, how);
        int fd;
        must(spawn != NULL && spawn(&fd, self, NULL, NULL, argv, env) == 0);
        return status_of(-1);
    }
    if (!strcmp(how, "wordexp")) {
        char words[4400];
        wordexp_t found;
        snprintf(words, sizeof words, "\"$(%s)\"", command);
        environ = env;
        must(wordexp(words, &found, 0) == 0 && found.we_wordc == 1);
        say_line(found.we_wordv[0], (int)strlen(found.we_wordv[0]));
        say_line("\n", 1);
        return 7;
    }
    if (!strcmp(how, "vfork")) {
        if ((child = vfork()) == 0) { execve(self, argv, env); _exit(90); }
        return status_of(child);
    }
    if (!strcmp(how, "posix_spawn")) {
        must(posix_spawn(&child, self, NULL, NULL, argv, env) == 0);
        return status_of(child);
    }
    if (!strcmp(how, "posix_spawnp")) {
        must(posix_spawnp(&child, base, NULL, NULL, argv, env) == 0);
        return status_of(child);
    }
    if (!strcmp(how, "system")) {
        environ = env;
        return WEXITSTATUS(system(command));
    }
    if (!strcmp(how, "popen")) {
        environ = env;
        FILE *out = popen(command, "r");
        must(out != NULL);
        char line[4096];
        while (fgets(line, sizeof line, out)) say_line(line, (int)strlen(line));
        return WEXITSTATUS(pclose(out));
    }
    return 91;
}

/* Between vfork and the end of its child, what is allocated is the parent's. */
static int without_program(const char *how) {
    char *argv[] = { "none", NULL }, *env[] = { NULL };
    for (volatile int i = 0; i < 300; i++) {
        pid_t child = vfork();
        if (child == 0) {
            for (int k = 0; k < 100; k++) { void *p = malloc(30011); use(p); free(p); }
            if (!strcmp(how, "vfork_exec_fails")) {
                must(execve("/no/such/program", argv, env) == -1 && errno == ENOENT);
                must(execve("/", argv, env) == -1 && errno == EACCES);
                must(execvp("no-such-program-anywhere", argv) == -1 && errno == ENOENT);
                must(execle("/no/such/program", "none", (char *)NULL, env) == -1 && errno == ENOENT);
            }
            _exit(5);
        }
        must(status_of(child) == 5);
    }
    must(posix_spawn(NULL, "/no/such/program", NULL, NULL, argv, env) == ENOENT);
    return 5;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "leaf")) return leaf((size_t)atol(argv[2]));
    must(argc > 2);
    void *kept = malloc(10007), *late = malloc(10009);
    use(kept);
    static char self[4096], folder[4200], command[4300];
    must(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(self, '/') - self), self);
    snprintf(command, sizeof command, "exec '%s' leaf 20011", self);
    setenv("PATH", folder, 1);
    char *own[] = { "FIRST=1", "LD_PRELOAD=libm.so.6 libdl.so.2:libresolv.so.2", "LAST=2", NULL }, *none[] = { NULL };
    char **env = !strcmp(argv[2], "own") ? own : !strcmp(argv[2], "none") ? none : environ;
    int status = !strncmp(argv[1], "vfork_", 6) ? without_program(argv[1]) : start(argv[1], env, self, command);
    free(late);
    return status;
}
