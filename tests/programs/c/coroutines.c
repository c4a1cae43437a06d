/* Two coroutines, one started by the other, whose stacks lie next to each other: the inner one's ends where the outer one's
 * innermost frames are. Each allocates a block of its own size. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { INNER = 65536, OUTER = 16384 };

static ucontext_t main_context, outer_context, back_context, inner_context;
static char *stacks;

__attribute__((noipa)) static void allocate(size_t size) {
    void *volatile block = malloc(size);
    free(block);
}

/* No call before it is the last thing that a function does. */
static volatile int not_last;

__attribute__((noipa)) static void inner_entry(void) {
    allocate(10007);
    not_last = 1;
}

__attribute__((noipa)) static void start_inner(void) {
    getcontext(&inner_context);
    inner_context.uc_stack.ss_sp = stacks;
    inner_context.uc_stack.ss_size = INNER;
    inner_context.uc_link = &back_context;
    makecontext(&inner_context, inner_entry, 0);
    swapcontext(&back_context, &inner_context);
    allocate(10009);
    not_last = 2;
}

__attribute__((noipa)) static void descend(int levels) {
    if (levels > 0)
        descend(levels - 1);
    else
        start_inner();
    not_last = 3;
}

__attribute__((noipa)) static void outer_entry(void) {
    /* Deep enough that its innermost frames lie near the other stack. */
    descend(100);
    allocate(10037);
    not_last = 4;
}

int main(void) {
    stacks = mmap(NULL, INNER + OUTER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED)
        return 1;
    getcontext(&outer_context);
    outer_context.uc_stack.ss_sp = stacks + INNER;
    outer_context.uc_stack.ss_size = OUTER;
    outer_context.uc_link = &main_context;
    makecontext(&outer_context, outer_entry, 0);
    swapcontext(&main_context, &outer_context);
    puts("done");
    return 0;
}
