// grey_pairs.cu: pairs of grey levels of whole images, counted in four steps at once, and the sums that Haralick's features come of.
//
//   grey_levels   8-bit levels over 0..1, as texture.cuh's, through a table; and n levels from an image's darkest to its brightest
//   grey_pairs    how often level i stands a step before level j. The four directions stand together: entry ((i n) + j) 4 + d
//   grey_sums     the totals of texture.cuh over each direction's pairs, either way round; level 0 counts, unlike an object's
//
// Source   mahotas haralick, CellProfiler MeasureTexture ("Across entire image") and MeasureImageQuality (Correlation; centrosome)
// Oracle   mahotas (tests/image_features/test_texture.py), centrosome (tests/image_features/test_thresholds.py)
// Launch   grey_levels: a thread a pixel; grey_pairs: a block a group of four steps and band of rows; grey_sums: a block a group, 24 KB
//          of shared memory. Any block size.
// Order    counts are integers; the moment by jg::block_sum
#include "features/texture.cuh"

// In   pixels   float32 [n]
//      remap    uint8 [256]   8-bit level to the level that is counted
//      levels   0: by `remap`; else so many between minimum and minimum + span
// Out  level    uint8 [n]     0 of a value that is none
extern "C" __global__ void __launch_bounds__(128, 8) grey_levels(
    const float* __restrict__ pixels, const uint8_t* __restrict__ remap, float minimum, double span, int32_t levels, int64_t n,
    uint8_t* __restrict__ level)
{
    if (levels) {
        const double top = levels - 1;
        JG_FOR_ITEMS(i, n) {
            const double share = double(pixels[i] - minimum) / span * levels;
            level[i] = uint8_t(share > 0 ? int(jg::smaller(share, top)) : 0);
        }
    } else {
        JG_FOR_ITEMS(i, n) {
            const float grey = pixels[i] * 255.0f;
            level[i] = remap[grey > 0 ? int(rintf(jg::smaller(grey, 255.0f))) : 0];
        }
    }
}
JG_REGISTER(grey_levels)

// In   level    uint8  [H, W]      below n
//      step     int32  [G, 4, 2]   rows down, not negative, and columns to the right
// Out  counts   uint32 [G, bands, n, n, 4]   zeros at first
extern "C" __global__ void __launch_bounds__(128, 8) grey_pairs(
    const uint8_t* __restrict__ level, const int32_t* __restrict__ step, int32_t height, int32_t width, int32_t n, int32_t bands,
    uint32_t* __restrict__ counts)
{
    const int32_t* __restrict__ own = step + int(blockIdx.x) / bands * (2 * DIRECTIONS);
    uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * n * n * DIRECTIONS;
    const int rows = (height + bands - 1) / bands, y0 = int(blockIdx.x) % bands * rows, y1 = jg::smaller(height, y0 + rows);
    int left = 0, right = width, down = 0;               // columns from which every step stays within a row
    for (int d = 0; d < DIRECTIONS; ++d) {
        down = jg::larger(down, own[2 * d]);
        left = jg::larger(left, -own[2 * d + 1]);
        right = jg::smaller(right, width - own[2 * d + 1]);
    }
    for (int y = y0; y < y1; ++y) {
        const uint8_t* __restrict__ row = level + int64_t(y) * width;
        const bool all = y + down < height && left < right;
        if (all) {
            const uint8_t* to[DIRECTIONS];
            JG_UNROLL for (int d = 0; d < DIRECTIONS; ++d) to[d] = row + int64_t(own[2 * d]) * width + own[2 * d + 1];
            JG_FOR_OWN(x, left, right) {
                uint32_t* __restrict__ from = count + int(row[x]) * n * DIRECTIONS;
                JG_UNROLL for (int d = 0; d < DIRECTIONS; ++d) jg::tally(from + int(to[d][x]) * DIRECTIONS + d);
            }
        }
        for (int d = 0; d < DIRECTIONS; ++d) {           // where only some steps stay within the image
            if (y + own[2 * d] >= height) continue;
            const int across = own[2 * d + 1], x0 = jg::larger(0, -across), x1 = jg::smaller(width, width - across);
            const uint8_t* __restrict__ there = row + int64_t(own[2 * d]) * width + across;
            const auto some = [&](int from, int end) {
                JG_FOR_OWN(x, from, end) jg::tally(count + (int(row[x]) * n + there[x]) * DIRECTIONS + d);
            };
            if (!all) some(x0, x1);
            else {
                some(x0, jg::smaller(left, x1));
                some(jg::larger(right, x0), x1);
            }
        }
    }
}
JG_REGISTER(grey_pairs)

namespace {
constexpr int SIZE = LEVELS + 2;
struct Image {
    uint32_t sum[DIRECTIONS * 2 * SIZE], diff[DIRECTIONS * 2 * SIZE], level[DIRECTIONS * SIZE];
    TotalScratch scratch;
};
}  // namespace

// In   counts   as above; those of a group's other bands are added to its first
//      logs     int64 [entries]   texture_logs's table, beyond twice the image's pixels
//      pixels   of the image
// Out  totals   uint64 [G, 4, 11]; moment  float64 [G, 4]
extern "C" __global__ void __launch_bounds__(128, 4) grey_sums(
    uint32_t* __restrict__ counts, const int64_t* __restrict__ logs, int32_t n, int32_t bands, int64_t pixels,
    uint64_t* __restrict__ totals, double* __restrict__ moment)
{
    JG_SHARED(Image, s);
    const int size = n * n * DIRECTIONS, S = n + 1, drop = coarser(pixels);
    uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * bands * size;
    for (int band = 1; band < bands; ++band) JG_FOR_OWN(k, 0, size) count[k] += count[int64_t(band) * size + k];
    JG_FOR(k, DIRECTIONS * 2 * SIZE) { s.sum[k] = 0; s.diff[k] = 0; }
    JG_FOR(k, DIRECTIONS * SIZE) s.level[k] = 0;
    __syncthreads();
    for (int i = 1; i <= n; ++i) {                       // level i - 1
        const uint32_t* __restrict__ row = count + (i - 1) * n * DIRECTIONS;
        const auto add = [&](uint32_t* bins, int first) {
            JG_FOR_OWN(k, DIRECTIONS * first, DIRECTIONS * (first + n)) bins[k] += row[k - DIRECTIONS * first];
        };
        add(s.sum, i + 1);
        add(s.diff, S - i + 1);
        add(s.level, 1);
    }
    __syncthreads();
    JG_FOR(k, DIRECTIONS * n) {
        const uint32_t* __restrict__ row = count + k / DIRECTIONS * n * DIRECTIONS + k % DIRECTIONS;
        uint32_t total = 0;
        for (int j = 0; j < n; ++j) total += row[j * DIRECTIONS];
        s.level[DIRECTIONS + k] += total;
    }
    __syncthreads();
    uint64_t square[DIRECTIONS] = {}, log_cells[DIRECTIONS] = {};
    for (int i = jg::warp_id(); i < n; i += jg::warps())
        for (int j = jg::lane(); j <= i; j += jg::WARP)
            JG_UNROLL for (int d = 0; d < DIRECTIONS; ++d) {
                const uint64_t both = uint64_t(count[(i * n + j) * DIRECTIONS + d]) + count[(j * n + i) * DIRECTIONS + d];
                const uint64_t cells = i == j ? 1 : 2;
                square[d] += cells * both * both;
                log_cells[d] += cells * both * uint64_t(logs[both] >> drop);
            }
    for (int d = 0; d < DIRECTIONS; ++d) {
        uint64_t mine[TOTALS] = {square[d], log_cells[d]};
        const int64_t plane = int64_t(blockIdx.x) * DIRECTIONS + d;
        sum_direction<DIRECTIONS>(s.level + d, s.sum + d, s.diff + d, S, -1, 2, logs, drop, mine, s.scratch,
                                  totals + plane * TOTALS, moment + plane);
    }
}
JG_REGISTER(grey_sums)
