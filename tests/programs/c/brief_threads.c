/* brief_threads COUNT: threads that live briefly, eight at a time; each makes seven blocks, frees five of them and
 * leaves two to the main thread, which frees one. Prints the sums, and the resident set on the way. */
#include "say.h"
#include <fcntl.h>
#include <pthread.h>

enum { AT_A_TIME = 8, MADE = 7, FREED = 5 };
struct left { void *block[MADE - FREED]; };
static struct left left[AT_A_TIME];

static void *brief(void *argument) {
    struct left *mine = argument;
    void *block[MADE];
    for (int i = 0; i < MADE; i++) block[i] = malloc(40 + 2 * (size_t)i + 1);
    for (int i = 0; i < FREED; i++) free(block[i]);
    for (int i = FREED; i < MADE; i++) mine->block[i - FREED] = block[i];
    return NULL;
}
static long resident(void) {
    char text[128] = { 0 };
    int fd = open("/proc/self/statm", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) _exit(98);
    close(fd);
    return strtol(strchr(text, ' '), NULL, 10) * 4096;
}

int main(int argc, char **argv) {
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    for (long done = 0; done < count; done += AT_A_TIME) {
        pthread_t thread[AT_A_TIME];
        for (int i = 0; i < AT_A_TIME; i++) pthread_create(&thread[i], NULL, brief, &left[i]);
        for (int i = 0; i < AT_A_TIME; i++) pthread_join(thread[i], NULL);
        for (int i = 0; i < AT_A_TIME; i++) free(left[i].block[0]);
        said_allocs += AT_A_TIME * MADE;
        said_frees += AT_A_TIME * (FREED + 1);
        for (int i = 0; i < MADE; i++) said_bytes += AT_A_TIME * (40 + 2 * (unsigned long)i + 1);
        for (int i = 0; i <= FREED; i++) said_freed += AT_A_TIME * (40 + 2 * (unsigned long)i + 1);
        if (done + AT_A_TIME == 1000 || done + AT_A_TIME == count)
            say("{\"resident\":{\"threads\":%ld,\"bytes\":%ld}}\n", done + AT_A_TIME, resident());
    }
    report();
    return 0;
}
