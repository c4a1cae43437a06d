// Every form of operator new and delete, chosen by the first argument. "nothing" is the baseline.
#include "../c/say.h"
#include <fcntl.h>
#include <new>
#include <sys/resource.h>

static const char *chosen;
static bool is(const char *name) { return !strcmp(chosen, name); }
using std::align_val_t;
using std::nothrow;
constexpr align_val_t A{128};
static volatile size_t half = SIZE_MAX / 2;

static void *note(void *p, size_t n) { made(p, n); return p; }
static void gone(void *p) { ended(p, "free"); }
static bool is_aligned(void *p) { return (uintptr_t)p % 128 == 0; }

static void plain() {
    if (is("new")) { void *p = note(::operator new(10007), 10007); ::operator delete(p); gone(p); }
    if (is("new_array")) { void *p = note(::operator new[](10009), 10009); ::operator delete[](p); gone(p); }
    if (is("new_nothrow")) { void *p = note(::operator new(10037, nothrow), 10037); ::operator delete(p, nothrow); gone(p); }
    if (is("new_array_nothrow")) { void *p = note(::operator new[](10039, nothrow), 10039); ::operator delete[](p, nothrow); gone(p); }
    if (is("delete_sized")) { void *p = note(::operator new(10061), 10061); ::operator delete(p, (size_t)10061); gone(p); }
    if (is("delete_array_sized")) { void *p = note(::operator new[](10067), 10067); ::operator delete[](p, (size_t)10067); gone(p); }
    if (is("delete_null")) { ::operator delete(nullptr); ::operator delete[](nullptr); ::operator delete(nullptr, A); }
    if (is("new_zero")) { void *p = note(::operator new(0), 0); ::operator delete(p); gone(p); }
    if (is("new_expression")) { char *p = new char[10069]; made(p, 10069); delete[] p; gone(p); }
    if (is("new_then_free")) { void *p = note(::operator new(10079), 10079); free(p); gone(p); }
}

static void aligned() {
    if (is("new_aligned")) { void *p = note(::operator new(10112, A), 10112); must(is_aligned(p)); ::operator delete(p, A); gone(p); }
    if (is("new_array_aligned")) { void *p = note(::operator new[](10240, A), 10240); must(is_aligned(p)); ::operator delete[](p, A); gone(p); }
    if (is("new_aligned_odd")) { void *p = note(::operator new(10111, A), 10111); must(is_aligned(p)); ::operator delete(p, A); gone(p); }
    if (is("new_aligned_nothrow")) { void *p = note(::operator new(10368, A, nothrow), 10368); must(is_aligned(p)); ::operator delete(p, A, nothrow); gone(p); }
    if (is("new_array_aligned_nothrow")) { void *p = note(::operator new[](10496, A, nothrow), 10496); must(is_aligned(p)); ::operator delete[](p, A, nothrow); gone(p); }
    if (is("delete_sized_aligned")) { void *p = note(::operator new(10624, A), 10624); ::operator delete(p, (size_t)10624, A); gone(p); }
    if (is("delete_array_sized_aligned")) { void *p = note(::operator new[](10752, A), 10752); ::operator delete[](p, (size_t)10752, A); gone(p); }
}

static void *reserve;
static int handled;
static rlim_t limit_before;

static void give_reserve_back() {
    handled++;
    if (reserve) { ::operator delete(reserve); gone(reserve); reserve = nullptr; return; }
    std::set_new_handler(nullptr);
}
static void lift_the_limit() {
    handled++;
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit_before;
    setrlimit(RLIMIT_AS, &limit);
}
// Bytes of address space that the process has.
static rlim_t address_space() {
    char text[64] = {};
    int fd = ::open("/proc/self/statm", O_RDONLY);
    must(fd >= 0 && ::read(fd, text, sizeof text - 1) > 0);
    ::close(fd);
    return strtoul(text, nullptr, 10) * 4096;
}

static void failing() {
    // The baseline of those that throw, be it inside of the nothrow form: the exception is a block too.
    if (is("throws")) { try { throw std::bad_alloc(); } catch (const std::bad_alloc &) {} }
    if (is("bad_alloc")) {
        bool caught = false;
        try { void *p = ::operator new(half); answer("pointer", (uintptr_t)p); } catch (const std::bad_alloc &) { caught = true; }
        must(caught); failed_call();
    }
    if (is("nothrow_fails")) { void *p = ::operator new(half, nothrow); must(p == nullptr); failed_call(); }
    if (is("aligned_bad_alloc")) {
        bool caught = false;
        try { void *p = ::operator new(half, A); answer("pointer", (uintptr_t)p); } catch (const std::bad_alloc &) { caught = true; }
        must(caught); failed_call();
    }
    if (is("handler_gives_up")) {
        reserve = note(::operator new(30011), 30011);
        std::set_new_handler(give_reserve_back);
        void *p = ::operator new(half, nothrow); must(p == nullptr);
        must(handled == 2); must(reserve == nullptr);
        for (int tried = 0; tried <= handled; tried++) failed_call(); // it asks malloc again after each handler
    }
    if (is("handler_recovers")) {
        struct rlimit limit;
        getrlimit(RLIMIT_AS, &limit);
        limit_before = limit.rlim_cur;
        limit.rlim_cur = address_space() + (64 << 20);
        setrlimit(RLIMIT_AS, &limit);
        std::set_new_handler(lift_the_limit);
        void *p = ::operator new((size_t)300000007);
        must(handled == 1);
        failed_call(); // malloc's first answer
        note(p, 300000007);
        ::operator delete(p); gone(p);
    }
}

int main(int argc, char **argv) {
    chosen = argc > 1 ? argv[1] : "nothing";
    plain();
    aligned();
    failing();
    report();
}
