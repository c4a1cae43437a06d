/* `bump.c`'s allocator, but a block of 20011 bytes that is freed or moved is given to another thread at once, while the
 * call that gives it up is still on its way: malloc(20011) of another thread returns it. */
#define malloc bump_malloc
#define free bump_free
#define realloc bump_realloc
#include "bump.c"
#undef malloc
#undef free
#undef realloc
#include <unistd.h>

enum { HANDED = 20011 };
static _Atomic(void *) offered;

/* Whether a block is on offer. */
int on_offer(void) { return atomic_load(&offered) != NULL; }

static void hand(void *p) {
    atomic_store(&offered, p);
    for (int i = 0; i < 5000 && on_offer(); i++) usleep(1000);
    usleep(20000); /* the other thread goes on, and its call is recorded */
}
static int is_handed(void *p) { return p && ((size_t *)p)[-1] == HANDED; }
void *malloc(size_t n) {
    void *p = n == HANDED ? atomic_exchange(&offered, NULL) : NULL;
    return p ? p : bump_malloc(n);
}
void free(void *p) { if (is_handed(p)) hand(p); }
void *realloc(void *p, size_t n) {
    void *q = bump_realloc(p, n);
    if (is_handed(p)) hand(p);
    return q;
}
