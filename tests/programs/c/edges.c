/* The corners of the malloc family, chosen by the first argument. "nothing" is the baseline. */
#include "say.h"
#include <dlfcn.h>
#include <malloc.h>
#include <sys/resource.h>

extern void *__libc_malloc(size_t);
static const char *chosen;
static int is(const char *name) { return !strcmp(chosen, name); }
/* Kept from the compiler, which would warn about sizes that no object can have. */
static volatile size_t half = SIZE_MAX / 2, more = SIZE_MAX - 4096, thousand = 1000, zero = 0;

static void zeroes(void) {
    if (is("malloc_zero")) { void *p = malloc(zero); made(p, 0); answer("usable", malloc_usable_size(p)); free(p); ended(p, "free"); }
    if (is("malloc_zero_kept")) { made(malloc(zero), 0); made(malloc(zero), 0); }
    if (is("calloc_zero")) { void *p = calloc(0, 17); made(p, 0); void *q = calloc(17, zero); made(q, 0); free(p); ended(p, "free"); }
    if (is("realloc_to_zero")) {
        void *p = malloc(10007); made(p, 10007);
        void *q = realloc(p, zero);
        answer("gave null", q == NULL);
        ended(p, "free");
    }
    if (is("realloc_null_to_zero")) { void *p = realloc(NULL, zero); made(p, 0); free(p); ended(p, "free"); }
    if (is("reallocarray_to_zero")) {
        void *p = malloc(10009); made(p, 10009);
        void *q = reallocarray(p, zero, 8);
        answer("gave null", q == NULL);
        ended(p, "free");
    }
    if (is("free_null")) { for (int i = 0; i < 50; i++) free(NULL); }
    if (is("posix_memalign_zero")) {
        void *p = (void *)1;
        answer("code", (unsigned long)posix_memalign(&p, 64, zero)); made(p, 0); free(p); ended(p, "free");
    }
}

static void failures(void) {
    errno = 0;
    if (is("malloc_fails")) { void *p = malloc(half + thousand); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno); }
    if (is("malloc_fails_again")) { /* from one place, for sizes as others are */
        struct rlimit most = {3ul << 30, 3ul << 30};
        unsigned long nulls = 0;
        must(!setrlimit(RLIMIT_AS, &most));
        for (int i = 0; i < 3; i++) { void *p = malloc(0xfff00000); failed_call(); nulls += !p; }
        answer("nulls", nulls);
    }
    if (is("calloc_overflow")) {
        void *p = calloc(half, 4); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno);
        p = calloc(half, 1); failed_call(); answer("null too", !p);
    }
    if (is("realloc_fails")) {
        char *p = malloc(10037); made(p, 10037);
        memset(p, 9, 10037);
        void *q = realloc(p, half + thousand); failed_call();
        answer("null", !q); answer("errno", (unsigned long)errno);
        must(p[0] == 9 && p[10036] == 9);
        q = realloc(p, 10039); ended(p, "realloc"); made(q, 10039); /* it was kept, and is known */
        free(q); ended(q, "free");
    }
    if (is("realloc_null_fails")) { void *q = realloc(NULL, half + thousand); failed_call(); answer("null", !q); answer("errno", (unsigned long)errno); }
    if (is("reallocarray_overflow")) {
        void *p = malloc(10061); made(p, 10061);
        void *q = reallocarray(p, half, 3); failed_call();
        answer("null", !q); answer("errno", (unsigned long)errno);
        free(p); ended(p, "free");
        q = reallocarray(NULL, half, 3); failed_call(); answer("null too", !q);
    }
    if (is("memalign_fails")) { void *p = memalign(4096, more); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno); }
    if (is("valloc_fails")) { void *p = valloc(more); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno); }
    if (is("pvalloc_fails")) { void *p = pvalloc(SIZE_MAX - (thousand - 999)); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno); }
    if (is("posix_memalign_fails")) {
        void *p = (void *)77;
        errno = 4711;
        int code = posix_memalign(&p, 64, more); failed_call();
        answer("code", (unsigned long)code); answer("pointer", (uintptr_t)p); answer("errno", (unsigned long)errno);
    }
    if (is("posix_memalign_bad_alignment")) {
        static const size_t bad[] = { 0, 1, 2, 3, 4, 7, 12, 24, 100 };
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            void *p = (void *)77;
            errno = 4711;
            int code = posix_memalign(&p, bad[i], 100); failed_call();
            must(code == EINVAL); must(p == (void *)77); must(errno == 4711);
        }
    }
}

/* glibc accepts alignments that are no powers of two, some versions more than others. */
static void odd_alignments(void) {
    if (is("memalign_odd")) { void *p = memalign(48, 10069); made(p, 10069); answer("low bits", (uintptr_t)p % 64); free(p); ended(p, "free"); }
    if (is("memalign_zero")) { void *p = memalign(zero, 10079); made(p, 10079); free(p); ended(p, "free"); }
    if (is("aligned_alloc_any_size")) { void *p = aligned_alloc(64, 10091); made(p, 10091); answer("low bits", (uintptr_t)p % 64); free(p); ended(p, "free"); }
    if (is("memalign_huge_alignment")) { errno = 0; void *p = memalign(half + 2, 100); failed_call(); answer("null", !p); answer("errno", (unsigned long)errno); }
}

static void large(void) {
    if (is("five_gibibytes")) {
        size_t n = ((size_t)5 << 30) + 13;
        void *p;
        for (int i = 0; i < 3; i++) { p = malloc(n); made(p, n); free(p); ended(p, "free"); } /* from one place */
        p = calloc(n, 1); made(p, n);
        void *q = realloc(p, n + 4096); ended(p, "realloc"); made(q, n + 4096);
        free(q); ended(q, "free");
    }
    if (is("mapped_blocks")) { /* above the threshold: each block is a mapping of its own, and goes back at once */
        for (size_t i = 0; i < 30; i++) {
            size_t n = 300007 + 2 * i;
            void *p = malloc(n); made(p, n);
            if (i % 3) { free(p); ended(p, "free"); }
        }
    }
}

static void foreign(void) {
    if (is("free_of_unknown")) { void *p = __libc_malloc(10103); free(p); unknown_free(); }
    if (is("realloc_of_unknown")) {
        void *p = __libc_malloc(10111);
        void *q = realloc(p, 20011); unknown_free(); made(q, 20011);
        free(q); ended(q, "free");
    }
    if (is("realloc_of_unknown_fails")) {
        void *p = __libc_malloc(10133);
        void *q = realloc(p, half + thousand); failed_call(); answer("null", !q);
        free(p); unknown_free();
    }
    if (is("realloc_of_unknown_to_zero")) { void *p = __libc_malloc(10139); void *q = realloc(p, zero); unknown_free(); answer("null", !q); }
}

static void errno_is_kept(void) {
    if (is("errno_kept")) {
        for (int i = 1; i < 4; i++) {
            errno = 1000 + i; void *p = malloc(10141); made(p, 10141); must(errno == 1000 + i);
            errno = 2000 + i; void *q = realloc(p, 300007); ended(p, "realloc"); made(q, 300007); must(errno == 2000 + i);
            errno = 3000 + i; free(q); ended(q, "free"); must(errno == 3000 + i);
            errno = 4000 + i; void *r = calloc(1, 10151); made(r, 10151); must(errno == 4000 + i);
            errno = 5000 + i; void *s = memalign(64, 10159); made(s, 10159); must(errno == 5000 + i);
            errno = 6000 + i; free(NULL); must(errno == 6000 + i);
            errno = 7000 + i; must(malloc_usable_size(s) >= 10159); must(errno == 7000 + i);
            free(r); ended(r, "free"); free(s); ended(s, "free");
        }
    }
    if (is("errno_kept_over_buffers")) { /* so many events that buffers are handed over on the way */
        for (int i = 0; i < 400000; i++) {
            errno = i + 1;
            void *p = malloc(16);
            if (errno != i + 1) { must(!"errno changed by malloc"); break; }
            free(p);
            if (errno != i + 1) { must(!"errno changed by free"); break; }
            said_allocs++; said_bytes += 16; said_frees++; said_freed += 16;
        }
    }
}

int main(int argc, char **argv) {
    chosen = argc > 1 ? argv[1] : "nothing";
    zeroes();
    failures();
    odd_alignments();
    large();
    foreign();
    errno_is_kept();
    report();
    return 0;
}
