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
    JG_SHARED(jg::SumScratch<9>, s);
    const int row = schedule[int(blockIdx.x) / n_pairs], q = int(blockIdx.x) % n_pairs;
    const int a = pairs[2 * q], b = pairs[2 * q + 1];
    const int n = int(row_start[row + 1] - row_start[row]);
    const float* __restrict__ va = values + a * n_pixels + start[row];
    const float* __restrict__ vb = values + b * n_pixels + start[row];
    const int32_t* __restrict__ ra = ranks + a * n_row_pixels + row_start[row];
    const int32_t* __restrict__ rb = ranks + b * n_row_pixels + row_start[row];
    const double* __restrict__ of_a = stats + (int64_t(row) * channels + a) * CHANNEL_STATS;
    const double* __restrict__ of_b = stats + (int64_t(row) * channels + b) * CHANNEL_STATS;
    const double mean_a = of_a[MEAN], mean_b = of_b[MEAN];
    const float min_a = float(of_a[THRESHOLD]), min_b = float(of_b[THRESHOLD]);
    const int k = row / cells, f = field[row % cells];
    const int maximum = jg::larger(levels[(f * channels + a) * compartments + k], levels[(f * channels + b) * compartments + k]);

    const jg::Vec<9> sum = jg::block_sum<9>(n, s, [&](int i) {
        const float x = va[i], y = vb[i];
        const int apart = ra[i] - rb[i], weight = maximum - (apart < 0 ? -apart : apart);
        const bool both = (x >= min_a) & (y >= min_b);
        const float xb = both ? x : 0.0f, yb = both ? y : 0.0f;
        return jg::Vec<9>{{(x - mean_a) * (y - mean_b), double(xb * yb), double(xb * xb), double(yb * yb), double(xb), double(yb),
                           double(xb) * weight, double(yb) * weight, both ? 1.0 : 0.0}};
    });
    JG_ONCE {
        double* __restrict__ out = result + (int64_t(row) * n_pairs + q) * Pair::COUNT;
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
}
JG_REGISTER(correlation_pairs)
