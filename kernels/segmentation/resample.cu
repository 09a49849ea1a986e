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

struct Firsts { double v[STRIP]; };

// Lines of n values, `step` apart, in place: a thread a line, or side by side. `apart` lies between one line's values and the next's.
JG_FN void filter_lines(double* __restrict__ c, int n, int64_t step, int lines, int64_t apart, double* __restrict__ first) {
    if (n < 2) return;
    const int64_t end = (n - 1) * step;
    double zn = 1, zi = POLE;
    for (int i = 0; i + 1 < n; ++i) zn *= POLE;
    for (int i = 0; i < n; ++i) JG_FOR(l, lines) c[i * step + l * apart] *= 6.0;
    JG_FOR(l, lines) first[l] = c[l * apart] + zn * c[end + l * apart];
    for (int i = 1; i + 1 < n && zi != 0; ++i) {         // beyond what is not 0 nothing is added
        JG_FOR(l, lines) first[l] += zi * (c[i * step + l * apart] + zn * c[end - i * step + l * apart]);
        zi *= POLE;
    }
    JG_FOR(l, lines) c[l * apart] = first[l] / (1 - zn * zn);
    for (int i = 1; i < n; ++i) JG_FOR(l, lines) c[i * step + l * apart] += POLE * c[(i - 1) * step + l * apart];
    JG_FOR(l, lines)
        c[end + l * apart] = (POLE * c[end - step + l * apart] + c[end + l * apart]) * POLE / (POLE * POLE - 1);
    for (int i = n - 2; i >= 0; --i)
        JG_FOR(l, lines) c[i * step + l * apart] = POLE * (c[(i + 1) * step + l * apart] - c[i * step + l * apart]);
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
    JG_SHARED(Firsts, first);
    filter_lines(field + x0, height, width, jg::smaller(STRIP, width - x0), 1, first.v);
}
JG_REGISTER(spline_columns)

extern "C" __global__ void __launch_bounds__(128, 8) spline_rows(int64_t rows, int32_t width, double* __restrict__ image)
{
    const int64_t first = int64_t(blockIdx.x) * STRIP;
    JG_SHARED(Firsts, own);
    filter_lines(image + first * width, width, 1, int(jg::smaller(int64_t(STRIP), rows - first)), width, own.v);
}
JG_REGISTER(spline_rows)

// Where columns of the result lie.
// In   scale   position in the image = position in the result / scale
// Out  at      int32   [4, w]   the columns around a position, 0 beyond the last pixel;  weight  float64 [4, w]   and theirs
extern "C" __global__ void __launch_bounds__(128, 8) spline_taps(
    int32_t width, double scale, int32_t out_width, int32_t* __restrict__ at, double* __restrict__ weight)
{
    JG_FOR_ITEMS(i, out_width) {
        const double x = i / scale;
        double w[4] = {0, 0, 0, 0};
        const bool inside = x <= width - 1;
        if (inside) spline_weights(x - int(x), w);
        for (int u = 0; u < 4; ++u) {
            at[u * out_width + i] = inside ? mirrored(int(x) - 1 + u, width) : 0;
            weight[u * out_width + i] = w[u];
        }
    }
}
JG_REGISTER(spline_taps)

// In   coefficient  float64 [B, H, W];  scale, at, weight  as above
// Out  value        float64 [B, h, w]
extern "C" __global__ void __launch_bounds__(128, 8) spline_values(
    const double* __restrict__ coefficient, int32_t height, int32_t width, double scale, int32_t out_height, int32_t out_width,
    const int32_t* __restrict__ at, const double* __restrict__ weight, double* __restrict__ value)
{
    const int row = int(blockIdx.x) % out_height;
    const double* __restrict__ c = coefficient + int64_t(int(blockIdx.x) / out_height) * height * width;
    double* __restrict__ out = value + int64_t(blockIdx.x) * out_width;
    const double y = row / scale;
    const bool inside = y <= height - 1;
    const int top = int(y) - 1;
    double wy[4];
    spline_weights(y - int(y), wy);
    const double* __restrict__ line[4];
    for (int v = 0; v < 4; ++v) line[v] = c + int64_t(inside ? mirrored(top + v, height) : 0) * width;
    const int w = out_width;
    JG_FOR(i, w) {
        double sum = 0;
        for (int v = 0; v < 4; ++v)
            for (int u = 0; u < 4; ++u) sum += line[v][at[u * w + i]] * wy[v] * weight[u * w + i];
        out[i] = inside ? sum : 0.0;
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
