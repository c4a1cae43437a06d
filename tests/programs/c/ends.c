/* Ends in the way that the first argument names, with one block of 10007 bytes live, one of 10009 freed in an
 * `atexit` handler (where those run), and 120,001 events before, so that buffers are on their way. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *late;
static void at_exit(void) { free(late); free(malloc(10037)); }

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "return";
    void *kept = malloc(10007);
    late = malloc(10009);
    __asm__ volatile("" : : "r"(kept) : "memory");
    for (int i = 0; i < 60000; i++) { void *p = malloc(40); __asm__ volatile("" : : "r"(p) : "memory"); free(p); }
    atexit(at_exit);
    at_quick_exit(at_exit);
    if (!strcmp(how, "return")) return 3;
    if (!strcmp(how, "exit")) exit(4);
    if (!strcmp(how, "_exit")) _exit(5);
    if (!strcmp(how, "_Exit")) _Exit(6);
    if (!strcmp(how, "quick_exit")) quick_exit(7);
    if (!strcmp(how, "exit_group")) syscall(SYS_exit_group, 8);
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "kill")) raise(SIGKILL);
    if (!strcmp(how, "fault")) { static int *volatile nowhere = (int *)8; *nowhere = 1; }
    if (!strcmp(how, "exec")) execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
    return 99;
}
