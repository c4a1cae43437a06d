/* Code without unwind tables whose rbp is no frame pointer but points to memory directly above the stack, which is then
   unmapped: the stacks before it are guesses, and the next ones must not be compared with them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BYTES (64 << 10)

/* malloc(size) on the stack that ends at `top`, with this rbp. */
void *allocate_with(char *top, void *rbp, size_t size);
__asm__(".text\n"
        ".globl allocate_with\n"
        "allocate_with:\n"
        "    endbr64\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    mov %rsp, %rbx\n"
        "    mov %rdi, %rsp\n"
        "    mov %rsi, %rbp\n"
        "    mov %rdx, %rdi\n"
        "    call *malloc@GOTPCREL(%rip)\n"
        "    mov %rbx, %rsp\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n");

extern void _start(void);

static void several(char *stack, void *rbp, size_t size) {
    for (int i = 0; i < 4; i++) free(allocate_with(stack + BYTES - 64, rbp, size));
}

static void *rounds(void *unused) {
    char *stack = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) abort();
    void **above = (void **)(stack + BYTES + 256);
    above[1] = (char *)_start + 10;
    several(stack, above, 10007);
    /* The same with the memory gone, then with other memory in its place. */
    munmap(stack + BYTES, BYTES);
    several(stack, above, 10009);
    if (mmap(stack + BYTES, BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) abort();
    several(stack, above, 10037);
    munmap(stack, 2 * BYTES);
    return unused;
}

int main(void) {
    rounds(NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, rounds, NULL) != 0) return 1;
    pthread_join(thread, NULL);
    puts("done");
    return 0;
}
