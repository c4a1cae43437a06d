// Blocks that are freed, and made, after main: by static and thread-local objects, and by a thread's key.
#include <cstdlib>
#include <pthread.h>
#include <thread>

struct Late {
    void *block;
    size_t later;
    Late(size_t now, size_t later_) : block(malloc(now)), later(later_) {}
    ~Late() { free(block); void *p = malloc(later); asm volatile("" : : "r"(p) : "memory"); free(p); }
};
static Late before_main(10007, 10009);
static void by_key(void *p) { free(p); free(malloc(10011)); }

int main() {
    static Late in_main(10037, 10039);
    pthread_key_t key;
    pthread_key_create(&key, by_key);
    std::thread([key] {
        thread_local Late in_thread(10061, 10063);
        asm volatile("" : : "r"(&in_thread) : "memory");
        pthread_setspecific(key, malloc(10067));
    }).join();
    thread_local Late of_main(10069, 10079);
    asm volatile("" : : "r"(&of_main) : "memory");
}
