/* How much stack calls take, each made in a forked child on a painted stack that its parent looks at afterwards: prints a line
 * with the name and the bytes for each, or only for the one that the first argument names.
 *
 * With the second argument N, a child whose stack has no more than N bytes left makes that call: it is to end with 0.
 *
 *   first     the child's first call
 *   later     one that comes when others have been made
 *   deep      one from deep inside, whose frames have not been seen before
 *   thread    the first call of a new thread
 *   fill      100,000 calls: buffers fill
 *   load      a library is loaded, and unloaded
 *   exec      a program that is not there, then one that may not be run
 *   spawn     a program is started
 *   vfork     as before, in the child of a vfork
 *   shell     a program is started by `system`
 *   leave     the process gives up its user
 *   filter    a filter for system calls is installed
 *   exit      the end */
#include "say.h"
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

#define use(p) __asm__ volatile("" : : "r"(p) : "memory")
enum { ROOM = 512 << 10, PAINT = 0x5b };
static char *words[] = { "x", NULL }, *none[] = { NULL };

static void some(void) { for (int i = 0; i < 3; i++) { void *p = malloc(40); use(p); p = realloc(p, 5000); use(p); free(p); } }
__attribute__((noipa)) static void *down(int left) { void *p = left ? down(left - 1) : malloc(77); use(p); return p; }
static void nothing(void) {}
static void deep(void) { free(down(12)); }
static void *of_thread(void *unused) { some(); return unused; }
static char *painted;
static pthread_attr_t small;
static void thread(void) {
    pthread_t thread;
    must(!pthread_create(&thread, &small, of_thread, NULL) && !pthread_join(thread, NULL));
}
static void fill(void) { for (int i = 0; i < 100000; i++) { void *p = malloc(24); use(p); free(p); } }
static void load(void) {
    void *library = dlopen("libutil.so.1", RTLD_NOW);
    if (!library) library = dlopen("libm.so.6", RTLD_NOW);
    must(library != NULL);
    some();
    dlclose(library);
    some();
}
static void exec(void) { must(execve("/nowhere", words, none) < 0); must(execve("/etc/passwd", words, none) < 0); }
static void spawn(void) {
    pid_t child;
    int status;
    must(!posix_spawn(&child, "/bin/true", NULL, NULL, words, none));
    must(waitpid(child, &status, 0) == child && status == 0);
}
static void by_vfork(void) {
    int status;
    pid_t child = vfork();
    if (child == 0) { execve("/bin/true", words, none); _exit(9); }
    must(waitpid(child, &status, 0) == child && status == 0);
}
static void shell(void) { must(system(":") == 0); }
static void leave(void) { must(!setuid(65534)); some(); }
static void filter(void) {
    static struct sock_filter allow = { .code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW };
    static struct sock_fprog all = { .len = 1, .filter = &allow };
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all));
    some();
}
static void ends(void) { some(); exit(0); }

static const struct { const char *name; void (*before)(void), (*call)(void); } cases[] = {
    { "first", nothing, some }, { "later", some, some }, { "deep", some, deep }, { "fill", some, fill },
    { "load", some, load }, { "exec", some, exec }, { "spawn", some, spawn }, { "vfork", some, by_vfork },
    { "shell", some, shell }, { "leave", some, leave }, { "filter", some, filter }, { "exit", some, ends }, { "thread", some, thread },
};

static ucontext_t main_context, call_context;
static void (*the_call)(void);
/* What is not on this stack, a thread's, is painted by another. */
static void on_it(void) { the_call(); }

int main(int argc, char **argv) {
    painted = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(painted != MAP_FAILED);
    /* What is bound lazily is bound. */
    some();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name)) continue;
        size_t left = argc > 2 ? strtoul(argv[2], NULL, 10) : ROOM;
        int status, is_thread = cases[i].call == thread;
        memset(painted, PAINT, ROOM);
        pid_t child = fork();
        if (child == 0) {
            if (left < ROOM) must(!mprotect(painted, ROOM - (left + 4095) / 4096 * 4096, PROT_NONE));
            cases[i].before();
            the_call = cases[i].call;
            if (is_thread) {
                must(!pthread_attr_init(&small) && !pthread_attr_setstack(&small, painted, ROOM));
                the_call();
                _exit(0);
            }
            must(!getcontext(&call_context));
            call_context.uc_stack.ss_sp = painted;
            call_context.uc_stack.ss_size = left < ROOM ? ROOM - (4096 - left % 4096) % 4096 : ROOM;
            call_context.uc_link = &main_context;
            makecontext(&call_context, on_it, 0);
            must(!swapcontext(&main_context, &call_context));
            _exit(0);
        }
        must(child > 0 && waitpid(child, &status, 0) == child);
        if (status != 0) { say("%s failed: %x\n", cases[i].name, (unsigned)status); continue; }
        size_t low = 0;
        while (low < ROOM && painted[low] == PAINT) low++;
        say("%s %zu\n", cases[i].name, ROOM - low);
    }
    return 0;
}
