// smooth.cu: a separable Gaussian with zeros beyond the border, divided by what it makes of ones, and a threshold on it.
//
//   smooth = (g * rows, then g * columns)(image) / (edge_y edge_x + epsilon),   edge = g * 1 along each axis
//   above  = smooth >= threshold of the field
//
// Source   centrosome smooth_with_function_and_mask, CellProfiler Threshold and IdentifyPrimaryObjects (smoothing filter).
// Oracle   scipy.ndimage.gaussian_filter, convolve1d (tests/test_label_centrosome.py)
// Launch   a block a piece of a row, any block size; 29 KB of shared memory.
// Order    rows before columns; the centre, then pairs of taps from the outermost inwards, as SciPy adds them.
#include "jg.cuh"

namespace {
constexpr int PIECE = 1024, RADIUS = 256;      // pixels a block does; the widest half filter (smooth.py: PIECE, RADIUS)
struct Piece { double column[PIECE + 2 * RADIUS], row[PIECE]; };

// Leaves the filtered row in s.row, not yet divided.
JG_FN void filter(const double* image, int height, int width, const double* tap, int radius, int y, int x0, int x1, Piece& s) {
    // Positions count from x0 - radius, the first that the piece needs; those beyond the border stay 0.
    const int left = x0 - radius, n = x1 - left + radius, a0 = jg::most(0, -left), a1 = jg::least(width - left, n);
    double* __restrict__ sum = s.column;
    const double* __restrict__ at = image + int64_t(y) * width + left;
    const double centre = tap[0];
    JG_FOR_OWN(i, 0, n) sum[i] = 0;
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
    __syncthreads();
    const double* __restrict__ column = s.column + radius;
    double* __restrict__ row = s.row;
    JG_FOR(i, x1 - x0) row[i] = column[i] * centre;
    for (k = radius; k > 2; k -= 3) {
        const double w0 = tap[k], w1 = tap[k - 1], w2 = tap[k - 2];
        const int j = k;
        JG_FOR(i, x1 - x0)
            row[i] = row[i] + (column[i - j] + column[i + j]) * w0 + (column[i - j + 1] + column[i + j - 1]) * w1
                + (column[i - j + 2] + column[i + j - 2]) * w2;
    }
    for (; k; --k) {
        const double w = tap[k];
        const int j = k;
        JG_FOR(i, x1 - x0) row[i] += (column[i - j] + column[i + j]) * w;
    }
}
}  // namespace

// In   image      float64 [B, H, W]
//      tap        float64 [radius + 1]   the centre's weight, then each distance's
//      edge_y     float64 [H];  edge_x  float64 [W]
//      threshold  float64 [B]
// Out  above      uint8 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 4) smooth_threshold(
    const double* __restrict__ image, const double* __restrict__ tap, const double* __restrict__ edge_y,
    const double* __restrict__ edge_x, const double* __restrict__ threshold, int32_t height, int32_t width, int32_t radius,
    double epsilon, uint8_t* __restrict__ above)
{
    JG_SHARED(Piece, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE, x1 = jg::least(width, x0 + PIECE);
    const int y = int(blockIdx.x) / pieces % height, field = int(blockIdx.x) / pieces / height;
    filter(image + int64_t(field) * height * width, height, width, tap, radius, y, x0, x1, s);
    const double t = threshold[field], e = edge_y[y];
    uint8_t* __restrict__ out = above + (int64_t(field) * height + y) * width + x0;
    JG_FOR(i, x1 - x0) out[i] = s.row[i] / (e * edge_x[x0 + i] + epsilon) >= t;
}
JG_REGISTER(smooth_threshold)

// Out  smooth     float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 4) smooth(
    const double* __restrict__ image, const double* __restrict__ tap, const double* __restrict__ edge_y,
    const double* __restrict__ edge_x, int32_t height, int32_t width, int32_t radius, double epsilon,
    double* __restrict__ smoothed)
{
    JG_SHARED(Piece, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE, x1 = jg::least(width, x0 + PIECE);
    const int y = int(blockIdx.x) / pieces % height, field = int(blockIdx.x) / pieces / height;
    filter(image + int64_t(field) * height * width, height, width, tap, radius, y, x0, x1, s);
    const double e = edge_y[y];
    double* __restrict__ out = smoothed + (int64_t(field) * height + y) * width + x0;
    JG_FOR(i, x1 - x0) out[i] = s.row[i] / (e * edge_x[x0 + i] + epsilon);
}
JG_REGISTER(smooth)

// In   values     float32 or float64, one plane a field at offset + field * stride
// Out  above      uint8 [B, n]   values at or above the field's threshold
extern "C" __global__ void __launch_bounds__(128, 8) above_threshold_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const double* __restrict__ threshold, uint8_t* __restrict__ above)
{
    const int width = n / height, y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const float* __restrict__ value = values + offset + field * stride + int64_t(y) * width;
    uint8_t* __restrict__ out = above + int64_t(blockIdx.x) * width;
    const double t = threshold[field];
    JG_FOR(x, width) out[x] = double(value[x]) >= t;
}
JG_REGISTER(above_threshold_32)

extern "C" __global__ void __launch_bounds__(128, 8) above_threshold_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, int32_t height,
    const double* __restrict__ threshold, uint8_t* __restrict__ above)
{
    const int width = n / height, y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const double* __restrict__ value = values + offset + field * stride + int64_t(y) * width;
    uint8_t* __restrict__ out = above + int64_t(blockIdx.x) * width;
    const double t = threshold[field];
    JG_FOR(x, width) out[x] = double(value[x]) >= t;
}
JG_REGISTER(above_threshold_64)
