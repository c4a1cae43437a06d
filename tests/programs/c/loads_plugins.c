/* loads_plugins ONE TWO: loads, calls and unloads the two libraries in turn. Sizes: 20001 + 4 * round for the first,
 * 20003 + 4 * round for the second. Prints where each was loaded. */
#include "say.h"
#include <dlfcn.h>
#include <link.h>

__attribute__((noipa)) static unsigned long load_and_call(const char *path, size_t size) {
    struct link_map *map = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!map) { say("{\"failed\":\"dlopen\"}\n"); _exit(1); }
    void *(*entry)(size_t) = (void *(*)(size_t))dlsym(map, "entry");
    unsigned long base = map->l_addr;
    free(entry(size));
    dlclose(map);
    return base;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    for (size_t round = 0; round < 20; round++) {
        unsigned long one = load_and_call(argv[1], 20001 + 4 * round);
        unsigned long two = load_and_call(argv[2], 20003 + 4 * round);
        say("{\"round\":{\"one\":%lu,\"two\":%lu}}\n", one, two);
    }
    return 0;
}
