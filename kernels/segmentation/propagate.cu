// propagate.cu: seeds grown into cells by ways that the image lengthens.
//
//   d(p) = smallest over ways from a seed's pixel to p, within the mask, of the sum of steps between neighbours,
//   step(p, q) = sqrt(s^2 + m w^2),  s = sum over the nine places of |I(p + .) - I(q + .)| (the border repeated),
//   m = 1 along rows and columns, 2 across corners; seeds keep their label, and seeds outside the mask reach nothing.
//   Sums run from the seed outwards in doubles. Of ways of one length the lowest label wins.
//
//   The plane is in tiles of TILE x TILE pixels. A tile that is due is relaxed within itself, with the pixels around it as they
//   are, until nothing changes; where its own border changed, the tiles beside it are due. Tiles go by colour, four to a
//   round, so that no two that touch are relaxed in one launch. After a number of rounds that is enough for cells (a tile that
//   is not due returns at once) one block per field takes what is left until no tile is due, so the end is certain.
//
// Source   Jones, Carpenter, Golland (2005); CellProfiler IdentifySecondaryObjects, centrosome propagate.
// Oracle   centrosome.propagate (tests/segmentation/test_expand.py)
// Launch   propagation_steps, propagate_start: a block per row; propagate_tiles: a block a tile of one colour; propagate_rest: a block a
//          field; any block size, 39 KB of shared memory.
// Order    (d, label) is a least fixed point of monotone steps, which any order of relaxations reaches: each adds to a sum at its end.
#include "jg/jg.cuh"

namespace {
constexpr int TILE = 28, SPAN = TILE + 2;              // expand.py: TILE
// Edge costs: to the right, and down-left, down, down-right.
enum { RIGHT, DOWN_LEFT, DOWN, DOWN_RIGHT };
constexpr double UNREACHED = 1e300, CLOSED = -1;       // as distances: a pixel of the mask, and one that no way goes through

// A tile and the pixels around it; the cost of an edge is at its upper end, or its left one.
struct Tile {
    double d[SPAN * SPAN], cost[4][(TILE + 1) * SPAN];
    int32_t label[SPAN * SPAN];
    int32_t due[9];                                    // of the tiles around, by rows
    int32_t any;
};

struct Plane {
    const double* __restrict__ cost;
    int64_t n_pixels;
    double* distance;
    int32_t* labels;
    int32_t* due;
    int height, width, down, across;
};
JG_FN Plane plane_of(const double* cost, int field, int height, int width, int64_t n_pixels, double* distance, int32_t* labels,
                     int32_t* due)
{
    const int64_t at = int64_t(field) * height * width;
    const int down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
    return Plane{cost + at, n_pixels, distance + at, labels + at, due + int64_t(field) * down * across, height, width, down, across};
}

JG_FN bool relax(double from, int label, double step, double* d, int32_t* to) {
    const double sum = from + step;
    if (label == 0 || from < 0 || sum > *d || (sum == *d && label >= *to)) return false;
    *d = sum;
    *to = label;
    return true;
}

// Line after line of the tile, each from the three pixels beside it in the line before: WAY 0 down, 1 up, 2 right, 3 left.
template <int WAY> JG_FN int sweep(Tile& s) {
    int changed = 0;
    for (int k = 1; k <= TILE; ++k) {
        const int line = WAY % 2 ? TILE + 1 - k : k, before = WAY % 2 ? line + 1 : line - 1;
        JG_FOR(j, TILE) {
            const int p = WAY < 2 ? line * SPAN + j + 1 : (j + 1) * SPAN + line;
            if (!(s.d[p] > 0)) continue;
            for (int t = -1; t <= 1; ++t) {
                const int q = WAY < 2 ? before * SPAN + j + 1 + t : (j + 1 + t) * SPAN + before;
                const double* cost = WAY == 0 ? s.cost[DOWN - t] + q
                    : WAY == 1 ? s.cost[DOWN + t] + p
                    : WAY == 2 ? (t < 0 ? s.cost[DOWN_RIGHT] + q : t == 0 ? s.cost[RIGHT] + q : s.cost[DOWN_LEFT] + p)
                               : (t < 0 ? s.cost[DOWN_LEFT] + q : t == 0 ? s.cost[RIGHT] + p : s.cost[DOWN_RIGHT] + p);
                changed |= relax(s.d[q], s.label[q], *cost, s.d + p, s.label + p);
            }
        }
        __syncthreads();
    }
    return changed;
}

// Relaxes a tile until nothing changes in it. Every thread of the block calls it; it ends with a barrier.
JG_FN void settle_tile(const Plane& plane, int tile, Tile& s) {
    const int ty = tile / plane.across, tx = tile % plane.across, y0 = ty * TILE - 1, x0 = tx * TILE - 1;
    const int height = plane.height, width = plane.width;
    JG_FOR(i, SPAN * SPAN) {
        const int y = y0 + i / SPAN, x = x0 + i % SPAN;
        const bool in = y >= 0 && y < height && x >= 0 && x < width;
        const int64_t p = int64_t(y) * width + x;
        s.d[i] = in ? plane.distance[p] : CLOSED;
        s.label[i] = in ? plane.labels[p] : 0;
        if (i < (TILE + 1) * SPAN)
            for (int k = 0; k < 4; ++k) s.cost[k][i] = in ? plane.cost[k * plane.n_pixels + p] : 0;
    }
    JG_FOR(k, 9) s.due[k] = 0;
    for (int any = 1; any;) {
        JG_ONCE s.any = 0;
        __syncthreads();
        int changed = sweep<0>(s);
        changed |= sweep<1>(s);
        changed |= sweep<2>(s);
        changed |= sweep<3>(s);
        jg::gather_max(&s.any, changed);
        __syncthreads();
        any = s.any;
        __syncthreads();
    }
    JG_FOR(i, TILE * TILE) {
        const int u = i / TILE, v = i % TILE, y = ty * TILE + u, x = tx * TILE + v, at = (u + 1) * SPAN + v + 1;
        if (y >= height || x >= width) continue;
        const int64_t p = int64_t(y) * width + x;
        if (plane.distance[p] == s.d[at] && plane.labels[p] == s.label[at]) continue;
        plane.distance[p] = s.d[at];
        plane.labels[p] = s.label[at];
        const int up = u == 0 ? 0 : 1, low = u == TILE - 1 ? 2 : 1, left = v == 0 ? 0 : 1, right = v == TILE - 1 ? 2 : 1;
        for (int a = up; a <= low; ++a)
            for (int b = left; b <= right; ++b) jg::atomic_write(s.due + 3 * a + b, 1);
    }
    __syncthreads();
    JG_FOR(k, 9) {
        const int y = ty + k / 3 - 1, x = tx + k % 3 - 1;
        if (k != 4 && s.due[k] && y >= 0 && y < plane.down && x >= 0 && x < plane.across) jg::atomic_write(plane.due + y * plane.across + x, 1);
    }
    __syncthreads();
}
}  // namespace

// In   values  float32, one plane per field at offset + field * stride
// Out  step    float64 [4, B, H, W]   to the right, down-left, down, down-right; what leads out of the image is not used
extern "C" __global__ void __launch_bounds__(128, 8) propagation_steps(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t height, int32_t width, int64_t n_pixels,
    double weight, double* __restrict__ step)
{
    const int y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const float* __restrict__ image = values + offset + field * stride;
    const int64_t at = int64_t(blockIdx.x) * width;
    for (int k = 0; k < 4; ++k) {
        const int dy = k == RIGHT ? 0 : 1, dx = k == RIGHT ? 1 : k - DOWN;
        const double away = dy && dx ? 2.0 : 1.0;
        double* __restrict__ out = step + k * n_pixels + at;
        const float* rows[4];
        for (int v = 0; v < 4; ++v) rows[v] = image + int64_t(jg::larger(0, jg::smaller(height - 1, y - 1 + v))) * width;
        const float *a0 = rows[0], *a1 = rows[1], *a2 = rows[2], *b0 = rows[dy], *b1 = rows[1 + dy], *b2 = rows[2 + dy];
        const auto apart = [](float a, float b) { return fabs(double(a) - double(b)); };
        const auto length = [=](double sum) { return sqrt(sum * sum + away * weight * weight); };
        const auto beside = [=](int x) { return jg::larger(0, jg::smaller(width - 1, x)); };
        if (y + dy >= height) {
            JG_FOR(x, width) out[x] = length(0.0);
            continue;
        }
        JG_FOR(x, width) {
            if (x > 1 && x < width - 2) continue;        // the border is repeated there
            const int u0 = beside(x - 1), u2 = beside(x + 1), w0 = beside(x - 1 + dx), w1 = beside(x + dx), w2 = beside(x + 1 + dx);
            double sum = apart(a0[u0], b0[w0]) + apart(a0[x], b0[w1]) + apart(a0[u2], b0[w2]) + apart(a1[u0], b1[w0]);
            sum = sum + apart(a1[x], b1[w1]) + apart(a1[u2], b1[w2]) + apart(a2[u0], b2[w0]) + apart(a2[x], b2[w1]) + apart(a2[u2], b2[w2]);
            out[x] = length(x + dx < 0 || x + dx >= width ? 0.0 : sum);
        }
        JG_FOR(i, width - 4) {
            const int x = i + 2, w = x + dx;
            double sum = apart(a0[x - 1], b0[w - 1]) + apart(a0[x], b0[w]) + apart(a0[x + 1], b0[w + 1]) + apart(a1[x - 1], b1[w - 1]);
            sum = sum + apart(a1[x], b1[w]) + apart(a1[x + 1], b1[w + 1]) + apart(a2[x - 1], b2[w - 1]) + apart(a2[x], b2[w])
                + apart(a2[x + 1], b2[w + 1]);
            out[x] = length(sum);
        }
    }
}
JG_REGISTER(propagation_steps)

// In   mask      uint8   [B, H, W];  seeds  int32 [B, H, W]
// Out  distance  float64 [B, H, W]    0 at seeds of the mask, whose distance is final
//      labels    int32   [B, H, W]    the seeds
//      due       int32   [B, tiles]   starts as 0; tiles with a seed of the mask, or with one beside them
extern "C" __global__ void __launch_bounds__(128, 8) propagate_start(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ seeds, int32_t height, int32_t width,
    double* __restrict__ distance, int32_t* __restrict__ labels, int32_t* due)
{
    const int y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const int down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        const int label = seeds[at + x], in = mask[at + x];
        distance[at + x] = in ? label ? 0 : UNREACHED : CLOSED;
        labels[at + x] = label;
        if (!in || !label) continue;
        const int top = jg::larger(0, y - 1) / TILE, bottom = jg::smaller(height - 1, y + 1) / TILE;
        const int left = jg::larger(0, x - 1) / TILE, right = jg::smaller(width - 1, x + 1) / TILE;
        for (int ty = top; ty <= bottom; ++ty)
            for (int tx = left; tx <= right; ++tx) jg::atomic_write(due + (int64_t(field) * down + ty) * across + tx, 1);
    }
}
JG_REGISTER(propagate_start)

// In   step      float64 [4, B, H, W]
//      colour    2 for odd rows of tiles, plus 1 for odd columns
// In, out  distance, labels, due
extern "C" __global__ void __launch_bounds__(128) propagate_tiles(
    const double* __restrict__ step, int32_t height, int32_t width, int64_t n_pixels, int32_t colour, double* distance,
    int32_t* labels, int32_t* due)
{
    JG_SHARED(Tile, s);
    const int down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE, first_y = colour / 2, first_x = colour % 2;
    const int rows = (down - first_y + 1) / 2, columns = (across - first_x + 1) / 2, i = int(blockIdx.x) % (rows * columns);
    const Plane plane = plane_of(step, int(blockIdx.x) / (rows * columns), height, width, n_pixels, distance, labels, due);
    const int tile = (2 * (i / columns) + first_y) * across + 2 * (i % columns) + first_x;
    if (!plane.due[tile]) return;                        // nobody else writes here in this launch
    __syncthreads();
    JG_ONCE plane.due[tile] = 0;
    settle_tile(plane, tile, s);
}
JG_REGISTER(propagate_tiles)

// In, out  distance, labels, due   until no tile is due
extern "C" __global__ void __launch_bounds__(128) propagate_rest(
    const double* __restrict__ step, int32_t height, int32_t width, int64_t n_pixels, double* distance, int32_t* labels, int32_t* due)
{
    JG_SHARED(Tile, s);
    const Plane plane = plane_of(step, int(blockIdx.x), height, width, n_pixels, distance, labels, due);
    const int tiles = plane.down * plane.across;
    for (;;) {
        JG_ONCE s.any = 0;
        __syncthreads();
        int mine = 0;
        JG_FOR(t, tiles) mine |= plane.due[t];
        jg::gather_max(&s.any, mine);
        __syncthreads();
        const int any = s.any;
        __syncthreads();
        if (!any) break;
        for (int t = 0; t < tiles; ++t) {
            const int now = plane.due[t];
            __syncthreads();
            if (!now) continue;
            JG_ONCE plane.due[t] = 0;
            settle_tile(plane, t, s);
        }
    }
}
JG_REGISTER(propagate_rest)
