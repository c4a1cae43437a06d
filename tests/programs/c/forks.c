/* Forks without exec: the child frees what it inherited and makes blocks of its own; the parent frees its own copy. */
#include "say.h"
#include <sys/wait.h>

int main(void) {
    void *inherited[10];
    for (int i = 0; i < 10; i++) inherited[i] = malloc(10001 + 2 * (size_t)i);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 6; i++) free(inherited[i]);
        void *grown = realloc(inherited[6], 30001); /* of an inherited block */
        free(grown);
        void *mine = malloc(20001);
        free(mine);
        __asm__ volatile("" : : "r"(malloc(20003)) : "memory");
        exit(11);
    }
    int status;
    waitpid(child, &status, 0);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 11);
    for (int i = 0; i < 10; i++) free(inherited[i]);
    return 12;
}
