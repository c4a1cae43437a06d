/* A timer's signals interrupt a program that sorts, formats, copies and calls through the PLT; each handler
 * allocates 10009 bytes. The handler's blocks come from the mapping below, since malloc may be what was interrupted:
 * the malloc family is `bump.c`'s, preloaded. Prints how often the handler ran. */
#include "say.h"
#include <signal.h>
#include <sys/time.h>
#include <time.h>

static volatile long handled;
__attribute__((noipa)) static void in_handler(void) { free(malloc(10009)); __asm__ volatile("" ::: "memory"); handled++; }
static void handler(int s) { (void)s; in_handler(); __asm__ volatile("" ::: "memory"); }

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
__attribute__((noipa)) static unsigned long work(void) {
    static int v[500];
    static char text[4000], copy[4000];
    unsigned long sum = 0;
    for (int i = 0; i < 500; i++) v[i] = (i * 7919) % 503;
    qsort(v, 500, sizeof *v, compare);
    for (int i = 0; i < 50; i++) sum += (unsigned long)snprintf(text, sizeof text, "%d %s %f", v[i], "some words", i / 7.0);
    memcpy(copy, text, sizeof copy);
    sum += strlen(copy);
    struct timespec t;
    for (int i = 0; i < 50; i++) { clock_gettime(CLOCK_MONOTONIC, &t); sum += (unsigned long)t.tv_nsec; }
    for (int i = 0; i < 200; i++) { void *p = malloc(100); __asm__ volatile("" : : "r"(p) : "memory"); free(p); }
    return sum;
}

int main(int argc, char **argv) {
    static char stack[1 << 16];
    stack_t other = { .ss_sp = stack, .ss_size = sizeof stack };
    int on_stack = argc > 1 && !strcmp(argv[1], "on_stack");
    if (on_stack) sigaltstack(&other, NULL);
    struct sigaction a = { .sa_flags = SA_RESTART | (on_stack ? SA_ONSTACK : 0) };
    a.sa_handler = handler;
    sigaction(SIGALRM, &a, NULL);
    struct itimerval every = { { 0, 100 }, { 0, 100 } }, never = { { 0, 0 }, { 0, 0 } };
    long rounds = 0;
    setitimer(ITIMER_REAL, &every, NULL);
    while (handled < 3000) { work(); rounds++; }
    setitimer(ITIMER_REAL, &never, NULL);
    say("{\"rounds\":%ld}\n{\"handled\":%ld}\n", rounds, handled);
    return 0;
}
