// jg_host.h: CUDA on the CPU, just enough of the language for kernels written against jg.cuh.
//
//   serial.h   a block is one plain loop                       (the CPU backend)
//   fibers.h   -DJG_FIBERS: a block is N fibers                (tests: missing barriers; races, under -fsanitize=thread)
//   launch.h   from cuLaunchKernel's arguments to a call
//   pool.cpp, fibers.cpp   what does not depend on a kernel, compiled once
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(JG_FIBERS)
#  define JG_SERIAL 1
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace jg { namespace host {
#if defined(JG_SERIAL)
extern thread_local dim3 grid_dim, block_idx;            // blocks run on several threads, and so do launches
constexpr dim3 thread_idx{0, 0, 0}, block_dim{1, 1, 1};
#else
extern dim3 grid_dim, block_idx, thread_idx, block_dim;  // one launch at a time; all fibers run on one thread; fibers.cpp sets these at a switch
#endif
}}  // namespace jg::host
#define blockIdx  (jg::host::block_idx)
#define gridDim   (jg::host::grid_dim)
#define threadIdx (jg::host::thread_idx)
#define blockDim  (jg::host::block_dim)

#if defined(JG_SERIAL)
#  include "serial.h"
#else
#  include "fibers.h"
#endif

namespace jg { namespace host {
// Atomics on memory that several blocks share: atomic in every host build, since blocks run in parallel.
template <class T> inline T atomic_read(const T* p) { jitter(4); return __atomic_load_n(p, __ATOMIC_RELAXED); }
template <class T> inline void atomic_write(T* p, T v) { jitter(4); __atomic_store_n(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomic_sum(T* p, T v) { jitter(4); return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomic_min(T* p, T v) {
    T c = atomic_read(p);
    while (v < c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return c;
}
template <class T> inline T atomic_max(T* p, T v) {
    T c = atomic_read(p);
    while (v > c && !__atomic_compare_exchange_n(p, &c, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return c;
}
}}  // namespace jg::host

#include "launch.h"
