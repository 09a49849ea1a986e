// filter_axes.cu: symmetric filters along columns and then rows of float32 images, as SciPy's, and tubes by their curvature.
//
//   along an axis   f(i) = v(i) w0 + sum over k = radius .. 1 of (v(i - k) + v(i + k)) wk, in doubles, rounded to float32
//   beyond the border values are 0, or (mirrored) those of the image mirrored at its edge, border pixels twice
//   tubeness        -e sigma^2 where e < 0, with e the Hessian's eigenvalue of the larger magnitude; differences are singles
//
// Source   SciPy gaussian_filter; centrosome smooth_with_function_and_mask, hessian; CellProfiler EnhanceOrSuppressFeatures (tubeness)
// Oracle   SciPy, centrosome (tests/segmentation/test_filter_axes.py)
// Launch   filter_columns, tubeness: a block a row; filter_rows: a block a piece of PIECE pixels of a row, 24 KB of shared memory.
// Order    as written: the centre, then pairs from the outermost inwards
#include "jg/jg.cuh"

namespace {
constexpr int PIECE = 1024, RADIUS = 1024;     // pixels of a block of filter_rows; widest half filter (gaussian.py: WIDEST)
#if defined(JG_SERIAL)
constexpr int LINE = 32;                       // columns whose sums stay in registers
#else
constexpr int LINE = 1;
#endif
struct Line { double v[PIECE + 2 * RADIUS]; };

JG_FN int mirrored_place(int i, int n) {
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return i < n ? i : 2 * n - 1 - i;
}

// Columns x .. x + N - 1 of row y.
template <int N> JG_FN void filter_down(
    const float* __restrict__ in, int height, int width, const double* __restrict__ tap, int radius, int mirrored, int y, int x,
    float* __restrict__ out)
{
    double sum[N];
    const float* __restrict__ at = in + int64_t(y) * width + x;
    for (int i = 0; i < N; ++i) sum[i] = double(at[i]) * tap[0];
    for (int k = radius; k; --k) {
        int above = y - k, below = y + k;
        if (mirrored) {
            if (above < 0) above = mirrored_place(above, height);
            if (below >= height) below = mirrored_place(below, height);
        }
        const double w = tap[k];
        const float* __restrict__ a = in + int64_t(above) * width + x;
        const float* __restrict__ b = in + int64_t(below) * width + x;
        if (above >= 0 && below < height) {
            for (int i = 0; i < N; ++i) sum[i] += (double(a[i]) + double(b[i])) * w;
        } else if (above >= 0) {
            for (int i = 0; i < N; ++i) sum[i] += double(a[i]) * w;
        } else if (below < height) {
            for (int i = 0; i < N; ++i) sum[i] += double(b[i]) * w;
        }
    }
    for (int i = 0; i < N; ++i) out[i] = float(sum[i]);
}

// Places i .. i + N - 1 of a line.
template <int N> JG_FN void filter_along(const double* __restrict__ line, const double* __restrict__ tap, int radius, double* sum) {
    for (int i = 0; i < N; ++i) sum[i] = line[i] * tap[0];
    for (int k = radius; k; --k) {
        const double w = tap[k];
        const double *a = line - k, *b = line + k;
        for (int i = 0; i < N; ++i) sum[i] += (a[i] + b[i]) * w;
    }
}
}  // namespace

// In   image     float32 [B, H, W]
//      tap       float64 [radius + 1]
// Out  filtered  float32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) filter_columns(
    const float* __restrict__ image, const double* __restrict__ tap, int32_t height, int32_t width, int32_t radius,
    int32_t mirrored, float* __restrict__ filtered)
{
    const int y = int(blockIdx.x) % height;
    const int64_t field = int64_t(int(blockIdx.x) / height) * height * width;
    const float* __restrict__ in = image + field;
    float* __restrict__ out = filtered + field + int64_t(y) * width;
    const int whole = width / LINE;
    JG_FOR(j, whole) filter_down<LINE>(in, height, width, tap, radius, mirrored, y, j * LINE, out + j * LINE);
    for (int x = whole * LINE + int(threadIdx.x); x < width; x += int(blockDim.x))
        filter_down<1>(in, height, width, tap, radius, mirrored, y, x, out + x);
}
JG_REGISTER(filter_columns)

// In   image, tap  as above
//      edge_y, edge_x  float64 [H], [W]   what the rounded result is divided by, the product of both and epsilon; where `weighed`
// Out  filtered    float32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) filter_rows(
    const float* __restrict__ image, const double* __restrict__ tap, const double* __restrict__ edge_y,
    const double* __restrict__ edge_x, int32_t height, int32_t width, int32_t radius, int32_t mirrored, int32_t weighed,
    double epsilon, float* __restrict__ filtered)
{
    JG_SHARED(Line, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE, n = jg::smaller(PIECE, width - x0);
    const int64_t row = int(blockIdx.x) / pieces;
    const float* __restrict__ in = image + row * width;
    JG_FOR(i, n + 2 * radius) {
        const int x = x0 - radius + i;
        s.v[i] = x >= 0 && x < width ? double(in[x]) : mirrored ? double(in[mirrored_place(x, width)]) : 0.0;
    }
    __syncthreads();
    const double ey = edge_y[int(row % height)];
    float* __restrict__ out = filtered + row * width + x0;
    const int whole = n / LINE;
    for (int j = int(threadIdx.x); j < whole + n % LINE; j += int(blockDim.x)) {
        const int x = j < whole ? j * LINE : whole * LINE + j - whole, m = j < whole ? LINE : 1;
        double sum[LINE];
        if (j < whole) filter_along<LINE>(s.v + radius + x, tap, radius, sum);
        else filter_along<1>(s.v + radius + x, tap, radius, sum);
        if (weighed) {
            for (int i = 0; i < m; ++i) out[x + i] = float(double(float(sum[i])) / (ey * edge_x[x0 + x + i] + epsilon));
        } else {
            for (int i = 0; i < m; ++i) out[x + i] = float(sum[i]);
        }
    }
}
JG_REGISTER(filter_rows)

// In   image     float32 [B, H, W], smoothed
//      square    sigma^2
// Out  tubes     float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) tubeness(
    const float* __restrict__ image, int32_t height, int32_t width, double square, double* __restrict__ tubes)
{
    const int y = int(blockIdx.x) % height;
    const float* __restrict__ in = image + int64_t(blockIdx.x) * width;
    double* __restrict__ out = tubes + int64_t(blockIdx.x) * width;
    const bool inner = y > 0 && y < height - 1;
    const float* __restrict__ above = inner ? in - width : in;
    const float* __restrict__ below = inner ? in + width : in;
    JG_FOR(x, width) {
        const bool within = x > 0 && x < width - 1;
        const int l = within ? x - 1 : x, r = within ? x + 1 : x;
        const double rows = inner ? above[x] - 2 * in[x] + below[x] : 0.0f;
        const double columns = within ? in[l] - 2 * in[x] + in[r] : 0.0f;
        const double across = inner && within ? (below[r] + above[l] - below[l] - above[r]) / 4 : 0.0f;
        const double minus = -(rows + columns), root = sqrt(minus * minus - 4 * (rows * columns - across * across));
        const double first = (-minus + root) / 2, second = (-minus - root) / 2;
        const double larger = (second < 0 ? -second : second) > (first < 0 ? -first : first) ? second : first;
        out[x] = -larger * (larger < 0 ? 1.0 : 0.0) * square;
    }
}
JG_REGISTER(tubeness)
