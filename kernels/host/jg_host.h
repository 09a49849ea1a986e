// jg_host.h: CUDA on the CPU, just enough of the language for kernels written against jg.cuh.
#pragma once
#include <stdint.h>
#include <string.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if !defined(JG_FIBERS) && !defined(JG_THREADS)
#  define JG_SERIAL 1
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace jg { namespace host {
// Atomics on memory that several blocks share: blocks run in parallel in every host build.
template <class T> inline T atomic_read(const T* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
template <class T> inline void atomic_write(T* p, T v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomic_least(T* p, T v) {
    T c = atomic_read(p);
    while (v < c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return c;
}
template <class T> inline T atomic_most(T* p, T v) {
    T c = atomic_read(p);
    while (v > c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return c;
}
template <class T> inline T atomic_sum(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
}}  // namespace jg::host

namespace jg { namespace host {
inline thread_local dim3 block_idx;
inline thread_local dim3 grid_dim_;
#if defined(JG_SERIAL)
constexpr dim3 thread_idx{0, 0, 0}, block_dim{1, 1, 1};
#else
inline thread_local dim3 thread_idx{0, 0, 0};
inline dim3 block_dim_;
#endif
}}  // namespace jg::host
#define blockIdx  (jg::host::block_idx)
#define gridDim   (jg::host::grid_dim_)
#define threadIdx (jg::host::thread_idx)
#if defined(JG_SERIAL)
#  define blockDim (jg::host::block_dim)
#else
#  define blockDim (jg::host::block_dim_)
#endif

// ---------------------------------------------------------------- one thread per block
#if defined(JG_SERIAL)
#define __syncthreads() ((void)0)
#define __syncwarp(...) ((void)0)
#define JG_SHARED(T, name) T name                       // a block's shared memory is its stack frame
template <class T> inline T __shfl_down_sync(unsigned, T v, int) { return v; }
namespace jg { namespace host {
template <class T> inline void add_block(T* p, T v) { *p += v; }
inline void min_block(int* p, int v) { if (v < *p) *p = v; }
inline void max_block(int* p, int v) { if (v > *p) *p = v; }
template <class Body> void run_block(unsigned, uint64_t, Body&& body) { body(); }
}}

// ---------------------------------------------------------------- fibers, scheduled at random
#elif defined(JG_FIBERS)
extern "C" void jg_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.weak jg_switch
.hidden jg_switch
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
#else
#  error "port jg_switch (or build the fibers on ucontext)"
#endif
namespace jg { namespace host {
enum class At { ready, block, warp, done };
struct Fiber { void* sp; At at; int line; unsigned rank; uint64_t slot; std::vector<char> stack; };
struct Team {                                            // the fibers of the block this OS thread runs
    std::vector<Fiber> fibers;
    void* scheduler = nullptr;
    unsigned now = 0;
    bool shuffle = false;
    uint64_t rng = 1, touched = 0;
    void (*entry)(void*) = nullptr;
    void* arg = nullptr;
    unsigned random(unsigned n) { rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17; return unsigned((rng >> 33) % n); }
};
inline thread_local Team team;
inline void yield(At at, int line) {
    Fiber& f = team.fibers[team.now];
    f.at = at; f.line = line;
    jg_switch(&f.sp, team.scheduler);
}
inline void fiber_main() {
    team.entry(team.arg);
    yield(At::done, 0);
    abort();
}
// The highest rank that can run, runs. Ranks by launch seed: in order, reversed, whole warps in reverse, whole warps at
// random, then every fiber at random with re-ranking at one atomic in 16.
inline void deal(Team& t, uint64_t seed) {
    const unsigned n = unsigned(t.fibers.size());
    for (unsigned i = 0; i < n; ++i) {
        const unsigned warp_salt = unsigned(((i / 32) + 1) * 0x9E3779B1u * unsigned(seed * 2 + 1)) >> 12;
        t.fibers[i].rank = seed == 0 ? n - i : seed == 1 ? i : seed == 2 ? (i / 32) * 32 + 31 - i % 32 : seed == 3 ? warp_salt * 32 + i % 32 : t.random(1 << 20);
    }
}
inline void jitter() { if (team.shuffle && team.random(16) == 0) { team.fibers[team.now].rank = team.random(1 << 20); yield(At::ready, 0); } }
template <class T> inline void add_block(T* p, T v) { jitter(); *p += v; }
inline void min_block(int* p, int v) { jitter(); if (v < *p) *p = v; }
inline void max_block(int* p, int v) { jitter(); if (v > *p) *p = v; }
inline bool first_touch(int id) {
    const uint64_t bit = uint64_t(1) << (id % 64);
    if (team.touched & bit) return false;
    team.touched |= bit;
    return true;
}
[[noreturn]] inline void die(const char* what, int a, int b) {
    fprintf(stderr, "jg fibers: %s (lines %d and %d), block %u\n", what, a, b, block_idx.x);
    abort();
}
template <class Body> void run_block(unsigned n, uint64_t seed, Body&& body) {
    Team& t = team;
    t.rng = (seed + block_idx.x) * 0x9E3779B97F4A7C15ull + 0x1234567; t.touched = 0; t.shuffle = seed > 3;
    t.entry = [](void* b) { (*static_cast<std::remove_reference_t<Body>*>(b))(); };
    t.arg = &body;
    t.fibers.resize(n);
    for (Fiber& f : t.fibers) {
        f.stack.resize(128 << 10);
        void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(f.stack.data() + f.stack.size()) & ~uintptr_t(15)));
        *--top = nullptr;                                // alignment at entry: rsp % 16 == 8
        *--top = reinterpret_cast<void*>(&fiber_main);
        for (int i = 0; i < 6; ++i) *--top = nullptr;
        f.sp = top; f.at = At::ready;
    }
    deal(t, seed);
    std::vector<unsigned> ready;                         // a heap by rank
    auto lower = [&](unsigned a, unsigned b) { return t.fibers[a].rank < t.fibers[b].rank; };
    auto add = [&](unsigned i) { t.fibers[i].at = At::ready; ready.push_back(i); std::push_heap(ready.begin(), ready.end(), lower); };
    for (unsigned i = 0; i < n; ++i) add(i);
    unsigned alive = n;
    while (alive) {
        if (ready.empty()) {                             // nobody can run: a barrier is complete, or never will be
            for (const Fiber& f : t.fibers) if (f.at == At::warp) die("part of a warp is missing from a warp exchange", f.line, 0);
            {
                if (alive != n) die("a thread left before a barrier", 0, 0);
                for (unsigned i = 0; i < n; ++i) {
                    if (t.fibers[i].line != t.fibers[0].line) die("threads wait at different barriers", t.fibers[0].line, t.fibers[i].line);
                    add(i);
                }
            }
        }
        std::pop_heap(ready.begin(), ready.end(), lower);
        t.now = ready.back(); ready.pop_back();
        thread_idx = {t.now, 0, 0};
        jg_switch(&t.scheduler, t.fibers[t.now].sp);
        const At at = t.fibers[t.now].at;
        if (at == At::ready) add(t.now);
        if (at == At::done) --alive;
        if (at == At::warp) {                            // a warp goes on as soon as all of it is here
            const unsigned w = t.now / 32 * 32, e = w + 32 < n ? w + 32 : n;
            unsigned here = 0;
            for (unsigned i = w; i < e; ++i) here += t.fibers[i].at == At::warp;
            if (here == e - w) for (unsigned i = w; i < e; ++i) add(i);
        }
    }
}
template <class T> inline T shuffle_down(T v, int o) {
    static_assert(sizeof(T) <= 8, "");
    const unsigned me = team.now;
    memcpy(&team.fibers[me].slot, &v, sizeof v);
    yield(At::warp, 0);
    const unsigned src = (me % 32 + o < 32 && me + o < team.fibers.size()) ? me + o : me;
    memcpy(&v, &team.fibers[src].slot, sizeof v);
    yield(At::warp, 0);
    return v;
}
}}
#define __syncthreads() jg::host::yield(jg::host::At::block, __LINE__)
#define __syncwarp(...) jg::host::yield(jg::host::At::warp, __LINE__)
template <class T> inline T __shfl_down_sync(unsigned, T v, int o) { return jg::host::shuffle_down(v, o); }
inline unsigned __ballot_sync(unsigned, bool v) {
    using namespace jg::host;
    const unsigned me = team.now;
    team.fibers[me].slot = v;
    yield(At::warp, 0);
    unsigned votes = 0;
    for (unsigned i = me / 32 * 32; i < me / 32 * 32 + 32 && i < team.fibers.size(); ++i) votes |= unsigned(team.fibers[i].slot) << (i % 32);
    yield(At::warp, 0);
    return votes;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
// Poisoned by the first fiber to arrive, so that reading before writing shows.
#define JG_SHARED(T, name)                    \
    static thread_local T jg_store_##name;    \
    T& name = jg_store_##name;                \
    if (jg::host::first_touch(__COUNTER__)) memset((void*)&name, 0xA5, sizeof(T))

// ---------------------------------------------------------------- real threads, for ThreadSanitizer
#else
#include <barrier>
#include <memory>
namespace jg { namespace host {
inline std::barrier<>* block_barrier;
inline std::barrier<>* warp_barrier[32];
inline uint64_t slots[1024];
template <class T> inline void add_block(T* p, T v) { __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline void min_block(int* p, int v) { int c = __atomic_load_n(p, __ATOMIC_RELAXED); while (v < c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} }
inline void max_block(int* p, int v) { int c = __atomic_load_n(p, __ATOMIC_RELAXED); while (v > c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} }
template <class Body> void run_block(unsigned n, uint64_t, Body&& body) {
    std::barrier<> all(n);
    block_barrier = &all;
    std::vector<std::unique_ptr<std::barrier<>>> warps;
    for (unsigned w = 0; w * 32 < n; ++w) { warps.emplace_back(new std::barrier<>(n - w * 32 < 32 ? n - w * 32 : 32)); warp_barrier[w] = warps[w].get(); }
    const dim3 b = block_idx;
    std::vector<std::thread> pool;
    for (unsigned i = 0; i < n; ++i) pool.emplace_back([&, i] { block_idx = b; thread_idx = {i, 0, 0}; body(); });
    for (auto& t : pool) t.join();
}
template <class T> inline T shuffle_down(T v, int o) {
    const unsigned me = thread_idx.x;
    memcpy(&slots[me], &v, sizeof v);
    warp_barrier[me / 32]->arrive_and_wait();
    const unsigned src = (me % 32 + o < 32 && me + o < block_dim_.x) ? me + o : me;
    memcpy(&v, &slots[src], sizeof v);
    warp_barrier[me / 32]->arrive_and_wait();
    return v;
}
}}
#define __syncthreads() jg::host::block_barrier->arrive_and_wait()
#define __syncwarp(...) jg::host::warp_barrier[threadIdx.x / 32]->arrive_and_wait()
template <class T> inline T __shfl_down_sync(unsigned, T v, int o) { return jg::host::shuffle_down(v, o); }
#define JG_SHARED(T, name) static T name
#endif

// ---------------------------------------------------------------- launch: the arguments of cuLaunchKernel
namespace jg { namespace host {
// Threads that wait between launches. Kept for the life of the process: a thread made at every launch costs 70 to 220 us.
class Pool {
public:
    // Runs job on `workers` threads, the caller's among them, and returns when all are done.
    void run(unsigned workers, const std::function<void()>& job) {
        std::lock_guard<std::mutex> one_launch(launch_);
        if (workers <= 1) { job(); return; }
        {
            std::lock_guard<std::mutex> hold(state_);
            while (threads_ < workers - 1) { std::thread([this, n = threads_++] { wait_for_work(n); }).detach(); }
            job_ = &job; helpers_ = workers - 1; busy_ = workers - 1; ++round_;
        }
        wake_.notify_all();
        job();
        std::unique_lock<std::mutex> hold(state_);
        idle_.wait(hold, [&] { return busy_ == 0; });
    }
private:
    void wait_for_work(unsigned me) {
        uint64_t seen = 0;
        for (;;) {
            const std::function<void()>* job;
            {
                std::unique_lock<std::mutex> hold(state_);
                wake_.wait(hold, [&] { return round_ != seen && me < helpers_ && busy_ > 0; });
                seen = round_; job = job_;
            }
            (*job)();
            std::lock_guard<std::mutex> hold(state_);
            if (--busy_ == 0) idle_.notify_one();
        }
    }
    std::mutex launch_, state_;
    std::condition_variable wake_, idle_;
    const std::function<void()>* job_ = nullptr;
    unsigned threads_ = 0, helpers_ = 0, busy_ = 0;
    uint64_t round_ = 0;
};
inline Pool& pool() { static Pool& p = *new Pool; return p; }      // never destroyed: its threads outlive main

template <auto Kernel> struct Launch;
template <class... A, void (*Kernel)(A...)> struct Launch<Kernel> {
    template <size_t... I> static void call(void** a, std::index_sequence<I...>) { Kernel(*static_cast<A*>(a[I])...); (void)a; }
    static void run(unsigned grid, unsigned block, void** args, unsigned workers, uint64_t seed) {
        if (grid == 0) return;
#if defined(JG_THREADS)
        workers = 1;
#endif
        workers = workers < grid ? workers : grid;
        std::atomic<unsigned> next{0};
        pool().run(workers, [&] {
            grid_dim_ = {grid, 1, 1};
#if !defined(JG_SERIAL)
            block_dim_ = {block, 1, 1};
#endif
            for (unsigned b; (b = next.fetch_add(1, std::memory_order_relaxed)) < grid;) {
                block_idx = {b, 0, 0};
                run_block(block, seed, [&] { call(args, std::index_sequence_for<A...>{}); });
            }
        });
        (void)block;
    }
};
}}  // namespace jg::host
#define JG_REGISTER(kernel)                                                                                             \
    extern "C" __attribute__((visibility("default"))) void jg_launch_##kernel(unsigned grid, unsigned block, void** args, \
                                                                             unsigned workers, uint64_t seed) {          \
        jg::host::Launch<&kernel>::run(grid, block, args, workers, seed);                                              \
    }
