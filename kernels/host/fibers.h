// fibers.h: a block is N fibers, and several blocks run interleaved, in an order chosen to do harm (fibers.cpp).
//
// Fibers change over at barriers, warp exchanges and, for the random schedules, at atomics. Built with -fsanitize=thread,
// every fiber is a thread to ThreadSanitizer, ordered with others by barriers alone: races show whatever the schedule.
#pragma once

namespace jg { namespace host {
void barrier(int line);                                  // __syncthreads
void warp_barrier(int line);                             // __syncwarp
uint64_t exchange_down(uint64_t mine, int offset);       // the value of the lane `offset` above, or mine where there is none
unsigned ballot(bool mine);                              // bit k: lane k's
void jitter(unsigned one_in);                            // random schedules: another fiber may go first
void* shared(int id, size_t bytes);                      // the block's own; poisoned when first asked for

template <class T> inline void add_block(T* p, T v) { jitter(16); __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline void min_block(int* p, int v) {
    jitter(16);
    int c = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v < c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}
inline void max_block(int* p, int v) {
    jitter(16);
    int c = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v > c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

// Calls body(context) once a thread of every block. Returns what is wrong (valid until the next launch), or null.
const char* run_fibers(unsigned grid, unsigned block, uint64_t seed, void (*body)(void*), void* context);
inline const char* run(unsigned grid, unsigned block, unsigned, uint64_t seed, void (*body)(void*), void* context) {
    return run_fibers(grid, block, seed, body, context);
}
}}  // namespace jg::host

#define __syncthreads() jg::host::barrier(__LINE__)
#define __syncwarp(...) jg::host::warp_barrier(__LINE__)
#define JG_SHARED(T, name) T& name = *static_cast<T*>(jg::host::shared(__COUNTER__, sizeof(T)))

template <class T> inline T __shfl_down_sync(unsigned, T v, int offset) {
    static_assert(sizeof(T) <= 8, "an exchange moves 8 bytes at maximum");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = jg::host::exchange_down(bits, offset);
    memcpy(&v, &bits, sizeof v);
    return v;
}
inline unsigned __ballot_sync(unsigned, bool mine) { return jg::host::ballot(mine); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
