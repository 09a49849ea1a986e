// order_statistics.cu: sorted values of every object, and dense ranks of its pixels among all pixels of its compartment and field.
//
//   sorted   the values of each object row, ascending
//   ranks    rank of a pixel = how many distinct values of its compartment and field are smaller than its own: 0, 1, ...
//   levels   distinct values of each compartment and field
//   Both follow from one sort of all listed pixels of a field and channel: read in ascending order, a pixel's value is
//   appended to each row it belongs to, and the rank of each compartment it belongs to grows where the value does.
//
// Source   CellProfiler MeasureColocalization (rank weighted colocalization), MeasureObjectIntensity (quartiles, MAD).
// Oracle   SciPy's rankdata, NumPy's sort (tests/features/test_order_statistics.py); torch's sort in order_statistics.py, which CUDA uses instead
// Launch   see each kernel. sort_values works with one thread per block: it is the host's way (least-significant-digit
//          radix sort), one block per field and channel.
// Order    sorted values and dense ranks are unique: equal values are equal bits, so the order of ties cannot show.
#include "features/order_statistics.cuh"

// What a listed pixel belongs to: cell << 4 | bit k for compartment k. One block per cell.
//
// In   start, stop  int64 [K * N]   each row's range of the list
//      cell_start   int64 [N + 1]   each cell's
// Out  member       int32 [P]
constexpr int MARKS = 4;                               // bits of the compartments
extern "C" __global__ void __launch_bounds__(128, 8) list_members(
    const int64_t* __restrict__ start, const int64_t* __restrict__ stop, const int64_t* __restrict__ cell_start,
    int32_t compartments, int32_t cells, int32_t* __restrict__ member)
{
    const int cell = int(blockIdx.x);
    const int64_t first = cell_start[cell];
    int from[MARKS], to[MARKS];
    for (int k = 0; k < MARKS; ++k) {
        const int row = k * cells + cell;
        from[k] = k < compartments ? int(start[row] - first) : 0;
        to[k] = k < compartments ? int(stop[row] - first) : 0;
    }
    JG_FOR(i, int(cell_start[cell + 1] - first)) {
        int bits = 0;
        for (int k = 0; k < MARKS; ++k) bits |= int((from[k] <= i) & (i < to[k])) << k;
        member[first + i] = cell << MARKS | bits;
    }
}
JG_REGISTER(list_members)

constexpr int RUN = 64;                                // places that one entry of `runs` tells of (order_statistics.py)
constexpr int WELL_AHEAD = 16;                          // entries: two lines of a cache
constexpr int DIGIT = 11, DIGITS = 1 << DIGIT, PASSES = 3;
struct SortScratch { uint32_t at[PASSES][DIGITS]; };
struct Pair { uint32_t key, at; };                     // a value and its pixel's place

// A key that grows with the value; both zeros get one key.
JG_FN uint32_t key_of(float value) {
    union { float value; uint32_t bits; } u = {value + 0.0f};
    return u.bits >> 31 ? ~u.bits : u.bits | 0x80000000u;
}
JG_FN float value_of(uint32_t key) {
    union { uint32_t bits; float value; } u = {key >> 31 ? key ^ 0x80000000u : ~key};
    return u.value;
}

struct Field {
    const float* value;                                // of the field's listed pixels
    const int32_t* member;
    const int64_t *cell_start, *start, *row_start;
    int64_t first_pixel;
    int n, first_cell, last_cell, compartments, cells;
};
// act(cell, from, to, place) for every segment from .. to - 1 of the field's list: a cell's pixels that are in the same
// compartments. In this file pixels have places of their own, which grow along the list and leave gaps: each segment begins at
// a multiple of RUN, so that place / RUN alone tells what a pixel belongs to.
template <class F> JG_FN void each_segment(const Field& f, F act) {
    int place = 0;
    for (int cell = f.first_cell; cell < f.last_cell; ++cell) {
        const int end = int(f.cell_start[cell + 1] - f.first_pixel);
        for (int from = int(f.cell_start[cell] - f.first_pixel), to; from < end; from = to) {
            to = end;
            for (int k = 0; k < f.compartments; ++k) {
                const int row = k * f.cells + cell;
                const int a = int(f.start[row] - f.first_pixel), b = a + int(f.row_start[row + 1] - f.row_start[row]);
                to = a > from ? jg::smaller(a, to) : to;
                to = b > from ? jg::smaller(b, to) : to;
            }
            act(cell, from, to, place);
            place += (to - from + RUN - 1) / RUN * RUN;
        }
    }
}

// A field's values as pairs in ascending order, by digits from the lowest; only the bits in which the values differ
// are sorted by. Returns the buffer that holds the result; keys are less `minimum`.
JG_FN Pair* radix_sort(const Field& f, Pair* from, Pair* to, SortScratch& s, uint32_t& minimum) {
    const float* __restrict__ value = f.value;
    const int n = f.n;
    minimum = 0xffffffffu;
    uint32_t maximum = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t key = key_of(value[i]);
        minimum = jg::smaller(minimum, key);
        maximum = jg::larger(maximum, key);
    }
    const uint32_t lowest = minimum;
    int bits = 0;
    while (bits < 32 && (maximum - lowest) >> bits) ++bits;
    const int passes = jg::larger(1, (bits + DIGIT - 1) / DIGIT), width = jg::larger(1, (bits + passes - 1) / passes);
    const uint32_t mask = (1u << width) - 1;
    for (int p = 0; p < PASSES; ++p)
        for (uint32_t d = 0; d <= mask; ++d) s.at[p][d] = 0;
    for (int i = 0; i < n; ++i) {                      // a digit past the highest bit is 0 everywhere
        const uint32_t key = key_of(value[i]) - lowest;
        ++s.at[0][key & mask];
        ++s.at[1][key >> width & mask];
        ++s.at[2][uint32_t(uint64_t(key) >> (2 * width)) & mask];
    }
    for (int p = 0; p < passes; ++p) {
        uint32_t total = 0;
        for (uint32_t d = 0; d <= mask; ++d) {
            const uint32_t count = s.at[p][d];
            s.at[p][d] = total;
            total += count;
        }
    }
    // A digit's list is written from front to back, but there are more lists than a core has lines on the way: asked for early.
    each_segment(f, [&](int, int first, int end, int place) {
        for (int i = first; i < end; ++i) {
            const uint32_t key = key_of(value[i]) - lowest;
            Pair* const at = from + s.at[0][key & mask]++;
            *at = {key, uint32_t(place + i - first)};
            jg::fetch_to_write(at + WELL_AHEAD);
        }
    });
    for (int p = 1; p < passes; ++p) {
        for (int i = 0; i < n; ++i) {
            const Pair pair = from[i];
            Pair* const at = to + s.at[p][pair.key >> (p * width) & mask]++;
            *at = pair;
            jg::fetch_to_write(at + WELL_AHEAD);
        }
        Pair* t = from;
        from = to;
        to = t;
    }
    return from;
}

// A pixel's ranks plus 1 in up to K compartments: BITS each, so many to a word that they fit.
template <int K, int BITS> struct Ranks {
    static constexpr int LANES = 64 / BITS, WORDS = (K + LANES - 1) / LANES;
    uint64_t word[WORDS];
};
template <int K, int BITS> struct Ranked { Pair pair; Ranks<K, BITS> rank; };

// The sorted pixels of a field to their cells, each with its ranks, and from there to their rows: a cell's pixels fit the
// nearest caches, a field's do not. K bounds the number of compartments.
template <int K, int BITS> JG_FN void spread(
    const Field& f, const Pair* __restrict__ pairs, uint32_t minimum, uint64_t* __restrict__ list, int32_t* __restrict__ end,
    int32_t* __restrict__ runs, uint64_t* __restrict__ cell_list, float* __restrict__ row_list, int capacity,
    double* __restrict__ quantiles, int stride, int32_t* __restrict__ ranks, int32_t* __restrict__ levels)
{
    typedef Ranks<K, BITS> Row;
    Ranked<K, BITS>* ranked = reinterpret_cast<Ranked<K, BITS>*>(list);
    Row* placed = reinterpret_cast<Row*>(cell_list);
    each_segment(f, [&](int cell, int from, int to, int place) {
        const int m = (cell - f.first_cell) << MARKS | (f.member[from] & ((1 << MARKS) - 1));
        for (int r = place / RUN; r < (place + to - from + RUN - 1) / RUN; ++r) runs[r] = m;
    });
    for (int cell = f.first_cell; cell < f.last_cell; ++cell) end[cell - f.first_cell] = int(f.cell_start[cell] - f.first_pixel);
    Row step[1 << K];                                  // one more distinct value in these compartments
    for (int m = 0; m < 1 << K; ++m)
        for (int w = 0; w < Row::WORDS; ++w) {
            step[m].word[w] = 0;
            for (int k = w * Row::LANES; k < jg::smaller(K, (w + 1) * Row::LANES); ++k)
                step[m].word[w] |= uint64_t(m >> k & 1) << (k % Row::LANES * BITS);
        }
    Row count = {};
    uint32_t last = 0;
    int seen = 0;                                      // compartments that have the value `last`
    for (int i = 0; i < f.n; ++i) {
        const Pair pair = pairs[i];
        const int m = runs[pair.at / RUN], mine = m & ((1 << K) - 1);
        seen = pair.key == last ? seen : 0;
        last = pair.key;
        const Row& add = step[mine & ~seen];
        seen |= mine;
        for (int w = 0; w < Row::WORDS; ++w) count.word[w] += add.word[w];
        Ranked<K, BITS>* const to = ranked + end[m >> MARKS]++;
        *to = {pair, count};
        jg::fetch_to_write(to + WELL_AHEAD);
    }
    const auto lane = [](const Row& r, int k) {
        return int(r.word[k / Row::LANES] >> (k % Row::LANES * BITS) & ((1ull << BITS) - 1));
    };
    int place_of_cell = 0, cell_now = -1;
    each_segment(f, [&](int cell, int from, int to, int place) {
        if (cell != cell_now) {                        // its first segment: all of its pixels
            cell_now = cell;
            place_of_cell = place;
            float* into[K];
            for (int k = 0; k < K; ++k) into[k] = row_list + k * capacity;
            const int first = int(f.cell_start[cell] - f.first_pixel);
            for (int i = first; i < end[cell - f.first_cell]; ++i) {       // `end` is now past its last pixel
                const Ranked<K, BITS> r = ranked[i];
                const int mine = runs[r.pair.at / RUN];
                const float v = value_of(r.pair.key + minimum);
                placed[int(r.pair.at) - place] = r.rank;
                for (int k = 0; k < K; ++k) {          // without a branch: which pixel is where looks random here
                    *into[k] = v;
                    into[k] += mine >> k & 1;
                }
            }
            for (int k = 0; k < f.compartments; ++k)
                find_quantiles(row_list + k * capacity, int(into[k] - row_list) - k * capacity, quantiles + int64_t(k * f.cells + cell) * stride);
        }
        const Row* __restrict__ row = placed + (place - place_of_cell);
        const int mine = f.member[from];
        for (int k = 0; k < K; ++k) {
            if (!(mine >> k & 1)) continue;
            const int at = k * f.cells + cell;
            int32_t* __restrict__ out = ranks + (f.row_start[at] + from - (f.start[at] - f.first_pixel));
            for (int i = 0; i < to - from; ++i) out[i] = lane(row[i], k) - 1;
        }
    });
    for (int k = 0; k < f.compartments; ++k) levels[k] = lane(count, k);
}

// In   values       float32 [C, P]
//      pixel_start  int64   [B + 1]   each field's first entry of the list
//      field_start  int64   [B + 1]   each field's first cell
//      cell_start   int64   [N + 1]   each cell's first entry of the list
//      member       int32   [P]       of list_members
//      start        int64   [K * N]   each row's first entry of the list
//      row_start    int64   [K * N + 1]  each row's first entry of ranks
//      task         the launch's first task; block b does task + b: task t is channel t % C of field t / C
//      longest      the most listed pixels of a field
//      capacity         places of a cell, beyond K times the largest row by 7 * 64
//      n_runs       places of a field / 64: `longest` and 7 * 64 a cell
//      words        1 where three ranks of 21 bits do, else 2
// Out  quantiles    float64 [K * N, C, 6]  of order_statistics.cuh
//      ranks        int32   [C, R]    in the order of the list; R = row_start[K * N]
//      levels       int32   [B, C, K]
// Work pairs        uint64  [blocks, 2, longest]       used again by the next launch, so that it stays in the cache
//      ranked       uint64  [blocks, longest, 1 + words]
//      placed       uint64  [blocks, capacity, words]
//      sorted       float32 [blocks, 4, capacity]
//      cursor       int32   [blocks, N]
//      runs         int32   [blocks, n_runs]
extern "C" __global__ void __launch_bounds__(128, 4) sort_values(
    const float* __restrict__ values, const int64_t* __restrict__ pixel_start, const int64_t* __restrict__ field_start,
    const int64_t* __restrict__ cell_start, const int32_t* __restrict__ member,
    const int64_t* __restrict__ start, const int64_t* __restrict__ row_start, int64_t n_pixels, int32_t task,
    int32_t longest, int32_t capacity, int32_t n_runs, int32_t words, int32_t channels, int32_t compartments, int32_t cells,
    double* __restrict__ quantiles, int32_t* __restrict__ ranks, int32_t* __restrict__ levels, uint64_t* __restrict__ pairs,
    uint64_t* __restrict__ ranked, uint64_t* __restrict__ placed, float* __restrict__ sorted, int32_t* __restrict__ cursor,
    int32_t* __restrict__ runs)
{
    JG_SHARED(SortScratch, s);
    JG_ONCE {
        const int64_t block = int64_t(blockIdx.x);
        const int field = (task + int(block)) / channels, c = (task + int(block)) % channels;
        const int64_t first = pixel_start[field];
        const int n = int(pixel_start[field + 1] - first);
        Pair* buffer = reinterpret_cast<Pair*>(pairs) + 2 * block * longest;
        const Field f = {values + c * n_pixels + first, member + first, cell_start, start, row_start, first, n,
                         int(field_start[field]), int(field_start[field + 1]), compartments, cells};
        uint32_t minimum;
        const Pair* in_order = radix_sort(f, buffer, buffer + longest, s, minimum);
        uint64_t* list = ranked + block * longest * (1 + words);
        uint64_t* cell = placed + block * capacity * words;
        float* row = sorted + block * capacity * MARKS;
        int32_t* end = cursor + block * cells;
        int32_t* run = runs + block * n_runs;
        double* out = quantiles + c * QUANTILES;
        int32_t* rank = ranks + c * row_start[compartments * cells];
        int32_t* at_most = levels + (int64_t(field) * channels + c) * compartments;
        const int stride = channels * QUANTILES;
        if (words == 1) spread<3, 21>(f, in_order, minimum, list, end, run, cell, row, capacity, out, stride, rank, at_most);
        else spread<4, 32>(f, in_order, minimum, list, end, run, cell, row, capacity, out, stride, rank, at_most);
    }
}
JG_REGISTER(sort_values)

// In   sorted       float32 [C, R]        each row's values, ascending
//      row_start    int64   [K * N + 1]   each row's first entry of it
// Out  quantiles    float64 [K * N, C, 6]
constexpr int ROWS_PER_BLOCK = 128;                      // rows and channels (order_statistics.py)
extern "C" __global__ void __launch_bounds__(128, 8) sorted_quantiles(
    const float* __restrict__ sorted, const int64_t* __restrict__ row_start, int32_t rows, int32_t channels,
    double* __restrict__ quantiles)
{
    JG_FOR(j, ROWS_PER_BLOCK) {
        const int64_t i = int64_t(blockIdx.x) * ROWS_PER_BLOCK + j;
        if (i >= int64_t(rows) * channels) continue;
        const int row = int(i / channels), c = int(i % channels);
        find_quantiles(sorted + c * row_start[rows] + row_start[row], int(row_start[row + 1] - row_start[row]), quantiles + i * QUANTILES);
    }
}
JG_REGISTER(sorted_quantiles)
