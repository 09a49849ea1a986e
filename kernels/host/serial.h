// serial.h: a block is one thread. Barriers vanish, block loops are plain loops, shared memory is the kernel's stack frame.
#pragma once

#define __syncthreads() ((void)0)
#define __syncwarp(...) ((void)0)
#define JG_SHARED(T, name) T name

template <class T> inline T __shfl_down_sync(unsigned, T v, int) { return v; }

namespace jg { namespace host {
inline void jitter(unsigned) {}
template <class T> inline void add_block(T* p, T v) { *p += v; }
inline void min_block(int* p, int v) { if (v < *p) *p = v; }
inline void max_block(int* p, int v) { if (v > *p) *p = v; }

// Calls body(context) once a block, with block_idx set, on `workers` threads (pool.cpp).
void run_blocks(unsigned grid, unsigned workers, void (*body)(void*), void* context);
inline const char* run(unsigned grid, unsigned, unsigned workers, uint64_t, void (*body)(void*), void* context) {
    run_blocks(grid, workers, body, context);
    return nullptr;
}
}}  // namespace jg::host
