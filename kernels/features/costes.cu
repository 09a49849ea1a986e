// costes.cu: sums over whole images for Costes' thresholds, and Manders' coefficients above them.
//
//   moments   of two channels a and b, about a shift each, over the pixels with a < threshold of a or b < threshold of b; or over
//             those where either is above 0
//   Costes_ab sum of a where a and b are above their thresholds / sum of a where a is at or above its own
//
// Source   CellProfiler 4.2.8 MeasureColocalization, bisection_costes and run_image_pair_objects; thresholds compared as float32
// Oracle   cp_measure (tests/features/test_costes.py)
// Launch   costes_moments: one block per field, pair and run of 16384 pixels; costes_totals: a block per field and pair, a thread a sum;
//          costes_objects: one block per object row and pair; any block size, 0.4 KB of shared memory.
// Order    jg::block_sum; the runs add in order.
#include "jg/jg.cuh"

constexpr int RUN = 16384, SUMS = 10;                  // pixels, a, b, aa, bb, ab, smallest and largest of a and b

// In   pixels      float32 [B, C, H, W]
//      pairs       int32   [Q, 2]
//      shift       float64 [B, C]
//      threshold   float32 [B * Q, 2]   ignored where `all`
//      running     int32   [B * Q]      whether the sums are wanted
// Out  parts       float64 [B * Q, runs, 10]
extern "C" __global__ void __launch_bounds__(128, 8) costes_moments(
    const float* __restrict__ pixels, const int32_t* __restrict__ pairs, const double* __restrict__ shift,
    const float* __restrict__ threshold, const int32_t* __restrict__ running, int32_t channels, int32_t n_pairs, int64_t plane,
    int32_t runs, int32_t all, double* __restrict__ parts)
{
    JG_SHARED(jg::SumScratch<6>, s);
    struct Ends { int32_t v[4]; };
    JG_SHARED(Ends, ends);
    const int item = int(blockIdx.x) / runs, run = int(blockIdx.x) % runs, field = item / n_pairs, q = item % n_pairs;
    if (!running[item]) return;
    const int c = pairs[2 * q], d = pairs[2 * q + 1];
    const int64_t first = int64_t(run) * RUN;
    const int n = int(jg::smaller(int64_t(RUN), plane - first));
    const float* __restrict__ a = pixels + (int64_t(field) * channels + c) * plane + first;
    const float* __restrict__ b = pixels + (int64_t(field) * channels + d) * plane + first;
    const double shift_a = shift[field * channels + c], shift_b = shift[field * channels + d];
    const float top_a = threshold[2 * item], top_b = threshold[2 * item + 1];
    const auto taken = [&](int i) { return all ? (a[i] > 0) | (b[i] > 0) : (a[i] < top_a) | (b[i] < top_b); };
    const jg::Vec<6> sum = jg::block_sum<6>(n, s, [&](int i) {
        const bool mine = taken(i);
        const double x = mine ? a[i] - shift_a : 0.0, y = mine ? b[i] - shift_b : 0.0;
        return jg::Vec<6>{{mine ? 1.0 : 0.0, x, y, x * x, y * y, x * y}};
    });
    // Whether a channel is constant: values are 0 or more, so their bits are in order.
    union { float value; int32_t bits; } u;
    int min_a = 0x7fffffff, min_b = 0x7fffffff, max_a = -1, max_b = -1;
    JG_ONCE { ends.v[0] = ends.v[1] = 0x7fffffff; ends.v[2] = ends.v[3] = -1; }
    __syncthreads();
    JG_FOR(i, n) {
        if (!taken(i)) continue;
        u.value = a[i] + 0.0f;
        min_a = jg::smaller(min_a, u.bits);
        max_a = jg::larger(max_a, u.bits);
        u.value = b[i] + 0.0f;
        min_b = jg::smaller(min_b, u.bits);
        max_b = jg::larger(max_b, u.bits);
    }
    jg::gather_min(&ends.v[0], min_a);
    jg::gather_min(&ends.v[1], min_b);
    jg::gather_max(&ends.v[2], max_a);
    jg::gather_max(&ends.v[3], max_b);
    __syncthreads();
    JG_ONCE {
        double* __restrict__ out = parts + (int64_t(item) * runs + run) * SUMS;
        for (int k = 0; k < 6; ++k) out[k] = sum.v[k];
        for (int k = 0; k < 4; ++k) out[6 + k] = ends.v[k];
    }
}
JG_REGISTER(costes_moments)

// In   parts       of costes_moments
//      running     int32   [items]
// Out  totals      float64 [items, 10]
extern "C" __global__ void __launch_bounds__(128, 8) costes_totals(
    const double* __restrict__ parts, const int32_t* __restrict__ running, int32_t runs, double* __restrict__ totals)
{
    const int item = int(blockIdx.x);
    if (!running[item]) return;
    JG_FOR(k, SUMS) {
        const double* __restrict__ part = parts + int64_t(item) * runs * SUMS + k;
        double sum = k < 6 ? 0 : k < 8 ? 0x7fffffff : -1;
        for (int run = 0; run < runs; ++run) {
            const double next = part[run * SUMS];
            sum = k < 6 ? sum + next : k < 8 ? jg::smaller(sum, next) : jg::larger(sum, next);
        }
        totals[int64_t(item) * SUMS + k] = sum;
    }
}
JG_REGISTER(costes_totals)

// In   values      float32 [C, P]
//      start, stop int64   [rows]
//      schedule    int32   [rows]
//      field       int32   [N]
//      pairs       int32   [Q, 2]
//      threshold   float32 [B * Q, 2]
// Out  result       float64 [rows, Q, 5]    sums of a and of b above both thresholds, of each at or above its own; how many are both
extern "C" __global__ void __launch_bounds__(128, 8) costes_objects(
    const float* __restrict__ values, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int32_t* __restrict__ schedule, const int32_t* __restrict__ field, const int32_t* __restrict__ pairs,
    const float* __restrict__ threshold, int64_t n_pixels, int32_t cells, int32_t n_pairs, double* __restrict__ result)
{
    JG_SHARED(jg::SumScratch<5>, s);
    const int row = schedule[int(blockIdx.x) / n_pairs], q = int(blockIdx.x) % n_pairs;
    const float* __restrict__ a = values + pairs[2 * q] * n_pixels + start[row];
    const float* __restrict__ b = values + pairs[2 * q + 1] * n_pixels + start[row];
    const float* __restrict__ top = threshold + 2 * (int64_t(field[row % cells]) * n_pairs + q);
    const float top_a = top[0], top_b = top[1];
    const jg::Vec<5> sum = jg::block_sum<5>(int(stop[row] - start[row]), s, [&](int i) {
        const bool both = (a[i] > top_a) & (b[i] > top_b);
        return jg::Vec<5>{{both ? a[i] : 0.0f, both ? b[i] : 0.0f, a[i] >= top_a ? a[i] : 0.0f, b[i] >= top_b ? b[i] : 0.0f,
                           both ? 1.0 : 0.0}};
    });
    JG_ONCE {
        for (int k = 0; k < 5; ++k) result[(int64_t(row) * n_pairs + q) * 5 + k] = sum.v[k];    // Costes is the first by the third, the second by the fourth
    }
}
JG_REGISTER(costes_objects)
