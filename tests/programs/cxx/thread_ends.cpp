// Threads that end in every way, each with allocations on its way out. The first argument says which; what was done is said
// as the other programs do.
#include "../c/say.h"
#include <atomic>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

namespace {
enum { THREADS = 8 };

// Blocks are told apart by their sizes; what threads do is added up here.
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
void note(void *p, size_t size, const char *how) {
    pthread_mutex_lock(&lock);
    made(p, size);
    if (how) ended(p, how);
    pthread_mutex_unlock(&lock);
}
void brief(size_t size) { void *p = malloc(size); note(p, size, "free"); free(p); }

struct Local {
    void *block = nullptr;
    ~Local() { if (block) free(block); brief(20011); }
};
thread_local Local local;

pthread_key_t key;
void again(void *value) {
    brief(20021);
    size_t round = (size_t)value;
    // libc runs the destructors four times while values are set.
    if (round < 4) pthread_setspecific(key, (void *)(round + 1));
}

void *with_destructors(void *) {
    local.block = malloc(20023);
    note(local.block, 20023, "free");
    pthread_setspecific(key, (void *)1);
    return nullptr;
}
void *exits_early(void *argument) {
    (void)with_destructors(nullptr);
    pthread_exit(argument);
}
void cleanup(void *) { brief(20029); }
std::atomic<int> waiting;
void *deferred(void *) {
    pthread_cleanup_push(cleanup, nullptr);
    (void)with_destructors(nullptr);
    waiting++;
    for (;;) { struct timespec pause = { 1, 0 }; nanosleep(&pause, nullptr); }
    pthread_cleanup_pop(0);
    return nullptr;
}
__attribute__((noinline)) void spin() { for (;;) __asm__ volatile("pause"); }
void *asynchronous(void *) {
    pthread_cleanup_push(cleanup, nullptr);
    (void)with_destructors(nullptr);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    waiting++;
    // Through a pointer: the compiler must not know that it throws nothing.
    void (*volatile spins)() = spin;
    spins();
    pthread_cleanup_pop(0);
    return nullptr;
}
// Cancelled wherever it is, inside of malloc and of our hook as well: deferred cancellation acts in neither.
void *busy(void *) {
    pthread_cleanup_push(cleanup, nullptr);
    waiting++;
    for (int i = 1;; i++) { free(malloc(24)); pthread_testcancel(); if (i % 64 == 0) usleep(200); }
    pthread_cleanup_pop(0);
    return nullptr;
}
// Cancelled wherever it is, a little after its first call: that is when a recorder has most to do. libc only unmaps such a large
// block: it takes no lock that the thread could keep.
void *newborn(void *large) {
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    free(large);
    spin();
    return nullptr;
}
void *survivor(void *) { brief(20089); return nullptr; }
void newborns() {
    pthread_t t;
    mallopt(M_MMAP_THRESHOLD, 100000);
    for (int i = 0; i < 40; i++) {
        must(!pthread_create(&t, nullptr, newborn, malloc(200000 + i)));
        usleep(100 + i * 20);
        must(!pthread_cancel(t) && !pthread_join(t, nullptr));
    }
    must(!pthread_create(&t, nullptr, survivor, nullptr) && !pthread_join(t, nullptr));
}
void all(void *(*what)(void *), bool cancel) {
    pthread_t threads[THREADS];
    waiting = 0;
    for (pthread_t &t : threads) must(!pthread_create(&t, nullptr, what, nullptr));
    while (cancel && waiting < THREADS) sched_yield();
    for (pthread_t t : threads) {
        void *result;
        if (cancel) must(!pthread_cancel(t));
        must(!pthread_join(t, &result));
        must(!cancel || result == PTHREAD_CANCELED);
    }
}

// --- exits ---
void at_exit_late() { brief(20047); }
void *churns(void *) {
    // Not so many that looking at them takes long.
    for (int i = 1;; i++) {
        void *p = malloc(32);
        __asm__ volatile("" : : "r"(p) : "memory");
        free(p);
        if (i == 100) waiting++;
        if (i % 256 == 0) usleep(200);
    }
    return nullptr;
}
struct Static { ~Static() { brief(20051); } } object;
void *outlives_main(void *main_thread) {
    pthread_join(*static_cast<pthread_t *>(main_thread), nullptr);
    for (int i = 0; i < 1000; i++) free(malloc(20063));
    exit(5);
}

// --- signals ---
volatile sig_atomic_t handled;
void handler(int) { free(malloc(20071)); handled = handled + 1; }
void signals() {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | SA_NODEFER;
    must(!sigaction(SIGALRM, &action, nullptr));
    // Handlers that allocate may only interrupt what does not: they are let in at these points and in our hooks, so the
    // program's own allocator is one that may be interrupted: blocks of one size of its cache.
    pthread_t self = pthread_self();
    for (int i = 0; i < 2000; i++) { free(malloc(24)); pthread_kill(self, SIGALRM); }
    answer("handled", (unsigned long)handled);
}
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "none";
#define is(name) (!strcmp(how, name))
    must(!pthread_key_create(&key, again));
    if (is("return")) all(with_destructors, false);
    else if (is("pthread_exit")) all(exits_early, false);
    else if (is("cancel_deferred")) all(deferred, true);
    else if (is("cancel_asynchronous")) all(asynchronous, true);
    else if (is("cancel_busy")) all(busy, true);
    else if (is("cancel_newborn")) newborns();
    else if (is("signals")) signals();
    else if (is("exit_while_others_run")) {
        pthread_t t;
        waiting = 0;
        for (int i = 0; i < 3; i++) must(!pthread_create(&t, nullptr, churns, nullptr));
        while (waiting < 3) sched_yield();
        atexit(at_exit_late);
        exit(4);
    } else if (is("main_first")) {
        static pthread_t main_thread, t;
        main_thread = pthread_self();
        must(!pthread_create(&t, nullptr, outlives_main, &main_thread));
        pthread_exit(nullptr);
    } else if (is("main_first_raw")) {
        static pthread_t t;
        must(!pthread_create(&t, nullptr, with_destructors, nullptr) && !pthread_join(t, nullptr));
        for (int i = 0; i < 20000; i++) free(malloc(24));
        syscall(SYS_exit, 6);
    }
    report();
}
