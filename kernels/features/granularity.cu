// granularity.cu: the granular spectrum of every object in every channel: levels of basins; granularity_spectrum.cu has the means.
//
//   I is the channel at half resolution without its background (granularity_background.cu). E_k is I eroded k times by a cross
//   (out-of-plane pixels do not count), R_k the reconstruction of E_k under I by crosses: R_k(p) is the highest level at which p
//   is joined to a pixel of E_k.
//   With m_0 the object's mean of the channel itself and m_k that of R_k, sampled back to full resolution,
//       granularity_k = 100 (m_(k-1) - m_k) / max(m_0, 2^-52),   k = 1 .. 16;   nan for an object without pixels.
//
//   R_k by basins (basins.cu, with high values low in the order): E_k of a basin is the largest E_k of its pixels, led up and
//   down the forest; then R_k(p) = min(I(p), E_k(basin of p)). R_k is never written: sampling back is linear, so an
//   object's mean is a sum over half-resolution pixels with weights that are the same for all channels and scales.
//
// Source   CellProfiler 4.2.8 MeasureGranularity: float32 images, sampled by scipy.ndimage.map_coordinates of order 1 in
//          float64 and rounded to float32, float64 means.
// Oracle   CellProfiler's output on the real fields; SciPy and scikit-image (tests/features/test_granularity.py)
// Order    values are compared, never added.
#include "features/granularity.cuh"

constexpr int SCALES = 16;
constexpr int32_t BESIDE = -jg::HIGHEST - 1;           // beyond the plane: above every value when unsigned, below when signed
constexpr int LEVELS = SCALES + 2;                     // I, E_1 .. E_16, and one that is beside the plane
constexpr int LINE = 16;                              // pixels: rows of the ring are whole lines of a cache
constexpr int AHEAD = 8;                               // basins that a CPU fetches ahead

// No level yet: E_k of every basin is 0, the lowest value there is.
//
// Launch   `parts` blocks per plane, any size; no shared memory.
// In   row_end  int32  [P, H]
// Out  levels   int32  [P, capacity, SCALES]
extern "C" __global__ void __launch_bounds__(1024) granularity_clear(
    const int32_t* __restrict__ row_end, int32_t height, int32_t capacity, int32_t parts, int32_t* __restrict__ levels)
{
    const int plane = int(blockIdx.x) / parts, part = int(blockIdx.x) % parts;
    const int64_t n = int64_t(row_end[int64_t(plane) * height + height - 1]) * SCALES;
    int32_t* __restrict__ to = levels + int64_t(plane) * capacity * SCALES;
    for (int64_t i = part * int(blockDim.x) + int(threadIdx.x); i < n; i += parts * int(blockDim.x)) to[i] = 0;
}
JG_REGISTER(granularity_clear)

// E_k of every basin as the pixels near it give it, enough for the forest to give the rest.
//
//   Of two pixels no more than 2k + 1 steps apart the one with the lower E_k adds nothing: its cross of k, whose pixels are as
//   high, reaches the other's, so they are joined at its level; and whatever a pixel adds, any pixel of its cross of k may add
//   in its place. So of `together(k)` rows the highest E_k of a column is taken, and looked at where it is above those beside,
//   above and below it; it goes to the basin of the column's first pixel.
//
//   All erosions at once, two rows of each a step: at step s rows 2 (s - 2k) and the next of E_k, from these and those before and
//   after them of E_(k-1), which steps s - 3, s - 2 and s - 1 made. Eight rows of each are kept, and four of the highest.
//
// Launch   a block per plane, up to 544 threads (a warp a level): a step is 34 rows, and a barrier follows it; no shared memory.
// In   key      uint32  [P, H + 2, W + 2]
//      basin    int32   [P, H + 2, W + 2]
// In, out  levels  int32  [P, capacity, SCALES]  bits of a value
// Out  ring     int32   [P, LEVELS, RING, W rounded up to lines, and two lines]  scratch
JG_FN int32_t lower(int32_t a, int32_t b) { return int32_t(jg::smaller(uint32_t(a), uint32_t(b))); }
JG_FN int32_t max_of(int32_t a, int32_t b, int32_t c) { return jg::larger(jg::larger(a, b), c); }
JG_FN int together(int k) { return k < 3 ? 2 : k < 7 ? 4 : 8; }     // rows: k + 1 at most, so that 2 of them span 2k + 1 steps

constexpr int KEPT = 8, RING = KEPT + 4;                // rows of E_k; with those of the highest

// A row of E_k, or TWO, from the rows of E_(k-1) before, at and after, and what it makes of the highest. Rows begin at the frame.
template <bool FIRST, bool TWO> JG_APART void erode_rows(const int32_t* __restrict__ above, const int32_t* __restrict__ here,
    const int32_t* __restrict__ next, const int32_t* __restrict__ below, int width, int32_t* __restrict__ to,
    int32_t* __restrict__ to_next, int32_t* __restrict__ highest)
{
#if defined(JG_SERIAL)
    const int n = (width + LINE - 1) / LINE * LINE;      // whole vectors; what is beyond the row means nothing
#else
    const int n = width;
#endif
    for (int x = 1 + jg::lane(); x <= n; x += jg::WARP) {
        const int32_t both = lower(here[x], next[x]);
        int32_t v = lower(lower(above[x], both), lower(here[x - 1], here[x + 1]));
        to[x] = v;
        if (TWO) {
            const int32_t second = lower(lower(below[x], both), lower(next[x - 1], next[x + 1]));
            to_next[x] = second;
            v = jg::larger(v, second);
        }
        highest[x] = FIRST ? v : jg::larger(highest[x], v);
    }
    if (jg::lane() == 0) to[0] = to[width + 1] = to_next[0] = to_next[width + 1] = highest[0] = highest[width + 1] = BESIDE;
}
// The maxima of a row of the highest; of equal ones the first in raster order stands for all.
JG_FN void look(const int32_t* __restrict__ above, const int32_t* __restrict__ here, const int32_t* __restrict__ below,
                const int32_t* __restrict__ of, int width, int32_t* level)
{
    jg::warp_each(width, [=](int i) {
        const int x = i + 1;
        const int32_t v = here[x];
        return bool((v > max_of(above[x], here[x - 1], 0)) & (v >= jg::larger(below[x], here[x + 1])));
    }, [&](int i, int) { jg::raise_to(level + int64_t(of[i]) * SCALES, here[i + 1]); });
}

extern "C" __global__ void __launch_bounds__(544) granularity_erode(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, int32_t height, int32_t width, int32_t capacity,
    int32_t* levels, int32_t* ring)
{
    const int pitch = width + 2, wide = (width + LINE - 1) / LINE * LINE + 2 * LINE, plane = int(blockIdx.x), pairs = (height + 1) / 2;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    int32_t* level = levels + int64_t(plane) * capacity * SCALES;
    ring += int64_t(plane) * LEVELS * RING * wide + LINE - 1;
    int32_t* beside = ring + (LEVELS - 1) * RING * wide;
    JG_FOR(x, wide - LINE + 1) beside[x] = BESIDE;
    __syncthreads();
    for (int s = 0; s <= pairs + 2 * SCALES; ++s) {
        for (int k = jg::warp_id(); k <= SCALES; k += jg::warps()) {
            const int pair = s - 2 * k, y = jg::smaller(2 * pair, height);
            if (pair < 0 || pair > pairs) continue;
            int32_t* mine = ring + k * RING * wide;
            const auto kept = [&](const int32_t* of, int row) { return row >= 0 && row < height ? of + (row & (KEPT - 1)) * wide : beside; };
            int32_t* to = mine + (y & (KEPT - 1)) * wide;
            if (k == 0) {
                if (y == height) continue;
                for (int j = 0; j < jg::smaller(2, height - y); ++j, to += wide) {
                    const uint32_t* __restrict__ from = key + base + int64_t(y + j + 1) * pitch;
                    for (int x = 1 + jg::lane(); x <= width; x += jg::WARP) to[x] = jg::bits_of_key(from[x]);
                    if (jg::lane() == 0) to[0] = to[width + 1] = BESIDE;
                }
                const int32_t* of = basin + base + int64_t(y + 1) * pitch + 1;
                for (int x = jg::lane(); x < width; x += jg::WARP) jg::fetch_ahead(level + int64_t(of[x]) * SCALES, 1);
                continue;
            }
            const int rows = together(k), stack = y / rows;
            int32_t* highest = mine + KEPT * wide;
            if (y % rows == 0 || y == height) {            // the stack before is whole: the one above it is looked at, the last too
                for (int t = jg::larger(0, (y - 1) / rows - 1); t * rows < (y == height ? height : y - rows); ++t)
                    look(t ? highest + ((t - 1) & 3) * wide : beside, highest + (t & 3) * wide,
                         (t + 1) * rows < height ? highest + ((t + 1) & 3) * wide : beside,
                         basin + base + int64_t(t * rows + 1) * pitch + 1, width, level + k - 1);
            }
            if (y == height) continue;
            const int32_t* from = ring + (k - 1) * RING * wide;
            const int32_t *above = kept(from, y - 1), *here = kept(from, y), *next = kept(from, y + 1), *below = kept(from, y + 2);
            highest += (stack & 3) * wide;
            const bool first = y % rows == 0, two = y + 1 < height;
            if (first && two) erode_rows<true, true>(above, here, next, below, width, to, to + wide, highest);
            else if (first) erode_rows<true, false>(above, here, next, below, width, to, to + wide, highest);
            else if (two) erode_rows<false, true>(above, here, next, below, width, to, to + wide, highest);
            else erode_rows<false, false>(above, here, next, below, width, to, to + wide, highest);
        }
        __syncthreads();
    }
}
JG_REGISTER(granularity_erode)

// The same by tiles, none of which waits for another: what a GPU runs. A block erodes a tile and what lies around it STEPS
// times; the next launch goes on from there. Columns of rows are looked at within a tile.
//
// Launch   a block a tile of TILE_HEIGHT - 2 STEPS rows and TILE_WIDTH - 2 STEPS columns of a plane, up to 512 threads; 46 KB
//          of shared memory.
// In   first     int32                  scales there are already
//      key       uint32  [P, H + 2, W + 2]  read where there are none
//      basin     int32   [P, H + 2, W + 2]
//      from      int32   [P, H, W]      E_first, where it is not 0
// In, out  levels  int32 [P, capacity, SCALES]
// Out  to        int32   [P, H, W]      E of the last scale, where it is not SCALES
constexpr int STEPS = 8, TILE_HEIGHT = 80, TILE_WIDTH = 64, HIGH = TILE_HEIGHT - 2 * STEPS, WIDE = TILE_WIDTH - 2 * STEPS;
struct Tile { int32_t v[2][TILE_HEIGHT][TILE_WIDTH], highest[HIGH / 2][WIDE]; };

// Those highest of stacks of `rows` rows that are above the ones beside them go to `level`; `of` is the basin of the first pixel.
JG_FN void look_at_tile(const Tile& tile, int rows, const int32_t* __restrict__ of, int pitch, int32_t* level)
{
    JG_FOR_YX(t, x, 0, HIGH / rows, 0, WIDE) {
        const int32_t v = tile.highest[t][x];
        const int32_t above = t ? tile.highest[t - 1][x] : 0, before = x ? tile.highest[t][x - 1] : 0;
        const int32_t below = (t + 1) * rows < HIGH ? tile.highest[t + 1][x] : 0, after = x + 1 < WIDE ? tile.highest[t][x + 1] : 0;
        if (v > max_of(above, before, 0) && v >= jg::larger(below, after))
            jg::atomic_max(level + int64_t(of[int64_t(t) * rows * pitch + x]) * SCALES, v);
    }
}

extern "C" __global__ void __launch_bounds__(512, 1) granularity_erode_tile(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ from, int32_t height,
    int32_t width, int32_t capacity, int32_t first, int32_t* levels, int32_t* __restrict__ to)
{
    JG_SHARED(Tile, tile);
    const int down = (height + HIGH - 1) / HIGH, across = (width + WIDE - 1) / WIDE, at = int(blockIdx.x), pitch = width + 2;
    const int plane = at / (down * across), top = at / across % down * HIGH - STEPS, left = at % across * WIDE - STEPS;
    const int64_t framed = (int64_t(plane) * (height + 2) + 1) * pitch + 1, bare = int64_t(plane) * height * width;
    const int32_t* __restrict__ of = basin + framed + int64_t(top + STEPS) * pitch + left + STEPS;
    int32_t* level = levels + int64_t(plane) * capacity * SCALES + first - 1;
    JG_FOR_YX(y, x, 0, TILE_HEIGHT, 0, TILE_WIDTH) {
        const int row = top + y, column = left + x;
        int32_t v = BESIDE;
        if (row >= 0 && row < height && column >= 0 && column < width)
            v = first ? from[bare + int64_t(row) * width + column] : jg::bits_of_key(key[framed + int64_t(row) * pitch + column]);
        tile.v[0][y][x] = tile.v[1][y][x] = v;
    }
    __syncthreads();
    for (int k = 1; k <= STEPS; ++k) {
        const int32_t (*__restrict__ v)[TILE_WIDTH] = tile.v[~k & 1];
        int32_t (*__restrict__ next)[TILE_WIDTH] = tile.v[k & 1];
        const int y0 = jg::larger(k, -top), y1 = jg::smaller(TILE_HEIGHT - k, height - top);
        const int x0 = jg::larger(k, -left), x1 = jg::smaller(TILE_WIDTH - k, width - left);
        const int columns = (x1 - x0 + jg::WARP - 1) / jg::WARP, runs = jg::larger(1, jg::warps() / columns);
        const int count = (y1 - y0 + runs - 1) / runs;
        for (int i = jg::warp_id(); i < columns * runs; i += jg::warps()) {
            const int x = x0 + i % columns * jg::WARP + jg::lane(), begin = y0 + i / columns * count;
            if (x >= x1 || begin >= y1) continue;
            const int end = jg::smaller(begin + count, y1);
            int32_t above = v[begin - 1][x], here = v[begin][x];
            for (int y = begin; y < end; ++y) {
                const int32_t below = v[y + 1][x];
                next[y][x] = lower(lower(lower(above, below), lower(v[y][x - 1], v[y][x + 1])), here);
                above = here;
                here = below;
            }
        }
        if (k > 1) look_at_tile(tile, together(first + k - 1), of, pitch, level + k - 1);
        __syncthreads();
        const int rows = together(first + k);
        JG_FOR_YX(t, x, 0, HIGH / rows, 0, WIDE) {
            const int32_t (*__restrict__ stack)[TILE_WIDTH] = next + STEPS + t * rows;
            int32_t highest = 0;
            for (int j = 0; j < rows; ++j) highest = jg::larger(highest, stack[j][STEPS + x]);
            tile.highest[t][x] = highest;
        }
        __syncthreads();
    }
    look_at_tile(tile, together(first + STEPS), of, pitch, level + STEPS);
    if (first + STEPS == SCALES) return;
    const int bottom = jg::smaller(TILE_HEIGHT - STEPS, height - top), right = jg::smaller(TILE_WIDTH - STEPS, width - left);
    JG_FOR_YX(y, x, STEPS, bottom, STEPS, right) to[bare + int64_t(top + y) * width + left + x] = tile.v[STEPS & 1][y][x];
}
JG_REGISTER(granularity_erode_tile)

// E_k of every basin as the whole plane gives it: up the forest and down again (basins.cu).
//
// Launch   a block per plane, up to 1024 threads; no shared memory.
// In   up, climb, hung, hung_end   as basin_forest made them
// In, out  levels  int32  [P, capacity, SCALES]
extern "C" __global__ void __launch_bounds__(1024) granularity_raise(
    const int32_t* __restrict__ up, const uint64_t* __restrict__ climb, const int32_t* __restrict__ hung,
    const int32_t* __restrict__ hung_end, int32_t capacity, int32_t* levels)
{
    const int plane = int(blockIdx.x);
    up += int64_t(plane) * capacity;
    climb += int64_t(plane) * capacity;
    hung += int64_t(plane) * capacity;
    hung_end += int64_t(plane) * jg::ROUNDS;
    levels += int64_t(plane) * capacity * SCALES;
    auto ahead = [=](int t, int end) {
        const int i = hung[jg::smaller(t + AHEAD, end - 1)];
        jg::fetch_ahead(levels + int64_t(i) * SCALES, 1);
        jg::fetch_ahead(levels + int64_t(up[i]) * SCALES, 1);
    };
    for (int r = 1; r < jg::ROUNDS && hung_end[r - 1] < hung_end[jg::ROUNDS - 1]; ++r) {
        for (int t = hung_end[r - 1] + jg::warp_id(); t < hung_end[r]; t += jg::warps()) {
            const int i = hung[t];
            ahead(t, hung_end[r]);
            const int32_t pass = jg::bits_of_key(uint32_t(climb[i] >> 32));
            const int32_t* mine = levels + int64_t(i) * SCALES;
            int32_t* root = levels + int64_t(up[i]) * SCALES;
            for (int k = jg::lane(); k < SCALES; k += jg::WARP) jg::raise_to(root + k, jg::smaller(pass, mine[k]));
        }
        __syncthreads();
    }
    for (int r = jg::ROUNDS - 1; r >= 1; --r) {
        if (hung_end[r - 1] == hung_end[r]) continue;
        for (int t = hung_end[r - 1] + jg::warp_id(); t < hung_end[r]; t += jg::warps()) {
            const int i = hung[t];
            ahead(t, hung_end[r]);
            const int32_t pass = jg::bits_of_key(uint32_t(climb[i] >> 32));
            int32_t* __restrict__ mine = levels + int64_t(i) * SCALES;
            const int32_t* __restrict__ root = levels + int64_t(up[i]) * SCALES;
            for (int k = jg::lane(); k < SCALES; k += jg::WARP) mine[k] = jg::larger(mine[k], jg::smaller(pass, root[k]));
        }
        __syncthreads();
    }
}
JG_REGISTER(granularity_raise)

// The same without rounds: what a GPU runs. A basin's level goes up from root to root until one has as much already, which
// whoever brought it there takes on.
//
// Launch   `parts` blocks per plane, any size; no shared memory.
// In   up, climb, hung, hung_end   as basin_forest made them
// In, out  levels  int32  [P, capacity, SCALES]   of every basin and what hangs on it
extern "C" __global__ void __launch_bounds__(1024) granularity_rise(
    const int32_t* __restrict__ up, const uint64_t* __restrict__ climb, const int32_t* __restrict__ hung,
    const int32_t* __restrict__ hung_end, int32_t capacity, int32_t parts, int32_t* levels)
{
    const int plane = int(blockIdx.x) / parts, part = int(blockIdx.x) % parts;
    const int64_t base = int64_t(plane) * capacity, n = int64_t(hung_end[(plane + 1) * jg::ROUNDS - 1]) * SCALES;
    for (int64_t e = part * int(blockDim.x) + int(threadIdx.x); e < n; e += parts * int(blockDim.x)) {
        int32_t* level = levels + base * SCALES + e % SCALES;
        int i = hung[base + e / SCALES];
        int32_t v = jg::atomic_read(level + int64_t(i) * SCALES);
        for (int root = up[base + i]; root != i; root = up[base + i]) {
            v = jg::smaller(v, jg::bits_of_key(uint32_t(climb[base + i] >> 32)));
            if (v <= jg::atomic_read(level + int64_t(root) * SCALES)) break;
            jg::atomic_max(level + int64_t(root) * SCALES, v);
            i = root;
        }
    }
}
JG_REGISTER(granularity_rise)

// And down: what a basin gets from the roots above it, each of which may have got its own already.
//
// Launch   as granularity_rise, whose levels these are
extern "C" __global__ void __launch_bounds__(1024) granularity_sink(
    const int32_t* __restrict__ up, const uint64_t* __restrict__ climb, const int32_t* __restrict__ hung,
    const int32_t* __restrict__ hung_end, int32_t capacity, int32_t parts, int32_t* levels)
{
    const int plane = int(blockIdx.x) / parts, part = int(blockIdx.x) % parts;
    const int64_t base = int64_t(plane) * capacity, n = int64_t(hung_end[(plane + 1) * jg::ROUNDS - 1]) * SCALES;
    for (int64_t e = part * int(blockDim.x) + int(threadIdx.x); e < n; e += parts * int(blockDim.x)) {
        int32_t* level = levels + base * SCALES + e % SCALES;
        int i = hung[base + e / SCALES];
        int32_t* mine = level + int64_t(i) * SCALES;
        const int32_t old = jg::atomic_read(mine);
        int32_t v = old, pass = jg::HIGHEST;
        for (int root = up[base + i]; root != i; root = up[base + i]) {
            pass = jg::smaller(pass, jg::bits_of_key(uint32_t(climb[base + i] >> 32)));
            if (pass <= v) break;
            v = jg::larger(v, jg::smaller(pass, jg::atomic_read(level + int64_t(root) * SCALES)));
            i = root;
        }
        if (v > old) jg::atomic_write(mine, v);
    }
}
JG_REGISTER(granularity_sink)
