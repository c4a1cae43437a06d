// Allocates from every kind of frame that unwinding may meet, nested in random order: run it with a checking build of
// libmemscope.so preloaded, which compares every stack.
//
//     stress ALLOCATIONS THREADS LIBRARY_A LIBRARY_B
#include <alloca.h>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <pthread.h>
#include <stdexcept>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

struct Random {
    uint64_t state;
    uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state >> 33);
    }
    uint32_t below(uint32_t n) { return next() % n; }
};

struct Task {
    Random random;
    long left;
    long made;
    bool libraries;
    int depth;
    // For signal handlers: what to go on with.
    bool in_handler;
};

static thread_local Task *current;
static const char *library_paths[2];

static size_t go(Task *task, int depth);

// Keeps calls from becoming jumps, and values from being known.
template <class T> static NOINLINE T opaque(T value) {
    asm volatile("" : "+r"(value) : : "memory");
    return value;
}

static NOINLINE size_t allocate(Task *task) {
    size_t size = 1 + task->random.below(200);
    void *block;
    switch (task->random.below(5)) {
    case 0: block = calloc(1, size); break;
    case 1: block = realloc(malloc(8), size); task->made++; break;
    case 2: block = operator new(size); break;
    default: block = malloc(size);
    }
    task->made++;
    task->left--;
    size_t sum = reinterpret_cast<uintptr_t>(block) >> 60;
    free(block);
    return sum;
}

static NOINLINE size_t plain(Task *task, int depth) { return go(task, depth) + 1; }

static NOINLINE size_t many_registers(Task *task, int depth) {
    size_t a = opaque(1), b = opaque(2), c = opaque(3), d = opaque(4), e = opaque(5), f = opaque(6);
    size_t result = go(task, depth);
    return result + a * b + c * d + e * f + opaque(a) + opaque(b) + opaque(c) + opaque(d) + opaque(e);
}

static NOINLINE size_t variable(Task *task, int depth) {
    size_t bytes = 16 + task->random.below(3000);
    char *memory = static_cast<char *>(alloca(bytes));
    memset(memory, 1, bytes);
    size_t result = go(task, depth);
    return result + static_cast<size_t>(opaque(memory)[bytes - 1]);
}

template <int ALIGN> static NOINLINE size_t aligned(Task *task, int depth) {
    alignas(ALIGN) volatile char memory[ALIGN * 2];
    memory[0] = 1;
    if (reinterpret_cast<uintptr_t>(memory) % ALIGN != 0) abort();
    size_t result = go(task, depth);
    return result + static_cast<size_t>(memory[0]);
}

static NOINLINE size_t aligned_variable(Task *task, int depth) {
    alignas(64) volatile char fixed[64];
    size_t bytes = 16 + task->random.below(500);
    char *memory = static_cast<char *>(alloca(bytes));
    fixed[1] = memory[0] = 1;
    size_t result = go(task, depth);
    return result + static_cast<size_t>(fixed[1]) + static_cast<size_t>(opaque(memory)[0]);
}

static NOINLINE size_t large(Task *task, int depth) {
    volatile char memory[70000];
    memory[task->random.below(70000)] = 1;
    size_t result = go(task, depth);
    return result + static_cast<size_t>(memory[5]);
}

static NOINLINE size_t larger(Task *task, int depth) {
    volatile char memory[300000];
    memory[task->random.below(300000)] = 1;
    size_t result = go(task, depth);
    return result + static_cast<size_t>(memory[5]);
}

// A sibling call at -O2: this frame is gone when `plain` runs.
static NOINLINE size_t sibling(Task *task, int depth) { return plain(task, depth); }

struct Callback {
    Task *task;
    int depth;
    size_t result;
};

static thread_local Callback *sorting;

static int compare(const void *a, const void *b) {
    if (sorting != nullptr) {
        Callback *callback = sorting;
        sorting = nullptr;
        callback->result = go(callback->task, callback->depth);
    }
    return *static_cast<const int *>(a) - *static_cast<const int *>(b);
}

static NOINLINE size_t callback(Task *task, int depth) {
    int numbers[] = {3, 1, 2};
    Callback callback{task, depth, 0};
    sorting = &callback;
    qsort(numbers, 3, sizeof numbers[0], compare);
    return callback.result;
}

struct Guard {
    Task *task;
    ~Guard() { allocate(task); }
};

static NOINLINE void thrower(Task *task, int depth) {
    Guard guard{task};
    if (depth <= 0 || task->random.below(3) == 0) throw std::runtime_error("thrown");
    thrower(task, depth - 1);
    opaque(depth);
}

static NOINLINE size_t exception(Task *task, int depth) {
    size_t result = 0;
    try {
        thrower(task, static_cast<int>(task->random.below(8)));
    } catch (const std::exception &) {
        result = go(task, depth);
    }
    return result + 1;
}

// It ends by a jump.
static NOINLINE void jumper(Task *task, jmp_buf *where, int depth) {
    allocate(task);
    if (opaque(depth) <= 0) longjmp(*where, 1);
    jumper(task, where, depth - 1);
    opaque(depth);
}

static NOINLINE size_t jump(Task *task, int depth) {
    jmp_buf where;
    if (setjmp(where) == 0) jumper(task, &where, static_cast<int>(task->random.below(8)));
    return go(task, depth) + 1;
}

// The kernel interrupts at exactly the trapping instruction, in the middle of whatever the compiler made of this.
#define TRAP() asm volatile("ud2" : : : "memory")

static void trapped(int, siginfo_t *, void *context) {
    static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP] += 2;
    Task *task = current;
    bool before = task->in_handler;
    task->in_handler = true;
    if (before) {
        allocate(task);
    } else {
        go(task, static_cast<int>(task->random.below(6)));
    }
    task->in_handler = before;
}

static void raised(int) {
    Task *task = current;
    bool before = task->in_handler;
    task->in_handler = true;
    go(task, before ? 1 : static_cast<int>(task->random.below(6)));
    task->in_handler = before;
}

static NOINLINE size_t trap_leaf(size_t a) {
    TRAP();
    return a + 1;
}

static NOINLINE size_t trap_variable(Task *task) {
    size_t bytes = 16 + task->random.below(300);
    char *memory = static_cast<char *>(alloca(bytes));
    memory[0] = 1;
    TRAP();
    return static_cast<size_t>(opaque(memory)[0]);
}

static NOINLINE size_t signals(Task *task, int depth) {
    if (!task->in_handler) {
        switch (task->random.below(4)) {
        case 0: raise(SIGUSR1); break;
        case 1: raise(SIGUSR2); break;
        case 2: trap_leaf(opaque(task->random.next())); break;
        default: trap_variable(task);
        }
    }
    return go(task, depth) + 1;
}

// The same innermost frames at the same addresses, more than are remembered at once, below different outer ones.
static NOINLINE size_t chain(Task *task, int length) {
    if (length == 0) return allocate(task);
    return chain(task, length - 1) + opaque(1);
}

static NOINLINE size_t twin(Task *task, uint32_t bits, int levels, int length) {
    if (levels == 0) return chain(task, length) + 1;
    if (bits & 1) return twin(task, bits >> 1, levels - 1, length) + opaque(2);
    return twin(task, bits >> 1, levels - 1, length) * opaque(3);
}

static NOINLINE size_t twins(Task *task, int) {
    size_t result = 0;
    int length = static_cast<int>(task->random.below(20));
    for (int i = 0; i < 12; i++) result += twin(task, task->random.below(8), 3, length);
    return result;
}

// The same pc and rsp, but a frame pointer that differs: what lies where the other frame's return address was is still
// that return address, as nobody has written there since.
static NOINLINE void *shifted_leaf() { return opaque(malloc(40)); }

static NOINLINE size_t shifted_inner(Task *task, size_t bytes) {
    opaque(alloca(bytes));
    void *blocks[] = {malloc(40), shifted_leaf()};
    task->made += 2;
    task->left -= 2;
    size_t sum = reinterpret_cast<uintptr_t>(blocks[0]) >> 60;
    free(blocks[0]);
    free(blocks[1]);
    return sum + 1;
}

static NOINLINE size_t shifted_first(Task *task, size_t bytes) {
    opaque(alloca(bytes));
    return shifted_inner(task, 1024 - bytes) + opaque(1);
}

static NOINLINE size_t shifted_second(Task *task, size_t bytes) {
    opaque(alloca(bytes));
    return shifted_inner(task, 1024 - bytes) + opaque(2);
}

static NOINLINE size_t shifted(Task *task, int) {
    size_t result = 0;
    for (int i = 0; i < 12; i++) {
        size_t bytes = 64 + 64 * task->random.below(4);
        auto outer = task->random.below(2) ? shifted_first : shifted_second;
        result += opaque(outer)(task, bytes);
    }
    return result;
}

// A few random trees of calls, again and again.
static NOINLINE size_t repeated(Task *task, int depth) {
    uint64_t pool[4] = {task->random.next(), task->random.next(), task->random.next(), task->random.next()};
    uint64_t before = task->random.state;
    size_t result = 0;
    for (int i = 0; i < 16 && task->left > 0; i++) {
        task->random.state = before + static_cast<uint64_t>(i);
        task->random.state = pool[task->random.below(4)];
        result += go(task, depth < 4 ? depth : 4);
    }
    task->random.state = before + 99;
    return result;
}

struct Coroutine {
    ucontext_t here, there;
    Task *task;
    int depth;
    size_t result;
    bool done;
};

static void coroutine_main(unsigned low, unsigned high) {
    auto *coroutine = reinterpret_cast<Coroutine *>(static_cast<uintptr_t>(low) | static_cast<uintptr_t>(high) << 32);
    allocate(coroutine->task);
    swapcontext(&coroutine->there, &coroutine->here);
    coroutine->result = go(coroutine->task, coroutine->depth);
    coroutine->done = true;
    swapcontext(&coroutine->there, &coroutine->here);
}

// A coroutine's stack lies in memory of its own, which is unmapped afterwards: the next one gets the same addresses.
static NOINLINE size_t coroutine(Task *task, int depth) {
    size_t bytes = (4096 + 4 * task->random.below(3)) << 12;
    void *stack = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) abort();
    Coroutine coroutine{};
    coroutine.task = task;
    coroutine.depth = depth < 3 ? depth : 3;
    getcontext(&coroutine.there);
    coroutine.there.uc_stack.ss_sp = stack;
    coroutine.there.uc_stack.ss_size = bytes;
    auto address = reinterpret_cast<uintptr_t>(&coroutine);
    makecontext(&coroutine.there, reinterpret_cast<void (*)()>(coroutine_main), 2, static_cast<unsigned>(address),
                static_cast<unsigned>(address >> 32));
    while (!coroutine.done) {
        swapcontext(&coroutine.here, &coroutine.there);
        allocate(task);
    }
    munmap(stack, bytes);
    return coroutine.result;
}

// Without unwind tables: goes on on the stack that ends at `top`, with any rbp.
extern "C" size_t go_adrift(void *top, void *rbp, Task *task, int depth, size_t (*then)(Task *, int));
asm(".text\n"
    "go_adrift:\n"
    "    push %rbp\n"
    "    push %rbx\n"
    "    push %r12\n"
    "    mov %rsp, %rbx\n"
    "    mov %rdi, %rsp\n"
    "    mov %rsi, %rbp\n"
    "    mov %rdx, %rdi\n"
    "    mov %ecx, %esi\n"
    "    call *%r8\n"
    "    mov %rbx, %rsp\n"
    "    pop %r12\n"
    "    pop %rbx\n"
    "    pop %rbp\n"
    "    ret\n");

extern "C" void _start();

// Where rbp leads lies right above the stack, is there now and gone then. Or rbp leads to an older part of this stack.
static NOINLINE size_t adrift(Task *task, int depth) {
    if (task->random.below(4) != 0) return go(task, depth) + 1;
    size_t bytes = (4096 + 4 * task->random.below(3)) << 12, above = 4096 << task->random.below(3);
    auto *stack = static_cast<char *>(
        mmap(nullptr, bytes + above, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack == MAP_FAILED) abort();
    auto **words = reinterpret_cast<void **>(stack + bytes + 256);
    words[0] = stack + bytes + 512;
    words[1] = reinterpret_cast<char *>(reinterpret_cast<uintptr_t>(_start)) + 10;
    depth = depth < 2 ? depth : 2;
    void *here[] = {nullptr, words[1], nullptr};
    opaque(here);
    size_t result = 0;
    for (int round = 0; round < 4; round++) {
        result += go_adrift(stack + bytes - 64, words, task, round & 1 ? depth : 0, go);
        if (round == 1) munmap(stack + bytes, above);
    }
    result += go_adrift(stack + bytes - 64, here, task, 0, go);
    munmap(stack, bytes);
    return result;
}

static size_t from_library(void *argument) {
    auto *callback = static_cast<Callback *>(argument);
    return go(callback->task, callback->depth);
}

static NOINLINE size_t library(Task *task, int depth) {
    if (!task->libraries || task->in_handler || task->random.below(50) != 0) return go(task, depth) + 1;
    void *handle = dlopen(library_paths[task->random.below(2)], RTLD_NOW);
    if (handle == nullptr) abort();
    auto call = reinterpret_cast<size_t (*)(size_t (*)(void *), void *)>(dlsym(handle, "library_call"));
    Callback callback{task, depth < 4 ? depth : 4, 0};
    // No library inside of a library: the inner one would not be unloaded.
    task->libraries = false;
    size_t result = call(from_library, &callback);
    result += call(from_library, &callback);
    task->libraries = true;
    dlclose(handle);
    return result;
}

static size_t go(Task *task, int depth) {
    static size_t (*const kinds[])(Task *, int) = {
        plain,   many_registers, variable, aligned<32>, aligned<64>,    aligned<256>, aligned_variable, large,     sibling,
        callback, exception,     jump,     signals,     coroutine,      library,      plain,            many_registers, larger,
        twins,   shifted,        repeated, adrift,
    };
    if (depth <= 0 || task->left <= 0) {
        size_t sum = 0;
        for (uint32_t i = task->random.below(6) + 1; i > 0; i--) sum += allocate(task);
        return sum;
    }
    size_t result = 0;
    for (uint32_t i = task->random.below(3) + 1; i > 0; i--) {
        result += kinds[task->random.below(sizeof kinds / sizeof *kinds)](task, depth - 1);
        if (task->random.below(4) == 0) result += allocate(task);
    }
    return result;
}

static void *run(void *argument) {
    auto *task = static_cast<Task *>(argument);
    current = task;
    size_t bytes = 16 << 20;
    stack_t alternate{};
    alternate.ss_sp = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    alternate.ss_size = bytes;
    sigaltstack(&alternate, nullptr);
    while (task->left > 0) go(task, static_cast<int>(task->random.below(12)));
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, nullptr);
    munmap(alternate.ss_sp, bytes);
    return nullptr;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    long allocations = atol(arguments[1]);
    int threads = atoi(arguments[2]);
    library_paths[0] = arguments[3];
    library_paths[1] = arguments[4];
    struct sigaction action{};
    action.sa_handler = raised;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &action, nullptr);
    action.sa_flags = SA_NODEFER | SA_ONSTACK;
    sigaction(SIGUSR2, &action, nullptr);
    action.sa_sigaction = trapped;
    action.sa_flags = SA_NODEFER | SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 20);
    auto *tasks = new Task[threads]();
    auto *ids = new pthread_t[threads];
    for (int i = 0; i < threads; i++) {
        tasks[i].random.state = 1000 + static_cast<uint64_t>(i);
        tasks[i].left = allocations / threads;
        tasks[i].libraries = i == 0;
        pthread_create(&ids[i], &attributes, run, &tasks[i]);
    }
    long made = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], nullptr);
        made += tasks[i].made;
    }
    delete[] tasks;
    delete[] ids;
    printf("%ld allocations from every kind of frame\n", made);
}
