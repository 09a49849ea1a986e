// cross_entropy.cu: the threshold of minimum cross-entropy of a field.
//
//   On v = value - smallest value (Li & Tam 1998):
//       t0 = mean(v);   t' = (b - f) / (log b - log f),   f, b the means of v above t and not above it
//   until |t' - t| <= tolerance, which is half of 1/65536 or half the smallest gap between distinct values if that is more.
//   Values count in steps of 2^-40, so that every sum is an integer; the threshold moves by less than 1e-12 for it.
//   A constant field's threshold is its value.
//
// Source   CellProfiler Threshold; scikit-image 0.18.3 threshold_li.
// Oracle   scikit-image (tests/segmentation/test_threshold.py); CellProfiler's thresholds of the real fields
// Launch   cross_entropy: a block per field, of any size: a round's sums are needed before the next, and its values are read from the
//          cache: the CPU's way, whose rounds are short loops over a vector. On a GPU all values are put into cells of 1/65536 first,
//          by many blocks (entropy_cells, entropy_place); then a round (entropy_rounds, a block per field) looks up the running
//          sums at the cut's cell and adds what that one cell holds above the cut.
// Order    sums are integers, and so the same both ways.
#include "segmentation/threshold.cuh"
#include "jg/jg_math.cuh"

namespace {
constexpr double UNIT = 1099511627776.0;       // 2^40
constexpr int CELLS = 65537;                   // of width 1/65536, over 0..1 (threshold.py: CELLS)
constexpr int ROUNDS = 10000;
constexpr int PIECE = 8192;                    // values of a block of entropy_cells and entropy_place (threshold.py: PIECE)
constexpr int REST = 24;                       // bits of a value within its cell: 2^40 / 65536

struct Entropy { jg::CountScratch<2> scratch; };

// rint(v 2^40) for v in [0, 1]: adding 1.5 * 2^12 leaves exactly those digits.
JG_FN int64_t fixed(double v) {
    return int64_t(bits_of(v + 6144.0) - bits_of(6144.0));
}

// The rounds: above(cut) gives count and total of v > cut, in every thread.
template <class Above> JG_FN double entropy_rounds_of(uint64_t all, int n, uint64_t minimum, double tolerance, Above above) {
    const double stop = tolerance * UNIT;
    double next = double(all) / n, now;
    int round = 0;
    do {                                                 // every thread holds the same totals, so all leave together
        now = next;
        const jg::Counts<2> fore = above(int64_t(now));  // floor: now >= 0
        if (fore.v[0] == 0) break;
        const double f = double(fore.v[1]) / double(fore.v[0]);
        const double b = double(all - fore.v[1]) / double(uint64_t(n) - fore.v[0]);
        next = b == 0 ? 0 : (b - f) / (jg::log_same(b / UNIT) - jg::log_same(f / UNIT));
    } while (fabs(next - now) > stop && ++round < ROUNDS);
    return (next + double(fixed(value_of(minimum)))) / UNIT;
}

template <class T> JG_FN double cross_entropy_of(const T* v, int n, uint64_t minimum, double tolerance, Entropy& s) {
    const int64_t lowest = fixed(value_of(minimum));
    uint64_t sum = 0;
    jg::each_value(v, n, [&](T value) { sum += uint64_t(fixed(double(value)) - lowest); });
    const uint64_t all = jg::block_count(jg::Counts<2>{{0, sum}}, s.scratch).v[1];
    return entropy_rounds_of(all, n, minimum, tolerance, [&](int64_t from) {
        const int64_t cut = from + lowest;
        uint64_t count = 0, total = 0;
        jg::each_value(v, n, [&](T each) {
            const int64_t value = fixed(double(each));
            const uint64_t above = value > cut ? ~uint64_t(0) : 0;
            count -= above;
            total += uint64_t(value - lowest) & above;
        });
        return jg::block_count(jg::Counts<2>{{count, total}}, s.scratch);
    });
}

// The cell of v, in steps of 2^-40.
JG_FN int cell_of(uint64_t v) { return int(v >> REST); }

// The smallest value is in no cell: it adds nothing and no cut is below it, and a field may be full of it.
template <class T> JG_FN void entropy_cells_of(const T* v, int n, uint64_t minimum, uint64_t* count, uint64_t* total) {
    const int64_t lowest = fixed(value_of(minimum));
    jg::each_value(v, n, [&](T each) {
        const uint64_t value = uint64_t(fixed(double(each)) - lowest);
        if (value == 0) return;
        jg::atomic_sum(count + cell_of(value), uint64_t(1));
        jg::atomic_sum(total + cell_of(value), value);
    });
}
template <class T> JG_FN void entropy_place_of(const T* v, int n, uint64_t minimum, uint64_t* next, uint32_t* rest) {
    const int64_t lowest = fixed(value_of(minimum));
    jg::each_value(v, n, [&](T each) {
        const uint64_t value = uint64_t(fixed(double(each)) - lowest);
        if (value) rest[jg::atomic_sum(next + cell_of(value), uint64_t(1))] = uint32_t(value) & ((1u << REST) - 1u);
    });
}

// Distinct values fall into cells of 1/65536. A cell that holds two of them has a gap below 1/65536, which is all there is to
// know: real fields are done after the first piece.
template <class T> JG_FN double value_gap_of(const T* v, int n, uint64_t* cells, int* clash, uint64_t* gap) {
    uint64_t *minimum = cells, *maximum = cells + CELLS;       // both start as 0: the smallest is kept as its complement
    JG_ONCE { *clash = 0; *gap = ~uint64_t(0); }
    __syncthreads();
    for (int i0 = 0; i0 < n; i0 += 4096) {
        const int m = jg::smaller(4096, n - i0);
        JG_FOR(i, m) {
            const double value = double(v[i0 + i]);
            const int cell = int(value * 65536);
            jg::atomic_max(minimum + cell, ~bits_of(value));
            jg::atomic_max(maximum + cell, bits_of(value));
        }
        __syncthreads();
        int result = 0;
        JG_FOR(i, m) {
            const int cell = int(double(v[i0 + i]) * 65536);
            result |= ~jg::atomic_read(minimum + cell) != jg::atomic_read(maximum + cell);
        }
        jg::gather_max(clash, result);
        __syncthreads();
        if (*clash) return 0;
    }
    JG_FOR(k, CELLS) {                                   // few distinct values: each looks for the one below it
        if (minimum[k] == 0) continue;
        int below = k - 1;
        while (below >= 0 && minimum[below] == 0) --below;
        if (below < 0) continue;
        jg::atomic_min(gap, bits_of(double(T(value_of(maximum[k])) - T(value_of(maximum[below])))));
    }
    __syncthreads();
    return *gap == ~uint64_t(0) ? 0 : value_of(*gap);
}
}  // namespace

// In   values     float32 or float64 [B, stride] of which n count, 0..1; a float32 plane may be one channel of several
//      tolerance  float64 [B];  extrema  uint64 [B, 2]  bits of the smallest and largest value, as doubles
// Out  threshold  float64 [B]
template <class T> JG_FN void cross_entropy_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    const double* __restrict__ tolerance, double* __restrict__ threshold, Entropy& s)
{
    const uint64_t minimum = extrema[2 * blockIdx.x], maximum = extrema[2 * blockIdx.x + 1];
    const double t = minimum == maximum ? value_of(minimum)
        : cross_entropy_of(values + offset + blockIdx.x * stride, n, minimum, tolerance[blockIdx.x], s);
    JG_ONCE threshold[blockIdx.x] = t;
}

extern "C" __global__ void __launch_bounds__(1024, 1) cross_entropy_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    const double* __restrict__ tolerance, double* __restrict__ threshold)
{
    JG_SHARED(Entropy, s);
    cross_entropy_block(values, offset, stride, n, extrema, tolerance, threshold, s);
}
JG_REGISTER(cross_entropy_32)

extern "C" __global__ void __launch_bounds__(1024, 1) cross_entropy_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    const double* __restrict__ tolerance, double* __restrict__ threshold)
{
    JG_SHARED(Entropy, s);
    cross_entropy_block(values, offset, stride, n, extrema, tolerance, threshold, s);
}
JG_REGISTER(cross_entropy_64)

// Launch   a block PIECE values of a field, any block size; atomic sums.
// Out  cells      uint64 [2, B, CELLS]   starts as 0; how many values above the smallest a cell has, and their sum less the smallest
template <class T> JG_FN void entropy_cells_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    int32_t fields, uint64_t* cells)
{
    const int pieces = (n + PIECE - 1) / PIECE, field = int(blockIdx.x) / pieces, first = int(blockIdx.x) % pieces * PIECE;
    uint64_t* count = cells + int64_t(field) * CELLS;
    entropy_cells_of(values + offset + field * stride + first, jg::smaller(PIECE, n - first), extrema[2 * field], count,
                     count + int64_t(fields) * CELLS);
}

extern "C" __global__ void __launch_bounds__(128, 8) entropy_cells_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    int32_t fields, uint64_t* cells)
{
    entropy_cells_block(values, offset, stride, n, extrema, fields, cells);
}
JG_REGISTER(entropy_cells_32)

extern "C" __global__ void __launch_bounds__(128, 8) entropy_cells_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    int32_t fields, uint64_t* cells)
{
    entropy_cells_block(values, offset, stride, n, extrema, fields, cells);
}
JG_REGISTER(entropy_cells_64)

// Launch   a block PIECE values of a field, any block size; atomic sums.
// In, out  next   uint64 [B, CELLS]      the cell's first place in `rest`; then its end
// Out      rest   uint32 [B, n]          values within their cells, by cell; in no order within one
template <class T> JG_FN void entropy_place_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    uint64_t* next, uint32_t* rest)
{
    const int pieces = (n + PIECE - 1) / PIECE, field = int(blockIdx.x) / pieces, first = int(blockIdx.x) % pieces * PIECE;
    entropy_place_of(values + offset + field * stride + first, jg::smaller(PIECE, n - first), extrema[2 * field],
                     next + int64_t(field) * CELLS, rest + int64_t(field) * n);
}

extern "C" __global__ void __launch_bounds__(128, 8) entropy_place_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    uint64_t* next, uint32_t* rest)
{
    entropy_place_block(values, offset, stride, n, extrema, next, rest);
}
JG_REGISTER(entropy_place_32)

extern "C" __global__ void __launch_bounds__(128, 8) entropy_place_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, const uint64_t* __restrict__ extrema,
    uint64_t* next, uint32_t* rest)
{
    entropy_place_block(values, offset, stride, n, extrema, next, rest);
}
JG_REGISTER(entropy_place_64)

// Launch   a block per field, of any size.
// In   ends       uint64 [2, B, CELLS]   running sums of `cells`
//      rest       uint32 [B, n]
// Out  threshold  float64 [B]
extern "C" __global__ void __launch_bounds__(256) entropy_rounds(
    const uint64_t* __restrict__ ends, const uint32_t* __restrict__ rest, int32_t fields, int32_t n,
    const uint64_t* __restrict__ extrema, const double* __restrict__ tolerance, double* __restrict__ threshold)
{
    JG_SHARED(Entropy, s);
    const uint64_t minimum = extrema[2 * blockIdx.x], maximum = extrema[2 * blockIdx.x + 1];
    const uint64_t* __restrict__ count_to = ends + int64_t(blockIdx.x) * CELLS;
    const uint64_t* __restrict__ total_to = count_to + int64_t(fields) * CELLS;
    const uint32_t* __restrict__ list = rest + int64_t(blockIdx.x) * n;
    const uint64_t members = count_to[CELLS - 1], all = total_to[CELLS - 1];
    double t = value_of(minimum);
    if (minimum != maximum) {
        t = entropy_rounds_of(all, n, minimum, tolerance[blockIdx.x], [&](int64_t cut) {
            const int cell = int(jg::smaller(cut >> REST, int64_t(CELLS - 1)));
            const int64_t within = cut - (int64_t(cell) << REST);
            const uint64_t first = cell ? count_to[cell - 1] : 0, last = count_to[cell];
            uint64_t count = 0, total = 0;
            jg::each_value(list + first, int(last - first), [&](uint32_t value) {
                const uint64_t above = int64_t(value) > within ? ~uint64_t(0) : 0;
                count -= above;
                total += ((uint64_t(cell) << REST) + value) & above;
            });
            jg::Counts<2> fore = jg::block_count(jg::Counts<2>{{count, total}}, s.scratch);
            fore.v[0] += members - last;
            fore.v[1] += all - total_to[cell];
            return fore;
        });
    }
    JG_ONCE threshold[blockIdx.x] = t;
}
JG_REGISTER(entropy_rounds)

// Scr  cells      uint64 [B, 2, CELLS]   starts as 0
// Out  tolerance  float64 [B]   max(smallest gap between distinct values / 2, 0.5 / 65536)
template <class T> JG_FN void value_gap_block(
    const T* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ cells,
    double* __restrict__ tolerance, int& clash, uint64_t& min_gap)
{
    const double gap = value_gap_of(values + offset + blockIdx.x * stride, n, cells + int64_t(blockIdx.x) * 2 * CELLS, &clash, &min_gap);
    JG_ONCE tolerance[blockIdx.x] = jg::larger(gap / 2, 0.5 / 65536);
}

extern "C" __global__ void __launch_bounds__(1024) value_gap_32(
    const float* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ cells,
    double* __restrict__ tolerance)
{
    JG_SHARED(int, clash);
    JG_SHARED(uint64_t, min_gap);
    value_gap_block(values, offset, stride, n, cells, tolerance, clash, min_gap);
}
JG_REGISTER(value_gap_32)

extern "C" __global__ void __launch_bounds__(1024) value_gap_64(
    const double* __restrict__ values, int64_t offset, int64_t stride, int32_t n, uint64_t* __restrict__ cells,
    double* __restrict__ tolerance)
{
    JG_SHARED(int, clash);
    JG_SHARED(uint64_t, min_gap);
    value_gap_block(values, offset, stride, n, cells, tolerance, clash, min_gap);
}
JG_REGISTER(value_gap_64)
