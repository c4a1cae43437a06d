/* Allocates, says so, and waits for the end of standard input, or until the file is there that the first argument names. Then
 * it allocates once more. */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char c;
    void *kept = malloc(10007), *late;
    for (int i = 0; i < 20000; i++) free(malloc(40));
    if (!kept || write(1, "x", 1) != 1) return 1;
    if (argc > 1) while (access(argv[1], F_OK) != 0) usleep(2000);
    else while (read(0, &c, 1) > 0) { }
    late = malloc(10009);
    return late ? 0 : 1;
}
