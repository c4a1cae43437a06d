/* handover BLOCKS: eight threads in a ring; each block is allocated in one, perhaps resized in the next, and
 * freed in the one after. Prints the sums of what it did. */
#include "say.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 8, BATCH = 256, SLOTS = 8, RESIZED = 16 };
struct batch { void *block[BATCH]; size_t size[BATCH]; };
struct queue { pthread_mutex_t lock; pthread_cond_t changed; struct batch slot[SLOTS]; unsigned head, tail; int closed; };
static struct queue to_resize[THREADS], to_free[THREADS];
static unsigned long per_thread;
static pthread_barrier_t all_there;
static atomic_ulong allocs, bytes, frees, freed, reallocs;

static void put(struct queue *q, const struct batch *b) {
    pthread_mutex_lock(&q->lock);
    while (q->head - q->tail == SLOTS) pthread_cond_wait(&q->changed, &q->lock);
    q->slot[q->head++ % SLOTS] = *b;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}
static int take(struct queue *q, struct batch *b) {
    pthread_mutex_lock(&q->lock);
    while (q->head == q->tail && !q->closed) pthread_cond_wait(&q->changed, &q->lock);
    int got = q->head != q->tail;
    if (got) *b = q->slot[q->tail++ % SLOTS];
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return got;
}
static void close_queue(struct queue *q) {
    pthread_mutex_lock(&q->lock); q->closed = 1; pthread_cond_broadcast(&q->changed); pthread_mutex_unlock(&q->lock);
}

__attribute__((noipa)) static void *make(size_t n) { char *p = malloc(n); p[0] = 1; return p; }
static void *allocates(void *argument) {
    long me = (long)argument;
    uint64_t rng = 88172645463325252ull + (uint64_t)me;
    pthread_barrier_wait(&all_there);
    for (unsigned long done = 0; done < per_thread; done += BATCH) {
        struct batch b;
        unsigned long sum = 0;
        for (int i = 0; i < BATCH; i++) {
            rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17;
            b.size[i] = 16 + rng % 300;
            b.block[i] = make(b.size[i]);
            sum += b.size[i];
        }
        allocs += BATCH; bytes += sum;
        put(&to_resize[me], &b);
    }
    close_queue(&to_resize[me]);
    return NULL;
}
static void *resizes(void *argument) {
    long me = (long)argument;
    struct batch b;
    pthread_barrier_wait(&all_there);
    while (take(&to_resize[me], &b)) {
        for (int i = 0; i < BATCH; i += BATCH / RESIZED) {
            size_t n = b.size[i] * 2 + 1;
            freed += b.size[i]; bytes += n;
            b.block[i] = realloc(b.block[i], n);
            b.size[i] = n;
        }
        allocs += RESIZED; frees += RESIZED; reallocs += RESIZED;
        put(&to_free[me], &b);
    }
    close_queue(&to_free[me]);
    return NULL;
}
static void *frees_them(void *argument) {
    long me = (long)argument;
    struct batch b;
    pthread_barrier_wait(&all_there);
    while (take(&to_free[me], &b)) {
        unsigned long sum = 0;
        for (int i = 0; i < BATCH; i++) { sum += b.size[i]; free(b.block[i]); }
        frees += BATCH; freed += sum;
    }
    return NULL;
}

int main(int argc, char **argv) {
    /* Two rings of four threads: one that makes, one that resizes, two that free. */
    unsigned long blocks = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    enum { RINGS = 2 };
    per_thread = blocks / (RINGS * BATCH) * BATCH;
    pthread_t thread[THREADS];
    int n = 0;
    pthread_barrier_init(&all_there, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        pthread_mutex_init(&to_resize[i].lock, NULL); pthread_cond_init(&to_resize[i].changed, NULL);
        pthread_mutex_init(&to_free[i].lock, NULL); pthread_cond_init(&to_free[i].changed, NULL);
    }
    for (long ring = 0; ring < RINGS; ring++) {
        pthread_create(&thread[n++], NULL, allocates, (void *)ring);
        pthread_create(&thread[n++], NULL, resizes, (void *)ring);
        pthread_create(&thread[n++], NULL, frees_them, (void *)ring);
        pthread_create(&thread[n++], NULL, frees_them, (void *)ring);
    }
    for (int i = 0; i < n; i++) pthread_join(thread[i], NULL);
    said_allocs = allocs; said_bytes = bytes; said_frees = frees; said_freed = freed; said_reallocs = reallocs;
    report();
    return 0;
}
