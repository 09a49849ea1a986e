// texture_parts.cu: the totals of texture.cu for all compartments of a cell, from one count of its pairs.
//
//   A cell's list is cut where a compartment begins or ends. All pixels of such a class are in the same compartments
//   (cytoplasm, nuclear outline, nuclear interior). Pairs of pixels of class c and class d have a matrix of their own; a
//   compartment's matrix is the sum of those of its classes. Cells that are listed a compartment at a time, or whose levels
//   are too many for their pixels, are left to texture_count, row by row.
//
// Source   as texture.cu; design.md, 'Texture'
// Oracle   texture_count, whose totals are the same integers (tests/ways/test_texture.py); mahotas
// Launch   any number of blocks, each takes every gridDim-th row of the schedule that is the first of its cell, and that cell's
//          channels in turn, so that scratch is a block's. Made for a core's cache: the matrices of a class are larger than
//          shared memory, and the four directions of a pair of levels stand together.
// Order    integers; the inverse difference moment by jg::block_sum, over the same bins as in texture.cu.
#include "features/texture.cuh"
#include "jg/wide.cuh"

namespace {
constexpr int MAX_ROWS = 4, MAX_CLASSES = 7;         // compartments of a cell; classes between their 8 ends
constexpr int MAX_SIDE = 320;                         // levels of all classes
constexpr int CAPACITY = 2 * DIRECTIONS * MAX_SIDE * (MAX_SIDE + 1);           // entries of a block's matrices (texture.py)

constexpr int SMALL = 1 << 15;                        // pixels of a cell below which counts, of pairs both ways too, fit 16 bits

template <class T> struct alignas(8) Marginals {
    T level[DIRECTIONS * (LEVELS + 2)], sum[DIRECTIONS * (2 * LEVELS + 4)], diff[DIRECTIONS * (2 * LEVELS + 4)];
};
struct Parts {
    union { Marginals<uint16_t> narrow; Marginals<uint32_t> wide; } marginals;
    TotalScratch scratch;
    int lo[MAX_CLASSES], hi[MAX_CLASSES];
};

struct Classes {
    int n;
    int end[MAX_CLASSES + 1];                         // class c: pixels end[c] .. end[c + 1] - 1 of the cell's list
    int from[MAX_ROWS], to[MAX_ROWS];                // row k: classes from[k] .. to[k] - 1
    bool shared;                                       // some class is in several rows
};

JG_FN Classes classes_of(
    const int64_t* __restrict__ start, const int64_t* __restrict__ stop, int64_t first, int cell, int cells, int compartments)
{
    Classes c = {};
    int ends = 0, listed = 0;
    for (int k = 0; k < 2 * compartments; ++k) {       // distinct ends, ascending
        const int row = k / 2 * cells + cell;
        if (start[row] == stop[row]) continue;
        const int end = int((k % 2 ? stop[row] : start[row]) - first);
        int at = ends;
        while (at > 0 && c.end[at - 1] >= end) --at;
        if (at < ends && c.end[at] == end) continue;
        for (int i = ends++; i > at; --i) c.end[i] = c.end[i - 1];
        c.end[at] = end;
    }
    for (int k = 0; k < compartments; ++k) {
        const int row = k * cells + cell;
        for (int i = 0; i < ends; ++i) {
            c.from[k] = start[row] < stop[row] && c.end[i] == int(start[row] - first) ? i : c.from[k];
            c.to[k] = start[row] < stop[row] && c.end[i] == int(stop[row] - first) ? i : c.to[k];
        }
        listed += c.to[k] - c.from[k];
    }
    c.n = jg::larger(0, ends - 1);
    c.shared = listed > c.n;
    return c;
}

// Beyond some entries per pixel, clearing and adding up the matrices costs more than counting a row's pairs by themselves.
JG_FN bool worth(int side, int span, int n) {
    return jg::larger(side, span) <= MAX_SIDE && side * side <= 32 * n && span * span <= 32 * n;
}

// Class c's levels are lo[c] .. lo[c] + width[c] - 1; its rows and columns of the matrix begin at at[c]. Column 0 takes the
// neighbours that do not count.
struct Matrices { int lo[MAX_CLASSES], width[MAX_CLASSES], at[MAX_CLASSES + 1]; };
struct Cell {
    const int64_t *start, *stop, *logs;
    const int32_t* scale;
    int scales, channels, channel, compartments, cell, cells;
};
struct Output { uint64_t* totals; double* moment; int32_t* highest; uint8_t* wanted; };

// A bin is the counts of all directions. Bins first .. first + n - 1 of `to` get those of `from` that are `shift` bins before
// them: as words of 64 bits, in which no count reaches the next. A word is the same thread's here and in clear_bins.
template <class T> JG_FN void add_bins(T* to, const T* from, int first, int n, int shift) {
    constexpr int EACH = 8 / int(sizeof(T)), WORDS = DIRECTIONS / EACH;
    JG_FOR_OWN(w, WORDS * first, WORDS * (first + n)) {
        uint64_t a, b;
        memcpy(&a, to + EACH * w, 8);
        memcpy(&b, from + EACH * (w - WORDS * shift), 8);
        a += b;
        memcpy(to + EACH * w, &a, 8);
    }
}
template <class T> JG_FN void clear_bins(T* to, int n) {
    constexpr int EACH = 8 / int(sizeof(T)), WORDS = DIRECTIONS / EACH;
    JG_FOR_OWN(w, 0, WORDS * n) {
        const uint64_t none = 0;
        memcpy(to + EACH * w, &none, 8);
    }
}

// What a class's pixels from .. to - 1 are among the matrices: their rows in place of their levels, and their columns in the box.
JG_APART void place_codes(int from, int to, int lo, int at, int pitch, const uint8_t* __restrict__ remap,
                          const int32_t* __restrict__ spot, int32_t* __restrict__ line, uint16_t* __restrict__ code)
{
    JG_FOR_OWN(i, from, to) {
        const int g = int(remap[line[i]]) - lo;
        code[spot[i]] = uint16_t(g < 0 ? 0 : DIRECTIONS * (at + g + 1));
        line[i] = g < 0 ? -1 : (at + g) * pitch;
    }
}

// Pairs of all pixels with their neighbours in the four directions. Where a pixel's counts are is known before one of them is
// written: a load that comes after a store waits until it is clear that they do not meet.
template <class T> JG_APART void count_pairs(
    int n, const int32_t* __restrict__ spot, const int32_t* __restrict__ line, const uint16_t* __restrict__ code,
    const int* __restrict__ step, T* __restrict__ count)
{
    const uint16_t *right = code + step[0], *across = code + step[1], *down = code + step[2], *back = code + step[3];
    JG_FOR(i, n) {
        if (line[i] < 0) continue;
        const int64_t at = spot[i], row = line[i];
        const int64_t a = row + right[at], b = row + across[at] + 1, c = row + down[at] + 2, d = row + back[at] + 3;
        jg::tally(count + a);
        jg::tally(count + b);
        jg::tally(count + c);
        jg::tally(count + d);
    }
}

#if defined(JG_WIDE)
// Sums of squares and of m log m in each direction, of eight entries and those they are added to at a time, where none makes 16 or
// more: m log m then comes from two registers.
struct Looked {
    __m512i low, high, square[DIRECTIONS], of_logs[DIRECTIONS];
    explicit Looked(const int64_t* logs) {
        const __m512i m = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), more = m + _mm512_set1_epi64(8);
        low = _mm512_mullo_epi64(_mm512_loadu_si512(logs), m);
        high = _mm512_mullo_epi64(_mm512_loadu_si512(logs + 8), more);
        for (int d = 0; d < DIRECTIONS; ++d) square[d] = of_logs[d] = _mm512_setzero_si512();
    }
    // The first n of eight at `across`, a bin each, with those at `down`, `step` apart. False where nothing was added.
    bool add(const uint16_t* across, const uint16_t* down, int64_t step, int n) {
        const __mmask8 here = n >= 8 ? 255 : (1 << n) - 1;
        const auto at = [=](int j) { int64_t word; memcpy(&word, down + j * step, 8); return word; };
        const __m512i other = _mm512_set_epi64(at(7), at(6), at(5), at(4), at(3), at(2), at(1), at(0));
        const __m512i both = _mm512_add_epi16(_mm512_maskz_loadu_epi64(here, across), _mm512_maskz_mov_epi64(here, other));
        if (_mm512_cmpgt_epu16_mask(both, _mm512_set1_epi16(15))) return false;
        for (int d = 0; d < DIRECTIONS; ++d) {
            const __m512i m = _mm512_and_si512(_mm512_maskz_srli_epi64(255, both, 16 * d), _mm512_set1_epi64(15));
            of_logs[d] = of_logs[d] + _mm512_permutex2var_epi64(low, m, high);
            square[d] = square[d] + _mm512_mullo_epi16(m, m);
        }
        return true;
    }
};
#endif

// Of the entries below the diagonal, which with those above are pairs both ways: squares, and m log m.
template <class T> JG_APART void sum_below(
    const T* __restrict__ whole, int levels, int size, const int64_t* __restrict__ logs, int drop, uint64_t* __restrict__ square,
    uint64_t* __restrict__ log_cells)
{
    uint64_t squares[DIRECTIONS] = {}, of_logs[DIRECTIONS] = {};
#if defined(JG_WIDE)
    Looked looked(logs);                               // narrow counts have `drop` 0
    constexpr int EIGHT = sizeof(T) == 2 ? 8 : 0;
#else
    constexpr int EIGHT = 0;
#endif
    for (int i = jg::warp_id(); i < levels; i += jg::warps()) {
        const T* __restrict__ across = whole + i * size + DIRECTIONS;
        const T* __restrict__ down = whole + DIRECTIONS * (i + 1);
        for (int j0 = 0, j1; j0 < i; j0 = j1) {
            j1 = EIGHT ? jg::smaller(j0 + EIGHT, i) : i;
#if defined(JG_WIDE)
            if (EIGHT && looked.add(reinterpret_cast<const uint16_t*>(across + DIRECTIONS * j0),
                                    reinterpret_cast<const uint16_t*>(down + j0 * size), size, i - j0)) continue;
#endif
            for (int j = j0 + jg::lane(); j < j1; j += jg::WARP)
                JG_UNROLL for (int d = 0; d < DIRECTIONS; ++d) {
                    const uint32_t both = uint32_t(across[DIRECTIONS * j + d]) + down[j * size + d];
                    squares[d] += uint64_t(both) * both;
                    of_logs[d] += both * uint64_t(logs[both] >> drop);
                }
        }
    }
#if defined(JG_WIDE)
    for (int d = 0; d < DIRECTIONS; ++d) {
        for (int lane = 0; lane < 8; ++lane) {
            squares[d] += uint64_t(looked.square[d][lane]);
            of_logs[d] += uint64_t(looked.of_logs[d][lane]);
        }
    }
#endif
    for (int d = 0; d < DIRECTIONS; ++d) { square[d] = squares[d]; log_cells[d] = of_logs[d]; }
}

// The totals of a cell in a channel: its pairs are counted in numbers of type T, and a compartment's classes added up, a row at
// a time while it is in the nearest cache.
template <class T> JG_FN void add_up(
    const Cell& of, const Classes& classes, const Matrices& m, int n, int stride, const int32_t* __restrict__ spot,
    const int32_t* __restrict__ line, const uint16_t* __restrict__ code, T* __restrict__ count, Marginals<T>& s,
    TotalScratch& scratch, const Output& out)
{
    const int side = m.at[classes.n], pitch = DIRECTIONS * (side + 1);
    const int64_t* __restrict__ logs = of.logs;
    for (int scale_at = 0; scale_at < of.scales; ++scale_at) {
        const int far = of.scale[scale_at];
        const int step[DIRECTIONS] = {far, far * stride + far, far * stride, far * stride - far};
        JG_FOR(e, side * pitch) count[e] = 0;
        __syncthreads();
        count_pairs(n, spot, line, code, step, count);
        __syncthreads();
        for (int k = 0; k < of.compartments; ++k) {
            // The compartment's levels are shift + 1 .. shift + levels; its matrix has S columns, the first unused.
            const int64_t row_of = int64_t(k) * of.cells + of.cell, item = row_of * of.channels + of.channel;
            int low = LEVELS, high = classes.from[k] < classes.to[k] ? 0 : -1;
            for (int c = classes.from[k]; c < classes.to[k]; ++c) {
                low = m.width[c] ? jg::smaller(low, m.lo[c]) : low;
                high = jg::larger(high, m.width[c] ? m.lo[c] + m.width[c] - 1 : 0);
            }
            const int levels = jg::larger(0, high + 1 - low), shift = low - 1, S = levels + 1, size = DIRECTIONS * S;
            const int drop = sizeof(T) < 4 ? 0 : coarser(of.stop[row_of] - of.start[row_of]);
            T* __restrict__ whole = count + side * pitch;
            JG_ONCE { out.highest[item] = high; out.wanted[item] = 0; }
            JG_FOR(e, DIRECTIONS * (2 * S + 2)) { s.sum[e] = 0; s.diff[e] = 0; }
            JG_FOR(e, DIRECTIONS * (S + 1)) s.level[e] = 0;
            __syncthreads();
            for (int i = 1; i <= levels; ++i) {
                T* __restrict__ row = whole + (i - 1) * size;
                clear_bins(row, S);
                for (int c = classes.from[k]; c < classes.to[k]; ++c) {
                    const int mine = i + shift - m.lo[c];
                    if (mine < 0 || mine >= m.width[c]) continue;
                    const T* __restrict__ from = count + (m.at[c] + mine) * pitch;
                    for (int d = classes.from[k]; d < classes.to[k]; ++d)
                        add_bins(row, from, m.lo[d] - shift, m.width[d], m.lo[d] - shift - (m.at[d] + 1));
                }
                __syncthreads();
                add_bins(s.sum, row, i + 1, levels, i);
                add_bins(s.diff, row, S - i + 1, levels, S - i);
                add_bins(s.level, row, 1, levels, 0);
            }
            __syncthreads();
            JG_FOR(i, levels) {
                T t[DIRECTIONS] = {};
                for (int j = 1; j <= levels; ++j)
                    JG_UNROLL for (int d = 0; d < DIRECTIONS; ++d) t[d] += whole[i * size + DIRECTIONS * j + d];
                for (int d = 0; d < DIRECTIONS; ++d) s.level[DIRECTIONS * (i + 1) + d] += t[d];
            }
            __syncthreads();
            uint64_t square[DIRECTIONS] = {}, log_cells[DIRECTIONS] = {};
            sum_below(whole, levels, size, logs, drop, square, log_cells);
            for (int d = 0; d < DIRECTIONS; ++d) {
                uint64_t mine[TOTALS] = {2 * square[d], 2 * log_cells[d]};
                JG_FOR(i, levels) {
                    const uint32_t both = 2 * uint32_t(whole[i * size + DIRECTIONS * (i + 1) + d]);
                    mine[SQUARE] += uint64_t(both) * both;
                    mine[LOG_CELLS] += both * uint64_t(logs[both] >> drop);
                }
                const int64_t plane = (item * of.scales + scale_at) * DIRECTIONS + d;
                sum_direction<DIRECTIONS>(s.level + d, s.sum + d, s.diff + d, S, shift, 2, logs, drop, mine, scratch,
                                          out.totals + plane * TOTALS, out.moment + plane);
            }
        }
    }
}
}  // namespace

// In   values      float32 [C, P]             intensity by listed pixel, 0..1
//      pixel       int32   [P]                y << 16 | x
//      cell_start  int64   [N + 1]            each cell's range of the list
//      start, stop int64   [K * N]            each object row's
//      box         int32   [K * N, 4]         half-open y0, x0, y1, x1
//      schedule    int32   [K * N]            rows, largest first
//      remap       uint8   [256]              8-bit level to the level that is counted; ascending
//      logs        int64   [entries]          texture_logs's table, beyond twice the largest object's pixels
//      scale       int32   [S]                distances; `pad` is the largest
//      capacity        entries of spots, rows and codes a block: boxes (with pad) that are larger are left to texture_count
// Work spots       int32   [blocks, capacity]     each pixel's place in the cell's padded box
//      rows        int32   [blocks, capacity]     its level; then its row among the matrices, -1 where it does not count
//      codes       uint16  [blocks, capacity]     the padded box: each pixel's column, 0 where it does not count
//      counts      uint32  [blocks, 821760]   matrices of both kinds; the four directions stand together; two to a word where
//                                             a cell is small
// Out  totals, moment, highest  of texture_count, for the rows that are done here
//      wanted      uint8   [K * N, C]         1: not done here; 1 before
extern "C" __global__ void __launch_bounds__(128, 4) texture_parts(
    const float* __restrict__ values, int64_t n_pixels, const int32_t* __restrict__ pixel, const int64_t* __restrict__ cell_start,
    const int64_t* __restrict__ start, const int64_t* __restrict__ stop, const int32_t* __restrict__ box,
    const int32_t* __restrict__ schedule, const uint8_t* __restrict__ remap, const int64_t* __restrict__ logs,
    const int32_t* __restrict__ scale, int32_t scales, int32_t pad, int32_t channels, int32_t compartments, int32_t cells,
    int64_t capacity, int32_t* __restrict__ spots, int32_t* __restrict__ rows, uint16_t* __restrict__ codes,
    uint32_t* __restrict__ counts, uint64_t* __restrict__ totals, double* __restrict__ moment, int32_t* __restrict__ highest,
    uint8_t* __restrict__ wanted)
{
    JG_SHARED(Parts, s);
    int32_t* __restrict__ spot = spots + blockIdx.x * capacity;
    int32_t* __restrict__ line = rows + blockIdx.x * capacity;
    uint16_t* __restrict__ code = codes + blockIdx.x * capacity;
    uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * CAPACITY;
    for (int turn = int(blockIdx.x); turn < compartments * cells; turn += int(gridDim.x)) {
        const int cell = schedule[turn];
        if (cell >= cells) continue;
        const int64_t first = cell_start[cell];
        const Classes classes = classes_of(start, stop, first, cell, cells, compartments);
        int y0 = 0x7fffffff, x0 = 0x7fffffff, y1 = 0, x1 = 0;
        for (int k = 0; k < compartments; ++k) {
            const int32_t* __restrict__ b = box + 4 * (k * cells + cell);
            if (b[2] == b[0]) continue;
            y0 = jg::smaller(y0, b[0]); x0 = jg::smaller(x0, b[1]); y1 = jg::larger(y1, b[2]); x1 = jg::larger(x1, b[3]);
        }
        const int n = classes.n ? classes.end[classes.n] : 0, stride = x1 - x0 + pad, height = y1 - y0 + pad;
        if (!classes.shared || int64_t(stride) * height > capacity) continue;
        const int32_t* __restrict__ pixels = pixel + first;
        __syncthreads();                               // the cell before is done with the scratch
        JG_FOR(i, stride * height) code[i] = 0;
        JG_FOR(i, n) spot[i] = ((pixels[i] >> 16) - y0) * stride + (pixels[i] & 0xffff) - x0;

        for (int channel = 0; channel < channels; ++channel) {
            const float* __restrict__ value = values + channel * n_pixels + first;
            __syncthreads();
            JG_ONCE {
                for (int c = 0; c < classes.n; ++c) { s.lo[c] = LEVELS; s.hi[c] = 0; }
            }
            __syncthreads();
            for (int c = 0; c < classes.n; ++c) {
                int lo = LEVELS, hi = 0;
                JG_FOR_OWN(i, classes.end[c], classes.end[c + 1]) {
                    const int g = raw_level(value[i]);
                    line[i] = g;
                    lo = jg::smaller(lo, g);
                    hi = jg::larger(hi, g);
                }
                jg::gather_min(&s.lo[c], lo);
                jg::gather_max(&s.hi[c], hi);
            }
            __syncthreads();
            Matrices levels = {};
            int minimum = LEVELS, maximum = 0;
            for (int c = 0; c < classes.n; ++c) {
                levels.lo[c] = jg::larger(1, int(remap[s.lo[c]]));
                levels.width[c] = jg::larger(0, int(remap[s.hi[c]]) + 1 - levels.lo[c]);
                levels.at[c + 1] = levels.at[c] + levels.width[c];
                minimum = jg::smaller(minimum, levels.lo[c]);
                maximum = jg::larger(maximum, levels.lo[c] + levels.width[c] - 1);
            }
            const int side = levels.at[classes.n], pitch = DIRECTIONS * (side + 1);
            if (side == 0 || !worth(side, maximum + 1 - minimum, n)) continue;
            for (int c = 0; c < classes.n; ++c)
                place_codes(classes.end[c], classes.end[c + 1], levels.lo[c], levels.at[c], pitch, remap, spot, line, code);
            const Cell of = {start, stop, logs, scale, scales, channels, channel, compartments, cell, cells};
            const Output out = {totals, moment, highest, wanted};
            if (n < SMALL)
                add_up(of, classes, levels, n, stride, spot, line, code, reinterpret_cast<uint16_t*>(count), s.marginals.narrow,
                       s.scratch, out);
            else add_up(of, classes, levels, n, stride, spot, line, code, count, s.marginals.wide, s.scratch, out);
        }
    }
}
JG_REGISTER(texture_parts)
