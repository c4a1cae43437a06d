// Asks operator new for more than there is. The handler gives back what was kept for that, takes other memory, and at the second
// call gives up.
#include <cstdlib>
#include <new>

static void *kept, *taken;

static void helps() {
    if (!kept) { std::set_new_handler(nullptr); return; }
    free(kept);
    kept = nullptr;
    taken = malloc(10009);
}

template <typename Call> static int throws(Call call) {
    try { call(); } catch (const std::bad_alloc &) { return 1; }
    return 0;
}

int main() {
    volatile size_t most = (size_t)1 << 60;
    kept = malloc(10007);
    std::set_new_handler(helps);
    int n = throws([&] { ::operator delete(::operator new(most)); });
    n += throws([&] { ::operator delete[](::operator new[](most)); });
    n += throws([&] { ::operator delete(::operator new(most, std::align_val_t(64)), std::align_val_t(64)); });
    free(taken);
    ::operator delete(::operator new(10037));
    return n == 3 ? 0 : 1;
}
