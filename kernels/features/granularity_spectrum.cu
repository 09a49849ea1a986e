// granularity_spectrum.cu: an object's means of the reconstructions of granularity.cu, and the granular spectrum they give.
//
//   R_k(p) = min(I(p), E_k(basin of p)), from the levels that granularity.cu made, is sampled back to full resolution by weights
//   that are the same for all channels and scales; granularity.cu has the definition.
//
// Source   CellProfiler 4.2.8 MeasureGranularity, whose means are float64
// Oracle   CellProfiler's output on the real fields; SciPy and scikit-image (tests/features/test_granularity.py)
// Order    the means are jg::row_sums and jg::block_sum.
#include "features/granularity.cuh"

constexpr int SCALES = 16;
constexpr int COLUMNS = 256;                           // full-resolution columns of a tile of weights

// A part is the pixels that lie in the same compartments of one cell: a stretch of the cell's pixel list that no row's range
// cuts. Each object is the sum of some parts, so a pixel is summed once whatever number of objects it lies in.
constexpr int PARTS = 7;                               // of a cell with up to 4 compartments (granularity.py: 2 K - 1 of them)

// The weight of every half-resolution pixel in a part's sum over full-resolution pixels.
//
// Launch   one block a part, any size, in any order; 2 KB of shared memory for the rows' share of a tile of columns.
// In   first .. fourth  int32 [B, full_height, full_width]   labels; those past `compartments` are not read
//      field, number    int32 [N]
//      pattern, care    int32 [N, parts]   bit k of `care`: compartment k is looked at; of `pattern`: and has the cell's label
//      box              int32 [N, parts, 4]  half-open y0, x0, y1, x1 at half resolution; y1 == y0 for an empty part
//      start            int64 [N, parts]   first weight of each part
//      row_first, row_count, column_first, column_count  int32 [height], [width]   the full-resolution rows and columns that
//                                          use a half-resolution one
//      row_share, column_share             float64 [height, row_reach], [width, column_reach]   and with what weight
//      tile          int32                 half-resolution columns whose full-resolution ones fit in COLUMNS
// Out  weights       float64 [...]         dense over each box, row by row
template <int K> struct Labels { const int32_t* v[K]; };
template <int K> JG_FN void part_weights(
    const Labels<K>& planes, int mine, int pattern, int care, const int32_t* __restrict__ box,
    const int32_t* __restrict__ row_first, const int32_t* __restrict__ row_count, const double* __restrict__ row_share,
    const int32_t* __restrict__ column_first, const int32_t* __restrict__ column_count, const double* __restrict__ column_share,
    int row_reach, int column_reach, int tile, int full_width, double* __restrict__ row, double* __restrict__ weights)
{
    const int y0 = box[0], x0 = box[1], y1 = box[2], x1 = box[3];
    for (int y = y0; y < y1; ++y) {
        double* __restrict__ to = weights + int64_t(y - y0) * (x1 - x0);
        for (int left = x0; left < x1; left += tile) {
            const int right = jg::smaller(left + tile, x1), from = column_first[left];
            const int count = column_first[right - 1] + column_count[right - 1] - from;
            JG_FOR_OWN(x, 0, count) row[x] = 0;
            for (int j = 0; j < row_count[y]; ++j) {
                const double share = row_share[y * row_reach + j];
                const int64_t at = int64_t(row_first[y] + j) * full_width + from;
                JG_FOR_OWN(x, 0, count) {
                    int wrong = 0;
                    for (int k = 0; k < K; ++k) wrong |= ((planes.v[k][at + x] == mine) ^ (pattern >> k & 1)) & (care >> k & 1);
                    row[x] += wrong ? 0.0 : share;
                }
            }
            __syncthreads();
            JG_FOR(i, right - left) {
                const int x = left + i, at = column_first[x] - from;
                double sum = 0;
                for (int j = 0; j < column_count[x]; ++j) sum += column_share[x * column_reach + j] * row[at + j];
                to[x - x0] = sum;
            }
            __syncthreads();
        }
    }
}
extern "C" __global__ void __launch_bounds__(128, 8) granularity_weights(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, const int32_t* __restrict__ third,
    const int32_t* __restrict__ fourth, const int32_t* __restrict__ field, const int32_t* __restrict__ number,
    const int32_t* __restrict__ pattern, const int32_t* __restrict__ care, const int32_t* __restrict__ box,
    const int64_t* __restrict__ start, const int32_t* __restrict__ row_first, const int32_t* __restrict__ row_count,
    const double* __restrict__ row_share, const int32_t* __restrict__ column_first, const int32_t* __restrict__ column_count,
    const double* __restrict__ column_share, int32_t compartments, int32_t parts, int32_t row_reach, int32_t column_reach,
    int32_t tile, int32_t full_height, int32_t full_width, double* __restrict__ weights)
{
    struct Row { double v[COLUMNS]; };
    JG_SHARED(Row, row);
    const int part = int(blockIdx.x), n = part / parts, p = pattern[part], c = care[part];
    if (p == 0) return;
    const int64_t at = int64_t(field[n]) * full_height * full_width;
    double* __restrict__ to = weights + start[part];
    const int32_t* __restrict__ b = box + 4 * part;
#define PART(K, ...) part_weights<K>({{__VA_ARGS__}}, number[n], p, c, b, row_first, row_count, row_share, column_first, \
                                     column_count, column_share, row_reach, column_reach, tile, full_width, row.v, to)
    if (compartments == 1) PART(1, first + at);
    if (compartments == 2) PART(2, first + at, second + at);
    if (compartments == 3) PART(3, first + at, second + at, third + at);
    if (compartments == 4) PART(4, first + at, second + at, third + at, fourth + at);
#undef PART
}
JG_REGISTER(granularity_weights)

// The spectrum.
//
// Launch   one block per cell and channel, largest cells first; cells of other fields than first_field .. last_field - 1 return;
//          any block size, 128 threads are GROUPS rows at a time x 16 scales; 3 KB of shared memory.
// In   values       float32 [C, V]       the channels in list order
//      low, high    int64   [N, parts]   each part's range of them
//      pattern, box, start, weights      as granularity_weights
//      schedule     int32   [N]
//      field        int32   [N]
//      key, basin, levels                of fields first_field .. last_field - 1, C planes each
// Out  spectrum     float64 [K * N, C, SCALES]   row k * N + n is compartment k of cell n
constexpr int GROUPS = 8;                              // rows that are added side by side

extern "C" __global__ void __launch_bounds__(128, 8) granularity_spectrum(
    const float* __restrict__ values, const int64_t* __restrict__ low, const int64_t* __restrict__ high,
    const int32_t* __restrict__ pattern, const int32_t* __restrict__ box, const int64_t* __restrict__ start,
    const double* __restrict__ weights, const int32_t* __restrict__ schedule, const int32_t* __restrict__ field,
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ levels, int64_t n_values,
    int32_t cells, int32_t compartments, int32_t parts, int32_t channels, int32_t first_field, int32_t last_field,
    int32_t height, int32_t width, int32_t capacity, double* __restrict__ spectrum)
{
    typedef jg::RowScratch<GROUPS, SCALES> Rows;
    struct Totals { double v[PARTS][SCALES + 1]; };      // the channel itself, then R_1 .. R_16
    JG_SHARED(Rows, rows);
    JG_SHARED(Totals, totals);
    JG_SHARED(jg::SumScratch<1>, scratch);
    const int n = schedule[int(blockIdx.x) / channels], channel = int(blockIdx.x) % channels;
    if (field[n] < first_field || field[n] >= last_field) return;
    const int pitch = width + 2, plane = (field[n] - first_field) * channels + channel;
    const int32_t* __restrict__ level = levels + int64_t(plane) * capacity * SCALES;
    for (int e = 0; e < parts; ++e) {
        const int part = n * parts + e;
        if (pattern[part] == 0) continue;
        const float* __restrict__ mine = values + channel * n_values + low[part];
        const double before = jg::block_sum<1>(int(high[part] - low[part]), scratch,
                                               [&](int i) { return jg::Vec<1>{{double(mine[i])}}; }).v[0];
        const int y0 = box[4 * part], x0 = box[4 * part + 1];
        const int down = box[4 * part + 2] - y0, across = box[4 * part + 3] - x0;
        const int64_t corner = (int64_t(plane) * (height + 2) + y0 + 1) * pitch + x0 + 1;
        const double* __restrict__ weight = weights + start[part];
        jg::row_sums<GROUPS, SCALES>(down, rows, [&](int y, jg::AddTo<SCALES> add) {
            const double* __restrict__ w = weight + int64_t(y) * across;
            const uint32_t* __restrict__ k = key + corner + int64_t(y) * pitch;
            const int32_t* __restrict__ of = basin + corner + int64_t(y) * pitch;
            if (y + GROUPS < down) {                       // the row that is next
                jg::fetch_ahead(k + int64_t(GROUPS) * pitch, across);
                jg::fetch_ahead(of + int64_t(GROUPS) * pitch, across);
            }
            for (int x = 0; x < across; ++x) jg::fetch_ahead(level + int64_t(of[x]) * SCALES, 1);
            for (int x = 0; x < across; ++x) {
                if (w[x] == 0.0) continue;
                const double share = w[x];
                const int32_t top = jg::bits_of_key(k[x]);
                const int32_t* __restrict__ at = level + int64_t(of[x]) * SCALES;
                add([&](int s) { return share * double(jg::float_of(jg::smaller(top, at[s]))); });
            }
        });
        JG_ONCE totals.v[e][0] = before;
        JG_FOR(s, SCALES) totals.v[e][s + 1] = rows.part[0][s];
        __syncthreads();
    }
    JG_FOR(i, compartments * SCALES) {
        const int c = i / SCALES, s = i % SCALES;
        double whole = 0, last = 0, next = 0;
        int64_t pixels = 0;
        for (int e = 0; e < parts; ++e) {
            const int part = n * parts + e;
            if (!(pattern[part] >> c & 1)) continue;
            whole += totals.v[e][0];
            last += totals.v[e][s];
            next += totals.v[e][s + 1];
            pixels += high[part] - low[part];
        }
        const double count = double(pixels), unit = jg::larger(whole / count, 2.220446049250313e-16);
        spectrum[((int64_t(c) * cells + n) * channels + channel) * SCALES + s] =
            pixels ? (last / count - next / count) * 100.0 / unit : nan("");
    }
}
JG_REGISTER(granularity_spectrum)

// Means over whole planes.
//
// Launch   one block a band of BAND rows, any size; 1 KB of shared memory.
// In   key      uint32 [H + 2, W + 2]   framed
//      basin    int32  [H + 2, W + 2]
//      levels   int32  [capacity, SCALES]
// Out  sums     float64 [bands, SCALES]   of R_1 .. R_16 over a band's pixels
constexpr int BAND = 32;                               // granularity.py: BAND
extern "C" __global__ void __launch_bounds__(128, 8) granularity_sums(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ levels, int32_t height,
    int32_t width, double* __restrict__ sums)
{
    typedef jg::RowScratch<GROUPS, SCALES> Scratch;
    JG_SHARED(Scratch, s);
    const int y0 = int(blockIdx.x) * BAND, rows = jg::smaller(BAND, height - y0);
    jg::row_sums<GROUPS, SCALES>(rows, s, [&](int y, jg::AddTo<SCALES> add) {
        const int64_t at = int64_t(y0 + y + 1) * (width + 2) + 1;
        for (int x = 0; x < width; ++x) {
            const int bits = jg::bits_of_key(key[at + x]);
            const int32_t* __restrict__ own = levels + int64_t(basin[at + x]) * SCALES;
            add([&](int k) { return double(jg::float_of(jg::smaller(bits, own[k]))); });
        }
    });
    JG_FOR(k, SCALES) sums[int64_t(blockIdx.x) * SCALES + k] = s.part[0][k];
}
JG_REGISTER(granularity_sums)
