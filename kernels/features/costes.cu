// costes.cu: sums over whole images for Costes' thresholds, and Manders' coefficients above them.
//
//   moments   of two channels a and b, about a shift each, over the pixels with a < threshold of a or b < threshold of b; or over
//             those where either is above 0
//   Costes_ab sum of a where a and b are above their thresholds / sum of a where a is at or above its own
//
// Source   CellProfiler 4.2.8 MeasureColocalization, bisection_costes and run_image_pair_objects; thresholds compared as float32
// Oracle   cp_measure (tests/features/test_costes.py)
// Launch   costes_moments: one block per field, pair and run of 16384 pixels; costes_totals: a block per field and pair, a thread a sum;
//          costes_levels: blocks of one field and pair, one on a CPU; costes_objects: one block per object row and pair; any block size,
//          6 KB of shared memory.
// Order    jg::block_sum; the runs add in order.
#include "jg/wide.cuh"

namespace {
constexpr int CHUNK = 256;                             // pixels whose places are known before their sums are
constexpr int RUN = 16384, SUMS = 10;                  // pixels, a, b, aa, bb, ab, smallest and largest of a and b
constexpr int LIMITS = 63;                             // thresholds at once
constexpr double ONE = 1099511627776.0, ROUND = 6755399441055744.0;    // 2^40; 1.5 * 2^52, with which a double is a whole number

struct Table { uint64_t v[2][LIMITS * 6]; };

// A double below 2^51 as the nearest whole number.
JG_FN int64_t whole(double v) {
    union { double value; int64_t bits; } u = {v + ROUND}, none = {ROUND};
    return u.bits - none.bits;
}

// How many pairs of thresholds, which do not fall, neither value is below; both lists end with infinities.
JG_FN int place_of(float x, float y, const float* __restrict__ limit_a, const float* __restrict__ limit_b) {
    int k = 0;
    for (int step = (LIMITS + 1) / 2; step; step /= 2) k += step & -int((x >= limit_a[k + step - 1]) & (y >= limit_b[k + step - 1]));
    return k;
}

#if defined(JG_WIDE)
// The same of 16 pixels: each step looks its threshold up among those that it may meet.
struct Steps { float a[7][16], b[7][16]; };              // of the first four steps; of the next; of the last, which are 32
JG_FN void fill_steps(const float* __restrict__ limits, float (&steps)[7][16]) {
    for (int k = 0; k < 16; ++k) {
        for (int j = 0; j < 4; ++j) steps[j][k] = limits[jg::smaller((k << (6 - j)) + (32 >> j) - 1, LIMITS)];
        steps[4][k] = limits[4 * k + 1];
        steps[5][k] = limits[2 * k];
        steps[6][k] = limits[32 + 2 * k];
    }
}
JG_FN void places_of(const float* __restrict__ a, const float* __restrict__ b, const Steps& steps, int n, int32_t* __restrict__ place) {
    const __mmask16 every = 0xffff;
    for (int i = 0; i < n; i += 16) {
        const __m512 x = _mm512_maskz_loadu_ps(every, a + i), y = _mm512_maskz_loadu_ps(every, b + i);
        __m512i k = _mm512_setzero_si512();              // the steps' outcomes so far, as a number
        const auto step = [&](__m512 of_a, __m512 of_b) {
            const __mmask16 above = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x, of_a, _CMP_GE_OQ), y, of_b, _CMP_GE_OQ);
            k = _mm512_maskz_slli_epi32(every, k, 1);
            k = _mm512_mask_add_epi32(k, above, k, _mm512_set1_epi32(1));
        };
        const auto table = [&](const float* p) { return _mm512_maskz_loadu_ps(every, p); };
        for (int j = 0; j < 5; ++j)
            step(_mm512_maskz_permutexvar_ps(every, k, table(steps.a[j])), _mm512_maskz_permutexvar_ps(every, k, table(steps.b[j])));
        step(_mm512_maskz_permutex2var_ps(every, table(steps.a[5]), k, table(steps.a[6])),
             _mm512_maskz_permutex2var_ps(every, table(steps.b[5]), k, table(steps.b[6])));
        _mm512_mask_storeu_epi32(place + i, every, k);
    }
}

// jg::block_sum<6> of the pixels that count, their values and products: 32 lanes of it at a time.
JG_FN jg::Vec<6> sums_of(const float* __restrict__ a, const float* __restrict__ b, int n, double shift_a, double shift_b, float top_a,
                         float top_b, bool all) {
    jg::Vec<6> out = {};
    const auto add = [&](jg::Doubles (&sum)[6], jg::Floats of_a, jg::Floats of_b, jg::Mask there) {
        const __m256 zero = _mm256_setzero_ps();
        const jg::Mask mine = there & jg::Mask(all ? _mm256_cmp_ps_mask(__m256(of_a), zero, _CMP_GT_OQ) |
                                                         _mm256_cmp_ps_mask(__m256(of_b), zero, _CMP_GT_OQ)
                                                   : _mm256_cmp_ps_mask(__m256(of_a), _mm256_set1_ps(top_a), _CMP_LT_OQ) |
                                                         _mm256_cmp_ps_mask(__m256(of_b), _mm256_set1_ps(top_b), _CMP_LT_OQ));
        const jg::Doubles x = jg::doubles_of(of_a) - shift_a, y = jg::doubles_of(of_b) - shift_b;
        jg::add_to(sum[0], mine, jg::Doubles{} + 1.0);
        jg::add_to(sum[1], mine, x);
        jg::add_to(sum[2], mine, y);
        jg::add_to(sum[3], mine, x * x);
        jg::add_to(sum[4], mine, y * y);
        jg::add_to(sum[5], mine, x * y);
    };
    for (int group = 0; group < jg::LANES; group += 32) {
        jg::Doubles sum[4][6] = {};
        int i = group;
        for (; i + 32 <= n; i += jg::LANES)
            for (int v = 0; v < 4; ++v) add(sum[v], jg::floats_at(a + i + 8 * v), jg::floats_at(b + i + 8 * v), jg::ALL);
        for (int v = 0; v < 4; ++v) {
            const int left = n - i - 8 * v;
            if (left <= 0) break;
            const jg::Mask first = jg::Mask(left >= 8 ? 255 : (1 << left) - 1);
            add(sum[v], jg::first_floats(a + i + 8 * v, first), jg::first_floats(b + i + 8 * v, first), first);
        }
        for (int k = 0; k < 6; ++k) {
            const jg::Doubles lanes[4] = {sum[0][k], sum[1][k], sum[2][k], sum[3][k]};
            out.v[k] += jg::folded(lanes);
        }
    }
    return out;
}
#endif
}  // namespace

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
#if defined(JG_WIDE)
    const jg::Vec<6> sum = sums_of(a, b, n, shift_a, shift_b, top_a, top_b, all);
    (void)s;
#else
    const jg::Vec<6> sum = jg::block_sum<6>(n, s, [&](int i) {
        const bool mine = taken(i);
        const double x = mine ? a[i] - shift_a : 0.0, y = mine ? b[i] - shift_b : 0.0;
        return jg::Vec<6>{{mine ? 1.0 : 0.0, x, y, x * x, y * y, x * y}};
    });
#endif
    // Whether a channel is constant: values are 0 or more, so their bits are in order.
    int min_a = 0x7fffffff, min_b = 0x7fffffff, max_a = -1, max_b = -1;
    JG_ONCE { ends.v[0] = ends.v[1] = 0x7fffffff; ends.v[2] = ends.v[3] = -1; }
    __syncthreads();
    JG_FOR(i, n) {
        const int mine = -int(taken(i)), of_a = jg::bits_of(a[i] + 0.0f), of_b = jg::bits_of(b[i] + 0.0f);
        min_a = jg::smaller(min_a, (of_a & mine) | (0x7fffffff & ~mine));
        max_a = jg::larger(max_a, of_a | ~mine);
        min_b = jg::smaller(min_b, (of_b & mine) | (0x7fffffff & ~mine));
        max_b = jg::larger(max_b, of_b | ~mine);
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

// Sums for Costes' search, which asks for the pixels below the thresholds of many levels: sums between one level's thresholds and the
// next's. Values and products are rounded to 2^-40, so that any order gives the same; what hangs on less the search asks costes_moments.
//
// In   pixels, pairs, shift as above
//      limit       float32 [2, 64]           thresholds of both channels, not falling; infinity from `limits` on, which are fewer than 64
//      field, pair                           whose sums
//      first                                 1: pixels below the first are known already, and not summed
// Out  sums        uint64  [limits, 6]       zeros at first; pixels, a, b, aa, bb, ab about the shifts, times 2^40, of those that are not
//                                            below k thresholds, but below the next
extern "C" __global__ void __launch_bounds__(128, 8) costes_levels(
    const float* __restrict__ pixels, const int32_t* __restrict__ pairs, const double* __restrict__ shift,
    const float* __restrict__ limit, int32_t field, int32_t pair, int32_t channels, int64_t plane, int32_t runs, int32_t limits,
    int32_t first, uint64_t* __restrict__ sums)
{
    JG_SHARED(Table, table);
    const int c = pairs[2 * pair], d = pairs[2 * pair + 1];
    const int64_t each = (plane + runs - 1) / runs, start = int(blockIdx.x) * each;
    const int n = int(jg::smaller(each, plane - start));
    const float* __restrict__ a = pixels + (int64_t(field) * channels + c) * plane + start;
    const float* __restrict__ b = pixels + (int64_t(field) * channels + d) * plane + start;
    const double shift_a = shift[field * channels + c], shift_b = shift[field * channels + d];
    const float *__restrict__ limit_a = limit, *__restrict__ limit_b = limit + LIMITS + 1;
    JG_FOR(k, LIMITS * 6) table.v[0][k] = table.v[1][k] = 0;
    __syncthreads();
#if defined(JG_SERIAL)
#  if defined(JG_WIDE)
    Steps steps;
    fill_steps(limit_a, steps.a);
    fill_steps(limit_b, steps.b);
#  endif
    for (int at = 0; at < n; at += CHUNK) {
        int32_t place[CHUNK], list[CHUNK];
        int64_t part[5][CHUNK];
        const int count = jg::smaller(CHUNK, n - at), wide = count / 16 * 16;
        const float *__restrict__ x = a + at, *__restrict__ y = b + at;
#  if defined(JG_WIDE)
        places_of(x, y, steps, wide, place);
        for (int i = wide; i < count; ++i) place[i] = place_of(x[i], y[i], limit_a, limit_b);
#  else
        (void)wide;
        for (int i = 0; i < count; ++i) place[i] = place_of(x[i], y[i], limit_a, limit_b);
#  endif
        int listed = 0;
        for (int i = 0; i < count; ++i) {
            list[listed] = i;
            listed += (place[i] >= first) & (place[i] < limits);
        }
        const auto parts = [&](int i, int to) {
            const double p = x[i] - shift_a, q = y[i] - shift_b;
            part[0][to] = whole(p * ONE);
            part[1][to] = whole(q * ONE);
            part[2][to] = whole(p * p * ONE);
            part[3][to] = whole(q * q * ONE);
            part[4][to] = whole(p * q * ONE);
        };
        if (2 * listed > count)
            for (int i = 0; i < count; ++i) parts(i, i);
        else
            for (int k = 0; k < listed; ++k) parts(list[k], list[k]);
        for (int k = 0; k < listed; ++k) {               // two tables, so that one place need not wait for itself
            const int i = list[k];
            uint64_t* __restrict__ to = table.v[k & 1] + place[i] * 6;
            ++to[0];
            for (int j = 0; j < 5; ++j) to[1 + j] += uint64_t(part[j][i]);
        }
    }
#else
    JG_FOR(i, n) {
        const int k = place_of(a[i], b[i], limit_a, limit_b);
        if (k < first || k >= limits) continue;
        const double p = a[i] - shift_a, q = b[i] - shift_b;
        uint64_t* __restrict__ to = table.v[0] + k * 6;
        jg::atomic_sum(to, uint64_t(1));
        jg::atomic_sum(to + 1, uint64_t(whole(p * ONE)));
        jg::atomic_sum(to + 2, uint64_t(whole(q * ONE)));
        jg::atomic_sum(to + 3, uint64_t(whole(p * p * ONE)));
        jg::atomic_sum(to + 4, uint64_t(whole(q * q * ONE)));
        jg::atomic_sum(to + 5, uint64_t(whole(p * q * ONE)));
    }
#endif
    __syncthreads();
    JG_FOR(k, limits * 6) {
        const uint64_t sum = table.v[0][k] + table.v[1][k];
        if (sum) jg::atomic_sum(sums + k, sum);
    }
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
