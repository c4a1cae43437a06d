/* The trap flag interrupts every single instruction of first calls through a lazily bound PLT, and of a constructor's
 * end; the handler allocates 10009 bytes. Linked with -Wl,-z,lazy. The malloc family is `bump.c`'s, preloaded. */
#include "say.h"
#include <math.h>
#include <signal.h>
#include <time.h>

static volatile long handled;
__attribute__((noipa)) static void in_handler(void) { free(malloc(10009)); __asm__ volatile("" ::: "memory"); handled++; }
static void handler(int s) { (void)s; in_handler(); __asm__ volatile("" ::: "memory"); }

__attribute__((constructor)) static void before_main(void) { free(malloc(10037)); __asm__ volatile("" ::: "memory"); }

/* Not inline: the tables must be right at every instruction. */
#define CHANGE_FLAGS(name, change) \
    void name(void); \
    __asm__(".text\n.type " #name ",@function\n" #name ":\n.cfi_startproc\npushf\n.cfi_adjust_cfa_offset 8\n" change \
            "\npopf\n.cfi_adjust_cfa_offset -8\nret\n.cfi_endproc\n.size " #name ",.-" #name "\n")
CHANGE_FLAGS(set_trap_flag, "orq $0x100, (%rsp)");
CHANGE_FLAGS(clear_trap_flag, "andq $~0x100, (%rsp)");

__attribute__((noipa)) static long first_calls(const char *text) {
    struct timespec t;
    set_trap_flag();
    long sum = atol(text) + labs(-3) + (long)strnlen(text, 9) + clock_getres(CLOCK_MONOTONIC, &t);
    clear_trap_flag();
    return sum;
}

int main(void) {
    struct sigaction a = { .sa_flags = 0 };
    a.sa_handler = handler;
    sigaction(SIGTRAP, &a, NULL);
    long sum = first_calls("12");
    __asm__ volatile("" ::: "memory");
    say("{\"sum\":%ld,\"handled\":%ld}\n", sum, handled);
    return 0;
}
