// granularity_background.cu: a channel for granularity: sampled, its background taken off, as keys of basins.
//
//   I0 is the channel at half resolution. The background is an opening of I0, at a quarter of its resolution, with the disk
//   dy^2 + dx^2 <= radius^2; sampled back, it is taken off: I = max(I0 - background, 0). Keys have high values first.
//
// Source   CellProfiler 4.2.8 MeasureGranularity: float32 images, sampled by scipy.ndimage.map_coordinates of order 1 in
//          float64 and rounded to float32.
// Oracle   SciPy and scikit-image (tests/features/test_granularity.py); CellProfiler's output on the real fields
// Order    sums of fixed order; the opening compares values and never adds them.
#include "features/granularity.cuh"

constexpr int TILE = 256, RADIUS = 128;                // columns of a row that a block of the disk does; the largest radius

// Bilinear sampling as map_coordinates does it: tables of the lower index and both weights on each axis, all 0 where a
// coordinate is out of range. The terms add in raster order of the corners, each multiplied by its row's weight first.
JG_FN double bilinear(float a, float b, float c, float d, double y0, double y1, double x0, double x1) {
    return double(a) * y0 * x0 + double(b) * y0 * x1 + double(c) * y1 * x0 + double(d) * y1 * x1;
}

// Every STEP-th value: known steps become loads of whole vectors.
template <int STEP> JG_FN void every(const float* __restrict__ from, int n, float* __restrict__ to) {
    for (int x = jg::lane(); x < n; x += jg::WARP) to[x] = from[x * STEP];
}

// Launch   a block a band of BAND rows of a plane, a warp per row; no shared memory.
// In   image      float32 [P, in_height, in_width]
//      rows, columns       int32 [height], [width]        lower index of every output row and column
//      row_weights, column_weights  float64 [height, 2], [width, 2]
//      step                int32  not 0: the coordinates are multiples of it, so the pixel itself is taken
// Out  out        float32 [P, height, width]
extern "C" __global__ void __launch_bounds__(128, 8) granularity_sample(
    const float* __restrict__ image, const int32_t* __restrict__ rows, const int32_t* __restrict__ columns,
    const double* __restrict__ row_weights, const double* __restrict__ column_weights, int32_t step,
    int32_t in_height, int32_t in_width, int32_t height, int32_t width, float* __restrict__ out)
{
    const int bands = (height + jg::BAND - 1) / jg::BAND, plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const float* __restrict__ from = image + int64_t(plane) * in_height * in_width;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        float* __restrict__ to = out + (int64_t(plane) * height + y) * width;
        const float* __restrict__ r0 = from + int64_t(rows[y]) * in_width;
        if (step) {
            if (step == 2) every<2>(r0, width, to);
            else if (step == 4) every<4>(r0, width, to);
            else for (int x = jg::lane(); x < width; x += jg::WARP) to[x] = r0[x * step];
            continue;
        }
        const float* __restrict__ r1 = rows[y] + 1 < in_height ? r0 + in_width : r0;
        for (int x = jg::lane(); x < width; x += jg::WARP) {
            const int a = columns[x], b = jg::smaller(a + 1, in_width - 1);
            to[x] = float(bilinear(r0[a], r0[b], r1[a], r1[b], row_weights[2 * y], row_weights[2 * y + 1],
                                   column_weights[2 * x], column_weights[2 * x + 1]));
        }
    }
}
JG_REGISTER(granularity_sample)

// Least (or, opening's second half, largest) value under a disk. A disk is convex and symmetric, so reflection at the border, as
// SciPy has it, is the same as leaving out what is outside.
//
//   Column by column: at dx the disk reaches half[|dx|] rows up and down, further the nearer dx is to 0. The smallest of so many
//   rows is kept a column, grown from the outermost dx inwards, and what is that far to the left and right joins the total.
//
// Launch   a block per row and TILE columns of a plane, any size; 3 KB of shared memory.
// In   image   float32 [P, height, width]   not negative
//      half    int32   [radius + 1]         rows that the disk reaches up and down at a distance of columns
//      radius  int32                        at most RADIUS
//      maximum    int32                        0 smallest, 1 largest
// Out  out     float32 [P, height, width]
struct Disk { float column[TILE + 2 * RADIUS], total[TILE]; };
template <bool MAX> JG_FN float better(float a, float b) { return MAX ? jg::larger(a, b) : jg::smaller(a, b); }
template <bool MAX> JG_FN void disk_row(const float* __restrict__ in, const int32_t* __restrict__ half, int radius, int y, int x0,
                                         int height, int width, Disk& s, float* __restrict__ out)
{
    // Positions count from x0 - radius; those beyond the border hold what never wins.
    const int left = x0 - radius, across = jg::smaller(TILE, width - x0), n = across + 2 * radius;
    const int a0 = jg::larger(0, -left), a1 = jg::smaller(width - left, n);
    const float* __restrict__ at = in + int64_t(y) * width + left;
    float* __restrict__ column = s.column;
    float* __restrict__ total = s.total;
    JG_FOR_OWN(i, 0, n) column[i] = MAX ? 0.0f : jg::float_of(0x7f800000);
    JG_FOR_OWN(i, a0, a1) column[i] = at[i];
    JG_FOR(i, across) total[i] = MAX ? 0.0f : jg::float_of(0x7f800000);
    for (int dx = radius, dy = 0; dx >= 0; --dx) {
        for (; dy < half[dx]; ++dy) {
            const int64_t above = y > dy ? -int64_t(dy + 1) * width : 0, below = y + dy + 1 < height ? int64_t(dy + 1) * width : 0;
            JG_FOR_OWN(i, a0, a1) column[i] = better<MAX>(column[i], better<MAX>(at[i + above], at[i + below]));
        }
        __syncthreads();
        JG_FOR(i, across) total[i] = better<MAX>(total[i], better<MAX>(column[i + radius - dx], column[i + radius + dx]));
        __syncthreads();
    }
    JG_FOR(i, across) out[i] = total[i];
}
extern "C" __global__ void __launch_bounds__(128, 8) granularity_disk(
    const float* __restrict__ image, const int32_t* __restrict__ half, int32_t radius, int32_t maximum, int32_t height,
    int32_t width, float* __restrict__ out)
{
    JG_SHARED(Disk, s);
    const int tiles = (width + TILE - 1) / TILE, x0 = int(blockIdx.x) % tiles * TILE, row = int(blockIdx.x) / tiles;
    const float* __restrict__ in = image + int64_t(row / height) * height * width;
    float* __restrict__ to = out + int64_t(row) * width + x0;
    if (maximum) disk_row<true>(in, half, radius, row % height, x0, height, width, s, to);
    else disk_row<false>(in, half, radius, row % height, x0, height, width, s, to);
}
JG_REGISTER(granularity_disk)

// Rows of keys that lie between the same two rows of the background, whose values are then looked up once for all of them.
constexpr int RUN = jg::WARP == 1 ? 4 : 2;
template <int ROWS> JG_FN void keys_of(
    const float* __restrict__ r0, const float* __restrict__ r1, int back_width, const int32_t* __restrict__ columns,
    const double* __restrict__ column_weights, const double* __restrict__ w, const float* __restrict__ in, int width,
    uint32_t* __restrict__ to)
{
    const int pitch = width + 2;
    if (jg::lane() == 0) for (int j = 0; j < ROWS; ++j) to[j * pitch] = to[j * pitch + width + 1] = jg::OUTSIDE;
    for (int x = jg::lane(); x < width; x += jg::WARP) {
        const int a = columns[x], b = jg::smaller(a + 1, back_width - 1);
        const float nw = r0[a], ne = r0[b], sw = r1[a], se = r1[b];
        const double x0 = column_weights[2 * x], x1 = column_weights[2 * x + 1];
        JG_UNROLL for (int j = 0; j < ROWS; ++j) {
            const float left = in[j * width + x] - float(bilinear(nw, ne, sw, se, w[2 * j], w[2 * j + 1], x0, x1));
            to[j * pitch + x + 1] = jg::key_of(left > 0.0f ? left : 0.0f);
        }
    }
}

// I as framed keys, high values first.
//
// Launch   a block a band of BAND rows of a plane, frame rows included, a warp RUN rows; no shared memory.
// In   image       float32 [P, height, width]            I0
//      background  float32 [P, back_height, back_width]
//      rows, columns, row_weights, column_weights        as granularity_sample
// Out  key         uint32  [P, height + 2, width + 2]
extern "C" __global__ void __launch_bounds__(128, 6) granularity_keys(
    const float* __restrict__ image, const float* __restrict__ background, const int32_t* __restrict__ rows,
    const int32_t* __restrict__ columns, const double* __restrict__ row_weights, const double* __restrict__ column_weights,
    int32_t back_height, int32_t back_width, int32_t height, int32_t width, uint32_t* __restrict__ key)
{
    const int pitch = width + 2, bands = (height + 2 + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const float* __restrict__ back = background + int64_t(plane) * back_height * back_width;
    const float* __restrict__ in = image + int64_t(plane) * height * width;
    uint32_t* __restrict__ to = key + int64_t(plane) * (height + 2) * pitch;
    const int end = jg::smaller(y0 + jg::BAND, height + 2);
    for (int y = y0 + jg::warp_id() * RUN; y < end; y += jg::warps() * RUN)
        for (int j = y, n; j < jg::smaller(y + RUN, end); j += n) {
            n = 1;
            uint32_t* __restrict__ row = to + int64_t(j) * pitch;
            if (j == 0 || j == height + 1) {
                for (int x = jg::lane(); x < pitch; x += jg::WARP) row[x] = jg::OUTSIDE;
                continue;
            }
            const int at = rows[j - 1];
            while (j + n < y + RUN && j + n < jg::smaller(end, height + 1) && rows[j + n - 1] == at) ++n;
            const float* __restrict__ r0 = back + int64_t(at) * back_width;
            const float* __restrict__ r1 = at + 1 < back_height ? r0 + back_width : r0;
            const float* __restrict__ from = in + int64_t(j - 1) * width;
            const double* __restrict__ w = row_weights + 2 * (j - 1);
            if (n > 3) keys_of<4>(r0, r1, back_width, columns, column_weights, w, from, width, row);
            else if (n == 3) keys_of<3>(r0, r1, back_width, columns, column_weights, w, from, width, row);
            else if (n == 2) keys_of<2>(r0, r1, back_width, columns, column_weights, w, from, width, row);
            else keys_of<1>(r0, r1, back_width, columns, column_weights, w, from, width, row);
        }
}
JG_REGISTER(granularity_keys)

// I without its lone peaks: a pixel above all its neighbours sinks to the highest of them. No E_k changes, since a cross that
// holds the pixel holds a neighbour too, and neither does R_k, which is never above the highest neighbour there; a third of
// the basins are gone.
//
// Launch   a block a band of BAND rows of a plane, frame rows included, a warp per row; no shared memory.
// In   key   uint32  [P, H + 2, W + 2]
// Out  out   uint32  [P, H + 2, W + 2]
extern "C" __global__ void __launch_bounds__(128, 8) granularity_shave(
    const uint32_t* __restrict__ key, int32_t height, int32_t width, uint32_t* __restrict__ out)
{
    const int pitch = width + 2, bands = (height + 2 + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height + 2); y += jg::warps()) {
        const uint32_t* __restrict__ k = key + (int64_t(plane) * (height + 2) + y) * pitch;
        uint32_t* __restrict__ to = out + (int64_t(plane) * (height + 2) + y) * pitch;
        if (y == 0 || y == height + 1) {
            for (int x = jg::lane(); x < pitch; x += jg::WARP) to[x] = jg::OUTSIDE;
            continue;
        }
        if (jg::lane() == 0) to[0] = to[pitch - 1] = jg::OUTSIDE;
        for (int x = 1 + jg::lane(); x <= width; x += jg::WARP) {
            const uint32_t beside = jg::smaller(jg::smaller(k[x - pitch], k[x + pitch]), jg::smaller(k[x - 1], k[x + 1]));
            to[x] = beside == jg::OUTSIDE ? k[x] : jg::larger(k[x], beside);     // a plane of one pixel has no neighbour
        }
    }
}
JG_REGISTER(granularity_shave)
