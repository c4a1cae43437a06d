/* Allocates without end in several threads, and tells of each block, once it has it, through standard output: pairs of
 * 64-bit words (address, size). It is to be killed. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static void *allocates(void *argument) {
    uint64_t me = (uint64_t)(uintptr_t)argument;
    for (uint64_t i = 0;; i++) {
        uint64_t size = 1 + (i * 8 + me) % 60000;
        void *block = malloc(size);
        uint64_t told[2] = { (uint64_t)(uintptr_t)block, size };
        /* Every third one is freed before it is told of: it must be known all the same. */
        if (i % 3 == 0) free(block);
        if (write(1, told, sizeof told) != sizeof told) _exit(1);
        /* Noise that nobody is told of. */
        for (int n = 0; n < 6; n++) { void *p = malloc(24); __asm__ volatile("" : : "r"(p) : "memory"); free(p); }
        if (i % 3 && i > 200) free(block);
    }
    return NULL;
}

int main(void) {
    pthread_t t;
    for (uintptr_t i = 1; i < 4; i++) pthread_create(&t, NULL, allocates, (void *)i);
    allocates(NULL);
}
