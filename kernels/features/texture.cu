// texture.cu: Haralick's thirteen texture features of every object row, channel, scale and direction.
//
//   P(i, j)  how often levels i and j stand `scale` apart in one direction, either way round; i, j > 0, both pixels in
//            the object. T = sum P, p = P / T, and so on as Haralick (1973) with mahotas' conventions: logarithms to base
//            2, sum variance about the sum average, difference variance as the variance of the histogram of |i - j|
//            over 0..highest level, InfoMeas1 divided by the marginal's entropy unless that is 0. An object without a
//            pair in one of the directions of a scale is nan in all four.
//   A level is the pixel's intensity times 255, rounded to even, then through `remap` (the identity at 256 levels).
//   Level 0 is left out, so dim pixels are.
//
// Source   CellProfiler MeasureTexture: mahotas.features.haralick(crop, distance=scale, ignore_zeros=True)
// Oracle   mahotas; CellProfiler's own output on the real fields
// Launch   texture_spots: one block per object row. texture_count: one block per object row and channel, 128 threads, 23 KB of
//          shared memory. To 32 levels four directions are counted at once and each is summed by a warp of its own, to 65 one
//          by one by the block; a wider range of levels is counted in row tiles. texture_finish: a thread per feature row.
//          texture_logs: a thread per entry. On a CPU texture_parts.cu counts most cells before.
// Order    every sum is an integer (logarithms in fixed point, 2^-41, coarser for objects beyond 131,071 pixels) but the
//          inverse difference moment, jg::block_sum.
#include "jg/one_item_per_thread.cuh"
#include "jg/register_loads.cuh"
#include "jg/jg_math.cuh"
#include "features/texture.cuh"

namespace {
#if defined(JG_SERIAL)
constexpr int CELLS = 257 * 257;       // a core's cache holds the whole matrix
constexpr int COPIES = 2, COPIED = 8192;         // two of each, while they fit its first level
#elif defined(TEXTURE_CELLS)
constexpr int CELLS = TEXTURE_CELLS;   // tests make it small, so that small cases need tiles
#else
constexpr int CELLS = 4356;            // 17 KB: four directions at once to 32 levels, one to 65, row tiles beyond
#endif
#if !defined(JG_SERIAL)
constexpr int COPIES = 1, COPIED = CELLS;        // shared-memory atomics need none
constexpr int ASKED = 4;                         // pixels that a thread asks for at once
#endif

struct Texture {
    uint32_t cell[CELLS];
    uint32_t level[LEVELS + 2], sum[2 * LEVELS + 4], diff[2 * LEVELS + 4];
    TotalScratch scratch;
    int lo, hi;
};
#if !defined(JG_SERIAL)
static_assert(sizeof(Texture) <= 48 * 1024, "static shared memory is 48 KiB at maximum");
#endif

// The object's levels in its padded box, remapped to 1..n; 0 outside it. spot: where its n pixels lie in the box. On a GPU the
// levels stand there as they are, and `shift` is taken off where they are read: a pass over the box less.
struct Crop {
    const uint8_t* level;
    const int32_t* spot;
    int n, stride, shift;
};

#if defined(JG_CUDA)
#  define JG_UNROLL_BY_4 _Pragma("unroll 4")
#else
#  define JG_UNROLL_BY_4
#endif

// Count the pairs of D directions into D matrices of S columns, whole: cell[a][b], a the pixel's own level. Row 0 (the
// pixels that do not count) is left out by `a > 0`; column 0 takes the neighbours that do not count. Neighbouring pixels
// often hit the same cell, and a core waits for its own last increment: `copies` matrices (a power of 2) take turns. A GPU's
// thread asks for the levels of several pixels before it counts one.
template <int D> JG_FN void count_whole(uint32_t* __restrict__ cell, const Crop& crop, int S, const int* step, int copies) {
    const int size = D * S * S;
#if defined(JG_SERIAL)
    JG_FOR(i, crop.n) {
        const uint8_t* __restrict__ p = crop.level + crop.spot[i];
        const int a = *p;
        if (a > 0) {
            uint32_t* __restrict__ row = cell + (i & (copies - 1)) * size + (a - 1) * S;
            JG_UNROLL for (int d = 0; d < D; ++d) jg::tally(row + d * S * S + p[step[d]]);
        }
    }
#else
    (void)size, (void)copies;
    const int threads = int(blockDim.x), shift = crop.shift;
    for (int i = int(threadIdx.x); i < crop.n; i += ASKED * threads) {
        int at[ASKED], a[ASKED], b[ASKED][D];
        JG_UNROLL for (int k = 0; k < ASKED; ++k) at[k] = crop.spot[jg::smaller(i + k * threads, crop.n - 1)];
        JG_UNROLL for (int k = 0; k < ASKED; ++k) {
            const uint8_t* __restrict__ p = crop.level + at[k];
            a[k] = *p;
            JG_UNROLL for (int d = 0; d < D; ++d) b[k][d] = p[step[d]];
        }
        JG_UNROLL for (int k = 0; k < ASKED; ++k) {
            jg::held_here(a[k]);
            JG_UNROLL for (int d = 0; d < D; ++d) jg::held_here(b[k][d]);
        }
        JG_UNROLL for (int k = 0; k < ASKED; ++k) {
            if (a[k] == 0 || i + k * threads >= crop.n) continue;
            uint32_t* __restrict__ row = cell + (a[k] - shift - 1) * S;
            JG_UNROLL for (int d = 0; d < D; ++d) jg::tally(row + d * S * S + jg::larger(b[k][d] - shift, 0));
        }
    }
#endif
}

// The same for the rows row0 .. row0 + rows - 1 of one direction, both ways round.
JG_FN void count_tile(uint32_t* __restrict__ cell, const Crop& crop, int S, int step, int row0, int rows) {
    JG_FOR(i, crop.n) {
        const uint8_t* __restrict__ p = crop.level + crop.spot[i];
        const int a = *p - crop.shift, b = p[step] - crop.shift;
        if (a > 0 && b > 0) {
            if (a >= row0 && a < row0 + rows) jg::tally(cell + (a - row0) * S + b);
            if (b >= row0 && b < row0 + rows) jg::tally(cell + (b - row0) * S + a);
        }
    }
}

// What rows row0 .. row1 - 1 of a matrix add: to the marginals in shared memory, and to this thread's own sums. C(i, j)
// counts one way round when WHOLE (so the matrix is C + its transpose), both ways otherwise.
template <bool WHOLE> JG_FN void add_rows(Texture& s, const uint32_t* __restrict__ cell, int S, int levels, int row0,
                                          int row1, const int64_t* __restrict__ logs, int drop, uint64_t* mine) {
    for (int i = row0; i < row1; ++i) {
        const uint32_t* __restrict__ row = cell + (i - row0) * S;
        JG_FOR_OWN(k, i + 1, i + levels + 1) s.sum[k] += row[k - i];
        JG_FOR_OWN(k, S - i + 1, S - i + levels + 1) s.diff[k] += row[k - S + i];
        if (WHOLE) { JG_FOR_OWN(k, 1, levels + 1) s.level[k] += row[k]; }
    }
    JG_FOR_OWN(i, row0, row1) {
        uint32_t t = 0;
        for (int j = 1; j <= levels; ++j) t += cell[(i - row0) * S + j];
        s.level[i] += t;
    }
    uint64_t square = 0, log_cells = 0;                  // below the diagonal: the other half of the matrix is the same
    for (int i = row0 + jg::warp_id(); i < row1; i += jg::warps()) {
        for (int j = 1 + jg::lane(); j < i; j += jg::WARP) {
            const uint32_t m = cell[(i - row0) * S + j] + (WHOLE ? cell[(j - row0) * S + i] : 0);
            square += uint64_t(m) * m;
            log_cells += m * uint64_t(logs[m] >> drop);
        }
    }
    mine[SQUARE] += 2 * square;
    mine[LOG_CELLS] += 2 * log_cells;
    JG_FOR_OWN(i, row0, row1) {
        const uint32_t m = cell[(i - row0) * S + i] << int(WHOLE);
        mine[SQUARE] += uint64_t(m) * m;
        mine[LOG_CELLS] += m * uint64_t(logs[m] >> drop);
    }
}

#if !defined(JG_SERIAL)
// The bins of the marginals of a matrix that is counted one way round, gathered: lanes with neighbouring bins read neighbouring
// words, nothing is written, and nobody waits.
struct Matrix {
    const uint32_t* cell;
    int S, levels;
    __device__ __forceinline__ uint32_t at(int i, int j) const { return cell[(i - 1) * S + j]; }
    __device__ __forceinline__ uint64_t level(int k) const {          // pairs with level k, either way round
        uint32_t t = 0;
        JG_UNROLL_BY_4 for (int j = 1; j <= levels; ++j) t += at(k, j) + at(j, k);
        return t;
    }
    __device__ __forceinline__ uint64_t sum(int k) const {            // with levels that add up to k
        uint32_t t = 0;
        const int last = jg::smaller(levels, k - 1);
        JG_UNROLL_BY_4 for (int i = jg::larger(1, k - levels); i <= last; ++i) t += at(i, k - i);
        return 2 * uint64_t(t);
    }
    __device__ __forceinline__ uint64_t apart(int k) const {          // with levels k apart
        uint32_t t = 0;
        JG_UNROLL_BY_4 for (int i = 1; i <= levels - k; ++i) t += at(i, i + k) + (k ? at(i + k, i) : 0u);
        return 2 * uint64_t(t);
    }
};

// The totals of a direction by the threads `first`, first + step, ... of a warp or a block, those of |i - j| left out: rows of the
// triangle below the diagonal go to its warps, four at a time.
JG_FN void add_gathered(const Matrix& m, int shift, const int64_t* __restrict__ logs, int drop, int first, int step, uint64_t* mine) {
    for (int k = first + 1; k <= m.levels; k += step) {
        const uint64_t n = m.level(k), kk = uint64_t(k + shift), twice = uint64_t(m.at(k, k)) << 1;
        mine[PAIRS] += n; mine[I1] += n * kk; mine[I2] += n * kk * kk; mine[LOG_I] += n * uint64_t(logs[n] >> drop);
        mine[SQUARE] += twice * twice;
        mine[LOG_CELLS] += twice * uint64_t(logs[twice] >> drop);
    }
    for (int k = first + 2; k <= 2 * m.levels; k += step) {
        const uint64_t n = m.sum(k), kk = uint64_t(k + 2 * shift);
        mine[S2] += n * kk * kk; mine[LOG_S] += n * uint64_t(logs[n] >> drop);
    }
    constexpr int ROWS = 4;
    uint64_t square = 0, log_cells = 0;                  // below the diagonal: the other half of the matrix is the same
    for (int i0 = 2 + first / jg::WARP * ROWS; i0 <= m.levels; i0 += step / jg::WARP * ROWS)
        for (int j = 1 + jg::lane(); j < i0 + ROWS - 1; j += jg::WARP) {
            uint32_t n[ROWS];
            uint64_t log[ROWS];
            JG_UNROLL for (int r = 0; r < ROWS; ++r) n[r] = j < i0 + r && i0 + r <= m.levels ? m.at(i0 + r, j) + m.at(j, i0 + r) : 0u;
            JG_UNROLL for (int r = 0; r < ROWS; ++r) log[r] = uint64_t(logs[n[r]] >> drop);
            JG_UNROLL for (int r = 0; r < ROWS; ++r) {
                square += uint64_t(n[r]) * n[r];
                log_cells += n[r] * log[r];
            }
        }
    mine[SQUARE] += 2 * square;
    mine[LOG_CELLS] += 2 * log_cells;
}
// What pairs k apart add; their part of the inverse difference moment is what comes back.
JG_FN double add_apart(const Matrix& m, int k, const int64_t* __restrict__ logs, int drop, uint64_t* mine) {
    const uint64_t n = m.apart(k), kk = uint64_t(k);
    mine[D2] += n * kk * kk; mine[LOG_D] += n * uint64_t(logs[n] >> drop); mine[SQUARE_D] += n * n;
    return double(n) / double(1 + k * k);
}

// A direction's totals by one warp, without a barrier; the inverse difference moment adds up as by jg::block_sum.
JG_FN void sum_by_warp(const Matrix& m, int shift, const int64_t* __restrict__ logs, int drop, uint64_t* __restrict__ total_out,
                       double* __restrict__ moment_out)
{
    uint64_t mine[TOTALS] = {};
    add_gathered(m, shift, logs, drop, jg::lane(), jg::WARP, mine);
    double moment = 0;
    for (int g = 0; g < jg::LANES; g += jg::WARP) {
        double part = 0;
        for (int k = g + jg::lane(); k < m.levels; k += jg::LANES) part += add_apart(m, k, logs, drop, mine);
        moment += jg::warp_sum(part);
    }
    for (int t = 0; t < TOTALS; ++t) mine[t] = jg::warp_sum(mine[t]);
    if (jg::lane() == 0) {
        for (int t = 0; t < TOTALS; ++t) total_out[t] = mine[t];
        *moment_out = moment;
    }
}

// The same by the whole block. Ends with a barrier.
JG_FN void sum_by_block(const Matrix& m, int shift, const int64_t* __restrict__ logs, int drop, TotalScratch& scratch,
                        uint64_t* __restrict__ total_out, double* __restrict__ moment_out)
{
    uint64_t mine[TOTALS] = {};
    add_gathered(m, shift, logs, drop, int(threadIdx.x), int(blockDim.x), mine);
    const jg::Vec<1> moment = jg::block_sum<1>(m.levels, scratch.sum, [&](int k) {
        return jg::Vec<1>{{add_apart(m, k, logs, drop, mine)}};
    });
    jg::Counts<TOTALS> sums;
    for (int t = 0; t < TOTALS; ++t) sums.v[t] = mine[t];
    sums = jg::block_count<TOTALS>(sums, scratch.counts);
    JG_ONCE {
        for (int t = 0; t < TOTALS; ++t) total_out[t] = sums.v[t];
        *moment_out = moment.v[0];
    }
}
#endif
}  // namespace

// In   pixel       int32   [P]                y << 16 | x
//      start, stop int64   [R]                each object row's range of the list
//      spot_start  int64   [R]                each row's first spot: the pixels of the rows before it
//      box         int32   [R, 4]             half-open y0, x0, y1, x1
// Out  spot        int32   [sum of pixels]    each pixel's place in its row's box, whose rows are width + pad long
extern "C" __global__ void __launch_bounds__(128, 8) texture_spots(
    const int32_t* __restrict__ pixel, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int64_t* __restrict__ spot_start, const int32_t* __restrict__ box, int32_t pad, int32_t* __restrict__ spot)
{
    const int object = int(blockIdx.x), y0 = box[4 * object], x0 = box[4 * object + 1], stride = box[4 * object + 3] - x0 + pad;
    const int32_t* __restrict__ from = pixel + start[object];
    int32_t* __restrict__ to = spot + spot_start[object];
    JG_FOR(i, int(stop[object] - start[object])) to[i] = ((from[i] >> 16) - y0) * stride + (from[i] & 0xffff) - x0;
}
JG_REGISTER(texture_spots)

// In   values      float32 [C, P]             intensity by listed pixel, 0..1
//      start, stop int64   [R]                each object row's range of the list
//      spot        int32   [sum of pixels]    texture_spots' places in each row's box
//      spot_start  int64   [R]                each row's first spot
//      box         int32   [R, 4]             half-open y0, x0, y1, x1
//      schedule    int32   [R]                rows, largest first
//      wanted      uint8   [R, C]             0: leave it, texture_parts has done it
//      remap       uint8   [256]              8-bit level to the level that is counted
//      crop_start  int64   [R]                each row's place in a channel of `crops`
//      logs        int64   [entries]          texture_logs's table, beyond twice the largest object's pixels
//      scale       int32   [S]                distances; `pad` is the largest
// Work crops       uint8   [C, crop_stride]   (height + pad) * (width + pad) bytes per row, from a multiple of 4
// Out  totals      uint64  [R, C, S, 4, 11]   sums over the matrix, see Total
//      moment      float64 [R, C, S, 4]       sum of P / (1 + (i - j)^2)
//      highest     int32   [R, C]             highest level; 0: nothing to count; -1: no pixels
extern "C" __global__ void __launch_bounds__(128, 4) texture_count(
    const float* __restrict__ values, int64_t n_pixels, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int32_t* __restrict__ spot, const int64_t* __restrict__ spot_start, const int32_t* __restrict__ box,
    const int32_t* __restrict__ schedule, const uint8_t* __restrict__ wanted, const uint8_t* __restrict__ remap,
    const int64_t* __restrict__ crop_start, int64_t crop_stride,
    const int64_t* __restrict__ logs, const int32_t* __restrict__ scale, int32_t scales, int32_t pad, int32_t channels,
    uint8_t* __restrict__ crops, uint64_t* __restrict__ totals, double* __restrict__ moment, int32_t* __restrict__ highest)
{
    JG_SHARED(Texture, s);
    const int object = schedule[int(blockIdx.x) / channels], channel = int(blockIdx.x) % channels;
    const int64_t first = start[object], item = int64_t(object) * channels + channel;
    if (!wanted[item]) return;
    const float* __restrict__ value = values + channel * n_pixels + first;
    uint8_t* __restrict__ level = crops + channel * crop_stride + crop_start[object];
    const int height = box[4 * object + 2] - box[4 * object], stride = box[4 * object + 3] - box[4 * object + 1] + pad;
    Crop crop = {level, spot + spot_start[object], int(stop[object] - first), stride, 0};

    JG_ONCE { s.lo = LEVELS; s.hi = 0; }
    const int words = ((height + pad) * stride + 3) / 4;
    JG_FOR(i, words) reinterpret_cast<uint32_t*>(level)[i] = 0;
    __syncthreads();
    {
        int lo = LEVELS, hi = 0;
        const auto place = [&](float v, int at) {
            const int g = remap[raw_level(v)];
            level[at] = uint8_t(g);
            lo = jg::smaller(lo, g ? g : LEVELS);
            hi = jg::larger(hi, g);
        };
#if defined(JG_SERIAL)
        for (int i = 0; i < crop.n; ++i) place(value[i], crop.spot[i]);
#else
        const int threads = int(blockDim.x);
        for (int i = int(threadIdx.x); i < crop.n; i += ASKED * threads) {
            float held[ASKED];
            int at[ASKED];
            JG_UNROLL for (int k = 0; k < ASKED; ++k) {
                const int here = jg::smaller(i + k * threads, crop.n - 1);
                held[k] = value[here];
                at[k] = crop.spot[here];
            }
            JG_UNROLL for (int k = 0; k < ASKED; ++k) {
                jg::held_here(held[k]);
                jg::held_here(at[k]);
            }
            JG_UNROLL for (int k = 0; k < ASKED; ++k) if (i + k * threads < crop.n) place(held[k], at[k]);
        }
#endif
        jg::gather_min(&s.lo, lo);
        jg::gather_max(&s.hi, hi);
    }
    __syncthreads();
    const int hi = s.hi, shift = s.lo - 1, levels = hi - shift, drop = coarser(crop.n);
    JG_ONCE highest[item] = crop.n > 0 ? hi : -1;
    uint64_t* __restrict__ total_out = totals + item * scales * (DIRECTIONS * TOTALS);
    double* __restrict__ moment_out = moment + item * scales * DIRECTIONS;
    if (hi == 0) {                                       // no pixel counts (the whole block agrees)
        JG_FOR(k, scales * DIRECTIONS * TOTALS) total_out[k] = 0;
        JG_FOR(k, scales * DIRECTIONS) moment_out[k] = 0;
        return;
    }
#if defined(JG_SERIAL)
    for (int i = 0; i < 4 * words; ++i) level[i] = uint8_t(level[i] > shift ? level[i] - shift : 0);
#else
    crop.shift = shift;
#endif
    const int S = (levels + 1) | 1;                      // odd: the cells of a column lie in different banks
    const int D = 4 * S * S <= CELLS ? 4 : 1, tile = S * S <= CELLS ? levels : CELLS / S;
#if defined(JG_SERIAL)
    const int copies = COPIES * 4 * S * S <= COPIED ? COPIES : 1;
#endif
    const uint64_t ways = tile == levels ? 2 : 1;        // a whole matrix is counted one way round
    for (int plane = 0; plane < scales * DIRECTIONS; plane += D) {
        const int far = scale[plane / DIRECTIONS];
        const int step[4] = {far, far * stride + far, far * stride, far * stride - far};
#if !defined(JG_SERIAL)
        if (tile == levels) {                            // a warp per direction, where all four fit
            JG_FOR(k, D * S * S) s.cell[k] = 0;
            __syncthreads();
            if (D == 4) count_whole<4>(s.cell, crop, S, step, 1);
            else count_whole<1>(s.cell, crop, S, step + plane % DIRECTIONS, 1);
            __syncthreads();
            if (D == 4) {
                for (int d = jg::warp_id(); d < D; d += jg::warps())
                    sum_by_warp({s.cell + d * S * S, S, levels}, shift, logs, drop, total_out + (plane + d) * TOTALS, moment_out + plane + d);
            } else sum_by_block({s.cell, S, levels}, shift, logs, drop, s.scratch, total_out + plane * TOTALS, moment_out + plane);
            __syncthreads();
            continue;
        }
#endif
        for (int d = 0; d < D; ++d) {
            uint64_t mine[TOTALS] = {};
            JG_FOR(k, 2 * S + 2) { s.sum[k] = 0; s.diff[k] = 0; }
            JG_FOR(k, S + 1) s.level[k] = 0;
#if defined(JG_SERIAL)
            if (tile == levels) {
                if (d == 0) {
                    JG_FOR(k, copies * D * S * S) s.cell[k] = 0;
                    __syncthreads();
                    if (D == 4) count_whole<4>(s.cell, crop, S, step, copies);
                    else count_whole<1>(s.cell, crop, S, step + plane % DIRECTIONS, copies);
                    if (copies > 1) {
                        __syncthreads();
                        for (int c = 1; c < copies; ++c) JG_FOR(k, D * S * S) s.cell[k] += s.cell[c * D * S * S + k];
                    }
                }
                __syncthreads();
                add_rows<true>(s, s.cell + d * S * S, S, levels, 1, levels + 1, logs, drop, mine);
            } else
#endif
            {
                for (int row0 = 1; row0 <= levels; row0 += tile) {
                    const int row1 = jg::smaller(row0 + tile, levels + 1);
                    JG_FOR(k, (row1 - row0) * S) s.cell[k] = 0;
                    __syncthreads();
                    count_tile(s.cell, crop, S, step[plane % DIRECTIONS], row0, row1 - row0);
                    __syncthreads();
                    add_rows<false>(s, s.cell, S, levels, row0, row1, logs, drop, mine);
                    __syncthreads();
                }
            }
            sum_direction<1>(s.level, s.sum, s.diff, S, shift, ways, logs, drop, mine, s.scratch,
                             total_out + (plane + d) * TOTALS, moment_out + plane + d);
        }
    }
}
JG_REGISTER(texture_count)

// In   totals, moment, highest, logs, start, stop as above; n_items = R * C * S
// Out  features    float64 [R, C, S, 4, 13]
extern "C" __global__ void __launch_bounds__(128, 6) texture_finish(
    const uint64_t* __restrict__ totals, const double* __restrict__ moment, const int32_t* __restrict__ highest,
    const int64_t* __restrict__ logs, const int64_t* __restrict__ start, const int64_t* __restrict__ stop, int64_t n_items,
    int32_t channels, int32_t scales, double* __restrict__ features)
{
    JG_FOR_FEW(item, n_items) {
        const uint64_t* __restrict__ four = totals + item * (DIRECTIONS * TOTALS);
        double* __restrict__ out = features + item * (DIRECTIONS * Haralick::COUNT);
        bool empty = false;
        for (int d = 0; d < DIRECTIONS; ++d) empty |= four[d * TOTALS + PAIRS] == 0;
        const int64_t object = item / (int64_t(channels) * scales);
        const int drop = coarser(stop[object] - start[object]), hi = highest[item / scales];
        const double fix = FIX / double(1 << drop);
        const double entries = double(hi + 1), nothing = hi < 0 ? nan("") : 0.0;      // entries: of the histogram of |i - j|
        for (int d = 0; d < DIRECTIONS; ++d, out += Haralick::COUNT) {
            if (empty) {
                for (int k = 0; k < Haralick::COUNT; ++k) out[k] = nothing;
                continue;
            }
            const uint64_t* __restrict__ t = four + d * TOTALS;
            const uint64_t n = t[PAIRS], spread = n * t[I2] - t[I1] * t[I1];
            const uint64_t n_log_n = n * uint64_t(logs[n] >> drop);     // an entropy is (T log T - sum P log P) / T
            const double T = double(n), TT = T * T;
            const double entropy = double(n_log_n - t[LOG_CELLS]) / T / fix, entropy_i = double(n_log_n - t[LOG_I]) / T / fix;
            // sum P i j = (sum P (i + j)^2 - sum P (i - j)^2) / 4
            out[Haralick::AngularSecondMoment] = double(t[SQUARE]) / TT;
            out[Haralick::Contrast] = double(t[D2]) / T;
            out[Haralick::Correlation] = spread == 0 ? 1.0 : double(int64_t(n * ((t[S2] - t[D2]) / 4) - t[I1] * t[I1])) / double(spread);
            out[Haralick::Variance] = double(spread) / TT;
            out[Haralick::InverseDifferenceMoment] = moment[item * DIRECTIONS + d] / T;
            out[Haralick::SumAverage] = 2.0 * double(t[I1]) / T;
            out[Haralick::SumVariance] = double(n * t[S2] - 4 * t[I1] * t[I1]) / TT;
            out[Haralick::SumEntropy] = double(n_log_n - t[LOG_S]) / T / fix;
            out[Haralick::Entropy] = entropy;
            out[Haralick::DifferenceVariance] = (double(t[SQUARE_D]) * entries / TT - 1.0) / (entries * entries);
            out[Haralick::DifferenceEntropy] = double(n_log_n - t[LOG_D]) / T / fix;
            out[Haralick::InfoMeas1] = entropy_i == 0 ? entropy - 2 * entropy_i : (entropy - 2 * entropy_i) / entropy_i;
            const double e = 1.0 - jg::exp_same(-2.0 * (2 * entropy_i - entropy));
            out[Haralick::InfoMeas2] = sqrt(e > 0 ? e : 0.0);
        }
    }
}
JG_REGISTER(texture_finish)

// Out  logs    int64 [entries]   round(log2(m) * 2^41), 0 for m = 0
extern "C" __global__ void __launch_bounds__(128, 8) texture_logs(int64_t entries, int64_t* __restrict__ logs)
{
    JG_FOR_FEW(m, entries) logs[m] = m < 2 ? 0 : int64_t(rint(jg::log_same(double(m)) * (1.4426950408889634074 * FIX)));
}
JG_REGISTER(texture_logs)
