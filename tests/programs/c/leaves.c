/* Says how many descriptors it has, then takes the place where it is recorded out of its own reach, as the first argument says (the second
 * one is a folder), before it has done much. After that it works: a block of 10007 bytes that it keeps, and 20,000 of 40. With a
 * third argument it kills itself then. */
#include "say.h"
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int others(void) {
    int count = 0;
    for (int fd = 3; fd < 4096; fd++) count += fcntl(fd, F_GETFD) != -1;
    return count;
}

int main(int argc, char **argv) {
    struct rlimit none = { 0, 0 };
    must(argc == 3 || argc == 4);
    const char *how = argv[1], *where = argv[2];
    say("%d others\n", others());
    if (!strcmp(how, "chroot")) must(!chroot(where));
    else if (!strcmp(how, "syscall_chroot")) must(!syscall(SYS_chroot, where));
    else if (!strcmp(how, "setuid")) must(!setuid(65534));
    else if (!strcmp(how, "seteuid")) must(!seteuid(65534));
    else if (!strcmp(how, "syscall_setresuid")) must(!syscall(SYS_setresuid, 65534, 65534, 65534));
    else if (!strcmp(how, "setrlimit")) must(!setrlimit(RLIMIT_NOFILE, &none));
    else if (!strcmp(how, "prlimit")) must(!prlimit(0, RLIMIT_NOFILE, &none, NULL));
    else if (!strcmp(how, "unshare")) must(!unshare(CLONE_NEWNS | CLONE_NEWUSER));
    else must(!strcmp(how, "nothing"));
    void *kept = malloc(10007);
    must(kept != NULL);
    for (int i = 0; i < 20000; i++) free(malloc(40));
    if (argc == 4) kill(getpid(), SIGKILL);
    return 7;
}
