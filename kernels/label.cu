// label.cu: connected components by union-find, their numbers in raster order, what lies outside, and holes.
//
//   A component is a set of pixels joined in eight directions (foreground, mask != 0) or four (background, mask == 0). Its root is
//   its first pixel in raster order; a background component that reaches the image's border is 'outside'.
//
// Source   Playne & Hawick (2018), a union by atomic minimum; CellProfiler numbers components as scipy.ndimage.label does.
// Oracle   scipy.ndimage.label, binary_fill_holes (tests/test_label_centrosome.py)
// Launch   label_tiles: a block a tile, 32 KB of shared memory; the others a thread an item or a block a row.
// Order    a root is the least index of its component however unions interleave; numbers follow the roots' order.
#include "jg.cuh"

namespace {
constexpr int TILE_H = 64, TILE_W = 128;       // label.py: TILE
constexpr int UNLABELLED = -1, OUTSIDE = -2;
constexpr int FOREGROUND = 1, BACKGROUND = 2;  // which classes are joined

struct Tile { int32_t parent[TILE_H * TILE_W]; };

// The end of the chain of parents from i. Links only ever lead to smaller indices; OUTSIDE ends a chain too.
JG_FN int find(const int32_t* parent, int i) {
    for (;;) {
        const int up = jg::atomic_read(parent + i);
        if (up == i || up < 0) return i;
        i = up;
    }
}

// Joins two sets: the larger root is hung below the smaller one, and what it was hung below meanwhile is joined too.
JG_FN void join(int32_t* parent, int a, int b) {
    for (;;) {
        a = find(parent, a);
        b = find(parent, b);
        if (a == b) return;
        if (a < b) { const int swap = a; a = b; b = swap; }
        const int before = jg::atomic_least(parent + a, b);
        if (before == a) return;
        a = before;
    }
}

// Past the last pixel of the run that begins at x.
JG_FN int run_end(const uint8_t* row, int x, int width) {
    const uint8_t first = row[x];
#if defined(JG_SERIAL) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (++x; x + 8 <= width; x += 8) {                  // eight pixels at a time
        uint64_t eight;
        memcpy(&eight, row + x, 8);
        eight ^= first * 0x0101010101010101ull;
        if (eight) return x + __builtin_ctzll(eight) / 8;
    }
    while (x < width && row[x] == first) ++x;
#else
    do ++x; while (x < width && row[x] == first);
#endif
    return x;
}

JG_FN bool takes_part(bool foreground, int classes) { return (classes & (foreground ? FOREGROUND : BACKGROUND)) != 0; }
}  // namespace

// In   mask     uint8 [B, H, W]   0 or 1
//      classes  1 foreground, 2 background, 3 both
// Out  parent   int32 [B, H, W]   a pixel of the same component and tile, as index in its field; -1: class left out
extern "C" __global__ void __launch_bounds__(128, 4) label_tiles(
    const uint8_t* __restrict__ mask, int32_t height, int32_t width, int32_t classes, int32_t* __restrict__ parent)
{
    JG_SHARED(Tile, s);
    const int across = (width + TILE_W - 1) / TILE_W, down = (height + TILE_H - 1) / TILE_H;
    const int tile = int(blockIdx.x) % (across * down), x0 = tile % across * TILE_W, y0 = tile / across * TILE_H;
    const int h = jg::least(TILE_H, height - y0), w = jg::least(TILE_W, width - x0);
    const int64_t at = int64_t(int(blockIdx.x) / (across * down)) * height * width + int64_t(y0) * width + x0;
    const uint8_t* __restrict__ in = mask + at;
    int32_t* __restrict__ out = parent + at;

    JG_FOR(y, h) {                                       // a run is known by its first pixel
        const uint8_t* __restrict__ row = in + int64_t(y) * width;
        for (int x = 0; x < w; x = run_end(row, x, w)) s.parent[y * TILE_W + x] = y * TILE_W + x;
    }
    __syncthreads();
    JG_FOR(y, h) {                                       // each contact of two runs once
        if (y == 0) continue;
        const uint8_t *row = in + int64_t(y) * width, *above = row - width;
        int a0 = 0, a1 = run_end(above, 0, w);
        for (int x0_run = 0; x0_run < w;) {
            const int end = run_end(row, x0_run, w);
            const bool mine = row[x0_run] != 0;
            const int reach = mine ? 1 : 0;
            while (a1 + reach <= x0_run && a1 < w) { a0 = a1; a1 = run_end(above, a0, w); }
            for (;;) {
                if (a0 < end + reach && (above[a0] != 0) == mine && takes_part(mine, classes))
                    join(s.parent, y * TILE_W + x0_run, (y - 1) * TILE_W + a0);
                if (a1 >= end || a1 >= w) break;          // this run above goes on over the next
                a0 = a1;
                a1 = run_end(above, a0, w);
            }
            // A foreground run touches one that begins just beyond its end, across the corner.
            if (mine && a1 == end && a1 < w && above[a1] != 0 && takes_part(true, classes))
                join(s.parent, y * TILE_W + x0_run, (y - 1) * TILE_W + a1);
            x0_run = end;
        }
    }
    __syncthreads();
    JG_FOR(y, h) {
        const uint8_t* __restrict__ row = in + int64_t(y) * width;
        int32_t* __restrict__ to = out + int64_t(y) * width;
        for (int x = 0; x < w;) {
            const int end = run_end(row, x, w);
            int root = UNLABELLED;
            if (takes_part(row[x] != 0, classes)) {
                root = find(s.parent, y * TILE_W + x);
                root = (y0 + root / TILE_W) * width + x0 + root % TILE_W;
            }
            for (; x < end; ++x) to[x] = root;
        }
    }
}
JG_REGISTER(label_tiles)

// The joins across tile borders: one item a pixel of each seam.
extern "C" __global__ void __launch_bounds__(128, 8) label_seams(
    const uint8_t* __restrict__ mask, int32_t height, int32_t width, int32_t classes, int64_t n_items,
    int32_t* __restrict__ parent)
{
    const int lines = (height - 1) / TILE_H, columns = (width - 1) / TILE_W;
    const int64_t a_field = int64_t(lines) * width + int64_t(columns) * height, plane = int64_t(height) * width;
    JG_FOR_ITEMS(i, n_items) {
        const int64_t k = i % a_field;
        const uint8_t* __restrict__ in = mask + i / a_field * plane;
        int32_t* __restrict__ links = parent + i / a_field * plane;
        if (k < int64_t(lines) * width) {
            const int y = (int(k / width) + 1) * TILE_H, x = int(k % width);
            const int64_t p = int64_t(y) * width + x;
            const bool mine = in[p] != 0, north = (in[p - width] != 0) == mine;
            if (!takes_part(mine, classes)) continue;
            if (north) {
                const bool seen = x > 0 && (in[p - 1] != 0) == mine && (in[p - width - 1] != 0) == mine && x % TILE_W;
                if (!seen) join(links, int(p), int(p - width));
            } else if (mine) {
                if (x > 0 && in[p - width - 1]) join(links, int(p), int(p - width - 1));
                if (x + 1 < width && in[p - width + 1]) join(links, int(p), int(p - width + 1));
            }
        } else {
            const int64_t j = k - int64_t(lines) * width;
            const int x = (int(j / height) + 1) * TILE_W, y = int(j % height);
            const int64_t p = int64_t(y) * width + x;
            const bool mine = in[p] != 0, west = (in[p - 1] != 0) == mine;
            if (!takes_part(mine, classes)) continue;
            if (west) {
                const bool seen = y > 0 && (in[p - width] != 0) == mine && (in[p - width - 1] != 0) == mine && y % TILE_H;
                if (!seen) join(links, int(p), int(p - 1));
            } else if (mine) {
                if (y > 0 && in[p - width - 1]) join(links, int(p), int(p - width - 1));
                if (y + 1 < height && in[p + width - 1]) join(links, int(p), int(p + width - 1));
            }
        }
    }
}
JG_REGISTER(label_seams)

// Every background component that reaches the border loses its root to OUTSIDE. One item a border pixel.
extern "C" __global__ void __launch_bounds__(128, 8) label_outside(
    const uint8_t* __restrict__ mask, int32_t height, int32_t width, int64_t n_items, int32_t* __restrict__ parent)
{
    const int a_field = 2 * (height + width);
    const int64_t plane = int64_t(height) * width;
    JG_FOR_ITEMS(i, n_items) {
        const int k = int(i % a_field);
        const int64_t field = i / a_field * plane;
        const int y = k < width ? 0 : k < 2 * width ? height - 1 : (k - 2 * width) % height;
        const int x = k < width ? k : k < 2 * width ? k - width : k - 2 * width < height ? 0 : width - 1;
        const int p = y * width + x;
        if (mask[field + p] == 0) jg::atomic_least(parent + field + find(parent + field, p), OUTSIDE);
    }
}
JG_REGISTER(label_outside)

// In   parent   int32 [B, H, W]   after all joins
// Launch   a block a row.
// Out  root     int32 [B, H, W]   first pixel of the component; -1 class left out, -2 background joined to the border
//      filled   int32 [B, H, W]   1 but for background joined to the border: the foreground and its holes
extern "C" __global__ void __launch_bounds__(128, 8) label_roots(
    const int32_t* __restrict__ parent, int32_t height, int32_t width, int32_t* __restrict__ root,
    int32_t* __restrict__ filled)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int32_t* __restrict__ links = parent + int64_t(int(blockIdx.x) / height) * height * width;
    int known = UNLABELLED, end = UNLABELLED;            // neighbours mostly hang from the same pixel
    JG_FOR(x, width) {
        const int link = parent[at + x];
        if (link != known) {
            known = end = link;
            while (end >= 0) {
                const int up = links[end];
                if (up == end) break;
                end = up;
            }
        }
        root[at + x] = end;
        filled[at + x] = end != OUTSIDE;
    }
}
JG_REGISTER(label_roots)

// How many points stand in each row. A block a row.
// In   points   uint8 [B, H, W]
// Out  in_row   int32 [B * H]
extern "C" __global__ void __launch_bounds__(128, 8) count_points(
    const uint8_t* __restrict__ points, int32_t width, int32_t* __restrict__ in_row)
{
    JG_SHARED(jg::CountScratch<1>, s);
    const uint8_t* __restrict__ row = points + int64_t(blockIdx.x) * width;
    jg::Counts<1> mine = {};
    JG_FOR(x, width) mine.v[0] += row[x] != 0;
    const jg::Counts<1> all = jg::block_count(mine, s);
    JG_ONCE in_row[blockIdx.x] = int(all.v[0]);
}
JG_REGISTER(count_points)

// Numbers points 1..n in raster order; one thread walks a row that has any.
// In   points   uint8 [B, H, W]
//      in_row   int32 [B * H]     points in each row
//      before   int32 [B * H]     points in the rows before it, same field
// Out  number   int32 [B, H, W]   0 where there is no point
extern "C" __global__ void __launch_bounds__(128, 8) number_points(
    const uint8_t* __restrict__ points, const int32_t* __restrict__ in_row, const int32_t* __restrict__ before,
    int32_t width, int32_t* __restrict__ number)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) number[at + x] = 0;
    __syncthreads();
    if (in_row[blockIdx.x] == 0) return;
    JG_ONCE {
        int next = before[blockIdx.x] + 1;
        for (int x = 0; x < width; ++x)
            if (points[at + x]) number[at + x] = next++;
    }
}
JG_REGISTER(number_points)
