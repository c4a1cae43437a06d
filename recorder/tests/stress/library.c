// Two libraries are made of this, of the same size, but with frames of different sizes: when one is unloaded and the
// other lands on its addresses, rules of the first would lead through the second's frames to nowhere.
#include <stddef.h>

#define EVEN __attribute__((noinline, section(".text.same")))

EVEN size_t library_inner(size_t (*then)(void *), void *argument) {
    volatile char frame[FRAME];
    frame[0] = 1;
    frame[FRAME - 1] = 2;
    return then(argument) + (size_t)frame[0];
}

EVEN size_t library_call(size_t (*then)(void *), void *argument) {
    volatile char frame[2 * FRAME];
    frame[0] = 3;
    frame[2 * FRAME - 1] = 4;
    return library_inner(then, argument) + (size_t)frame[0];
}
