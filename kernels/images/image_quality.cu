// image_quality.cu: statistics of whole images, for quality control.
//
//   quality_sums     sums over pieces of a sorted image: of the pixels, and of their logarithms between Otsu's possible thresholds
//   quality_finish   all measures that come of a sorted image and its sums
//   quality_grid     variance over mean of every cell of a grid laid over the image: m x n cells, pixel (y, x) in cell
//                    (y * m / height, x * n / width)
//   quality_focus    variance over median of an image's cells
//
// Source   CellProfiler MeasureImageQuality: calculate_focus_scores, calculate_saturation, run_intensity_measurement; Otsu's
//          threshold is centrosome's get_otsu_threshold: two classes of the logarithms, split at one of 256 quantiles
// Oracle   CellProfiler's module by hand (tests/helpers/oracles/image_quality.py), NumPy, centrosome (tests/features/test_image_quality.py)
// Launch   a block per image (quality_sums: a piece, quality_grid: a row of cells); any block size; 20 KB of shared memory at most.
// Order    jg::block_sum within a piece, pieces in order; cells by column, then by columns in order; counts are integers.
#include "jg/jg_math.cuh"

namespace {
constexpr int OTSU_BINS = 256, PLACES = 2 * OTSU_BINS;   // thresholds at most: an image of 511 pixels has 510
constexpr int COLUMNS = 1024;                            // of an image that quality_grid sums at a time

// Columns of the table behind LocalFocusScore's, of which there is one a scale (image_quality.py: MEASUREMENTS).
struct Quality {
    enum {
        PowerLogLogSlope, TotalArea, TotalIntensity, MeanIntensity, MedianIntensity, StdIntensity, MADIntensity, MinIntensity,
        MaxIntensity, PercentMaximal, PercentMinimal, ThresholdOtsu
    };
};
// Of each image, for the power spectrum: its mean, and whether it has one (power_spectrum.cu).
struct Plane { enum { Mean, HasSpectrum, COUNT }; };

struct Below { double squares[PLACES]; };
struct Columns {
    double shift[COLUMNS], square[COLUMNS];
    float origin[COLUMNS];
};

// Otsu's thresholds stand behind every `step`-th value; the pieces between them, the first of one value.
struct Pieces {
    int n, step, places;
    __device__ __forceinline__ int count() const { return places + 1; }
    __device__ __forceinline__ int start(int k) const { return k == 0 ? 0 : k > places ? n : (k - 1) * step + 1; }
};
JG_FN Pieces pieces_of(int n) {
    const int step = n / jg::smaller(OTSU_BINS, n);
    return {n, step, (n - 1 + step - 1) / step};
}

// The logarithm of a pixel, of float32 as centrosome's, from 0 for the darkest to 1 for the brightest.
struct Logarithm {
    double floor, low, range, inverse;
};
JG_FN double log_of(float pixel, double floor) { return double(float(jg::log_same(jg::larger(double(pixel), floor)))); }
JG_FN Logarithm logarithm_of(float minimum, float maximum) {
    Logarithm l;
    l.floor = double(minimum + (maximum - minimum) / 256.0f + 1.1920928955078125e-07f);
    l.low = log_of(minimum, l.floor);
    l.range = log_of(maximum, l.floor) - l.low;
    l.inverse = l.range > 0 ? 1.0 / l.range : 0.0;
    return l;
}
JG_FN double scaled_log(float pixel, const Logarithm& l) { return (log_of(pixel, l.floor) - l.low) * l.inverse; }

JG_FN float median_of(const float* sorted, int n) {
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0f;
}
// How many of the sorted values are below v, or not above it.
JG_FN int count_below(const float* sorted, int n, double v, bool or_equal) {
    int low = 0, high = n;
    while (low < high) {
        const int mid = low + (high - low) / 2;
        const double x = double(sorted[mid]);
        if (x < v || (or_equal && x == v)) low = mid + 1;
        else high = mid;
    }
    return low;
}
// The k-th smallest |value - median|, k from 0: of two sorted lists, the values from the middle upward and downward.
JG_FN float deviation(const float* sorted, int n, float median, int k) {
    const int half = n / 2, ups = n - half, downs = half;
    auto up = [&](int i) { return sorted[half + i] - median; };
    auto down = [&](int i) { return median - sorted[half - 1 - i]; };
    int low = jg::larger(0, k - downs), high = jg::smaller(k, ups);
    while (low < high) {
        const int mid = (low + high) / 2;
        if (up(mid) < down(k - mid - 1)) low = mid + 1;
        else high = mid;
    }
    if (low >= ups) return down(k - low);
    if (k - low >= downs) return up(low);
    return jg::smaller(up(low), down(k - low));
}

// Number, mean and sum of squared distances from it of some values; joined with others'.
struct Moments {
    double n, mean, squares;
};
JG_FN Moments joined(const Moments& a, const Moments& b) {
    const double n = a.n + b.n, d = b.mean - a.mean;
    if (n == 0) return a;
    return {n, a.mean + d * (b.n / n), a.squares + b.squares + d * d * (a.n * b.n / n)};
}
}  // namespace

// In   sorted   float32 [planes, n]
//      logs     0: the last two sums are not wanted, and 0
// Out  sums     float64 [planes, pieces, 4]   of I - median, its square, L - the piece's first L, its square; L the scaled log
extern "C" __global__ void __launch_bounds__(128, 8) quality_sums(
    const float* __restrict__ sorted, int32_t n, int32_t logs, double* __restrict__ sums)
{
    JG_SHARED(jg::SumScratch<4>, scratch);
    const Pieces pieces = pieces_of(n);
    const int k = int(blockIdx.x) % pieces.count(), start = pieces.start(k), length = pieces.start(k + 1) - start;
    const float* __restrict__ image = sorted + int64_t(int(blockIdx.x) / pieces.count()) * n;
    const double median = double(median_of(image, n));
    if (!logs) {
        JG_SHARED(jg::SumScratch<2>, few);
        const jg::Vec<2> sum = jg::block_sum<2>(length, few, [&](int i) {
            const double d = double(image[start + i]) - median;
            return jg::Vec<2>{{d, d * d}};
        });
        JG_ONCE for (int j = 0; j < 4; ++j) sums[4 * int64_t(blockIdx.x) + j] = j < 2 ? sum.v[j] : 0.0;
        return;
    }
    const Logarithm l = logarithm_of(image[0], image[n - 1]);
    const double origin = scaled_log(image[start], l);
    const jg::Vec<4> sum = jg::block_sum<4>(length, scratch, [&](int i) {
        const double d = double(image[start + i]) - median, e = scaled_log(image[start + i], l) - origin;
        return jg::Vec<4>{{d, d * d, e, e * e}};
    });
    JG_ONCE for (int j = 0; j < 4; ++j) sums[4 * int64_t(blockIdx.x) + j] = sum.v[j];
}
JG_REGISTER(quality_sums)

// In   sorted, sums   as above
//      columns        of the table: FocusScore, LocalFocusScore of `scales` scales, Quality
// Out  table          float64 [planes, columns]   all but LocalFocusScore and PowerLogLogSlope
//      planes         float64 [planes, 2]         Plane
extern "C" __global__ void __launch_bounds__(32) quality_finish(
    const float* __restrict__ sorted, const double* __restrict__ sums, int32_t n, int32_t scales, int32_t columns,
    double* __restrict__ table, double* __restrict__ planes)
{
    JG_SHARED(Below, below);
    const Pieces pieces = pieces_of(n);
    const float* __restrict__ image = sorted + int64_t(blockIdx.x) * n;
    const double* __restrict__ sum = sums + int64_t(blockIdx.x) * pieces.count() * 4;
    double* __restrict__ row = table + int64_t(blockIdx.x) * columns;
    double* __restrict__ out = row + 1 + scales;
    JG_ONCE {
        const float minimum = image[0], maximum = image[n - 1], median = median_of(image, n);
        double shift = 0, square = 0;
        for (int k = 0; k < pieces.count(); ++k) {
            shift += sum[4 * k];
            square += sum[4 * k + 1];
        }
        const double total = double(median) * n + shift, mean = total / n;
        const double variance = jg::larger(0.0, square / n - (shift / n) * (shift / n));
        row[0] = mean > 0 ? variance / mean : 0.0;    // FocusScore
        out[Quality::TotalArea] = n;
        out[Quality::TotalIntensity] = total;
        out[Quality::MeanIntensity] = mean;
        out[Quality::MedianIntensity] = double(median);
        out[Quality::StdIntensity] = sqrt(variance);
        const float upper = deviation(image, n, median, n / 2);
        out[Quality::MADIntensity] = double(n % 2 ? upper : (deviation(image, n, median, n / 2 - 1) + upper) / 2.0f);
        out[Quality::MinIntensity] = double(minimum);
        out[Quality::MaxIntensity] = double(maximum);
        out[Quality::PercentMaximal] = 100.0 * (n - count_below(image, n, double(maximum), false)) / n;
        out[Quality::PercentMinimal] = 100.0 * count_below(image, n, double(minimum), true) / n;
        const int at_mean = count_below(image, n, mean, true) - count_below(image, n, mean, false);
        planes[Plane::COUNT * int64_t(blockIdx.x) + Plane::Mean] = mean;
        planes[Plane::COUNT * int64_t(blockIdx.x) + Plane::HasSpectrum] = minimum < maximum && at_mean <= n / 2;

        const Logarithm l = logarithm_of(minimum, maximum);
        double cut = 0;
        if (l.range > 0) {
            auto moments = [&](int k) {
                const double count = pieces.start(k + 1) - pieces.start(k), shifted = sum[4 * k + 2];
                const double origin = scaled_log(image[pieces.start(k)], l);
                return Moments{count, origin + shifted / count, jg::larger(0.0, sum[4 * k + 3] - shifted * shifted / count)};
            };
            Moments dark = {0, 0, 0}, bright = {0, 0, 0};
            for (int k = 0; k < pieces.places; ++k) {
                dark = joined(dark, moments(k));
                below.squares[k] = dark.squares;
            }
            int best = 0;
            double min_within = 0;
            for (int k = pieces.places - 1; k >= 0; --k) {       // of equals the first
                bright = joined(moments(k + 1), bright);
                const double within = below.squares[k] + (bright.n > 1 ? bright.squares * (bright.n / (bright.n - 1)) : 0.0);
                if (k == pieces.places - 1 || within <= min_within) {
                    min_within = within;
                    best = k;
                }
            }
            auto quantile = [&](int k) { return scaled_log(image[jg::larger(0, jg::smaller(k, pieces.places - 1)) * pieces.step + 1], l); };
            cut = (quantile(best - 1) + quantile(best + 1)) / 2;
        }
        out[Quality::ThresholdOtsu] = jg::exp_same(cut * l.range + l.low);
    }
}
JG_REGISTER(quality_finish)

// In   pixels   float32 [planes, H, W]       corrected intensity, 0..1; a plane is a field's channel
// Out  focus    float64 [planes, m, n]       variance over mean of each cell; -1 of a black one
// Scr  sums     float64 [planes, m, n]
extern "C" __global__ void __launch_bounds__(128, 8) quality_grid(
    const float* __restrict__ pixels, int32_t height, int32_t width, int32_t m, int32_t n, double* focus, double* sums)
{
    JG_SHARED(Columns, s);
    const int i = int(blockIdx.x) % m;
    const float* __restrict__ image = pixels + int64_t(int(blockIdx.x) / m) * height * width;
    const int y0 = int((int64_t(i) * height + m - 1) / m), y1 = int((int64_t(i + 1) * height + m - 1) / m);
    double* squares = focus + int64_t(blockIdx.x) * n;
    double* shifts = sums + int64_t(blockIdx.x) * n;
    auto first = [&](int j) { return int((int64_t(j) * width + n - 1) / n); };       // the first column whose x * n / width is j
    auto origin = [&](int j) { return image[int64_t(y0) * width + first(j)]; };
    for (int c0 = 0; c0 < width; c0 += COLUMNS) {
        const int across = jg::smaller(COLUMNS, width - c0);
        const int j0 = int(int64_t(c0) * n / width), j1 = int(int64_t(c0 + across - 1) * n / width) + 1;
        JG_FOR(j, j1 - j0) {
            const int x1 = jg::smaller(first(j0 + j + 1) - c0, across);
            for (int x = jg::larger(first(j0 + j) - c0, 0); x < x1; ++x) s.origin[x] = origin(j0 + j);
        }
        __syncthreads();
        JG_FOR(x, across) s.shift[x] = s.square[x] = 0;
        for (int y = y0; y < y1; ++y) {
            const float* __restrict__ line = image + int64_t(y) * width + c0;
            JG_FOR(x, across) {
                const double d = double(line[x]) - double(s.origin[x]);
                s.shift[x] += d;
                s.square[x] += d * d;
            }
        }
        __syncthreads();
        JG_FOR(j, j1 - j0) {
            const int begin = first(j0 + j), end = first(j0 + j + 1);
            double shift = begin < c0 ? shifts[j0 + j] : 0.0, square = begin < c0 ? squares[j0 + j] : 0.0;
            for (int x = jg::larger(begin - c0, 0); x < jg::smaller(end - c0, across); ++x) {
                shift += s.shift[x];
                square += s.square[x];
            }
            if (end <= c0 + across) {
                const double area = double(end - begin) * (y1 - y0), mean = double(origin(j0 + j)) + shift / area;
                square = mean != 0 ? jg::larger(0.0, square / area - (shift / area) * (shift / area)) / mean : -1.0;
            }
            shifts[j0 + j] = shift;
            squares[j0 + j] = square;
        }
        __syncthreads();
    }
}
JG_REGISTER(quality_grid)

namespace {
struct Selecting {
    uint32_t tally[256];
    uint64_t prefix, minimum[32];
    int rank;
    jg::CountScratch<2> counts;
    jg::SumScratch<1> sums;
};
JG_FN uint64_t bits_of(double v) {
    union { double value; uint64_t bits; } u = {v};
    return u.bits;
}
JG_FN double value_of(uint64_t bits) {
    union { uint64_t bits; double value; } u = {bits};
    return u.value;
}
}  // namespace

// In   focus   float64 [planes, cells]
//      scale   which of the table's columns of LocalFocusScore
// Out  table   float64 [planes, columns]   0 where no cell is bright or their median is 0
extern "C" __global__ void __launch_bounds__(128, 8) quality_focus(
    const double* __restrict__ focus, int32_t cells, int32_t scale, int32_t columns, double* __restrict__ table)
{
    JG_SHARED(Selecting, s);
    const double* __restrict__ cell = focus + int64_t(blockIdx.x) * cells;
    jg::Counts<2> mine = {{0, 0}};
    JG_FOR(i, cells) mine.v[0] += cell[i] >= 0;
    const int bright = int(jg::block_count<2>(mine, s.counts).v[0]), rank = (bright - 1) / 2;
    JG_ONCE {
        s.prefix = 0;
        s.rank = rank;
    }
    // The value of that rank, a byte at a time from the highest: bits of positive numbers are in their order.
    for (int shift = 56; shift >= 0; shift -= 8) {
        JG_FOR(b, 256) s.tally[b] = 0;
        __syncthreads();
        const uint64_t prefix = s.prefix, above = shift == 56 ? 0 : ~uint64_t(0) << (shift + 8);
        JG_FOR(i, cells) {
            const uint64_t bits = bits_of(cell[i]);
            if (cell[i] >= 0 && (bits & above) == prefix) jg::tally(&s.tally[bits >> shift & 255]);
        }
        __syncthreads();
        JG_ONCE if (bright) {
            int byte = 0;
            while (s.rank >= int(s.tally[byte])) s.rank -= int(s.tally[byte++]);
            s.prefix = prefix | uint64_t(byte) << shift;
        }
        __syncthreads();
    }
    const uint64_t lower = s.prefix;
    uint64_t next = ~uint64_t(0);                        // the smallest value above it
    mine = {{0, 0}};
    JG_FOR(i, cells) {
        const bool seen = cell[i] >= 0;
        const uint64_t bits = bits_of(cell[i]);
        mine.v[1] += seen && bits <= lower;
        if (seen && bits > lower) next = jg::smaller(next, bits);
    }
    next = jg::warp_min(next);
    if (jg::lane() == 0) s.minimum[jg::warp_id()] = next;
    const int up_to = int(jg::block_count<2>(mine, s.counts).v[1]);
    for (int w = 0; w < jg::warps(); ++w) next = jg::smaller(next, s.minimum[w]);
    const double middle = value_of(lower);
    const double median = bright % 2 || up_to > rank + 1 ? middle : (middle + value_of(next)) / 2;
    const double mean = jg::block_sum<1>(cells, s.sums, [&](int i) { return jg::Vec<1>{{jg::larger(cell[i], 0.0)}}; }).v[0] / jg::larger(bright, 1);
    const double square = jg::block_sum<1>(cells, s.sums, [&](int i) {
        const double d = cell[i] >= 0 ? cell[i] - mean : 0.0;
        return jg::Vec<1>{{d * d}};
    }).v[0];
    JG_ONCE table[int64_t(blockIdx.x) * columns + 1 + scale] = bright && median > 0 ? square / bright / median : 0.0;    // LocalFocusScore
}
JG_REGISTER(quality_focus)
