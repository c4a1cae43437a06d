// Allocates through all doors, and says whose blocks they are: the module that `malloc` ends in. The argument is a part of the
// allocator's file name.
#include "../c/say.h"
#include <dlfcn.h>
#include <malloc.h>
#include <new>
#include <pthread.h>

static void *works(void *unused) {
    for (int i = 0; i < 5000; i++) { free(malloc(40)); ::operator delete(::operator new(48)); }
    return unused;
}

int main(int, char **argv) {
    // The allocator has a function that tells the usable size: of its own blocks it does so, and the libc's would not.
    size_t (*usable)(void *) = (size_t (*)(void *))dlsym(RTLD_DEFAULT, argv[1]);
    void *p = malloc(10007);
    must(usable && usable(p) >= 10007);
    answer("usable", usable(p));
    p = realloc(p, 10009);
    free(p);
    free(calloc(3, 3343));
    void *q = nullptr;
    must(!posix_memalign(&q, 4096, 10037) && !((uintptr_t)q & 4095));
    free(q);
    free(aligned_alloc(64, 10048));
    free(memalign(64, 10061));
    ::operator delete[](::operator new[](10063));
    ::operator delete(::operator new(10067));
    ::operator delete(::operator new(10069, std::align_val_t(64)), std::align_val_t(64));
    ::operator delete(::operator new(10079, std::nothrow), std::nothrow);
    // One of the allocators rounds this up to nothing much.
    volatile size_t most = (size_t)-5;
    free(pvalloc(most));
    pthread_t threads[3];
    for (pthread_t &t : threads) must(!pthread_create(&t, nullptr, works, nullptr));
    for (pthread_t t : threads) pthread_join(t, nullptr);
}
