// jg.cuh: the small vocabulary every kernel in this directory is written in.
//
// One source, built four ways (and its PTX interpreted, the fifth), gives the same bits in each:
//   CUDA     NVRTC: a block is blockDim.x threads.
//   serial   C++ compiler: a block is ONE thread, barriers vanish, loops become plain (vectorisable) loops.
//   fibers   -DJG_FIBERS: a block is N fibers run in adversarial order (finds missing barriers); blocks interleave.
//   threads  -DJG_THREADS: a block is N threads (finds data races, under -fsanitize=thread).
//
// Rules for a kernel: never assume blockDim.x (block-stride loops only; a multiple of 32 on CUDA), reach every barrier
// with every thread, accumulate integers where possible and doubles only through block_sum(). What one block writes,
// another reads only in a later launch, unless it went through atomic_min / atomic_max / atomic_join.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#  define JG_CUDA 1
#  if defined(__CUDACC_RTC__)          // NVRTC has no <stdint.h>
typedef signed char int8_t;   typedef unsigned char uint8_t;
typedef short int16_t;        typedef unsigned short uint16_t;
typedef int int32_t;          typedef unsigned int uint32_t;
typedef long long int64_t;    typedef unsigned long long uint64_t;
#  else
#    include <stdint.h>
#  endif
#  define JG_SHARED(T, name) __shared__ T name
#  define JG_REGISTER(kernel)
#  define JG_UNROLL _Pragma("unroll")
#  define JG_APART static __device__ __forceinline__
#else
#  include "host/jg_host.h"
#  if defined(__AVX2__)
#    include <immintrin.h>
#  endif
#  define JG_UNROLL
#  define JG_APART static __attribute__((noinline))
#endif

#define JG_FN static __device__ __forceinline__
// JG_APART is JG_FN, but for a CPU a function of its own: a hot loop within a long kernel would have its pointers in memory.
#define JG_ONCE if (threadIdx.x == 0)
#define JG_FOR(i, n) for (int i = int(threadIdx.x), jg_n_##i = (n); i < jg_n_##i; i += int(blockDim.x))
// Bin k goes to the same thread whatever the range is, so loops over the same bins need no barrier between them.
#define JG_FOR_OWN(k, k0, k1) for (int k = jg::first_own(k0), jg_n_##k = (k1); k < jg_n_##k; k += int(blockDim.x))
// Rows to warps, columns to lanes: coalesced on CUDA, two plain nested loops in the serial build.
#define JG_FOR_YX(y, x, y0, y1, x0, x1)                                                   \
    for (int y = (y0) + jg::warp_id(), jg_y1 = (y1); y < jg_y1; y += jg::warps())         \
        for (int x = (x0) + jg::lane(), jg_x1 = (x1); x < jg_x1; x += jg::WARP)
// One item per thread over the whole grid: for kernels with no shared memory. Launch with grid = ceil(n / JG_ITEMS) blocks;
// each block takes JG_ITEMS consecutive items, whatever its size.
#define JG_FOR_ITEMS(i, n)                                                                                     \
    for (int64_t i = int64_t(blockIdx.x) * jg::ITEMS + int(threadIdx.x),                                       \
                 jg_n_##i = jg::smaller(int64_t(n), (int64_t(blockIdx.x) + 1) * jg::ITEMS);                      \
         i < jg_n_##i; i += int(blockDim.x))

namespace jg {

#if defined(JG_SERIAL)
constexpr int WARP = 1;
#else
constexpr int WARP = 32;
#endif
constexpr int LANES = 128;             // virtual lanes of block_sum: fixes its order whatever blockDim is
constexpr int ITEMS = 4096;            // items of a block in JG_FOR_ITEMS (device.py: ITEMS)

JG_FN int lane() { return int(threadIdx.x) % WARP; }
JG_FN int warp_id() { return int(threadIdx.x) / WARP; }
JG_FN int warps() { return int(blockDim.x) / WARP; }
JG_FN int first_own(int k0) {
#if defined(JG_SERIAL)
    return k0;
#else
    const int t = int(threadIdx.x), b = int(blockDim.x), r = k0 % b;
    return k0 - r + t + (t < r ? b : 0);
#endif
}

// a where c holds, else b, of integers, without a branch: for what a processor cannot foresee.
template <class T> JG_FN T chosen(bool c, T a, T b) {
    const T mask = T(-T(c));
    return T((a & mask) | (b & ~mask));
}

template <class T> JG_FN T smaller(T a, T b) { return a < b ? a : b; }
template <class T> JG_FN T larger(T a, T b) { return a > b ? a : b; }

JG_FN int32_t bits_of(float v) {
    union { float value; int32_t bits; } u = {v};
    return u.bits;
}
JG_FN float float_of(int32_t bits) {
    union { int32_t bits; float value; } u = {bits};
    return u.value;
}
JG_FN int lowest_bit(int v) {                          // position of the lowest bit set in v, which is not 0
#if defined(JG_CUDA)
    return __ffs(v) - 1;
#else
    return __builtin_ctz(unsigned(v));
#endif
}
// Bits of a word: how many are set, and the places of the lowest and the highest (of a word that is not 0).
JG_FN int count_bits(uint64_t w) {
#if defined(JG_CUDA)
    return __popcll(w);
#else
    return __builtin_popcountll(w);
#endif
}
JG_FN int lowest_bit(uint64_t w) { return count_bits((w & (~w + 1)) - 1); }
JG_FN int highest_bit(uint64_t w) {
#if defined(JG_CUDA)
    return 63 - __clzll(int64_t(w));
#else
    return 63 - __builtin_clzll(w);
#endif
}

// Rows of a box lie far apart in memory, which a CPU does not foresee; a GPU has other threads to run meanwhile.
template <class T> JG_FN void fetch_ahead(const T* from, int n) {
#if defined(JG_SERIAL)
    for (int i = 0; i < n + int(64 / sizeof(T)) - 1; i += int(64 / sizeof(T))) __builtin_prefetch(from + jg::smaller(i, n - 1));
#else
    (void)from, (void)n;
#endif
}

// A place that will be written soon, of one of many lists that grow at once: no more than a hint.
template <class T> JG_FN void fetch_to_write(T* at) {
#if defined(JG_SERIAL)
    __builtin_prefetch(at, 1);
#else
    (void)at;
#endif
}

// f(v[0]) .. f(v[n-1]) by the threads of a block, in no order: for few blocks over many values, where a GPU has no other threads to
// run while one waits, so that each asks for several values before it uses one.
template <class T, class F> JG_FN void each_value(const T* __restrict__ v, int n, F f) {
#if defined(JG_SERIAL)
    for (int i = 0; i < n; ++i) f(v[i]);
#else
    constexpr int AHEAD = 8;
    const int step = int(blockDim.x);
    int i = int(threadIdx.x);
    for (; i + (AHEAD - 1) * step < n; i += AHEAD * step) {
        T held[AHEAD];
        JG_UNROLL for (int k = 0; k < AHEAD; ++k) held[k] = v[i + k * step];
        JG_UNROLL for (int k = 0; k < AHEAD; ++k) f(held[k]);
    }
    for (; i < n; i += step) f(v[i]);
#endif
}

template <class T> JG_FN T warp_sum(T v) {            // the total, in lane 0
    JG_UNROLL for (int o = WARP / 2; o; o /= 2) v += __shfl_down_sync(0xffffffffu, v, o);
    return v;
}
template <class T> JG_FN T warp_min(T v) {
    JG_UNROLL for (int o = WARP / 2; o; o /= 2) v = smaller(v, __shfl_down_sync(0xffffffffu, v, o));
    return v;
}
template <class T> JG_FN T warp_max(T v) {
    JG_UNROLL for (int o = WARP / 2; o; o /= 2) v = larger(v, __shfl_down_sync(0xffffffffu, v, o));
    return v;
}

// ---- Integer accumulation into a block's shared memory: exact, so any order gives the same bits.

JG_FN void tally(uint32_t* bin) {                      // adds the constant 1 and discards the old value
#if defined(JG_CUDA)
    atomicAdd(bin, 1u);
#else
    host::add_block(bin, 1u);
#endif
}
JG_FN void tally(uint16_t* bin) {                      // of a bin that stays below 2^16: a GPU adds to the word that holds it
#if defined(JG_CUDA)
    const uint64_t at = reinterpret_cast<uint64_t>(bin);
    atomicAdd(reinterpret_cast<uint32_t*>(at & ~uint64_t(3)), at & 2 ? 1u << 16 : 1u);
#else
    host::add_block(bin, uint16_t(1));
#endif
}
JG_FN void gather_min(int* dst, int mine) {          // every thread of the block calls these two
    mine = warp_min(mine);
#if defined(JG_CUDA)
    if (lane() == 0) atomicMin(dst, mine);
#else
    if (lane() == 0) host::min_block(dst, mine);
#endif
}
JG_FN void gather_max(int* dst, int mine) {
    mine = warp_max(mine);
#if defined(JG_CUDA)
    if (lane() == 0) atomicMax(dst, mine);
#else
    if (lane() == 0) host::max_block(dst, mine);
#endif
}

// Block totals of 64-bit counts, in every thread: a slot a warp and an ordered add, since a 64-bit shared atomic is a
// spin loop. Ends with a barrier.
template <int K> struct Counts { uint64_t v[K]; };
template <int K> struct CountScratch { uint64_t part[32][K]; };
template <int K> JG_FN Counts<K> block_count(const Counts<K>& mine, CountScratch<K>& s) {
#if defined(JG_SERIAL)
    (void)s;
    return mine;
#else
    for (int k = 0; k < K; ++k) {
        const uint64_t t = warp_sum(mine.v[k]);
        if (lane() == 0) s.part[warp_id()][k] = t;
    }
    __syncthreads();
    Counts<K> out;
    for (int k = 0; k < K; ++k) {
        uint64_t total = 0;
        for (int g = 0; g < warps(); ++g) total += s.part[g][k];
        out.v[k] = total;
    }
    __syncthreads();
    return out;
#endif
}

// ---- Between blocks: atomics on global memory, for int32_t, uint32_t and uint64_t. Order-free by themselves; a kernel
// that uses the old value for more than an exact integer result must argue why its result does not depend on the order.

template <class T> struct Native { typedef T type; };
#if defined(JG_CUDA)
template <> struct Native<uint64_t> { typedef unsigned long long type; };
#endif
template <class T> JG_FN T atomic_min(T* at, T v) {
#if defined(JG_CUDA)
    return T(atomicMin(reinterpret_cast<typename Native<T>::type*>(at), typename Native<T>::type(v)));
#else
    return host::atomic_min(at, v);
#endif
}
template <class T> JG_FN T atomic_max(T* at, T v) {
#if defined(JG_CUDA)
    return T(atomicMax(reinterpret_cast<typename Native<T>::type*>(at), typename Native<T>::type(v)));
#else
    return host::atomic_max(at, v);
#endif
}
template <class T> JG_FN T atomic_sum(T* at, T v) {
#if defined(JG_CUDA)
    return T(atomicAdd(reinterpret_cast<typename Native<T>::type*>(at), typename Native<T>::type(v)));
#else
    return host::atomic_sum(at, v);
#endif
}
// A word that other blocks may be changing through the atomics above while this one reads it.
template <class T> JG_FN T atomic_read(const T* at) {
#if defined(JG_CUDA)
    return *const_cast<const volatile T*>(at);
#else
    return host::atomic_read(at);
#endif
}

// A word that several threads, of one block or of many, may write at once, all of them the same value in the end.
template <class T> JG_FN void atomic_write(T* at, T v) {
#if defined(JG_CUDA)
    *const_cast<volatile T*>(at) = v;
#else
    host::atomic_write(at, v);
#endif
}

#if defined(JG_SERIAL)
// The places of the bytes that are 1 among eight that are 0 or 1, as bits.
JG_FN uint64_t bits_of_bytes(uint64_t eight) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return eight * 0x0102040810204080ull >> 56;
#else
    return eight * 0x8040201008040201ull >> 56;
#endif
}
#if defined(__AVX512BW__)
JG_FN uint64_t bits_of_64(const uint8_t* bytes) {
    __m512i v;
    memcpy(&v, bytes, 64);
    return _mm512_test_epi8_mask(v, v);
}
#elif defined(__AVX2__)
JG_FN uint64_t bits_of_64(const uint8_t* bytes) {
    __m256i v[2];
    memcpy(v, bytes, 64);
    const auto half = [](__m256i a) { return uint32_t(_mm256_movemask_epi8(_mm256_slli_epi16(a, 7))); };
    return uint64_t(half(v[1])) << 32 | half(v[0]);
}
#endif
// Which of flags(i0) .. flags(i0 + M - 1) are not 0, as bits.
template <int M, class Flags> JG_FN uint64_t flagged(int i0, Flags flags) {
    union { uint8_t any[M]; uint64_t eight[M / 8]; } u;
    for (int j = 0; j < M; ++j) u.any[j] = flags(i0 + j) != 0;
#if defined(__AVX512BW__) || defined(__AVX2__)
    if (M == 64) return bits_of_64(u.any);
#endif
    uint64_t result = 0;
    for (int w = 0; w < M / 8; ++w) result |= bits_of_bytes(u.eight[w]) << 8 * w;
    return result;
}
#endif

// act(i, flags) for the i in 0 .. n-1 whose flags(i), a byte, is not 0, by one warp, in no order. For flags that are mostly 0:
// the serial build takes 64 at a time, in a loop that vectorises where they are plain arithmetic, and branches on none of them;
// it asks for the flags of an i twice, the second time just before its act.
template <class Flags, class Act> JG_FN void warp_each(int n, Flags flags, Act act) {
#if defined(JG_SERIAL)
    uint64_t result[16];                                  // all are found before any is acted on: that has branches to go wrong
    for (int i0 = 0, i1; i0 < n; i0 = i1) {
        int words = 0;
        for (i1 = i0; words < 16 && i1 + 64 <= n; i1 += 64) result[words++] = flagged<64>(i1, flags);
        if (words < 16 && i1 < n) {
            uint64_t last = 0;                           // with some that are another word's, where there are any
            if (n >= 64) last = flagged<64>(n - 64, flags) >> (i1 + 64 - n);
            else for (int i = i1; i < n; ++i) last |= uint64_t(flags(i) != 0) << (i - i1);
            result[words++] = last;
            i1 = n;
        }
        for (int w = 0; w < words; ++w)
            for (uint64_t bits = result[w]; bits; bits &= bits - 1) {
                const int i = i0 + 64 * w + __builtin_ctzll(bits);
                act(i, int(flags(i)));
            }
    }
#else
    for (int i = lane(); i < n; i += WARP) {
        const int f = flags(i);
        if (f) act(i, f);
    }
#endif
}

// Ordered selection by one warp: out[k] = item for the i in 0 .. n-1 with keep(i, &item), k = 0, 1, ... in order of i; returns
// how many. 32 neighbours are asked before one is written, so keep may read `out` at i itself: a list is compacted in
// place. The whole warp calls it. The serial build writes every item and keeps the place where it was not wanted.
template <class T, class Keep> JG_FN int warp_compact(int n, T* out, Keep keep) {
    int k = 0;
#if defined(JG_SERIAL)
    for (int i = 0; i < n; ++i) {
        T item;
        const bool mine = keep(i, &item);
        out[k] = item;
        k += mine;
    }
#else
    for (int i0 = 0; i0 < n; i0 += WARP) {
        const int i = i0 + lane();
        T item;
        const bool mine = i < n && keep(i, &item);
        const uint32_t votes = __ballot_sync(0xffffffffu, mine);
        __syncwarp();                                    // a vote orders no memory
        if (mine) out[k + __popc(votes & ((1u << lane()) - 1u))] = item;
        k += __popc(votes);
    }
#endif
    return k;
}

// Ordered selection as by warp_each: emit(i, k) for the i whose flags(i), a byte, is not 0, k = 0, 1, ... in order of i.
template <class Flags, class Emit> JG_FN int warp_pick(int n, Flags flags, Emit emit) {
    int k = 0;
#if defined(JG_SERIAL)
    warp_each(n, flags, [&](int i, int) { emit(i, k++); });
#else
    for (int i0 = 0; i0 < n; i0 += WARP) {
        const int i = i0 + lane();
        const bool mine = i < n && flags(i);
        const uint32_t votes = __ballot_sync(0xffffffffu, mine);
        if (mine) emit(i, k + __popc(votes & ((1u << lane()) - 1u)));
        k += __popc(votes);
    }
#endif
    return k;
}

// What `items` of warp_gather calls; a type with a name, as AddTo.
template <class T> struct Gathering {
    T* out;
    int* at;
    bool writes;
    __device__ __forceinline__ void operator()(const T& item, bool wanted) const {
#if defined(JG_SERIAL)
        out[*at] = item;
#else
        if (writes && wanted) out[*at] = item;
#endif
        *at += wanted;
    }
};

// Ordered collection by one warp, as by warp_each: items(i, flags, add) is called for the i whose flags(i) is not 0 and calls
// add(item, wanted) up to 7 times, the same way each time; the wanted items go to out[0], out[1], ... in order of i and of
// the calls. `out` has room for all of them. Returns how many are wanted.
template <class T, class Flags, class Items> JG_FN int warp_gather(int n, T* out, Flags flags, Items items) {
    int k = 0;
#if defined(JG_SERIAL)
    warp_each(n, flags, [&](int i, int f) { items(i, f, Gathering<T>{out, &k, true}); });
#else
    for (int i0 = 0; i0 < n; i0 += WARP) {
        const int i = i0 + lane(), f = i < n ? flags(i) : 0;
        int mine = 0;
        if (f) items(i, f, Gathering<T>{out, &mine, false});
        const uint32_t below = (1u << lane()) - 1u;
        int at = k;
        for (int bit = 0; bit < 3; ++bit) {
            const uint32_t votes = __ballot_sync(0xffffffffu, mine >> bit & 1);
            at += __popc(votes & below) << bit;
            k += __popc(votes) << bit;
        }
        if (mine) items(i, f, Gathering<T>{out, &at, true});
    }
#endif
    return k;
}

// *at = max(*at, v) and min(*at, v), by threads of one block; a word of global or shared memory that no other block touches.
template <class T> JG_FN void raise_to(T* at, T v) {
#if defined(JG_SERIAL)
    *at = larger(*at, v);
#else
    if (v > atomic_read(at)) atomic_max(at, v);
#endif
}
template <class T> JG_FN void lower_to(T* at, T v) {
#if defined(JG_SERIAL)
    const T old = *at;
    *at = chosen(v < old, v, old);
#else
    if (v < atomic_read(at)) atomic_min(at, v);
#endif
}
// A place of its own in a list that threads of one block append to: the list is a set, its order means nothing.
JG_FN int take_place(int* count) {
#if defined(JG_SERIAL)
    return (*count)++;
#else
    return atomic_sum(count, 1);
#endif
}

// ---- Sums of doubles

template <int K> struct Vec { double v[K]; };
template <int K> struct SumScratch { double part[LANES / 32][K]; };

#if defined(JG_SERIAL)
// 32 sums as a tree, which are used up; of offsets that are known, so that the first two are vectors.
JG_FN double folded(double* a) {
    for (int l = 0; l < 16; ++l) a[l] += a[l + 16];
    for (int l = 0; l < 8; ++l) a[l] += a[l + 8];
    const double b[4] = {a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]};
    return (b[0] + b[2]) + (b[1] + b[3]);
}
#endif

// Sum of f(0) .. f(n-1), the same bits in every build: virtual lane l adds f(l), f(l+LANES), ... in order, each 32
// lanes fold as a tree (offsets 16, 8, 4, 2, 1), the LANES/32 partial sums add in order. Ends with a barrier.
template <int K, class F> JG_FN Vec<K> block_sum(int n, SumScratch<K>& s, F f) {
#if defined(JG_SERIAL)
    double acc[K][LANES] = {};
    int i0 = 0;
    for (; i0 + LANES <= n; i0 += LANES)
        for (int l = 0; l < LANES; ++l) {              // lane loop innermost: contiguous, vectorises as it stands
            const Vec<K> x = f(i0 + l);
            for (int k = 0; k < K; ++k) acc[k][l] += x.v[k];
        }
    for (int l = 0; i0 + l < n; ++l) {
        const Vec<K> x = f(i0 + l);
        for (int k = 0; k < K; ++k) acc[k][l] += x.v[k];
    }
    Vec<K> out;
    for (int k = 0; k < K; ++k) {
        double total = 0;
        for (int g = 0; g < LANES; g += 32) total += folded(acc[k] + g);
        out.v[k] = total;
    }
    (void)s;
    return out;
#else
    Vec<K> out;
    for (int l = int(threadIdx.x); l < LANES; l += int(blockDim.x)) {
        double acc[K] = {};
        for (int i = l; i < n; i += LANES) {
            const Vec<K> x = f(i);
            JG_UNROLL for (int k = 0; k < K; ++k) acc[k] += x.v[k];
        }
        JG_UNROLL for (int k = 0; k < K; ++k) {
            const double t = warp_sum(acc[k]);
            if (l % 32 == 0) s.part[l / 32][k] = t;
        }
    }
    __syncthreads();
    for (int k = 0; k < K; ++k) {
        double total = 0;
        for (int g = 0; g < LANES / 32; ++g) total += s.part[g][k];
        out.v[k] = total;
    }
    __syncthreads();
    return out;
#endif
}

// K sums over rows, with the same bits in every build: row j belongs to group j % G; each group adds its rows in order, and
// the groups add in order. f(j, add) calls add(value), value(k) being sum k's next term. Ends with a barrier.
template <int G, int K> struct RowScratch { double part[G][K]; };
// What f of row_sums calls: add(value) adds value(k) to sum k. A type with a name, since NVRTC 12 takes a lambda with an `auto`
// parameter for a function of the host's.
template <int K> struct AddTo {
    double* sum;
#if defined(JG_SERIAL)
    template <class Value> __device__ __forceinline__ void operator()(Value value) const {
        for (int k = 0; k < K; ++k) sum[k] += value(k);
    }
#else
    int k;
    template <class Value> __device__ __forceinline__ void operator()(Value value) const { *sum += value(k); }
#endif
};
template <int G, int K, class F> JG_FN void row_sums(int rows, RowScratch<G, K>& s, F f) {
#if defined(JG_SERIAL)
    for (int g = 0; g < G; ++g) {
        double acc[K] = {};
        for (int j = g; j < rows; j += G)
            f(j, AddTo<K>{acc});
        for (int k = 0; k < K; ++k) s.part[g][k] = acc[k];
    }
    for (int g = 1; g < G; ++g)
        for (int k = 0; k < K; ++k) s.part[0][k] += s.part[g][k];
#else
    for (int l = int(threadIdx.x); l < G * K; l += int(blockDim.x)) {
        const int g = l / K, k = l % K;
        double acc = 0;
        for (int j = g; j < rows; j += G) f(j, AddTo<K>{&acc, k});
        s.part[g][k] = acc;
    }
    __syncthreads();
    for (int k = int(threadIdx.x); k < K; k += int(blockDim.x))
        for (int g = 1; g < G; ++g) s.part[0][k] += s.part[g][k];
    __syncthreads();
#endif
}

}  // namespace jg
