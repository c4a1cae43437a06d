/* Forks children that call no function of the heap. `quiet_children HOW COUNT`: HOW they end. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *how = argv[1];
    for (int i = 0; i < atoi(argv[2]); i++) {
        pid_t child = fork();
        if (child < 0) return 3;
        if (child == 0) {
            if (!strcmp(how, "_exit")) _exit(7);
            if (!strcmp(how, "exit")) exit(7);
            if (!strcmp(how, "quick_exit")) quick_exit(7);
            return 7;
        }
        int status;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7) return 4;
    }
    return 0;
}
