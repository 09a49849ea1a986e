// threshold.cu: the global threshold of a field (Otsu, robust background), and the logarithm before it.
//
//   Otsu: the bin centre that maximises the variance between classes, over 256 bins (two classes) or 128 (three, in float32).
//   Logarithm: values below smallest + range / 256 become that, then log, stretched to 0..1.
//   Robust background: mean, median or mode of the values without a share of the lowest and highest, plus deviations * spread.
//   A constant field's threshold is its value.
//
// Source   CellProfiler Threshold; scikit-image 0.18.3 threshold_otsu, threshold_multiotsu; centrosome log_transform.
// Oracle   scikit-image, centrosome (tests/segmentation/test_threshold.py); CellProfiler's thresholds of the real fields
// Launch   a block per field (otsu: any block size), a block a CHUNK of values (extrema, histogram), or a thread per value
//          (log_stretch).
// Order    sums are integers; Otsu adds bins in order.
#include "segmentation/threshold.cuh"
#include "jg/jg_math.cuh"

namespace {
constexpr int CHUNK = 16384;                   // values of a block of extrema and histogram (threshold.py: CHUNK)
constexpr int MAX_BINS = 256;

struct Tally { uint32_t bin[MAX_BINS]; };
struct Robust { jg::SumScratch<1> sum; int maximum, bin; };
struct Otsu {
    double edge[MAX_BINS + 1], centre[MAX_BINS], best[MAX_BINS];
    float zeroth[MAX_BINS], first[MAX_BINS];
    int32_t at[MAX_BINS];
};

template <class T> JG_FN void extrema_of(const T* v, int n, uint64_t* low, uint64_t* high) {
    uint64_t minimum = ~uint64_t(0), maximum = 0;
    jg::each_value(v, n, [&](T value) {
        const uint64_t bits = bits_of(double(value));
        minimum = jg::smaller(minimum, bits);
        maximum = jg::larger(maximum, bits);
    });
    minimum = jg::warp_min(minimum);
    maximum = jg::warp_max(maximum);
    if (jg::lane() == 0) {
        jg::atomic_min(low, minimum);
        jg::atomic_max(high, maximum);
    }
}

// Bin edges as numpy.histogram's, in the values' own type.
template <class T> JG_FN double bin_edge(int k, int bins, double low, double high) {
    return k == bins ? double(T(high)) : double(T(double(k) * ((high - low) / bins) + low));
}

template <class T> JG_FN void histogram_of(const T* v, int n, int bins, double low, double high, uint32_t* tally, uint32_t* out) {
    JG_FOR(k, bins) tally[k] = 0;
    __syncthreads();
    const double scale = bins / (high - low);
    JG_FOR(i, n) {
        const double value = double(v[i]);
        int k = jg::smaller(bins - 1, int((value - low) * scale));
        while (k > 0 && value < bin_edge<T>(k, bins, low, high)) --k;
        while (k < bins - 1 && value >= bin_edge<T>(k + 1, bins, low, high)) ++k;
        jg::tally(tally + k);
    }
    __syncthreads();
    JG_FOR(k, bins) if (tally[k]) jg::atomic_sum(out + k, tally[k]);
}

template <class T> JG_FN T log_of(double value, double low, double high) {
    constexpr double eps = sizeof(T) == 4 ? 1.1920928955078125e-07 : 2.220446049250313e-16;
    const T floor = T(T(low) + T(T(T(high) - T(low)) / T(256)) + T(eps));
    return T(jg::log_same(double(T(value) < floor ? floor : T(value))));
}
// One thread: bins of the variance between two classes.
template <class T> JG_FN double otsu_two(const uint32_t* count, int bins, double low, double high, Otsu& s) {
    for (int k = 0; k < bins; ++k)
        s.centre[k] = double(T(T(T(bin_edge<T>(k, bins, low, high)) + T(bin_edge<T>(k + 1, bins, low, high))) / T(2)));
    double weight = 0, sum = 0;                          // from above, kept for the second pass
    for (int k = bins - 1; k >= 0; --k) {
        weight += count[k];
        sum += count[k] * s.centre[k];
        s.edge[k] = weight;
        s.best[k] = sum / weight;
    }
    double below = 0, below_sum = 0, maximum = -1;
    int at = 0;
    for (int k = 0; k + 1 < bins; ++k) {
        below += count[k];
        below_sum += count[k] * s.centre[k];
        const double apart = below_sum / below - s.best[k + 1], variance = below * s.edge[k + 1] * (apart * apart);
        if (variance > maximum) { maximum = variance; at = k; }
    }
    return s.centre[at];
}

// The variance of bins i..j, from running sums, in float32 as scikit-image's.
JG_FN float class_variance(const Otsu& s, int i, int j) {
    if (i == 0 && j == 0) return 0;
    const float zeroth = i ? s.zeroth[j] - s.zeroth[i - 1] : s.zeroth[j], first = i ? s.first[j] - s.first[i - 1] : s.first[j];
    return zeroth > 0 ? first * first / zeroth : 0.0f;
}
}  // namespace

// In   values   float32 or float64 [B, stride] of which n count, 0..1; a float32 plane may be one channel of several
// Out  extrema  uint64 [B, 2]   starts as all ones, 0
template <class T> JG_FN void extrema_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ extrema)
{
    const int chunks = (n + CHUNK - 1) / CHUNK, chunk = int(blockIdx.x) % chunks;
    const int64_t field = int(blockIdx.x) / chunks;
    extrema_of(values + offset + field * stride + int64_t(chunk) * CHUNK, jg::smaller(CHUNK, n - chunk * CHUNK), extrema + 2 * field,
               extrema + 2 * field + 1);
}

extern "C" __global__ void __launch_bounds__(128, 8) extrema_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ extrema)
{
    extrema_block(values, offset, stride, n, extrema);
}
JG_REGISTER(extrema_32)

extern "C" __global__ void __launch_bounds__(128, 8) extrema_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ extrema)
{
    extrema_block(values, offset, stride, n, extrema);
}
JG_REGISTER(extrema_64)

// Out  counts   uint32 [B, bins]    starts as 0; a field whose extrema agree is left alone
template <class T> JG_FN void histogram_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t bins,
    const uint64_t* __restrict__ extrema, uint32_t* __restrict__ counts, Tally& s)
{
    const int chunks = (n + CHUNK - 1) / CHUNK, chunk = int(blockIdx.x) % chunks;
    const int64_t field = int(blockIdx.x) / chunks;
    const double low = value_of(extrema[2 * field]), high = value_of(extrema[2 * field + 1]);
    if (low == high) return;
    histogram_of(values + offset + field * stride + int64_t(chunk) * CHUNK, jg::smaller(CHUNK, n - chunk * CHUNK), bins, low,
                 high, s.bin, counts + field * bins);
}

extern "C" __global__ void __launch_bounds__(128, 8) histogram_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t bins,
    const uint64_t* __restrict__ extrema, uint32_t* __restrict__ counts)
{
    JG_SHARED(Tally, s);
    histogram_block(values, offset, stride, n, bins, extrema, counts, s);
}
JG_REGISTER(histogram_32)

extern "C" __global__ void __launch_bounds__(128, 8) histogram_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t bins,
    const uint64_t* __restrict__ extrema, uint32_t* __restrict__ counts)
{
    JG_SHARED(Tally, s);
    histogram_block(values, offset, stride, n, bins, extrema, counts, s);
}
JG_REGISTER(histogram_64)

// In   single     1: the values were float32, and edges and centres are rounded to it
// Out  threshold  float64 [B]   two classes over all bins
extern "C" __global__ void __launch_bounds__(128, 8) otsu_2(
    const uint32_t* __restrict__ counts, int32_t bins, const uint64_t* __restrict__ extrema, int32_t single,
    double* __restrict__ threshold)
{
    JG_SHARED(Otsu, s);
    const double low = value_of(extrema[2 * blockIdx.x]), high = value_of(extrema[2 * blockIdx.x + 1]);
    const uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * bins;
    JG_ONCE threshold[blockIdx.x] = low == high ? low
        : single ? otsu_two<float>(count, bins, low, high, s) : otsu_two<double>(count, bins, low, high, s);
}
JG_REGISTER(otsu_2)

// Out  threshold  float64 [B]   three classes; the lower threshold, or the upper one
extern "C" __global__ void __launch_bounds__(128, 8) otsu_3(
    const uint32_t* __restrict__ counts, int32_t bins, int32_t n, const uint64_t* __restrict__ extrema, int32_t single,
    int32_t upper, double* __restrict__ threshold)
{
    JG_SHARED(Otsu, s);
    const double low = value_of(extrema[2 * blockIdx.x]), high = value_of(extrema[2 * blockIdx.x + 1]);
    const uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * bins;
    if (low == high) {
        JG_ONCE threshold[blockIdx.x] = low;
        return;
    }
    JG_FOR(k, MAX_BINS) { s.best[k] = -1; s.at[k] = 0; }
    JG_ONCE {
        s.zeroth[0] = s.first[0] = float(double(count[0]) / n);
        for (int k = 1; k < bins; ++k) {
            const float share = float(double(count[k]) / n);
            s.zeroth[k] = s.zeroth[k - 1] + share;
            s.first[k] = s.first[k - 1] + float(k) * share;
        }
    }
    __syncthreads();
    JG_FOR(i, bins - 2) {                                // the first of the best, as a search in order finds it
        float best = -1;
        int at = i + 1;
        const float lowest = class_variance(s, 0, i);
        for (int j = i + 1; j < bins - 1; ++j) {
            const float sum = lowest + class_variance(s, j + 1, bins - 1) + class_variance(s, i + 1, j);
            if (sum > best) { best = sum; at = j; }
        }
        s.best[i] = double(best);
        s.at[i] = at;
    }
    __syncthreads();
    JG_ONCE {
        int i = 0, distinct = 0;
        for (int k = 1; k < bins - 2; ++k)
            if (s.best[k] > s.best[i]) i = k;
        int k = upper ? s.at[i] : i;
        for (int b = 0; b < bins; ++b) distinct += count[b] != 0;
        if (distinct <= 3) {                             // as many values as classes: between them, whatever the variance
            int met = 0;
            for (int b = 0; b < bins; ++b)
                if (count[b] && met++ == upper) { k = b; break; }
        }
        const double left = single ? bin_edge<float>(k, bins, low, high) : bin_edge<double>(k, bins, low, high);
        const double right = single ? bin_edge<float>(k + 1, bins, low, high) : bin_edge<double>(k + 1, bins, low, high);
        threshold[blockIdx.x] = single ? double(float(float(left) + float(right)) / 2.0f) : (left + right) / 2;
    }
}
JG_REGISTER(otsu_3)

// Out  stretched  float32 or float64 [B, n]   the logarithm, 0..1; 0 in a constant field
template <class T> JG_FN void log_stretch_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const uint64_t* __restrict__ extrema, T* __restrict__ logarithm)
{
    const int width = n / height, y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const double low = value_of(extrema[2 * field]), high = value_of(extrema[2 * field + 1]);
    const T bottom = log_of<T>(low, low, high), top = log_of<T>(high, low, high);
    const T* __restrict__ value = values + offset + field * stride + int64_t(y) * width;
    T* __restrict__ out = logarithm + int64_t(blockIdx.x) * width;
    JG_FOR(x, width) out[x] = top == bottom ? T(0) : T(T(log_of<T>(double(value[x]), low, high) - bottom) / T(top - bottom));
}

extern "C" __global__ void __launch_bounds__(128, 8) log_stretch_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const uint64_t* __restrict__ extrema, float* __restrict__ logarithm)
{
    log_stretch_block(values, offset, stride, n, height, extrema, logarithm);
}
JG_REGISTER(log_stretch_32)

extern "C" __global__ void __launch_bounds__(128, 8) log_stretch_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const uint64_t* __restrict__ extrema, double* __restrict__ logarithm)
{
    log_stretch_block(values, offset, stride, n, height, extrema, logarithm);
}
JG_REGISTER(log_stretch_64)

// Robust background: a location of the sorted values without their outliers, plus so many times a spread.
// In   sorted     float64 [B, stride], of which first .. first + n count;  deviation  float64 [B, n]  sorted |value - median|
//      averaging  0 mean, 1 median, 2 mode of ceil(sqrt(n)) equal bins;  variance  0 standard deviation, 1 median deviation
// Out  threshold  float64 [B]
extern "C" __global__ void __launch_bounds__(128, 8) robust_background(
    const double* __restrict__ sorted, const double* __restrict__ deviation, int64_t stride, int32_t first, int32_t n,
    int32_t averaging, int32_t variance, double deviations, double* __restrict__ threshold)
{
    JG_SHARED(Robust, s);
    const double* __restrict__ v = sorted + blockIdx.x * stride + first;
    const double* __restrict__ away = deviation + int64_t(blockIdx.x) * n;
    const double low = v[0], high = v[n - 1];
    const double mean = jg::block_sum<1>(n, s.sum, [&](int i) { return jg::Vec<1>{{v[i]}}; }).v[0] / n;
    const double square = jg::block_sum<1>(n, s.sum, [&](int i) { return jg::Vec<1>{{(v[i] - mean) * (v[i] - mean)}}; }).v[0] / n;
    if (averaging == 2 && low < high) {
        const int bins = int(ceil(sqrt(double(n))));
        JG_ONCE { s.maximum = 0; s.bin = bins; }
        __syncthreads();
        auto begin = [&](int k) {                        // the first value whose bin is k or more
            int from = 0, to = n;
            while (from < to) {
                const int middle = (from + to) / 2;
                if (int((v[middle] - low) / (high - low) * bins) >= k) to = middle; else from = middle + 1;
            }
            return from;
        };
        int maximum = 0;
        JG_FOR(k, bins + 1) maximum = jg::larger(maximum, begin(k + 1) - begin(k));
        jg::gather_max(&s.maximum, maximum);
        __syncthreads();
        int mine = bins;
        JG_FOR(k, bins + 1) if (begin(k + 1) - begin(k) == s.maximum) mine = jg::smaller(mine, k);
        jg::gather_min(&s.bin, mine);
        __syncthreads();
    }
    JG_ONCE {
        const double median = (v[(n - 1) / 2] + v[n / 2]) / 2;
        double average = averaging == 0 ? mean : median;
        if (averaging == 2) {
            const double at = (s.bin + 0.5) / int(ceil(sqrt(double(n)))) * (n - 1);
            const int i = jg::smaller(int(at), n - 1), j = jg::smaller(i + 1, n - 1);
            average = low < high ? v[i] + (v[j] - v[i]) * (at - i) : low;
        }
        const double spread = variance ? (away[(n - 1) / 2] + away[n / 2]) / 2 : sqrt(square);
        threshold[blockIdx.x] = average + spread * deviations;
    }
}
JG_REGISTER(robust_background)

// The way back, then correction and bounds.
// In   original  float64 [n]   on the stretched logarithm if `logarithm`, else on the values' scale; of_field of each field
// Out  original  float64 [n]   on the values' scale;  threshold  float64 [n]  min(max(original * correction, lower), upper)
extern "C" __global__ void __launch_bounds__(128, 8) finish_threshold(
    const uint64_t* __restrict__ extrema, int64_t n_thresholds, int64_t of_field, int32_t logarithm, int32_t single, double correction,
    double lower, double upper, double* __restrict__ original, double* __restrict__ threshold)
{
    JG_FOR_ITEMS(b, n_thresholds) {
        const double low = value_of(extrema[b / of_field * 2]), high = value_of(extrema[b / of_field * 2 + 1]);
        double t = original[b];
        if (logarithm && low != high) {
            const double bottom = single ? double(log_of<float>(low, low, high)) : log_of<double>(low, low, high);
            const double top = single ? double(log_of<float>(high, low, high)) : log_of<double>(high, low, high);
            t = jg::exp_same(bottom + t * (top - bottom));
        } else if (logarithm) {
            t = low;
        }
        original[b] = t;
        threshold[b] = jg::smaller(jg::larger(t * correction, lower), upper);
    }
}
JG_REGISTER(finish_threshold)
