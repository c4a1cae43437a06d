/* soak SECONDS PLUGIN EVERY: churns for that long. Four threads at a time, each living for some thousand steps; a step puts a
 * new block of any size into a place of a shared table and frees what lay there, mostly another thread's. So what is
 * live stays the same. Every EVERY milliseconds the library PLUGIN is loaded, called and unloaded. Prints the sums. */
#include "say.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 4, PLACES = 20000, BATCH = 500, PAUSE_NS = 10000000 };
static _Atomic(uintptr_t) place[PLACES];
static atomic_ulong allocs, bytes, frees, freed;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static uint32_t next(uint32_t *seed) {
    *seed ^= *seed << 13; *seed ^= *seed >> 17; *seed ^= *seed << 5;
    return *seed;
}

/* The size stands in the block's first word, for who frees it. */
__attribute__((noipa)) static size_t *churned(size_t size) {
    size_t *block = malloc(size);
    *block = size;
    return block;
}
static void put(size_t where, size_t *block) {
    size_t *old = (size_t *)atomic_exchange(&place[where], (uintptr_t)block);
    if (!old) return;
    atomic_fetch_add(&frees, 1);
    atomic_fetch_add(&freed, *old);
    free(old);
}
static void step(uint32_t *seed) {
    uint32_t random = next(seed);
    size_t size = 8 + (random % 1000 == 0 ? next(seed) % 100000 : next(seed) % 600);
    size_t *block = churned(size);
    atomic_fetch_add(&allocs, 1);
    atomic_fetch_add(&bytes, size);
    put(next(seed) % PLACES, block);
}
static void *churn(void *argument) {
    uint32_t seed = (uint32_t)(uintptr_t)argument * 2654435761u + 1;
    uint32_t batches = 4 + next(&seed) % 40;
    for (uint32_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < BATCH; i++) step(&seed);
        struct timespec pause = { 0, PAUSE_NS };
        nanosleep(&pause, NULL);
    }
    return NULL;
}
static void plugin(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    must(library);
    void *(*entry)(size_t) = (void *(*)(size_t))dlsym(library, "entry");
    free(entry(64));
    dlclose(library);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    double end = now() + atof(argv[1]), every = atof(argv[3]) / 1000, due = now();
    uint32_t seed = 4711;
    for (size_t where = 0; where < PLACES; where++) {
        size_t size = 8 + next(&seed) % 600;
        atomic_fetch_add(&allocs, 1);
        atomic_fetch_add(&bytes, size);
        put(where, churned(size));
    }
    pthread_t thread[THREADS];
    uintptr_t number = 0;
    for (int i = 0; i < THREADS; i++) must(!pthread_create(&thread[i], NULL, churn, (void *)++number));
    while (now() < end) {
        for (int i = 0; i < THREADS; i++) {
            pthread_join(thread[i], NULL);
            must(!pthread_create(&thread[i], NULL, churn, (void *)++number));
            if (now() < due) continue;
            plugin(argv[2]);
            due = now() + every;
        }
    }
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    for (size_t where = 0; where < PLACES; where++) put(where, NULL);
    answer("threads", number);
    said_allocs = allocs; said_bytes = bytes; said_frees = frees; said_freed = freed;
    report();
    return 0;
}
