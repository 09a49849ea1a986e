// gaussian.cu: a separable Gaussian with zeros beyond the border, divided by what it makes of ones, and a threshold on it.
//
//   smooth = (g * rows, then g * columns)(image) / (edge_y edge_x + epsilon),   edge = g * 1 along each axis
//   above  = smooth >= threshold of the field
//
// A mean of pixels is no more than the greatest of them, so where none within reach comes near the threshold nothing is above it:
// smooth_threshold filters only around CHUNKs of a row that hold a pixel of nearly the threshold or more.
//
// Source   centrosome smooth_with_function_and_mask, CellProfiler Threshold and IdentifyPrimaryObjects (smoothing filter).
// Oracle   scipy.ndimage.gaussian_filter, convolve1d (tests/segmentation/test_label.py)
// Launch   smooth_threshold: a block a piece of ROWS rows, 13 KB of shared memory; smooth: of one row, 12 KB. Any block size.
// Order    rows before columns; the centre, then pairs of taps from the outermost inwards, as SciPy adds them.
#include "jg/jg.cuh"

namespace {
constexpr int PIECE = 512, RADIUS = 256;       // pixels per block does; the widest half filter (gaussian.py: PIECE, RADIUS)
constexpr int ROWS = 32;                       // rows of smooth_threshold's blocks (gaussian.py: ROWS)
constexpr int CHUNK = 16, GROUP = 8;           // columns and rows of what a bit stands for
struct Row { double column[PIECE + 2 * RADIUS], row[PIECE]; };
struct Piece {
    Row s;
    uint8_t high[(ROWS + 2 * RADIUS) / GROUP + 1][8];    // a bit a chunk from the first within reach: it has a value near the threshold
};
static_assert(PIECE + 2 * RADIUS == 64 * CHUNK, "a row's chunks are a word");

// The filter along columns at columns x0 .. x1 of row y, which may lie beyond the image; sum[0] is x0's.
JG_FN void filter_columns(
    const double* image, int height, int width, const double* tap, int radius, int y, int x0, int x1, double* __restrict__ sum, int i0)
{
    
    const int a0 = i0 + jg::larger(0, -x0), a1 = i0 + jg::smaller(width, x1) - x0;
    const double* __restrict__ at = image + int64_t(y) * width + x0 - i0;
    const double centre = tap[0];
    JG_FOR_OWN(i, i0, i0 + x1 - x0) sum[i] = 0;
    JG_FOR_OWN(i, a0, a1) sum[i] = at[i] * centre;
    int k = radius;
    if (y >= k && y + k < height)                        // three pairs a pass: the sum stays in a register meanwhile
        for (; k > 2; k -= 3) {
            const double w0 = tap[k], w1 = tap[k - 1], w2 = tap[k - 2];
            const int64_t far = int64_t(k) * width, next = far - width, near = next - width;
            JG_FOR_OWN(i, a0, a1)
                sum[i] = sum[i] + (at[i - far] + at[i + far]) * w0 + (at[i - next] + at[i + next]) * w1
                    + (at[i - near] + at[i + near]) * w2;
        }
    for (; k; --k) {
        const double w = tap[k];
        const double *above = at - int64_t(k) * width, *below = at + int64_t(k) * width;
        if (y >= k && y + k < height) {
            JG_FOR_OWN(i, a0, a1) sum[i] += (above[i] + below[i]) * w;
        } else if (y >= k) {
            JG_FOR_OWN(i, a0, a1) sum[i] += above[i] * w;
        } else if (y + k < height) {
            JG_FOR_OWN(i, a0, a1) sum[i] += below[i] * w;
        }
    }
}

// The filter along the row at places x0 .. x1 of row[]; column[x] is the same place's.
JG_FN void filter_row(const double* __restrict__ column, const double* tap, int radius, int x0, int x1, double* __restrict__ row) {
    const double centre = tap[0];
    JG_FOR_OWN(i, x0, x1) row[i] = column[i] * centre;
    int k = radius;
    for (; k > 2; k -= 3) {
        const double w0 = tap[k], w1 = tap[k - 1], w2 = tap[k - 2];
        const int j = k;
        JG_FOR_OWN(i, x0, x1)
            row[i] = row[i] + (column[i - j] + column[i + j]) * w0 + (column[i - j + 1] + column[i + j - 1]) * w1
                + (column[i - j + 2] + column[i + j - 2]) * w2;
    }
    for (; k; --k) {
        const double w = tap[k];
        const int j = k;
        JG_FOR_OWN(i, x0, x1) row[i] += (column[i - j] + column[i + j]) * w;
    }
}

JG_FN void round_to_single(double* v, int x0, int x1) {
    JG_FOR_OWN(i, x0, x1) v[i] = double(float(v[i]));
}

// f(first, end) for every run of set bits.
template <class F> JG_FN void each_run(uint64_t word, F f) {
    while (word) {
        const int first = jg::lowest_bit(word);
        const uint64_t from = word >> first;
        const int n = ~from ? jg::lowest_bit(~from) : 64;
        f(first, first + n);
        word = first + n < 64 ? word & ~uint64_t(0) << (first + n) : 0;
    }
}
}  // namespace

// In   image      float64 [B, H, W]   not negative
//      tap        float64 [radius + 1]   the centre's weight, then each distance's; of one sign
//      edge_y     float64 [H];  edge_x  float64 [W]
//      threshold  float64 [B]
//      single     1: what each axis gives is rounded to float32, as SciPy does where the image is float32
// Out  above      uint8 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 4) smooth_threshold(
    const double* __restrict__ image, const double* __restrict__ tap, const double* __restrict__ edge_y,
    const double* __restrict__ edge_x, const double* __restrict__ threshold, int32_t height, int32_t width, int32_t radius,
    int32_t single, double epsilon, uint8_t* __restrict__ above)
{
    JG_SHARED(Piece, p);
    const int pieces = (width + PIECE - 1) / PIECE, bands = (height + ROWS - 1) / ROWS;
    const int x0 = int(blockIdx.x) % pieces * PIECE, x1 = jg::smaller(width, x0 + PIECE);
    const int y0 = int(blockIdx.x) / pieces % bands * ROWS, y1 = jg::smaller(height, y0 + ROWS);
    const int64_t field = int(blockIdx.x) / pieces / bands;
    const double* __restrict__ in = image + field * height * width;
    // Rounding moves a mean by less than 1e-12 of it, and by less than 1.2e-7 where sums are singles.
    const double t = threshold[field], near = t - (single ? 1e-6 : 1e-9) * (t < 0 ? -t : t);

    const int reach = (radius + CHUNK - 1) / CHUNK, left = x0 - reach * CHUNK, n = (2 * reach + PIECE / CHUNK + 7) / 8 * 8 * CHUNK;
    const int a0 = jg::larger(0, -left), a1 = jg::smaller(width - left, n), first = jg::larger(0, y0 - radius);
    const int groups = (jg::smaller(height, y1 + radius) - first + GROUP - 1) / GROUP;
    double* __restrict__ top = p.s.column;
    for (int g = 0; g < groups; ++g) {
        JG_FOR(i, n) top[i] = 0;
        for (int k = 0; k < GROUP; ++k) {
            const int y = first + g * GROUP + k;
            if (y >= height) break;
            const double* __restrict__ v = in + int64_t(y) * width + left;
            if (y + 2 < height) jg::fetch_ahead(v + 2 * width + a0, a1 - a0);
            JG_FOR_OWN(i, a0, a1) top[i] = v[i] > top[i] ? v[i] : top[i];
        }
        __syncthreads();
        JG_FOR(c, n / (8 * CHUNK)) {
            int bits = 0;
            for (int i = 0; i < 8 * CHUNK; ++i) bits |= (top[c * 8 * CHUNK + i] >= near) << i / CHUNK;
            p.high[g][c] = uint8_t(bits);
        }
        __syncthreads();
    }
    double* __restrict__ row = p.s.row;
    for (int y = y0; y < y1; ++y) {
        uint64_t word = 0;
        for (int g = (jg::larger(first, y - radius) - first) / GROUP; g <= (jg::smaller(height - 1, y + radius) - first) / GROUP; ++g)
            for (int c = 0; c < n / (8 * CHUNK); ++c) word |= uint64_t(p.high[g][c]) << (8 * c);
        uint64_t wanted = word, wide;
        for (int k = 1; k <= reach; ++k) wanted |= word << k | word >> k;
        wanted = wanted >> reach & ~uint64_t(0) >> (64 - PIECE / CHUNK);
        wide = wanted << reach;
        for (int k = 1; k <= reach; ++k) wide |= wanted << (reach + k) | wanted << (reach - k);
        __syncthreads();                                 // the row before has been read
        each_run(wide, [&](int c0, int c1) {
            filter_columns(in, height, width, tap, radius, y, left + c0 * CHUNK, left + c1 * CHUNK, p.s.column, c0 * CHUNK);
            if (single) round_to_single(p.s.column, c0 * CHUNK, c1 * CHUNK);
        });
        __syncthreads();
        const double e = edge_y[y];
        uint8_t* __restrict__ out = above + (field * height + y) * width + x0;
        JG_FOR(i, x1 - x0) out[i] = 0;
        each_run(wanted, [&](int c0, int c1) {
            const int a = c0 * CHUNK, b = jg::smaller(c1 * CHUNK, x1 - x0);
            filter_row(p.s.column + reach * CHUNK, tap, radius, a, b, row);
            if (single) round_to_single(row, a, b);
            JG_FOR_OWN(i, a, b) out[i] = row[i] / (e * edge_x[x0 + i] + epsilon) >= t;
        });
    }
}
JG_REGISTER(smooth_threshold)

// In   single     1: what each axis gives, and the quotient, is rounded to float32, as SciPy does where the image is float32
// Out  smooth     float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 4) smooth(
    const double* __restrict__ image, const double* __restrict__ tap, const double* __restrict__ edge_y,
    const double* __restrict__ edge_x, int32_t height, int32_t width, int32_t radius, double epsilon,
    int32_t single, double* __restrict__ smoothed)
{
    JG_SHARED(Row, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE, x1 = jg::smaller(width, x0 + PIECE);
    const int y = int(blockIdx.x) / pieces % height, field = int(blockIdx.x) / pieces / height;
    filter_columns(image + int64_t(field) * height * width, height, width, tap, radius, y, x0 - radius, x1 + radius, s.column, 0);
    __syncthreads();
    if (single) {
        JG_FOR(i, x1 - x0 + 2 * radius) s.column[i] = double(float(s.column[i]));
        __syncthreads();
    }
    filter_row(s.column + radius, tap, radius, 0, x1 - x0, s.row);
    const double e = edge_y[y];
    double* __restrict__ out = smoothed + (int64_t(field) * height + y) * width + x0;
    if (single) {
        JG_FOR(i, x1 - x0) out[i] = double(float(double(float(s.row[i])) / (e * edge_x[x0 + i] + epsilon)));
    } else {
        JG_FOR(i, x1 - x0) out[i] = s.row[i] / (e * edge_x[x0 + i] + epsilon);
    }
}
JG_REGISTER(smooth)

// In   values     float32 or float64, one plane per field at offset + field * stride
// Out  above      uint8 [B, n]   values at or above the field's threshold
template <class T> JG_FN void above_threshold_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const double* __restrict__ threshold, uint8_t* __restrict__ above)
{
    const int width = n / height, y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const T* __restrict__ value = values + offset + field * stride + int64_t(y) * width;
    uint8_t* __restrict__ out = above + int64_t(blockIdx.x) * width;
    const double t = threshold[field];
    JG_FOR(x, width) out[x] = double(value[x]) >= t;
}

extern "C" __global__ void __launch_bounds__(128, 8) above_threshold_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const double* __restrict__ threshold, uint8_t* __restrict__ above)
{
    above_threshold_block(values, offset, stride, n, height, threshold, above);
}
JG_REGISTER(above_threshold_32)

extern "C" __global__ void __launch_bounds__(128, 8) above_threshold_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const double* __restrict__ threshold, uint8_t* __restrict__ above)
{
    above_threshold_block(values, offset, stride, n, height, threshold, above);
}
JG_REGISTER(above_threshold_64)
