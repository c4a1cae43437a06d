/* Rounds of calls, 100,000 blocks that come and go in each, which is more than two times what there are buffers for:
 *
 *   drained THREADS ROUNDS      that many rounds in each thread
 *   drained THREADS quiet       rounds until one passes in which this process writes nothing to any file
 *   drained THREADS idle        some blocks, and then nothing until standard input ends
 *   drained THREADS child N     N rounds here and in a forked child at the same time
 *   drained THREADS outlives N  the child begins its rounds when this process has ended
 *
 * Says at the end how many blocks came, and the most threads that it saw. Its own reports allocate nothing. */
#include "say.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

enum { EACH = 100000 };
static atomic_long blocks;
static atomic_int tasks, quiet;
static long rounds;

static long number_behind(const char *path, const char *word) {
    char text[2048];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    must(n > 0);
    text[n] = 0;
    close(fd);
    char *at = strstr(text, word);
    must(at != NULL);
    return atol(at + strlen(word));
}
static long written(void) { return number_behind("/proc/self/io", "wchar:"); }
static void look_at_tasks(void) {
    int now = (int)number_behind("/proc/self/status", "Threads:");
    if (now > atomic_load(&tasks)) atomic_store(&tasks, now);
}
static void once(void) {
    for (int i = 0; i < EACH; i++) {
        char *p = malloc(64 + i % 512);
        must(p != NULL);
        *(volatile char *)p = 1;
        free(p);
    }
    atomic_fetch_add(&blocks, EACH);
    look_at_tasks();
}
static void *work(void *arg) {
    for (long i = 0; i < rounds; i++) once();
    return arg;
}
static void *work_until_quiet(void *arg) {
    time_t deadline = time(NULL) + 100;
    while (!atomic_load(&quiet) && time(NULL) < deadline) {
        long before = written();
        once();
        once();
        if (written() == before) atomic_store(&quiet, 1);
    }
    return arg;
}
static void in_threads(int count, void *(*body)(void *)) {
    pthread_t threads[16];
    must(count <= 16);
    for (int i = 1; i < count; i++) must(pthread_create(&threads[i], NULL, body, NULL) == 0);
    body(NULL);
    for (int i = 1; i < count; i++) pthread_join(threads[i], NULL);
}
static void tell(const char *who) {
    say("{\"%s\": {\"blocks\": %ld, \"tasks\": %d, \"quiet\": %d}}\n", who, atomic_load(&blocks), atomic_load(&tasks),
        atomic_load(&quiet));
}

int main(int argc, char **argv) {
    must(argc >= 3);
    int threads = atoi(argv[1]);
    if (!strcmp(argv[2], "quiet")) {
        in_threads(threads, work_until_quiet);
    } else if (!strcmp(argv[2], "idle")) {
        char byte;
        for (int i = 0; i < 10; i++) free(malloc(54321));
        say("{\"idle\": 1}\n");
        must(read(0, &byte, 1) == 0);
    } else if (argc == 4) {
        int outlives = !strcmp(argv[2], "outlives"), go[2];
        rounds = atol(argv[3]);
        must(pipe(go) == 0);
        pid_t child = fork();
        must(child >= 0);
        if (child == 0) {
            char byte;
            close(go[1]);
            if (outlives) once();
            if (outlives) must(read(go[0], &byte, 1) == 0); /* ends with the parent */
            in_threads(threads, work);
            tell("child");
            return 0;
        }
        close(go[0]);
        in_threads(threads, work);
        if (!outlives) must(waitpid(child, NULL, 0) == child);
    } else {
        rounds = atol(argv[2]);
        in_threads(threads, work);
    }
    tell("parent");
    return 0;
}
