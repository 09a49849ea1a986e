// grow.cu: seeds grown into cells by distance, plain or weighed by the image.
//
//   Distance     each pixel within N of a seed pixel takes the label of the nearest one; of equals the leftmost, then the topmost.
//   Propagation  d(p) = least over ways from a seed's pixel to p, within the mask, of the sum of steps between neighbours,
//                step(p, q) = sqrt(s^2 + m w^2),  s = sum over the nine places of |I(p + .) - I(q + .)| (the border repeated),
//                m = 1 along rows and columns, 2 across corners; seeds keep their label, and seeds outside the mask reach nothing.
//                Sums run from the seed outwards in doubles. Of ways of one length the lowest label wins.
//
// Source   Jones, Carpenter, Golland (2005); CellProfiler IdentifySecondaryObjects, centrosome propagate; SciPy's order of ties.
// Oracle   scipy.ndimage.distance_transform_edt, centrosome.propagate (tests/test_grow_centrosome.py)
// Launch   a block a row; propagate: a block a field, which goes on until nothing changes (sequential within a field).
// Order    (d, label) is a least fixed point of monotone steps, which any order of relaxations reaches: each adds to a sum at its end.
#include "jg.cuh"

namespace {
constexpr int NOWHERE = 0x7fff;
struct Change { int any; };
// Edge costs: to the right, and down-left, down, down-right.
enum { RIGHT, DOWN_LEFT, DOWN, DOWN_RIGHT };

JG_FN bool relax(double from, int label, double step, double* d, int32_t* to) {
    const double sum = from + step;
    if (label == 0 || sum > *d || (sum == *d && label >= *to)) return false;
    *d = sum;
    *to = label;
    return true;
}
}  // namespace

// In   seeds   int32 [B, H, W]
// Out  rise    int16 [B, H, W]   y of the nearest seed pixel in the column less y, at most `reach`; the upper of equals; 0x7fff: none
extern "C" __global__ void __launch_bounds__(128, 8) nearest_in_column(
    const int32_t* __restrict__ seeds, int32_t height, int32_t width, int32_t reach, int16_t* __restrict__ rise)
{
    const int y = int(blockIdx.x) % height;
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        int found = seeds[at + x] ? 0 : NOWHERE;
        for (int k = 1; k <= reach && found == NOWHERE; ++k) {
            if (y >= k && seeds[at + x - int64_t(k) * width]) found = -k;
            else if (y + k < height && seeds[at + x + int64_t(k) * width]) found = k;
        }
        rise[at + x] = int16_t(found);
    }
}
JG_REGISTER(nearest_in_column)

// Out  labels  int32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) grow_by_distance(
    const int32_t* __restrict__ seeds, const int16_t* __restrict__ rise, int32_t width, int32_t reach,
    int32_t* __restrict__ labels)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        int best = reach * reach + 1, dx = 0, dy = 0;
        for (int u = jg::most(0, x - reach); u <= jg::least(width - 1, x + reach); ++u) {
            const int up = rise[at + u], squared = up == NOWHERE ? best : up * up + (u - x) * (u - x);
            if (squared < best) { best = squared; dx = u - x; dy = up; }
        }
        labels[at + x] = best <= reach * reach ? seeds[at + x + dx + int64_t(dy) * width] : 0;
    }
}
JG_REGISTER(grow_by_distance)

// In   values  float32, one plane a field at offset + field * stride
// Out  step    float64 [4, B, H, W]   to the right, down-left, down, down-right; what leads out of the image is not used
extern "C" __global__ void __launch_bounds__(128, 8) propagation_steps(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t height, int32_t width, int64_t n_pixels,
    double weight, double* __restrict__ step)
{
    const int y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const float* __restrict__ image = values + offset + field * stride;
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        for (int k = 0; k < 4; ++k) {
            const int dy = k == RIGHT ? 0 : 1, dx = k == RIGHT ? 1 : k - DOWN;
            double sum = 0;
            if (y + dy < height && x + dx >= 0 && x + dx < width) {
                for (int v = y - 1; v <= y + 1; ++v)
                    for (int u = x - 1; u <= x + 1; ++u) {
                        const int v0 = jg::most(0, jg::least(height - 1, v)), u0 = jg::most(0, jg::least(width - 1, u));
                        const int v1 = jg::most(0, jg::least(height - 1, v + dy)), u1 = jg::most(0, jg::least(width - 1, u + dx));
                        sum += fabs(double(image[int64_t(v0) * width + u0]) - double(image[int64_t(v1) * width + u1]));
                    }
            }
            const double away = dy && dx ? 2.0 : 1.0;
            step[k * n_pixels + at + x] = sqrt(sum * sum + away * weight * weight);
        }
    }
}
JG_REGISTER(propagation_steps)

// In   step      float64 [4, B, H, W];  mask  uint8 [B, H, W];  seeds  int32 [B, H, W]
// Scr  distance  float64 [B, H, W]
// Out  labels    int32 [B, H, W]
extern "C" __global__ void __launch_bounds__(1024, 1) propagate(
    const double* __restrict__ step, const uint8_t* __restrict__ mask, const int32_t* __restrict__ seeds, int32_t height,
    int32_t width, int64_t n_pixels, double* __restrict__ distance, int32_t* __restrict__ labels)
{
    JG_SHARED(Change, s);
    const int64_t plane = int64_t(height) * width, field = blockIdx.x * plane;
    double* __restrict__ d = distance + field;
    int32_t* __restrict__ label = labels + field;
    const uint8_t* __restrict__ in = mask + field;
    const int32_t* __restrict__ seed = seeds + field;
    const double* __restrict__ cost = step + field;
    JG_FOR(p, int(plane)) {                              // a seed's distance is final; nothing enters it or what is not in the mask
        label[p] = in[p] ? seed[p] : 0;
        d[p] = seed[p] ? 0 : in[p] ? 1e300 : -1;
    }
    for (;;) {
        __syncthreads();
        JG_ONCE s.any = 0;
        __syncthreads();
        int changed = 0;
        JG_FOR(y, height) {                              // along each row, there and back
            const int64_t row = int64_t(y) * width;
            for (int x = 1; x < width; ++x)
                if (d[row + x] > 0) changed |= relax(d[row + x - 1], label[row + x - 1], cost[row + x - 1], d + row + x, label + row + x);
            for (int x = width - 2; x >= 0; --x)
                if (d[row + x] > 0) changed |= relax(d[row + x + 1], label[row + x + 1], cost[row + x], d + row + x, label + row + x);
        }
        __syncthreads();
        for (int way = 0; way < 2; ++way) {              // row after row, down and then up
            for (int k = 1; k < height; ++k) {
                const int y = way ? height - 1 - k : k;
                const int64_t row = int64_t(y) * width, from = way ? row + width : row - width;
                JG_FOR(x, width) {
                    if (!(d[row + x] > 0)) continue;
                    for (int dx = -1; dx <= 1; ++dx) {
                        const int u = x + dx;
                        if (u < 0 || u >= width) continue;
                        // The step belongs to its upper end, which is `from` on the way down.
                        const double c = way ? cost[(DOWN + dx) * n_pixels + row + x] : cost[(DOWN - dx) * n_pixels + from + u];
                        changed |= relax(d[from + u], label[from + u], c, d + row + x, label + row + x);
                    }
                }
                __syncthreads();
            }
        }
        jg::gather_most(&s.any, changed);
        __syncthreads();
        if (!s.any) break;
    }
    JG_FOR(p, int(plane)) if (seed[p]) label[p] = seed[p];
}
JG_REGISTER(propagate)
