// declump.cu: one seed an object, from the maxima of the distance to the edge or of the intensity.
//
//   Shape      value = sqrt(squared distance) + jitter, a fixed tiny random number per pixel, so that a plateau has one maximum.
//   Intensity  value = the smoothed image.
//   A pixel of the mask is a maximum if no pixel of its own component within the disk has a greater value, and its value is > 0.
//   Touching maxima are eroded to one point (to a ring round a hole) by four tables in turn, each over all points at once.
//
// Source   CellProfiler IdentifyPrimaryObjects, centrosome is_local_maximum and binary_shrink.
// Oracle   centrosome (tests/segmentation/test_label.py); CellProfiler's label images
// Differs  over six real fields, objects before any is discarded, from CellProfiler's labels (its watershed is scikit-image's):
//          in 0 of 648,619 labelled pixels (cpjump1) and 0 of 639,628 (jump-production) (docs/segmentation.md).
// Launch   value_maxima: a block per row; shrink: a block per field; the others: a block a band of BAND rows, a warp per row.
// Order    comparisons only. Squared distances below 500^2 that differ are further apart than the jitter reaches: they decide alone.
#include "jg/jg.cuh"

namespace {
constexpr int DECIDES = 500 * 500;
constexpr int BAND = 4;                                // rows per block (declump.py: BAND)
struct Points { int count, left, removed; };
}  // namespace

// In   mask     uint8   [B, H, W];  root  int32 [B, H, W]   component of each pixel
//      squared  int32   [B, H, W]   squared distance to the edge
//      jitter   float64 [H, W]
//      offset   int32   [K, 2]      dy, dx of the disk without its centre, nearest first
// Out  maxima   uint8   [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) shape_maxima(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ root, const int32_t* __restrict__ squared,
    const double* __restrict__ jitter, const int32_t* __restrict__ offset, int32_t n_offsets, int32_t height, int32_t width,
    uint8_t* __restrict__ maxima)
{
    const int bands = (height + BAND - 1) / BAND, y0 = int(blockIdx.x) % bands * BAND;
    const int64_t field = int64_t(int(blockIdx.x) / bands) * height * width;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + BAND, height); y += jg::warps()) {
        const int64_t row = field + int64_t(y) * width;
        const auto test = [=](int x) {
            const int component = root[row + x], mine = squared[row + x];
            const double noise = jitter[int64_t(y) * width + x], value = sqrt(double(mine)) + noise;
            bool top = mask[row + x] != 0 && value > 0;
            for (int k = 0; top && k < n_offsets; ++k) {
                const int v = y + offset[2 * k], u = x + offset[2 * k + 1];
                if (v < 0 || v >= height || u < 0 || u >= width) continue;
                const int64_t q = int64_t(v) * width + u;
                if (!mask[field + q] || root[field + q] != component) continue;
                const int other = squared[field + q];
                if (other < mine && mine < DECIDES) continue;
                top = !(other > mine && other < DECIDES) && !(value < sqrt(double(other)) + jitter[q]);
            }
            return top;
        };
        // Most pixels have a side by which it rises; the disk has them, since its radius is 1 or more.
        const uint8_t *__restrict__ in = mask + row, *__restrict__ above = y ? in - width : in,
                      *__restrict__ below = y + 1 < height ? in + width : in;
        const int32_t *__restrict__ s = squared + row, *__restrict__ up = y ? s - width : s,
                      *__restrict__ down = y + 1 < height ? s + width : s;
        const auto rises = [=](int there, int mine, int other) { return (there != 0) & (other > mine) & (other < DECIDES); };
        uint8_t* __restrict__ out = maxima + row;
        for (int x = jg::lane(); x < width; x += jg::WARP) out[x] = 0;
        __syncwarp();
        jg::warp_each(width - 2, [=](int i) {
            const int x = i + 1, mine = s[x];
            const int higher = rises(in[x - 1], mine, s[x - 1]) | rises(in[x + 1], mine, s[x + 1]) | rises(above[x], mine, up[x])
                | rises(below[x], mine, down[x]);
            return (in[x] != 0) & (higher == 0);
        }, [=](int i, int) { if (test(i + 1)) out[i + 1] = 1; });
        if (jg::lane() == 0) {
            *out = test(0);
            if (width > 1) out[width - 1] = test(width - 1);
        }
    }
}
JG_REGISTER(shape_maxima)

// The same for any values.
// In   value    float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) value_maxima(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ root, const double* __restrict__ value,
    const int32_t* __restrict__ offset, int32_t n_offsets, int32_t height, int32_t width, uint8_t* __restrict__ maxima)
{
    const int y = int(blockIdx.x) % height;
    const int64_t row = int64_t(blockIdx.x) * width, field = int64_t(int(blockIdx.x) / height) * height * width;
    JG_FOR(x, width) {
        bool top = mask[row + x] != 0;
        if (top) {
            const int component = root[row + x];
            const double mine = value[row + x];
            top = mine > 0;
            for (int k = 0; top && k < n_offsets; ++k) {
                const int v = y + offset[2 * k], u = x + offset[2 * k + 1];
                if (v < 0 || v >= height || u < 0 || u >= width) continue;
                const int64_t q = field + int64_t(v) * width + u;
                top = !(mask[q] && root[q] == component && mine < value[q]);
            }
        }
        maxima[row + x] = top;
    }
}
JG_REGISTER(value_maxima)

// In   table    uint8 [4, 512]      whether a point stays, by its 3 x 3 neighbourhood (bit 3 (dy + 1) + dx + 1), in four passes
// Scr  list     int32 [B, H * W];  stays  uint8 [B, H * W]
// In/Out points uint8 [B, H, W]
extern "C" __global__ void __launch_bounds__(1024) shrink(
    const uint8_t* __restrict__ table, int32_t height, int32_t width, int32_t* __restrict__ list, uint8_t* __restrict__ stays,
    uint8_t* __restrict__ points)
{
    JG_SHARED(Points, s);
    const int n = height * width;
    const int64_t field = int64_t(blockIdx.x) * n;
    uint8_t* __restrict__ set = points + field;
    int32_t* __restrict__ at = list + field;
    JG_ONCE { s.count = 0; s.removed = 0; }
    __syncthreads();
    JG_FOR(p, n)                                         // the list's order does not matter: a pass looks first, then removes
        if (set[p]) at[jg::atomic_sum(&s.count, 1)] = p;
    __syncthreads();
    const int count = s.count;
    bool more = count > 0;
    while (more) {
        int removed = 0;
        for (int pass = 0; pass < 4; ++pass) {
            const uint8_t* __restrict__ keep = table + 512 * pass;
            JG_FOR(i, count) {
                const int p = at[i], y = p / width, x = p % width;
                int bits = 0;
                for (int dy = -1; dy <= 1; ++dy)
                    for (int dx = -1; dx <= 1; ++dx)
                        if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width && set[p + dy * width + dx])
                            bits |= 1 << (3 * (dy + 1) + dx + 1);
                stays[field + i] = set[p] && keep[bits];
            }
            __syncthreads();
            JG_FOR(i, count) {
                const int p = at[i];
                if (set[p] && !stays[field + i]) { set[p] = 0; removed = 1; }
            }
            __syncthreads();
        }
        jg::gather_max(&s.removed, removed);
        __syncthreads();
        more = s.removed != 0;
        __syncthreads();
        JG_ONCE s.removed = 0;
        __syncthreads();
    }
}
JG_REGISTER(shrink)

// How many seeds each component has, and one of them.
// In   number   int32 [B, H, W]   seeds, 1..n
// Out  seeds    int32 [B, H * W]  starts as 0; by root;  one  int32 [B, H * W]  greatest number among them, starts as 0
extern "C" __global__ void __launch_bounds__(128, 8) count_seeds(
    const int32_t* __restrict__ number, const int32_t* __restrict__ root, int32_t height, int32_t width,
    int32_t* __restrict__ seeds, int32_t* __restrict__ one)
{
    const int bands = (height + BAND - 1) / BAND, y0 = int(blockIdx.x) % bands * BAND;
    const int64_t field = int64_t(int(blockIdx.x) / bands) * height * width;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + BAND, height); y += jg::warps()) {
        const int64_t row = field + int64_t(y) * width;
        jg::warp_each(width, [=](int x) { return number[row + x] != 0; }, [=](int x, int) {
            const int64_t at = field + root[row + x];
            jg::atomic_sum(seeds + at, 1);
            jg::atomic_max(one + at, number[row + x]);
        });
    }
}
JG_REGISTER(count_seeds)

// Components with one seed are objects as they stand; the others wait for the watershed.
// Out  labels    int32 [B, H, W]   number of the only seed, or 0
//      contested uint8 [B, H, W]   pixels of components with several seeds
extern "C" __global__ void __launch_bounds__(128, 8) label_single_seeds(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ root, const int32_t* __restrict__ seeds,
    const int32_t* __restrict__ one, int32_t height, int32_t width, int32_t* __restrict__ labels,
    uint8_t* __restrict__ contested)
{
    const int bands = (height + BAND - 1) / BAND, y0 = int(blockIdx.x) % bands * BAND;
    const int64_t field = int64_t(int(blockIdx.x) / bands) * height * width;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + BAND, height); y += jg::warps()) {
        const int64_t row = field + int64_t(y) * width;
        for (int x = jg::lane(); x < width; x += jg::WARP) { labels[row + x] = 0; contested[row + x] = 0; }
        jg::warp_each(width, [=](int x) { return mask[row + x] != 0; }, [=](int x, int) {     // the same threads
            const int64_t at = field + root[row + x];
            const int several = seeds[at] > 1;
            labels[row + x] = several ? 0 : one[at];
            contested[row + x] = uint8_t(several);
        });
    }
}
JG_REGISTER(label_single_seeds)
