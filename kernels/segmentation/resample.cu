// resample.cu: images at another scale by cubic splines, for maxima looked for at low resolution.
//
//   Coefficients: the image times 6 an axis, filtered with the pole z = sqrt(3) - 2 forwards and back, mirrored at the border, rows
//   after columns. Value at (y, x): the 4 x 4 coefficients around it weighed by the cubic B-spline; 0 beyond the last pixel.
//
// Source   scipy.ndimage.map_coordinates (order 3, mode 'constant'), which CellProfiler's get_maxima calls.
// Oracle   scipy.ndimage.map_coordinates (tests/segmentation/test_resample.py)
// Launch   spline_columns, spline_rows: a block a STRIP of columns or rows; the others one block per row of the result.
// Order    sums in fixed order.
#include "jg/jg.cuh"

namespace {
constexpr int STRIP = 64;                                // declump_low.py: STRIP
constexpr double POLE = -0.26794919243112270647;         // sqrt(3) - 2

// One line of n values, `step` apart, in place.
JG_FN void filter_line(double* c, int n, int64_t step) {
    if (n < 2) return;
    for (int i = 0; i < n; ++i) c[i * step] *= 6.0;
    double zn = 1;
    for (int i = 0; i + 1 < n; ++i) zn *= POLE;
    double first = c[0] + zn * c[(n - 1) * step], zi = POLE;
    for (int i = 1; i + 1 < n; ++i) {
        first += zi * (c[i * step] + zn * c[(n - 1 - i) * step]);
        zi *= POLE;
    }
    c[0] = first / (1 - zn * zn);
    for (int i = 1; i < n; ++i) c[i * step] += POLE * c[(i - 1) * step];
    c[(n - 1) * step] = (POLE * c[(n - 2) * step] + c[(n - 1) * step]) * POLE / (POLE * POLE - 1);
    for (int i = n - 2; i >= 0; --i) c[i * step] = POLE * (c[(i + 1) * step] - c[i * step]);
}

JG_FN int mirrored(int i, int n) {
    if (n == 1) return 0;
    i = i < 0 ? -i : i;
    const int period = 2 * (n - 1);
    i %= period;
    return i < n ? i : period - i;
}

JG_FN void spline_weights(double t, double* w) {
    const double z = 1 - t;
    w[0] = z * z * z / 6.0;
    w[1] = (t * t * (t - 2.0) * 3.0 + 4.0) / 6.0;
    w[2] = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0;
    w[3] = 1.0 - w[0] - w[1] - w[2];
}
}  // namespace

// In, out  image  float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) spline_columns(int32_t height, int32_t width, double* __restrict__ image)
{
    const int strips = (width + STRIP - 1) / STRIP, x0 = int(blockIdx.x) % strips * STRIP;
    double* __restrict__ field = image + int64_t(int(blockIdx.x) / strips) * height * width;
    JG_FOR(i, jg::smaller(STRIP, width - x0)) filter_line(field + x0 + i, height, width);
}
JG_REGISTER(spline_columns)

extern "C" __global__ void __launch_bounds__(128, 8) spline_rows(int64_t rows, int32_t width, double* __restrict__ image)
{
    const int64_t first = int64_t(blockIdx.x) * STRIP;
    JG_FOR(i, int(jg::smaller(int64_t(STRIP), rows - first))) filter_line(image + (first + i) * width, width, 1);
}
JG_REGISTER(spline_rows)

// In   coefficient  float64 [B, H, W];  scale  position in the image = position in the result / scale
// Out  value        float64 [B, h, w]
extern "C" __global__ void __launch_bounds__(128, 8) spline_values(
    const double* __restrict__ coefficient, int32_t height, int32_t width, double scale, int32_t out_height, int32_t out_width,
    double* __restrict__ value)
{
    const int row = int(blockIdx.x) % out_height;
    const double* __restrict__ c = coefficient + int64_t(int(blockIdx.x) / out_height) * height * width;
    double* __restrict__ out = value + int64_t(blockIdx.x) * out_width;
    const double y = row / scale;
    const int top = int(y) - 1;
    double wy[4];
    spline_weights(y - int(y), wy);
    JG_FOR(i, out_width) {
        const double x = i / scale;
        double sum = 0;
        if (y <= height - 1 && x <= width - 1) {
            double wx[4];
            spline_weights(x - int(x), wx);
            for (int v = 0; v < 4; ++v) {
                const double* __restrict__ line = c + int64_t(mirrored(top + v, height)) * width;
                for (int u = 0; u < 4; ++u) sum += line[mirrored(int(x) - 1 + u, width)] * wy[v] * wx[u];
            }
        }
        out[i] = sum;
    }
}
JG_REGISTER(spline_values)

// The nearest pixel's component and whether it is in the mask.
// Out  near_root  int32 [B, h, w];  near_mask  uint8 [B, h, w]
extern "C" __global__ void __launch_bounds__(128, 8) nearest_labels(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ root, int32_t height, int32_t width, double scale,
    int32_t out_height, int32_t out_width, int32_t* __restrict__ near_root, uint8_t* __restrict__ near_mask)
{
    const int row = int(blockIdx.x) % out_height;
    const int64_t field = int64_t(int(blockIdx.x) / out_height) * height * width, at = int64_t(blockIdx.x) * out_width;
    const double y = row / scale;
    JG_FOR(i, out_width) {
        const double x = i / scale;
        const bool inside = y <= height - 1 && x <= width - 1;
        const int64_t p = field + (inside ? int64_t(int(y + 0.5)) * width + int(x + 0.5) : 0);
        near_root[at + i] = inside ? root[p] : -1;
        near_mask[at + i] = inside && mask[p];
    }
}
JG_REGISTER(nearest_labels)
