// one_item_per_thread.cuh: for launches of few items that take long, where 32 items a thread would leave most of a GPU without work.
#pragma once
#include "jg/bits.cuh"

// One item per thread over the whole grid, as JG_FOR_ITEMS; each block takes jg::FEW consecutive items, whatever its size.
#define JG_FOR_FEW(i, n)                                                                                       \
    for (int64_t i = int64_t(blockIdx.x) * jg::FEW + int(threadIdx.x),                                         \
                 jg_n_##i = jg::smaller(int64_t(n), (int64_t(blockIdx.x) + 1) * jg::FEW);                        \
         i < jg_n_##i; i += int(blockDim.x))

namespace jg {

constexpr int FEW = 128;               // items of a block in JG_FOR_FEW (device.py: FEW)

// merge(.. merge(merge(v of lane 0, of lane 16), ..) over a warp, in lane 0: for what any order gives the same bits.
template <int K, class Merge> JG_FN Vec<K> warp_fold(Vec<K> v, Merge merge) {
    JG_UNROLL for (int o = WARP / 2; o; o /= 2) {
        Vec<K> other;
        JG_UNROLL for (int k = 0; k < K; ++k) other.v[k] = __shfl_down_sync(0xffffffffu, v.v[k], o);
        v = merge(v, other);
    }
    return v;
}

}  // namespace jg
