// cross_entropy.cu: the threshold of minimum cross-entropy of a field.
//
//   On v = value - least value (Li & Tam 1998):
//       t0 = mean(v);   t' = (b - f) / (log b - log f),   f, b the means of v above t and not above it
//   until |t' - t| <= tolerance, which is half of 1/65536 or half the least gap between distinct values if that is more.
//   Values count in steps of 2^-40, so that every sum is an integer; the threshold moves by less than 1e-12 for it.
//   A constant field's threshold is its value.
//
// Source   CellProfiler Threshold; scikit-image 0.18.3 threshold_li.
// Oracle   scikit-image (tests/test_threshold_skimage.py); CellProfiler's thresholds of the real fields
// Launch   a block a field, of any size: a round's sums are needed before the next, and its values are read from the cache. On a
//          GPU that leaves all but B processors idle; several blocks a field would need a launch, and so an end, a round.
// Order    sums are integers.
#include "threshold.cuh"
#include "jg_math.cuh"

namespace {
constexpr double UNIT = 1099511627776.0;       // 2^40
constexpr int CELLS = 65537;                   // of width 1/65536, over 0..1 (threshold.py: CELLS)
constexpr int ROUNDS = 10000;

struct Entropy { jg::CountScratch<2> scratch; };

// rint(v 2^40) for v in [0, 1]: adding 1.5 * 2^12 leaves exactly those digits.
JG_FN int64_t fixed(double v) {
    return int64_t(bits_of(v + 6144.0) - bits_of(6144.0));
}

template <class T> JG_FN double cross_entropy_of(const T* v, int n, uint64_t least, double tolerance, Entropy& s) {
    const int64_t lowest = fixed(value_of(least));
    jg::Counts<2> all = {};
    {
        uint64_t total = 0;
        jg::each_value(v, n, [&](T value) { total += uint64_t(fixed(double(value)) - lowest); });
        all.v[1] = total;
        all = jg::block_count(all, s.scratch);
    }
    const double stop = tolerance * UNIT;
    double next = double(all.v[1]) / n, now;
    int round = 0;
    do {                                                 // every thread holds the same totals, so all leave together
        now = next;
        const int64_t cut = int64_t(now) + lowest;       // floor: now >= 0
        uint64_t count = 0, total = 0;
        jg::each_value(v, n, [&](T each) {
            const int64_t value = fixed(double(each));
            const uint64_t above = value > cut ? ~uint64_t(0) : 0;
            count -= above;
            total += uint64_t(value - lowest) & above;
        });
        const jg::Counts<2> fore = jg::block_count(jg::Counts<2>{{count, total}}, s.scratch);
        if (fore.v[0] == 0) break;
        const double f = double(fore.v[1]) / double(fore.v[0]);
        const double b = double(all.v[1] - fore.v[1]) / double(uint64_t(n) - fore.v[0]);
        next = b == 0 ? 0 : (b - f) / (jg::log_same(b / UNIT) - jg::log_same(f / UNIT));
    } while (fabs(next - now) > stop && ++round < ROUNDS);
    return (next + double(lowest)) / UNIT;
}

// Distinct values fall into cells of 1/65536. A cell that holds two of them has a gap below 1/65536, which is all there is to
// know: real fields are done after the first piece.
template <class T> JG_FN double value_gap_of(const T* v, int n, uint64_t* cells, int* clash, uint64_t* gap) {
    uint64_t *least = cells, *most = cells + CELLS;       // both start as 0: the least is kept as its complement
    JG_ONCE { *clash = 0; *gap = ~uint64_t(0); }
    __syncthreads();
    for (int i0 = 0; i0 < n; i0 += 4096) {
        const int m = jg::least(4096, n - i0);
        JG_FOR(i, m) {
            const double value = double(v[i0 + i]);
            const int cell = int(value * 65536);
            jg::atomic_most(least + cell, ~bits_of(value));
            jg::atomic_most(most + cell, bits_of(value));
        }
        __syncthreads();
        int found = 0;
        JG_FOR(i, m) {
            const int cell = int(double(v[i0 + i]) * 65536);
            found |= ~jg::atomic_read(least + cell) != jg::atomic_read(most + cell);
        }
        jg::gather_most(clash, found);
        __syncthreads();
        if (*clash) return 0;
    }
    JG_FOR(k, CELLS) {                                   // few distinct values: each looks for the one below it
        if (least[k] == 0) continue;
        int below = k - 1;
        while (below >= 0 && least[below] == 0) --below;
        if (below < 0) continue;
        jg::atomic_least(gap, bits_of(double(T(value_of(most[k])) - T(value_of(most[below])))));
    }
    __syncthreads();
    return *gap == ~uint64_t(0) ? 0 : value_of(*gap);
}
}  // namespace

// In   values     float32 or float64 [B, stride] of which n count, 0..1; a float32 plane may be one channel of several
//      tolerance  float64 [B];  extrema  uint64 [B, 2]  bits of the least and greatest value, as doubles
// Out  threshold  float64 [B]
extern "C" __global__ void __launch_bounds__(1024, 1) cross_entropy_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    const double* __restrict__ tolerance, double* __restrict__ threshold)
{
    JG_SHARED(Entropy, s);
    const uint64_t least = extrema[2 * blockIdx.x], most = extrema[2 * blockIdx.x + 1];
    const double t = least == most ? value_of(least)
        : cross_entropy_of(values + offset + blockIdx.x * stride, n, least, tolerance[blockIdx.x], s);
    JG_ONCE threshold[blockIdx.x] = t;
}
JG_REGISTER(cross_entropy_32)

extern "C" __global__ void __launch_bounds__(1024, 1) cross_entropy_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    const double* __restrict__ tolerance, double* __restrict__ threshold)
{
    JG_SHARED(Entropy, s);
    const uint64_t least = extrema[2 * blockIdx.x], most = extrema[2 * blockIdx.x + 1];
    const double t = least == most ? value_of(least)
        : cross_entropy_of(values + offset + blockIdx.x * stride, n, least, tolerance[blockIdx.x], s);
    JG_ONCE threshold[blockIdx.x] = t;
}
JG_REGISTER(cross_entropy_64)

// Scr  cells      uint64 [B, 2, CELLS]   starts as 0
// Out  tolerance  float64 [B]   max(least gap between distinct values / 2, 0.5 / 65536)
extern "C" __global__ void __launch_bounds__(1024) value_gap_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ cells,
    double* __restrict__ tolerance)
{
    JG_SHARED(int, clash);
    JG_SHARED(uint64_t, least_gap);
    const double gap = value_gap_of(values + offset + blockIdx.x * stride, n, cells + int64_t(blockIdx.x) * 2 * CELLS, &clash, &least_gap);
    JG_ONCE tolerance[blockIdx.x] = jg::most(gap / 2, 0.5 / 65536);
}
JG_REGISTER(value_gap_32)

extern "C" __global__ void __launch_bounds__(1024) value_gap_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ cells,
    double* __restrict__ tolerance)
{
    JG_SHARED(int, clash);
    JG_SHARED(uint64_t, least_gap);
    const double gap = value_gap_of(values + offset + blockIdx.x * stride, n, cells + int64_t(blockIdx.x) * 2 * CELLS, &clash, &least_gap);
    JG_ONCE tolerance[blockIdx.x] = jg::most(gap / 2, 0.5 / 65536);
}
JG_REGISTER(value_gap_64)
