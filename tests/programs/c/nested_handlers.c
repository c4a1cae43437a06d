/* Signal handlers that allocate, each in the middle of the one before's allocation. `nested_handlers DEPTH`, with `bump.c` preloaded, which
 * calls `in_malloc`. Prints how many blocks the handlers have made. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int armed, depth, deepest, made;

void in_malloc(void) {
    if (armed && depth < deepest) raise(SIGUSR1);
}

static void handler(int signal) {
    (void)signal;
    depth++;
    if (malloc(20101)) made++;
    depth--;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    deepest = atoi(argv[1]);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NODEFER};
    sigaction(SIGUSR1, &action, NULL);
    armed = 1;
    if (!malloc(20107)) return 3;
    armed = 0;
    printf("%d\n", made);
    fflush(stdout);
    return 0;
}
