// fibers.cpp: the blocks of a launch as fibers of one thread, in an order chosen to do harm.
//
// The ready fiber of highest rank runs until it waits. Ranks by seed:
//   0  in order, one block after another                1  everything reversed, blocks interleaved
//   2  lanes reversed within warps, the warps of several blocks in turn      3  whole warps at random over several blocks
//   4  and above: every fiber at random; at an atomic it may be ranked anew
// A wait that can never end is reported: a barrier that some threads do not reach, two different barriers, part of a warp.
//
// Under ThreadSanitizer each CUDA thread is a fiber of its own to it. Changing over orders nothing, nor do warp exchanges;
// __syncthreads and __syncwarp order what they order on a GPU; the start and the end of a launch order all, and blocks that follow each other in one place
// are ordered, those in different places not. Two words a barrier, used in turn, since a fast
// fiber may be at the next barrier before a slow one has left this. This file itself is built without -fsanitize.
#include "jg_host.h"
#if defined(JG_FIBERS)
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#if !defined(__x86_64__)
#  include <ucontext.h>
#endif

extern "C" {                                             // there only when libtsan is
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
}

#if defined(__x86_64__)
// jg_switch(save, load): keep this stack pointer at *save, go on from the stack at load.
extern "C" void jg_switch(void** save, void* load);
asm(R"(
.text
.hidden jg_switch
.globl jg_switch
.type jg_switch,@function
jg_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size jg_switch,.-jg_switch
)");
#endif

namespace jg { namespace host {
dim3 grid_dim, block_idx, thread_idx, block_dim;

namespace {
constexpr size_t STACK = 256 << 10, ARENA = 256 << 10;
constexpr unsigned MAX_SHARED = 64;
constexpr unsigned TSAN_NO_SYNC = 1, RESIDENT[6] = {1, 4, 3, 4, 2, 8};   // blocks at a time, by seed % 6

struct Context {                                         // where a fiber, or the scheduler, stopped
#if defined(__x86_64__)
    void* sp = nullptr;
    void prepare(char* stack, void (*entry)()) {
        void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + STACK) & ~uintptr_t(15));
        *--top = nullptr;                                // at entry rsp % 16 must be 8
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; ++i) *--top = nullptr;
        sp = top;
    }
    static void change(Context& from, Context& to) { jg_switch(&from.sp, to.sp); }
#else
    ucontext_t where;
    void prepare(char* stack, void (*entry)()) {
        getcontext(&where);
        where.uc_stack.ss_sp = stack;
        where.uc_stack.ss_size = STACK;
        where.uc_link = nullptr;
        makecontext(&where, entry, 0);
    }
    static void change(Context& from, Context& to) { swapcontext(&from.where, &to.where); }
#endif
};

enum class At { ready, barrier, warp, done };
struct Place;
struct Fiber {
    Context context;
    Place* place = nullptr;
    unsigned thread = 0, rank = 0;
    At at = At::ready;
    int line = 0;
    uint64_t slot[2] = {};
    unsigned barriers = 0, warp_barriers = 0, exchanges = 0;   // so far; the lowest bit picks the sync word or the slot
    void* tsan = nullptr;
    char* stack = nullptr;
};
struct Place {                                           // where one block at a time is resident, as on an SM
    unsigned block = 0, threads = 0, alive = 0, waiting = 0;
    std::vector<Fiber> fibers;                           // `threads` of them are in use
    char* arena = nullptr;                               // the block's shared memory, as far as it is given out
    size_t given = 0;
    struct { int id; char* at; } shared[MAX_SHARED];     // the variables this block has asked for, by JG_SHARED's number
    unsigned n_shared = 0;
    char barrier_word[2], warp_word[32][2], block_word;  // what ThreadSanitizer orders by
};

struct Machine {
    std::mutex launch;                                   // one launch at a time
    Context scheduler;
    Fiber* now = nullptr;
    void* tsan = nullptr;
    char start_word, end_word;
    bool shuffle = false;
    uint64_t random_state = 1;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    std::vector<Fiber*> ready;                           // a heap by rank
    std::vector<std::unique_ptr<Place>> places;
    std::string wrong;

    unsigned random(unsigned n) {
        random_state ^= random_state << 13; random_state ^= random_state >> 7; random_state ^= random_state << 17;
        return unsigned((random_state >> 33) % n);
    }
    static bool lower(const Fiber* a, const Fiber* b) { return a->rank < b->rank; }
    void add(Fiber& f) {
        f.at = At::ready;
        ready.push_back(&f);
        std::push_heap(ready.begin(), ready.end(), lower);
    }
    Fiber& take() {
        std::pop_heap(ready.begin(), ready.end(), lower);
        Fiber& f = *ready.back();
        ready.pop_back();
        return f;
    }
};
Machine& machine() { static Machine& m = *new Machine; return m; }

void wait(At at, int line) {                             // leaves the running fiber until the scheduler picks it again
    Machine& m = machine();
    Fiber& f = *m.now;
    f.at = at;
    f.line = line;
    if (m.tsan) __tsan_switch_to_fiber(m.tsan, TSAN_NO_SYNC);
    Context::change(f.context, m.scheduler);
}

void fiber_main() {
    Machine& m = machine();
    Fiber& f = *m.now;
    if (m.tsan) { __tsan_acquire(&m.start_word); __tsan_acquire(&f.place->block_word); }
    m.body(m.argument);
    if (m.tsan) { __tsan_release(&f.place->block_word); __tsan_release(&m.end_word); }
    wait(At::done, 0);
    __builtin_trap();
}

unsigned rank_of(unsigned seed, unsigned block, unsigned resident, unsigned thread, unsigned threads, unsigned random) {
    const unsigned warp = thread / 32, lane = thread % 32;
    switch (seed) {
        case 0: return threads - thread;
        case 1: return block * threads + thread;
        case 2: return (((threads / 32 - warp) * resident) + block) * 32 + lane;
        case 3: return ((((warp + 1) * 0x9E3779B1u) ^ ((block + 1) * 0x85EBCA6Bu)) * 0xC2B2AE35u >> 12) / 32 * 32 + 31 - lane;
        default: return random;
    }
}

char* reserve(size_t bytes) {
    void* created = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return created == MAP_FAILED ? nullptr : static_cast<char*>(created);
}

// The fibers of a place, made once: their stacks, and their clocks for ThreadSanitizer.
bool furnish(Machine& m, Place& p, unsigned threads) {
    p.threads = threads;
    if (!p.arena && !(p.arena = reserve(ARENA))) return false;
    if (p.fibers.size() < threads) p.fibers.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& f = p.fibers[i];
        f.place = &p;
        f.thread = i;
        f.barriers = f.warp_barriers = f.exchanges = 0;
        if (!f.stack && !(f.stack = reserve(STACK))) return false;
        if (m.tsan && !f.tsan) f.tsan = __tsan_create_fiber(0);
    }
    return true;
}

void start(Machine& m, Place& p, unsigned block, unsigned place, unsigned resident, uint64_t seed) {
    p.block = block;
    p.alive = p.threads;
    p.waiting = 0;
    p.given = p.n_shared = 0;
    for (unsigned i = 0; i < p.threads; ++i) {
        Fiber& f = p.fibers[i];
        f.rank = rank_of(unsigned(seed < 4 ? seed : 4), place, resident, i, p.threads, m.random(1u << 20));
        f.context.prepare(f.stack, fiber_main);
        m.add(f);
    }
}

std::string deadlock(const Place& p) {
    const std::string where = ", block " + std::to_string(p.block);
    const Fiber* at_barrier = nullptr;
    for (unsigned i = 0; i < p.threads; ++i) {
        const Fiber& f = p.fibers[i];
        if (f.at == At::warp) return "part of a warp is missing from a warp exchange (line " + std::to_string(f.line) + ")" + where;
        if (f.at == At::barrier) at_barrier = &f;
    }
    return "a thread left before a barrier (line " + std::to_string(at_barrier ? at_barrier->line : 0) + ")" + where;
}

void arrived_at_barrier(Machine& m, Place& p) {
    if (++p.waiting < p.threads) return;
    p.waiting = 0;
    const int line = p.fibers[0].line;
    for (unsigned i = 0; i < p.threads; ++i) {
        if (p.fibers[i].line != line)
            m.wrong = "threads wait at different barriers (lines " + std::to_string(line) + " and " +
                      std::to_string(p.fibers[i].line) + "), block " + std::to_string(p.block);
        m.add(p.fibers[i]);
    }
}

void arrived_at_exchange(Machine& m, Place& p, unsigned thread) {   // a warp goes on as soon as all of it is here
    const unsigned first = thread / 32 * 32, last = first + 32;
    for (unsigned i = first; i < last; ++i)
        if (p.fibers[i].at != At::warp) return;
    for (unsigned i = first; i < last; ++i) m.add(p.fibers[i]);
}
}  // namespace

void barrier(int line) {
    Machine& m = machine();
    Fiber& f = *m.now;
    char* const word = &f.place->barrier_word[f.barriers++ & 1];
    if (m.tsan) __tsan_release(word);
    wait(At::barrier, line);
    if (m.tsan) __tsan_acquire(word);
}
void warp_barrier(int line) {
    Machine& m = machine();
    Fiber& f = *m.now;
    char* const word = &f.place->warp_word[f.thread / 32][f.warp_barriers++ & 1];
    if (m.tsan) __tsan_release(word);
    wait(At::warp, line);
    if (m.tsan) __tsan_acquire(word);
}
// Exchanges wait for the whole warp but order no memory, as on a GPU: only barriers do.
uint64_t exchange_down(uint64_t mine, int offset) {
    Fiber& f = *machine().now;
    const unsigned turn = f.exchanges++ & 1;
    f.slot[turn] = mine;
    wait(At::warp, 0);
    const unsigned from = f.thread + unsigned(offset);
    return from / 32 == f.thread / 32 ? f.place->fibers[from].slot[turn] : mine;
}
unsigned ballot(bool mine) {
    Fiber& f = *machine().now;
    const unsigned turn = f.exchanges++ & 1, first = f.thread / 32 * 32;
    f.slot[turn] = mine;
    wait(At::warp, 0);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; ++i) votes |= unsigned(f.place->fibers[first + i].slot[turn]) << i;
    return votes;
}
void jitter(unsigned one_in) {
    Machine& m = machine();
    if (!m.shuffle || m.random(one_in) != 0) return;
    m.now->rank = m.random(1u << 20);
    wait(At::ready, 0);
}
// Allocates nothing, since an allocation counts as a write of the fiber that asks first; and writes to a volatile, since a
// memset would be seen by ThreadSanitizer.
void* shared(int id, size_t bytes) {
    Place& p = *machine().now->place;
    for (unsigned i = 0; i < p.n_shared; ++i)
        if (p.shared[i].id == id) return p.shared[i].at;
    char* const at = p.arena + p.given;
    p.given += (bytes + 63) / 64 * 64;
    if (p.n_shared == MAX_SHARED || p.given > ARENA) __builtin_trap();
    p.shared[p.n_shared++] = {id, at};
    volatile uint64_t* words = reinterpret_cast<uint64_t*>(at);
    for (size_t i = 0; i < (bytes + 7) / 8; ++i) words[i] = 0xA5A5A5A5A5A5A5A5u;
    return at;
}

const char* run_fibers(unsigned grid, unsigned threads, uint64_t seed, void (*body)(void*), void* context) {
    Machine& m = machine();
    std::lock_guard<std::mutex> one_launch(m.launch);
    if (threads == 0 || threads > 1024 || threads % 32) return "a block has 32 to 1024 threads, in whole warps";
    if (!m.wrong.empty()) m.places.clear();              // fibers that stopped in the middle are not used again
    m.wrong.clear();
    m.ready.clear();
    m.body = body;
    m.argument = context;
    m.tsan = __tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr;
    m.random_state = (seed + 1) * 0x9E3779B97F4A7C15ull + 0x1234567;
    m.shuffle = seed > 3;
    grid_dim = {grid, 1, 1};
    block_dim = {threads, 1, 1};

    std::deque<unsigned> order;                          // nothing promises that blocks start in order
    for (unsigned b = 0; b < grid; ++b) order.push_back(seed == 1 ? grid - 1 - b : b);
    if (seed > 2)
        for (unsigned b = grid; b > 1; --b) std::swap(order[b - 1], order[m.random(b)]);
    const unsigned maximum = m.tsan ? 512 : 1024;           // ThreadSanitizer has some 8000 threads for all libraries
    const unsigned resident = std::min({grid, RESIDENT[seed % 6], std::max(1u, maximum / threads)});
    while (m.places.size() < resident) m.places.emplace_back(new Place);
    auto next = [&](unsigned place) {
        if (order.empty()) return;
        start(m, *m.places[place], order.front(), place, resident, seed);
        order.pop_front();
    };
    for (unsigned place = 0; place < resident; ++place) {
        if (!furnish(m, *m.places[place], threads)) return "no memory for the fibers' stacks";
        next(place);
    }
    if (m.tsan) __tsan_release(&m.start_word);
    for (unsigned left = grid; left && m.wrong.empty();) {
        if (m.ready.empty()) {                           // nobody can run: somewhere a wait will never end
            for (unsigned place = 0; place < resident && m.wrong.empty(); ++place)
                if (m.places[place]->alive) m.wrong = deadlock(*m.places[place]);
            break;
        }
        Fiber& f = m.take();
        Place& p = *f.place;
        m.now = &f;
        block_idx = {p.block, 0, 0};
        thread_idx = {f.thread, 0, 0};
        if (m.tsan) __tsan_switch_to_fiber(f.tsan, TSAN_NO_SYNC);
        Context::change(m.scheduler, f.context);
        if (f.at == At::ready) m.add(f);
        else if (f.at == At::barrier) arrived_at_barrier(m, p);
        else if (f.at == At::warp) arrived_at_exchange(m, p, f.thread);
        else if (--p.alive == 0) {
            --left;
            for (unsigned place = 0; place < resident; ++place)
                if (m.places[place].get() == &p) next(place);
        }
    }
    if (m.tsan && !m.wrong.empty())                      // those that stopped in the middle come before what follows, too
        for (auto& place : m.places)
            for (Fiber& f : place->fibers) {
                __tsan_switch_to_fiber(f.tsan, TSAN_NO_SYNC);
                __tsan_release(&m.end_word);
                __tsan_switch_to_fiber(m.tsan, TSAN_NO_SYNC);
            }
    if (m.tsan) __tsan_acquire(&m.end_word);
    return m.wrong.empty() ? nullptr : m.wrong.c_str();
}
}}  // namespace jg::host
#endif
