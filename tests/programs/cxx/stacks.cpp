// Stacks with C++ names: namespaces, templates, members, lambdas, an exception that unwinds.
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#define FAR __attribute__((noipa))
static void keep(void *p) { asm volatile("" : : "r"(p) : "memory"); }

namespace shop {
struct Basket {
    FAR void fill(size_t n) { keep(::operator new(n)); asm volatile("" ::: "memory"); }
};
template <typename T> FAR void sell(T &thing, size_t n) { thing.fill(n); asm volatile("" ::: "memory"); }
} // namespace shop

FAR static void throws(size_t n) {
    std::vector<char> held(n);
    keep(held.data());
    if (n > 5) throw std::runtime_error("a message that is too long for the small string buffer");
}
FAR static void catches() {
    try { throws(10009); } catch (const std::exception &) { keep(malloc(10037)); }
    asm volatile("" ::: "memory");
}
FAR static void vectors() {
    std::vector<std::string> words;
    words.reserve(419); // 419 * 32 bytes
    keep(words.data());
    asm volatile("" ::: "memory");
}

int main() {
    shop::Basket basket;
    shop::sell(basket, 10007);
    catches();
    vectors();
    auto lambda = [](size_t n) FAR { keep(malloc(n)); asm volatile("" ::: "memory"); };
    lambda(10039);
}
