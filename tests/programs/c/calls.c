/* Each function of the malloc family once, chosen by the first argument. "nothing" is the baseline. */
#include "say.h"
#include <dlfcn.h>
#include <malloc.h>

/* glibc keeps it for old programs only. */
extern void cfree(void *);
__asm__(".symver cfree, cfree@GLIBC_2.2.5");

static const char *chosen;
static int is(const char *name) { return !strcmp(chosen, name); }
static void *look_up(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found) say("{\"missing\":\"%s\"}\n", name);
    return found;
}

static void plain(void) {
    if (is("malloc")) { void *p = malloc(10007); made(p, 10007); free(p); ended(p, "free"); made(malloc(10009), 10009); }
    if (is("calloc")) {
        unsigned char *p = calloc(101, 103);
        made(p, 101 * 103);
        for (int i = 0; i < 101 * 103; i++) must(p[i] == 0);
        free(p); ended(p, "free");
        made(calloc(1, 10011), 10011);
    }
    if (is("free")) {
        void *p[20];
        for (int i = 0; i < 20; i++) { p[i] = malloc(10013 + 2 * (size_t)i); made(p[i], 10013 + 2 * (size_t)i); }
        for (int i = 19; i > 1; i--) { free(p[i]); ended(p[i], "free"); }
    }
    if (is("cfree")) {
        void *p = malloc(10067); made(p, 10067); cfree(p); ended(p, "free");
        cfree(NULL);
    }
    if (is("malloc_usable_size")) {
        void *p = malloc(10069); made(p, 10069);
        answer("of 10069", malloc_usable_size(p));
        answer("of null", malloc_usable_size(NULL));
        free(p); ended(p, "free");
    }
}

static void reallocations(void) {
    if (is("realloc")) {
        char *p = malloc(10079); made(p, 10079);
        memset(p, 7, 10079);
        void *wall = malloc(10091); made(wall, 10091); /* so that growing has to move it */
        char *q = realloc(p, 200003); ended(p, "realloc"); made(q, 200003);
        must(q[0] == 7 && q[10078] == 7);
        char *r = realloc(q, 10093); ended(q, "realloc"); made(r, 10093);
        must(r[10078] == 7);
        free(r); ended(r, "free");
    }
    if (is("realloc_in_place")) {
        void *p = malloc(10099); made(p, 10099);
        void *q = realloc(p, 10097); ended(p, "realloc"); made(q, 10097);
        answer("moved", p != q);
        void *r = realloc(q, 10097); ended(q, "realloc"); made(r, 10097);
        free(r); ended(r, "free");
    }
    if (is("realloc_of_null")) { void *p = realloc(NULL, 10103); made(p, 10103); free(p); ended(p, "free"); }
    if (is("reallocarray")) {
        void *p = reallocarray(NULL, 107, 109); made(p, 107 * 109);
        void *wall = malloc(10111); made(wall, 10111);
        void *q = reallocarray(p, 1009, 211); ended(p, "realloc"); made(q, 1009 * 211);
        free(q); ended(q, "free");
    }
}

static void aligned(void) {
    if (is("memalign")) { void *p = memalign(256, 10133); made(p, 10133); answer("low bits", (uintptr_t)p % 256); free(p); ended(p, "free"); }
    if (is("posix_memalign")) {
        void *p = NULL;
        must(posix_memalign(&p, 4096, 10139) == 0); made(p, 10139); answer("low bits", (uintptr_t)p % 4096);
        free(p); ended(p, "free");
    }
    if (is("aligned_alloc")) { void *p = aligned_alloc(512, 10240 + 512); made(p, 10752); answer("low bits", (uintptr_t)p % 512); free(p); ended(p, "free"); }
    if (is("valloc")) { void *p = valloc(10141); made(p, 10141); answer("low bits", (uintptr_t)p % 4096); free(p); ended(p, "free"); }
    if (is("pvalloc")) {
        void *p = pvalloc(10151); made(p, 10151); answer("low bits", (uintptr_t)p % 4096);
        answer("usable", malloc_usable_size(p) >= 12288);
        free(p); ended(p, "free");
    }
    if (is("realloc_of_aligned")) {
        void *p = memalign(1024, 10159); made(p, 10159);
        void *q = realloc(p, 30011); ended(p, "realloc"); made(q, 30011);
        free(q); ended(q, "free");
    }
}

static void sized(void) {
    if (is("free_sized")) {
        void (*free_sized_)(void *, size_t) = (void (*)(void *, size_t))look_up("free_sized");
        void *p = malloc(10163); made(p, 10163);
        if (free_sized_) { free_sized_(p, 10163); ended(p, "free"); free_sized_(NULL, 0); }
    }
    if (is("free_aligned_sized")) {
        void (*free_aligned_sized_)(void *, size_t, size_t) = (void (*)(void *, size_t, size_t))look_up("free_aligned_sized");
        void *p = aligned_alloc(64, 10176); made(p, 10176);
        if (free_aligned_sized_) { free_aligned_sized_(p, 64, 10176); ended(p, "free"); free_aligned_sized_(NULL, 64, 0); }
    }
}

int main(int argc, char **argv) {
    chosen = argc > 1 ? argv[1] : "nothing";
    plain();
    reallocations();
    aligned();
    sized();
    report();
    return 0;
}
