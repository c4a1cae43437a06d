/* pairs MODE DEPTH LEAVES THREADS COUNT: pairs of malloc and free at a fixed stack depth.
 *
 *   MODE    hold   the stack stays as it is between pairs, only the leaf function changes, LEAVES of them in turn
 *           paths  every pair is at the end of another call path, one of 4,096 at random: most frames are new
 *   DEPTH   frames from main (or the thread's start) to the function that calls malloc, both included
 *   COUNT   pairs for each thread
 *
 * Prints one JSON line on standard error: the pairs and the CPU time that the program's own threads took for them. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAR __attribute__((noipa))
#define STAY() __asm__ volatile("" ::: "memory")
/* So many bytes in the frame. */
#define FRAME(bytes) char frame[bytes]; __asm__ volatile("" : : "r"(frame) : "memory")
enum { MOST_LEAVES = 8, MOST_THREADS = 16 };

struct job { int depth, leaves, paths; uint64_t count, cpu_ns, rng; int started; };
static struct job jobs[MOST_THREADS];
static pthread_barrier_t all_there;

static int64_t clock_ns(clockid_t id) { struct timespec t; clock_gettime(id, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }

static FAR void leaf0(size_t n) { free(malloc(n)); STAY(); }
static FAR void leaf1(size_t n) { FRAME(24); free(malloc(n)); STAY(); }
static FAR void leaf2(size_t n) { FRAME(40); free(malloc(n)); STAY(); }
static FAR void leaf3(size_t n) { FRAME(56); free(malloc(n)); STAY(); }
static FAR void leaf4(size_t n) { FRAME(72); free(malloc(n)); STAY(); }
static FAR void leaf5(size_t n) { FRAME(88); free(malloc(n)); STAY(); }
static FAR void leaf6(size_t n) { FRAME(104); free(malloc(n)); STAY(); }
static FAR void leaf7(size_t n) { FRAME(120); free(malloc(n)); STAY(); }
static void (*const leaf[MOST_LEAVES])(size_t) = { leaf0, leaf1, leaf2, leaf3, leaf4, leaf5, leaf6, leaf7 };

static FAR void hold(struct job *job) {
    int64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    unsigned mask = (unsigned)job->leaves - 1; /* a power of two */
    for (uint64_t i = 0; i < job->count; i++) leaf[i & mask](32);
    job->cpu_ns = (uint64_t)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - before);
    STAY();
}

/* Four kinds of frames, down to the depth; on the way `hold` takes over, or the path is random. */
static FAR void down_a(struct job *job, int left, uint64_t path);
static FAR void down_b(struct job *job, int left, uint64_t path);
static FAR void down_c(struct job *job, int left, uint64_t path);
static FAR void down_d(struct job *job, int left, uint64_t path);
static inline __attribute__((always_inline)) void down(struct job *job, int left, uint64_t path) {
    if (left == 0) {
        if (job->paths) leaf0(32); else hold(job);
        return;
    }
    switch (path & 3) {
    case 0: down_a(job, left - 1, path >> 2); break;
    case 1: down_b(job, left - 1, path >> 2); break;
    case 2: down_c(job, left - 1, path >> 2); break;
    default: down_d(job, left - 1, path >> 2); break;
    }
}
#define KIND(name, bytes) static FAR void name(struct job *job, int left, uint64_t path) { \
    FRAME(bytes); down(job, left, path); STAY(); }
KIND(down_a, 16)
KIND(down_b, 48)
KIND(down_c, 80)
KIND(down_d, 112)

static FAR void paths(struct job *job) {
    int64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < job->count; i++) {
        job->rng ^= job->rng << 13; job->rng ^= job->rng >> 7; job->rng ^= job->rng << 17;
        down(job, job->depth, (job->rng >> 52) * 0x9E3779B97F4A7C15ull ^ job->rng >> 52);
    }
    job->cpu_ns = (uint64_t)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - before);
    STAY();
}

static void *work(void *argument) {
    struct job *job = argument;
    pthread_barrier_wait(&all_there);
    if (job->paths) paths(job); else down(job, job->depth, 0x9E3779B97F4A7C15ull);
    STAY();
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 6) { fprintf(stderr, "usage: pairs hold|paths DEPTH LEAVES THREADS COUNT\n"); return 2; }
    int by_path = !strcmp(argv[1], "paths"), depth = atoi(argv[2]), leaves = atoi(argv[3]), threads = atoi(argv[4]);
    uint64_t count = strtoull(argv[5], NULL, 10);
    if (leaves < 1 || leaves > MOST_LEAVES || (leaves & (leaves - 1)) || threads < 1 || threads > MOST_THREADS || depth < 4) return 2;
    pthread_barrier_init(&all_there, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        /* main or the thread's start, `work`, `hold` or `paths`, and the leaf are frames too. */
        jobs[i].depth = depth - 4; jobs[i].leaves = leaves; jobs[i].paths = by_path; jobs[i].count = count;
        jobs[i].rng = 88172645463325252ull + (uint64_t)i;
    }
    int64_t before = clock_ns(CLOCK_MONOTONIC);
    pthread_t thread[MOST_THREADS];
    for (int i = 1; i < threads; i++) pthread_create(&thread[i], NULL, work, &jobs[i]);
    work(&jobs[0]);
    for (int i = 1; i < threads; i++) pthread_join(thread[i], NULL);
    int64_t wall = clock_ns(CLOCK_MONOTONIC) - before;
    uint64_t cpu = 0;
    for (int i = 0; i < threads; i++) cpu += jobs[i].cpu_ns;
    fprintf(stderr, "{\"pairs\":%llu,\"cpu_ns\":%llu,\"wall_ns\":%lld}\n", (unsigned long long)(count * (uint64_t)threads),
            (unsigned long long)cpu, (long long)wall);
    return 0;
}
