// A program that brings its own operator new and delete, which call malloc and free.
#include "../c/say.h"
#include <new>

static unsigned long news, deletes;
void *operator new(size_t n) { news++; void *p = malloc(n); if (!p) throw std::bad_alloc(); return p; }
void operator delete(void *p) noexcept { deletes++; free(p); }
void operator delete(void *p, size_t) noexcept { deletes++; free(p); }

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "replaced")) {
        void *p = ::operator new(10007); made(p, 10007);
        ::operator delete(p); ended(p, "free");
        char *q = new char[10009]; made(q, 10009); // the array form of libstdc++ calls the program's
        delete[] q; ended(q, "free");
        must(news == 2 && deletes == 2);
    }
    report();
}
