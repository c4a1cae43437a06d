/* Leaves calls of malloc by longjmp, half of them from a signal handler, at each of several depths; then allocates at each of several depths:
 * 2000 + round bytes, freed at once. `in_malloc` is called by the allocator that is to be preloaded. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTHS = 6 };
static sigjmp_buf back;
static volatile int leaves;

static void jump(int number) { siglongjmp(back, number); }
void in_malloc(void) {
    if (!leaves) return;
    int how = leaves;
    leaves = 0;
    if (how == 1) jump(1);
    raise(SIGUSR1);
}

/* Each frame has the same size, so a call lies where another one's was. */
__attribute__((noinline)) static void *at_depth(int depth, size_t size) {
    char frame[32];
    __asm__ volatile("" : : "r"(frame) : "memory");
    void *block = depth ? at_depth(depth - 1, size) : malloc(size);
    __asm__ volatile("" : : "r"(frame) : "memory");
    return block;
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = jump;
    sigaction(SIGUSR1, &action, NULL);
    static volatile int round;
    for (round = 0; round < 2 * DEPTHS * DEPTHS; round++) {
        if (sigsetjmp(back, 1) == 0) {
            leaves = 1 + round % 2;
            at_depth(round / 2 % DEPTHS, 1000);
            return 1;
        }
        free(at_depth(round / 2 / DEPTHS, 2000 + (size_t)round));
    }
    return puts("done") < 0;
}
