/* A thread frees or moves a block, and another one is given its address before the call returns (`handing.c`). */
#include "say.h"
#include <dlfcn.h>
#include <pthread.h>

enum { SIZE = 20011 };
static int (*on_offer)(void);
static void *volatile mine, *volatile theirs;

static void *take(void *unused) {
    while (!on_offer()) usleep(100);
    theirs = malloc(SIZE);
    return unused;
}

int main(int argc, char **argv) {
    on_offer = (int (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "on_offer");
    int moves = argc > 1 && !strcmp(argv[1], "realloc");
    pthread_t thread;
    mine = malloc(SIZE);
    uintptr_t address = (uintptr_t)mine;
    if (pthread_create(&thread, NULL, take, NULL)) return 2;
    if (moves) mine = realloc(mine, 30011); else free(mine);
    pthread_join(thread, NULL);
    say("{\"handed\":%d}\n", (uintptr_t)theirs == address);
    return 0;
}
