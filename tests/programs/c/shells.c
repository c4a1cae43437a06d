/* Changes its environment while another thread is in `system` or `popen`, with what is preloaded taken out before.
 *
 * `added`: a variable comes. `removed`: one goes. `replaced`: one gets another value. Anything else: no change. Afterwards
 * all has to be as the program has made it, with nothing else in it.
 *
 * As the only argument, `busy N`: while N shells run, one after the other, another thread gives a variable new values all the time, and finds
 * each one there. (It begins after the first shell.) */
#include "say.h"
#include <pthread.h>
#include <unistd.h>

extern char **environ;
static const char *command = "read line </dev/null; sleep 0.3";

static void *in_system(void *unused) { must(system(command) == 0); return unused; }
static void *in_popen(void *unused) {
    FILE *out = popen(command, "r");
    must(out != NULL && pclose(out) == 0);
    return unused;
}

/* Other frames over those that the thread had. */
static void *and_overwrite(void *run) {
    ((void *(*)(void *))run)(NULL);
    volatile char frame[60000];
    memset((char *)frame, 'Z', sizeof frame);
    return (void *)(size_t)(frame[100] == 'Y');
}

static void is(const char *name, const char *value) {
    const char *found = getenv(name);
    must(value ? found != NULL && !strcmp(found, value) : found == NULL);
}

static void change(const char *how) {
    if (!strcmp(how, "added")) must(setenv("ADDED", "1", 1) == 0);
    if (!strcmp(how, "removed")) must(unsetenv("REMOVED") == 0);
    if (!strcmp(how, "replaced")) must(setenv("REPLACED", "new", 1) == 0);
}

static void once(const char *how) {
    clearenv();
    setenv("PATH", "/bin:/usr/bin", 1);
    setenv("REMOVED", "old", 1);
    setenv("REPLACED", "old", 1);
    pthread_t threads[2];
    must(pthread_create(&threads[0], NULL, and_overwrite, (void *)in_system) == 0);
    must(pthread_create(&threads[1], NULL, and_overwrite, (void *)in_popen) == 0);
    usleep(150000);
    change(how);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    int count = 0;
    for (char **entry = environ; *entry; entry++) { must(strchr(*entry, '=') != NULL); count++; }
    must(count == 3 + !strcmp(how, "added") - !strcmp(how, "removed"));
    is("ADDED", strcmp(how, "added") ? NULL : "1");
    is("REMOVED", strcmp(how, "removed") ? "old" : NULL);
    is("REPLACED", strcmp(how, "replaced") ? "old" : "new");
    is("LD_PRELOAD", NULL);
    must(system("exit 0") == 0);
    char **before = environ;
    must(system("exit 0") == 0 && environ == before);
}

static volatile int go, stop;
static void *busy(void *unused) {
    char value[16];
    while (!go) usleep(1000);
    for (unsigned n = 0; !stop; n++) {
        snprintf(value, sizeof value, "%u", n);
        must(setenv("REPLACED", value, 1) == 0);
        is("REPLACED", value);
        is("KEPT", "kept");
        /* No call that makes another array, which a shell could be started with at that moment. */
        static char put[2][8] = { "PUT=1", "PUT=2" };
        must(putenv(put[n % 2]) == 0);
        is("PUT", put[n % 2] + 4);
    }
    return unused;
}
static void while_busy(int count) {
    pthread_t thread;
    clearenv();
    setenv("PATH", "/bin:/usr/bin", 1);
    setenv("REPLACED", "old", 1);
    setenv("KEPT", "kept", 1);
    setenv("PUT", "0", 1);
    must(pthread_create(&thread, NULL, busy, NULL) == 0);
    for (int i = 0; i < count; i++) { must(system("exit 3") == 3 << 8); go = 1; }
    stop = 1;
    pthread_join(thread, NULL);
    is("LD_PRELOAD", NULL);
}

int main(int argc, char **argv) {
    must(argc > 1);
    if (argc == 3 && !strcmp(argv[1], "busy")) { while_busy(atoi(argv[2])); say_line("done\n", 5); return 0; }
    for (int i = 1; i < argc; i++) once(argv[i]);
    say_line("done\n", 5);
    return 0;
}
