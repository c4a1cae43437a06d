/* Code without unwind tables whose rbp is no frame pointer but points to memory directly above the stack, which is then
   unmapped: the stacks before it are guesses, and the next ones must not be compared with them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BYTES (64 << 10)
#define THREAD (1 << 20)

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

/* In two times BYTES of memory at `memory`. */
static void *rounds(void *memory) {
    char *stack = memory;
    void **above = (void **)(stack + BYTES + 256);
    above[1] = (char *)_start + 10;
    several(stack, above, 10007);
    /* The same with the memory gone, then with other memory in its place. */
    munmap(stack + BYTES, BYTES);
    several(stack, above, 10009);
    if (mmap(stack + BYTES, BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) abort();
    several(stack, above, 10037);
    munmap(stack, 2 * BYTES);
    return NULL;
}

static char *memory_of(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static void in_thread(pthread_attr_t *attributes, char *memory) {
    pthread_t thread;
    if (pthread_create(&thread, attributes, rounds, memory) != 0) abort();
    pthread_join(thread, NULL);
}

int main(void) {
    rounds(memory_of(2 * BYTES));
    in_thread(NULL, memory_of(2 * BYTES));
    /* Right below the stack of a thread, which has no guard page. */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    char *memory = memory_of(2 * BYTES + THREAD);
    if (pthread_attr_setstack(&attributes, memory + 2 * BYTES, THREAD) != 0) abort();
    in_thread(&attributes, memory);
    puts("done");
    return 0;
}
