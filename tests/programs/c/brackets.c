/* Lives of blocks between readings of the program's own clock. One line each:
 *   {"life":{"size":N,"end":"free","start":[before,after],"stop":[before,after]}}   CLOCK_MONOTONIC, ns
 * A kept block's "stop" is the last reading before the end, twice. The first line is
 *   {"clock":{"monotonic":M,"realtime":R}}   read as close together as can be */
#include "say.h"
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { SAME = 300, ACROSS = 300, CHAINS = 100, KEPT = 50, HANDED = 2000, LIVES = SAME + ACROSS + 3 * CHAINS + KEPT + HANDED };
struct life { size_t size; const char *end; int64_t start[2], stop[2]; };
static struct life lives[LIVES];
static void *pointers[LIVES];
static int used;

static int64_t clock_ns(clockid_t id) { struct timespec t; clock_gettime(id, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }
static int64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }
static void pause_ns(long ns) { struct timespec t = { 0, ns }; nanosleep(&t, NULL); }

/* Sizes are odd and never repeat, so a line is found by its size. */
static int begin(void) { int i = used++; lives[i].size = 20001 + 2 * (size_t)i; lives[i].end = "exit"; return i; }
static void start(int i) {
    lives[i].start[0] = now();
    pointers[i] = malloc(lives[i].size);
    lives[i].start[1] = now();
}
static void stop(int i) {
    lives[i].stop[0] = now();
    free(pointers[i]);
    lives[i].stop[1] = now();
    lives[i].end = "free";
}
/* The block i becomes the block j. */
static void move(int i, int j) {
    int64_t before = now();
    pointers[j] = realloc(pointers[i], lives[j].size);
    int64_t after = now();
    lives[i].end = "realloc";
    lives[i].stop[0] = lives[j].start[0] = before;
    lives[i].stop[1] = lives[j].start[1] = after;
}

static void same_thread(void) {
    for (int n = 0; n < SAME; n++) {
        int i = begin();
        start(i);
        if (n % 3 == 1) pause_ns(n * 5000);
        if (n % 3 == 2) for (volatile int spin = 0; spin < n * 10; spin++) {}
        stop(i);
    }
}
static void chains(void) {
    for (int n = 0; n < CHAINS; n++) {
        int i = begin(), j = begin(), k = begin();
        start(i); pause_ns(n * 1000); move(i, j); pause_ns(20000); move(j, k); stop(k);
    }
}

static int first_across;
static int turn_pipe[2];
static void *free_across(void *none) {
    for (int n = 0; n < ACROSS; n++) {
        int i;
        if (read(turn_pipe[0], &i, sizeof i) != sizeof i) _exit(98);
        if (n % 4 == 0) pause_ns(30000);
        stop(i);
    }
    return none;
}
static void across_threads(void) {
    pthread_t other;
    if (pipe(turn_pipe)) _exit(97);
    pthread_create(&other, NULL, free_across, NULL);
    first_across = used;
    for (int n = 0; n < ACROSS; n++) {
        int i = begin();
        start(i);
        if (write(turn_pipe[1], &i, sizeof i) != sizeof i) _exit(96);
        if (n % 5 == 0) pause_ns(50000);
    }
    pthread_join(other, NULL);
}

/* Two threads take turns: one frees, and at once the other gets the same address. */
static atomic_int turn;
static int first_handed;
static void *hand_on(void *argument) {
    int me = argument != NULL;
    for (int n = me; n < HANDED; n += 2) {
        while (atomic_load(&turn) != n) {}
        int i = first_handed + n;
        start(i);
        stop(i);
        atomic_store(&turn, n + 1);
    }
    return NULL;
}
static void handed_on(void) {
    pthread_t other;
    first_handed = used;
    for (int n = 0; n < HANDED; n++) begin();
    pthread_create(&other, NULL, hand_on, (void *)1);
    hand_on(NULL);
    pthread_join(other, NULL);
    int same = 0;
    for (int n = 1; n < HANDED; n++) same += pointers[first_handed + n] == pointers[first_handed + n - 1];
    say("{\"handed\":{\"rounds\":%d,\"same_address\":%d}}\n", HANDED, same);
}

int main(void) {
    mallopt(M_ARENA_MAX, 1); /* one arena, so that a freed address can come back in the other thread */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    int64_t best = INT64_MAX, monotonic = 0, realtime = 0;
    for (int n = 0; n < 50; n++) {
        int64_t a = now(), r = clock_ns(CLOCK_REALTIME), b = now();
        if (b - a < best) { best = b - a; monotonic = a + (b - a) / 2; realtime = r; }
    }
    say("{\"clock\":{\"monotonic\":%lld,\"realtime\":%lld}}\n", (long long)monotonic, (long long)realtime);
    for (int n = 0; n < KEPT; n++) start(begin());
    same_thread();
    chains();
    across_threads();
    handed_on();
    for (int i = 0; i < used; i++) {
        if (!strcmp(lives[i].end, "exit")) lives[i].stop[0] = lives[i].stop[1] = now();
        say("{\"life\":{\"size\":%zu,\"end\":\"%s\",\"start\":[%lld,%lld],\"stop\":[%lld,%lld]}}\n", lives[i].size, lives[i].end,
            (long long)lives[i].start[0], (long long)lives[i].start[1], (long long)lives[i].stop[0], (long long)lives[i].stop[1]);
    }
    return 0;
}
