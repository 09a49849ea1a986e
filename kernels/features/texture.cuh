// texture.cuh: what the kernels that count grey-level pairs share: the sums over a matrix, and how they are read off it.
#pragma once
#include "jg/jg.cuh"

namespace {
constexpr int LEVELS = 256, DIRECTIONS = 4;
struct Haralick { enum Measure {
    AngularSecondMoment, Contrast, Correlation, Variance, InverseDifferenceMoment, SumAverage, SumVariance, SumEntropy,
    Entropy, DifferenceVariance, DifferenceEntropy, InfoMeas1, InfoMeas2, COUNT
}; };
constexpr double FIX = 2199023255552.0;          // 2^41: logs[m] = round(log2(m) * FIX), 0 for m = 0
constexpr int FINE = 18;               // sums of m log m fit 64 bits at that scale while T < 2^FINE

// What is summed over one direction's matrix; the order of `totals`.
enum Total { SQUARE, LOG_CELLS, PAIRS, I1, I2, LOG_I, S2, LOG_S, D2, LOG_D, SQUARE_D, TOTALS };

// Bits that the logarithms of an object of n pixels give up, so that no sum of them overflows.
JG_FN int coarser(int64_t n) {
    int bits = 0;
    while ((2 * n) >> (FINE + bits)) ++bits;
    return bits;
}

JG_FN int raw_level(float value) { return int(rintf(jg::larger(0.0f, jg::smaller(255.0f, value * 255.0f)))); }

struct TotalScratch {
    jg::SumScratch<1> sum;
    jg::CountScratch<TOTALS> counts;
};

// The totals of a direction: the thread's own sums over cells, and those over the marginals. Bin k of a marginal is at
// k * STRIDE: level (1 .. S - 1, the lowest level of the object being shift + 1), sum of levels (below 2 S), difference (from
// -S to S, 0 at S). `ways` is 2 where sums and differences were counted one way round. Ends with a barrier.
template <int STRIDE, class T> JG_FN void sum_direction(
    const T* __restrict__ level, const T* __restrict__ sum, const T* __restrict__ diff, int S, int shift,
    uint64_t ways, const int64_t* __restrict__ logs, int drop, uint64_t* mine, TotalScratch& scratch,
    uint64_t* __restrict__ total_out, double* __restrict__ moment_out)
{
    const auto apart = [&](int k) { return ways * (uint64_t(diff[(S + k) * STRIDE]) + (k ? uint64_t(diff[(S - k) * STRIDE]) : 0u)); };
    JG_FOR(k, S) if (k >= 1) {
        const uint64_t m = level[k * STRIDE], kk = uint64_t(k + shift);
        mine[PAIRS] += m; mine[I1] += m * kk; mine[I2] += m * kk * kk; mine[LOG_I] += m * uint64_t(logs[m] >> drop);
    }
    JG_FOR(k, 2 * S) {
        const uint64_t m = ways * uint64_t(sum[k * STRIDE]), kk = uint64_t(k + 2 * shift);
        mine[S2] += m * kk * kk; mine[LOG_S] += m * uint64_t(logs[m] >> drop);
    }
    JG_FOR(k, S) {
        const uint64_t m = apart(k), kk = uint64_t(k);
        mine[D2] += m * kk * kk; mine[LOG_D] += m * uint64_t(logs[m] >> drop); mine[SQUARE_D] += m * m;
    }
    const jg::Vec<1> nearness = jg::block_sum<1>(S, scratch.sum, [&](int k) {
        return jg::Vec<1>{{double(apart(k)) / double(1 + k * k)}};
    });
    jg::Counts<TOTALS> sums;
    for (int k = 0; k < TOTALS; ++k) sums.v[k] = mine[k];
    sums = jg::block_count<TOTALS>(sums, scratch.counts);
    JG_ONCE {
        for (int k = 0; k < TOTALS; ++k) total_out[k] = sums.v[k];
        *moment_out = nearness.v[0];
    }
}
}  // namespace
