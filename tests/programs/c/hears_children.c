/* Says each SIGCHLD that comes and each child that a wait finds, or with an argument ignores the signal. There is no child at all:
 * with another thread that waits all the time, and that the end of the process does not stop. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "say.h"

static void heard(int signal) { (void)signal; say("SIGCHLD\n"); }

static void *waits(void *unused) {
    for (;;) {
        if (waitpid(-1, NULL, 0) > 0) say("a child\n");
        usleep(1000);
    }
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    (void)argv;
    if (signal(SIGCHLD, argc > 1 ? SIG_IGN : heard) == SIG_ERR) return 1;
    if (pthread_create(&thread, NULL, waits, NULL)) return 1;
    return malloc(10007) ? 0 : 1;
}
