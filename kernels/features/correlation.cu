// correlation.cu: how two channels go together within an object: correlation, overlap, Manders, rank weighted.
//
//   correlation  sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|) over the object's pixels
//   Over the pixels where both channels are at or above their threshold, a share of the object's own maximum:
//   overlap      sum a b / sqrt(sum a^2 sum b^2)        K_ab = sum a b / sum a^2
//   Manders_ab   sum a / (sum of a where a is at or above its threshold); RWC_ab the same with a weighted by
//                1 - |rank a - rank b| / R, ranks dense among all pixels of the compartment and field, R the larger count of
//                distinct values.
//   nan where a denominator is 0: a constant object's correlation, an empty object, no pixel above both thresholds (overlap
//   and K; Manders and RWC are 0 there, nan where the channel is 0 throughout).
//
// Source   CellProfiler 4.2.8 MeasureColocalization, run_image_pair_objects: thresholds and squares in float32, sums in double.
// Oracle   CellProfiler's own output on the real fields; cp_measure and NumPy on drawn ones (tests/features/test_correlation.py)
// Launch   one block per object row and channel, then one an object row and pair; any block size, 0.3 KB of shared memory.
// Order    jg::block_sum; ranks are integers.
#include "features/order_statistics.cuh"
#include "jg/wide.cuh"

// Of channels a and b: a coefficient of both, or K, Manders and RWC of a with b and of b with a; BOTH counts their pixels.
struct Pair { enum Measure {
    Correlation, Overlap, K, Manders, RWC, K_BACK, Manders_BACK, RWC_BACK, BOTH, COUNT
}; };
enum Channel { MEAN, NORM, THRESHOLD, TOTAL, CHANNEL_STATS };

// In   values     float32 [C, P]
//      quantiles  float64 [rows, C, 6]    order_statistics.cuh
//      row_start  int64   [rows + 1]      of ranks
//      start      int64   [rows]          first entry of each row's pixels in values
//      schedule   int32   [rows]
//      share      float32                 threshold over maximum
// Out  stats      float64 [rows, C, 4]    mean, norm about the mean, threshold, sum at or above the threshold
extern "C" __global__ void __launch_bounds__(128, 8) correlation_channels(
    const float* __restrict__ values, const double* __restrict__ quantiles, const int64_t* __restrict__ row_start,
    const int64_t* __restrict__ start, const int32_t* __restrict__ schedule, int64_t n_pixels, int32_t channels, float share, double* __restrict__ stats)
{
    JG_SHARED(jg::SumScratch<1>, s1);
    JG_SHARED(jg::SumScratch<2>, s2);
    const int row = schedule[int(blockIdx.x) / channels], c = int(blockIdx.x) % channels;
    const int n = int(row_start[row + 1] - row_start[row]);
    const float* __restrict__ value = values + c * n_pixels + start[row];
    const float threshold = share * float(quantiles[(int64_t(row) * channels + c) * QUANTILES + MAX]);
    const double mean = jg::block_sum<1>(n, s1, [&](int i) { return jg::Vec<1>{{double(value[i])}}; }).v[0] / n;
    const jg::Vec<2> sum = jg::block_sum<2>(n, s2, [&](int i) {
        const double v = value[i], d = v - mean;
        return jg::Vec<2>{{d * d, value[i] >= threshold ? v : 0.0}};
    });
    JG_ONCE {
        double* __restrict__ out = stats + (int64_t(row) * channels + c) * CHANNEL_STATS;
        out[MEAN] = mean;
        out[NORM] = sqrt(sum.v[0]);
        out[THRESHOLD] = threshold;
        out[TOTAL] = sum.v[1];
    }
}
JG_REGISTER(correlation_channels)

#if defined(JG_WIDE)
// What is known of a channel in a row.
struct Side { const float* value; const int32_t* rank; double mean; float threshold; };
struct Opposite { Side of; int maximum; };

// The nine sums of a channel with B others, a vector of lanes at a time through all of its rounds: their sums stay in registers,
// and what is made of the channel's own values serves all B.
template <int B> JG_FN void sum_pairs(int n, const Side& a, const Opposite* b, jg::Vec<9>* sum)
{
    constexpr int K = 8;
    for (int j = 0; j < B; ++j) sum[j] = {};
    int64_t both_of[B] = {};
    for (int g = 0; g < jg::LANES; g += 32) {
        jg::Doubles lanes[B][K][4];
        for (int v = 0; v < 4; ++v) {
            jg::Doubles acc[B][K] = {};
            const auto add = [&](jg::Mask there, jg::Floats x, jg::Ints rank, const jg::Floats* ys, const jg::Ints* ranks) __attribute__((always_inline)) {
                const jg::Mask above = jg::not_below(x, a.threshold) & there;
                const jg::Doubles xd = jg::doubles_of(x), off = xd - a.mean, square = jg::doubles_of(x * x);
                for (int j = 0; j < B; ++j) {
                    const jg::Floats y = ys[j];
                    const jg::Mask both = jg::not_below(y, b[j].of.threshold) & above;
                    const jg::Doubles yd = jg::doubles_of(y), weight = jg::doubles_of(b[j].maximum - jg::size_of(rank - ranks[j]));
                    jg::add_to(acc[j][0], there, off * (yd - b[j].of.mean));
                    jg::add_to(acc[j][1], both, jg::doubles_of(x * y));
                    jg::add_to(acc[j][2], both, square);
                    jg::add_to(acc[j][3], both, jg::doubles_of(y * y));
                    jg::add_to(acc[j][4], both, xd);
                    jg::add_to(acc[j][5], both, yd);
                    jg::add_to(acc[j][6], both, xd * weight);
                    jg::add_to(acc[j][7], both, yd * weight);
                    both_of[j] += __builtin_popcount(both);
                }
            };
            int i = g + v * jg::WIDE;
            for (; i + jg::WIDE <= n; i += jg::LANES) {
                jg::Floats y[B];
                jg::Ints ranks[B];
                for (int j = 0; j < B; ++j) { y[j] = jg::floats_at(b[j].of.value + i); ranks[j] = jg::ints_at(b[j].of.rank + i); }
                add(jg::Mask(-1), jg::floats_at(a.value + i), jg::ints_at(a.rank + i), y, ranks);
            }
            if (i < n) {
                const jg::Mask there = jg::Mask((1 << (n - i)) - 1);
                jg::Floats y[B];
                jg::Ints ranks[B];
                for (int j = 0; j < B; ++j) { y[j] = jg::first_floats(b[j].of.value + i, there); ranks[j] = jg::first_ints(b[j].of.rank + i, there); }
                add(there, jg::first_floats(a.value + i, there), jg::first_ints(a.rank + i, there), y, ranks);
            }
            for (int j = 0; j < B; ++j) for (int k = 0; k < K; ++k) lanes[j][k][v] = acc[j][k];
        }
        for (int j = 0; j < B; ++j) for (int k = 0; k < K; ++k) sum[j].v[k] += jg::folded(lanes[j][k]);
    }
    for (int j = 0; j < B; ++j) sum[j].v[8] = double(both_of[j]);
}
#endif

JG_FN void write_pair(const jg::Vec<9>& sum, const double* of_a, const double* of_b, int maximum, double* __restrict__ out)
{
    out[Pair::Correlation] = sum.v[0] / (of_a[NORM] * of_b[NORM]);
    out[Pair::Overlap] = sum.v[1] / sqrt(sum.v[2] * sum.v[3]);
    out[Pair::K] = sum.v[1] / sum.v[2];
    out[Pair::Manders] = sum.v[4] / of_a[TOTAL];
    out[Pair::RWC] = sum.v[6] / maximum / of_a[TOTAL];
    out[Pair::K_BACK] = sum.v[1] / sum.v[3];
    out[Pair::Manders_BACK] = sum.v[5] / of_b[TOTAL];
    out[Pair::RWC_BACK] = sum.v[7] / maximum / of_b[TOTAL];
    out[Pair::BOTH] = sum.v[8];
}

// In   values, row_start, start, schedule as above
//      ranks      int32   [C, R]          order_statistics.cu
//      levels     int32   [B, C, K]       distinct values
//      stats      of correlation_channels
//      field      int32   [N]             each cell's field
//      pairs      int32   [Q, 2]          positions of each pair's channels
// Out  result      float64 [rows, Q, 9]    correlation, overlap, K_ab, Manders_ab, RWC_ab, K_ba, Manders_ba, RWC_ba, and how many
//                                         pixels are above both thresholds
extern "C" __global__ void __launch_bounds__(128, 5) correlation_pairs(
    const float* __restrict__ values, const int32_t* __restrict__ ranks, const int64_t* __restrict__ row_start,
    const int64_t* __restrict__ start, const int32_t* __restrict__ schedule, const int32_t* __restrict__ levels,
    const double* __restrict__ stats, const int32_t* __restrict__ field, const int32_t* __restrict__ pairs,
    int64_t n_pixels, int64_t n_row_pixels, int32_t channels, int32_t compartments, int32_t cells, int32_t n_pairs,
    double* __restrict__ result)
{
    const int row = schedule[int(blockIdx.x) / n_pairs], q = int(blockIdx.x) % n_pairs;
    const int n = int(row_start[row + 1] - row_start[row]), k = row / cells, f = field[row % cells];
    const auto stats_of = [=](int c) { return stats + (int64_t(row) * channels + c) * CHANNEL_STATS; };
    const auto maximum_of = [=](int a, int b) {
        return jg::larger(levels[(f * channels + a) * compartments + k], levels[(f * channels + b) * compartments + k]);
    };
    double* __restrict__ out = result + int64_t(row) * n_pairs * Pair::COUNT;
#if defined(JG_WIDE)
    if (q) return;                                       // a row's first block does all of its pairs
    const auto side = [=](int c) {
        const double* of = stats_of(c);
        return Side{values + c * n_pixels + start[row], ranks + c * n_row_pixels + row_start[row], of[MEAN], float(of[THRESHOLD])};
    };
    // Lanes lie far apart: what follows comes from the cache.
    for (int c = 0; c < channels; ++c) { jg::fetch_ahead(side(c).value, n); jg::fetch_ahead(side(c).rank, n); }
    for (int p = 0, together; p < n_pairs; p += together) {
        const int a = pairs[2 * p];
        together = p + 1 < n_pairs && pairs[2 * p + 2] == a ? 2 : 1;
        Opposite others[2];
        for (int j = 0; j < together; ++j) others[j] = {side(pairs[2 * (p + j) + 1]), maximum_of(a, pairs[2 * (p + j) + 1])};
        jg::Vec<9> sum[2];
        if (together == 2) sum_pairs<2>(n, side(a), others, sum);
        else sum_pairs<1>(n, side(a), others, sum);
        for (int j = 0; j < together; ++j)
            write_pair(sum[j], stats_of(a), stats_of(pairs[2 * (p + j) + 1]), others[j].maximum, out + (p + j) * Pair::COUNT);
    }
#else
    JG_SHARED(jg::SumScratch<9>, s);
    const int a = pairs[2 * q], b = pairs[2 * q + 1], maximum = maximum_of(a, b);
    const float* __restrict__ va = values + a * n_pixels + start[row];
    const float* __restrict__ vb = values + b * n_pixels + start[row];
    const int32_t* __restrict__ ra = ranks + a * n_row_pixels + row_start[row];
    const int32_t* __restrict__ rb = ranks + b * n_row_pixels + row_start[row];
    const double mean_a = stats_of(a)[MEAN], mean_b = stats_of(b)[MEAN];
    const float min_a = float(stats_of(a)[THRESHOLD]), min_b = float(stats_of(b)[THRESHOLD]);
    const jg::Vec<9> sum = jg::block_sum<9>(n, s, [&](int i) {
        const float x = va[i], y = vb[i];
        const int apart = ra[i] - rb[i], weight = maximum - (apart < 0 ? -apart : apart);
        const bool both = (x >= min_a) & (y >= min_b);
        const float xb = both ? x : 0.0f, yb = both ? y : 0.0f;
        return jg::Vec<9>{{(x - mean_a) * (y - mean_b), double(xb * yb), double(xb * xb), double(yb * yb), double(xb), double(yb),
                           double(xb) * weight, double(yb) * weight, both ? 1.0 : 0.0}};
    });
    JG_ONCE write_pair(sum, stats_of(a), stats_of(b), maximum, out + q * Pair::COUNT);
#endif
}
JG_REGISTER(correlation_pairs)
