/* Allocations at the end of known call chains, chosen by the first argument. Each has a size of its own, so a test
 * finds it. Compiled without frame pointers. */
#include "say.h"
#include <alloca.h>
#include <pthread.h>
#include <signal.h>

#define FAR __attribute__((noipa))
/* Behind a call, so that it is no tail call. */
#define STAY() __asm__ volatile("" ::: "memory")

static FAR void keep(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* chain */
FAR void inner(size_t n) { keep(malloc(n)); STAY(); }
FAR void middle(size_t n) { inner(n); STAY(); }
FAR void outer(size_t n) { middle(n); STAY(); }

/* every function: the frame above each is the same */
FAR void every_function(void) {
    void *p;
    keep(malloc(10007)); STAY();
    keep(calloc(1, 10009)); STAY();
    keep(p = realloc(NULL, 10037)); STAY();
    keep(realloc(p, 200003)); STAY();
    keep(reallocarray(NULL, 1, 10039)); STAY();
    if (posix_memalign(&p, 64, 10061)) STAY();
    keep(p); STAY();
    keep(aligned_alloc(64, 10112)); STAY();
}

/* inlined */
static inline __attribute__((always_inline)) void *inlined_leaf(size_t n) { return malloc(n); }
static inline __attribute__((always_inline)) void *inlined_middle(size_t n) { return inlined_leaf(n); }
FAR void inlining_host(size_t n) { keep(inlined_middle(n)); STAY(); }

/* tail call: the jumping function has no frame any more */
FAR void *jumps_to_malloc(size_t n) { return malloc(n); }
FAR void calls_the_jumper(size_t n) { keep(jumps_to_malloc(n)); STAY(); }

/* recursion */
FAR void recursive(int depth, size_t n) {
    if (depth) recursive(depth - 1, n); else keep(malloc(n));
    STAY();
}

/* odd frames */
FAR void huge_frame(size_t n) { char block[70000]; keep(block); inner(n); keep(block); }
FAR void alloca_frame(size_t n) { void *block = alloca(n % 977 + 16); keep(block); inner(n); keep(block); }
/* Over-aligned and of a size not known: the frame address is found through a saved pointer. */
FAR void aligned_frame(size_t n) {
    char over[256] __attribute__((aligned(128)));
    void *block = alloca(n % 977 + 16);
    keep(over); keep(block);
    inner(n);
    keep(over); keep(block);
}
FAR void odd_frames(size_t n) { huge_frame(n); alloca_frame(n + 2); aligned_frame(n + 4); STAY(); }

/* callback out of libc */
static int compare(const void *a, const void *b) {
    static int first;
    if (!first++) keep(malloc(10069));
    return *(const int *)a - *(const int *)b;
}
FAR void sorter(void) { int v[] = { 3, 1, 2, 9, 7 }; qsort(v, 5, sizeof *v, compare); STAY(); }

/* signals */
static size_t handler_size;
static FAR void in_handler(size_t n) { keep(malloc(n)); STAY(); }
static void handler(int s) { (void)s; in_handler(handler_size); STAY(); }
FAR void interrupted(void) { raise(SIGUSR1); STAY(); }
static int *volatile nowhere = (int *)8;
FAR void faulting(void) { *nowhere = 1; STAY(); }
static void skip_fault(int s) {
    (void)s;
    in_handler(10091);
    signal(SIGSEGV, SIG_DFL);
    report();
    _exit(0);
}
static void on_signal(int s, void (*f)(int), int flags) {
    struct sigaction a = { .sa_flags = flags };
    a.sa_handler = f;
    sigaction(s, &a, NULL);
}

/* threads */
FAR void in_thread(size_t n) { inner(n); STAY(); }
static void *thread_body(void *n) { in_thread((size_t)(uintptr_t)n); STAY(); return NULL; }

int main(int argc, char **argv) {
    const char *chosen = argc > 1 ? argv[1] : "chain";
    if (!strcmp(chosen, "chain")) outer(10007);
    if (!strcmp(chosen, "every_function")) every_function();
    if (!strcmp(chosen, "inlined")) inlining_host(10009);
    if (!strcmp(chosen, "tail_call")) calls_the_jumper(10037);
    if (!strcmp(chosen, "recursion")) recursive(3000, 10039);
    if (!strcmp(chosen, "odd_frames")) odd_frames(10061);
    if (!strcmp(chosen, "callback")) sorter();
    if (!strcmp(chosen, "signal")) { handler_size = 10079; on_signal(SIGUSR1, handler, 0); interrupted(); }
    if (!strcmp(chosen, "signal_stack")) {
        static char stack[1 << 16];
        stack_t other = { .ss_sp = stack, .ss_size = sizeof stack };
        sigaltstack(&other, NULL);
        handler_size = 10079; on_signal(SIGUSR1, handler, SA_ONSTACK); interrupted();
    }
    if (!strcmp(chosen, "fault")) { on_signal(SIGSEGV, skip_fault, 0); faulting(); }
    if (!strcmp(chosen, "thread")) {
        pthread_t t;
        pthread_create(&t, NULL, thread_body, (void *)10093);
        pthread_join(t, NULL);
    }
    STAY();
    return 0;
}
