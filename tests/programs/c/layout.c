/* Where an allocator puts a program's blocks: offsets from the start of the heap, usable sizes, alignments. Prints one
 * "answer" per block, which must be the same in a native run. */
#include "say.h"
#include <fcntl.h>
#include <malloc.h>

/* Start of the heap as the kernel says. */
static uintptr_t heap_start(void) {
    static char text[1 << 16];
    int fd = open("/proc/self/maps", O_RDONLY);
    size_t have = 0;
    for (ssize_t n; (n = read(fd, text + have, sizeof text - 1 - have)) > 0;) have += (size_t)n;
    close(fd);
    char *line = strstr(text, "[heap]");
    if (!line) return 0;
    while (line > text && line[-1] != '\n') line--;
    return strtoul(line, NULL, 16);
}

int main(void) {
    static void *blocks[64];
    char name[64];
    for (size_t i = 0; i < 64; i++) {
        size_t n = i * i * 3 + i;
        blocks[i] = i % 8 == 5 ? memalign(64 << (i % 3), n) : i % 8 == 3 ? calloc(1, n) : malloc(n);
    }
    uintptr_t start = heap_start();
    for (size_t i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "block %zu in the heap", i);
        answer(name, (uintptr_t)blocks[i] - (uintptr_t)blocks[0]);
        snprintf(name, sizeof name, "usable size %zu", i);
        answer(name, malloc_usable_size(blocks[i]));
    }
    /* What was allocated before main counts too. */
    answer("first block from the start of the heap", (uintptr_t)blocks[0] - start);
    for (size_t i = 0; i < 64; i += 3) free(blocks[i]);
    for (size_t i = 0; i < 64; i += 3) {
        void *again = malloc(i * 50 + 1);
        snprintf(name, sizeof name, "reused %zu", i);
        answer(name, (uintptr_t)again - (uintptr_t)blocks[1]);
        void *moved = realloc(again, i * 90 + 7);
        snprintf(name, sizeof name, "moved %zu", i);
        answer(name, (uintptr_t)moved - (uintptr_t)blocks[1]);
    }
    struct mallinfo2 info = mallinfo2();
    answer("bytes in use", info.uordblks);
    answer("chunks free", info.ordblks);
    answer("mapped blocks", info.hblks);
    return 0;
}
