// costes.cu: sums over whole images for Costes' thresholds, and Manders' coefficients above them.
//
//   moments   of two channels a and b, about a shift each, over the pixels with a < threshold of a or b < threshold of b; or over
//             those where either is above 0
//   Costes_ab sum of a where a and b are above their thresholds / sum of a where a is at or above its own
//
// Source   CellProfiler 4.2.8 MeasureColocalization, bisection_costes and run_image_pair_objects; thresholds compared as float32
// Oracle   cp_measure (tests/features/test_costes.py)
// Launch   costes_moments: one block per field, pair and run of 16384 pixels; costes_totals: a block per field and pair, a thread a sum;
//          costes_levels: blocks per field and pair, one on a CPU; costes_objects: one block per object row and pair; any block size,
//          0.4 KB of shared memory.
// Order    jg::block_sum; the runs add in order.
#include "jg/jg.cuh"

constexpr int CHUNK = 256;                             // pixels whose levels are known before their sums are
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

// Sums by level for Costes' search, which asks for the pixels below the thresholds of many levels: a pixel is below from a level of
// its own on, the first whose threshold is above its value in either channel. Values are rounded to 2^-40 and products to 2^-40,
// so that any order gives the same; what hangs on less the search asks costes_moments.
//
// In   pixels, pairs, shift as above
//      limit       float32 [B * Q, 2, levels + 1]   thresholds of both channels at each level, not falling
//      line        float64 [B * Q, 2]               slope, above 0, and intercept of the second channel's
//      wanted      int32   [B * Q]
// Out  sums        uint64  [B * Q, levels + 2, 6]   zeros at first; pixels, a, b, aa, bb, ab about the shifts, times 2^40, by level
extern "C" __global__ void __launch_bounds__(128, 8) costes_levels(
    const float* __restrict__ pixels, const int32_t* __restrict__ pairs, const double* __restrict__ shift,
    const float* __restrict__ limit, const double* __restrict__ line, const int32_t* __restrict__ wanted, int32_t channels,
    int32_t n_pairs, int64_t plane, int32_t runs, int32_t levels, uint64_t* __restrict__ sums)
{
    const int item = int(blockIdx.x) / runs, run = int(blockIdx.x) % runs, field = item / n_pairs, q = item % n_pairs;
    if (!wanted[item]) return;
    const int c = pairs[2 * q], d = pairs[2 * q + 1];
    const int64_t each = (plane + runs - 1) / runs, first = run * each;
    const int n = int(jg::smaller(each, plane - first));
    const float* __restrict__ a = pixels + (int64_t(field) * channels + c) * plane + first;
    const float* __restrict__ b = pixels + (int64_t(field) * channels + d) * plane + first;
    const double shift_a = shift[field * channels + c], shift_b = shift[field * channels + d];
    const float* __restrict__ limit_a = limit + int64_t(item) * 2 * (levels + 1);
    const float* __restrict__ limit_b = limit_a + levels + 1;
    const double scale = levels / line[2 * item], zero = line[2 * item + 1];
    uint64_t* __restrict__ out = sums + int64_t(item) * (levels + 2) * 6;
    constexpr double ONE = 1099511627776.0;
    // Of limits that rise, how many are at or below a value, of which `near` is nearly one less; without a branch where that holds.
    const auto passed = [&](float value, const float* __restrict__ limits, double near) {
        int k = int(jg::smaller(jg::larger(near, 0.0), double(levels)));
        k += (value >= limits[k]) + ((k < levels) & (value >= limits[jg::smaller(k + 1, levels)]));
        while (k <= levels && value >= limits[k]) ++k;
        while (k > 0 && value < limits[k - 1]) --k;
        return k;
    };
    const auto level = [&](int i) {
        return jg::smaller(passed(a[i], limit_a, a[i] * double(levels)), passed(b[i], limit_b, (b[i] - zero) * scale));
    };
    const auto parts = [&](int i, int64_t* part) {
        const double x = a[i] - shift_a, y = b[i] - shift_b;
        part[0] = 1;
        part[1] = int64_t(x * ONE);
        part[2] = int64_t(y * ONE);
        part[3] = int64_t(x * x * ONE);
        part[4] = int64_t(y * y * ONE);
        part[5] = int64_t(x * y * ONE);
    };
#if defined(JG_SERIAL)
    for (int first_i = 0; first_i < n; first_i += CHUNK) {   // one run a plane: no other block writes here
        int32_t place[CHUNK];
        const int count = jg::smaller(CHUNK, n - first_i);
        for (int i = 0; i < count; ++i) {
            place[i] = level(first_i + i);
            jg::fetch_to_write(out + int64_t(place[i]) * 6);
            jg::fetch_to_write(out + int64_t(place[i]) * 6 + 5);
        }
        for (int i = 0; i < count; ++i) {
            int64_t part[6];
            parts(first_i + i, part);
            uint64_t* __restrict__ at = out + int64_t(place[i]) * 6;
            for (int j = 0; j < 6; ++j) at[j] += uint64_t(part[j]);
        }
    }
#else
    JG_FOR(i, n) {
        int64_t part[6];
        parts(i, part);
        uint64_t* __restrict__ at = out + int64_t(level(i)) * 6;
        for (int j = 0; j < 6; ++j) jg::atomic_sum(&at[j], uint64_t(part[j]));
    }
#endif
}
JG_REGISTER(costes_levels)

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
