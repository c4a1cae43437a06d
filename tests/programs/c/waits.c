/* Allocates, says so, and waits for the end of standard input. */
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    char c;
    void *kept = malloc(10007);
    for (int i = 0; i < 20000; i++) free(malloc(40));
    if (!kept || write(1, "x", 1) != 1) return 1;
    while (read(0, &c, 1) > 0) { }
    return 0;
}
