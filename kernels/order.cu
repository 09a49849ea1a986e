// order.cu: sorted values of every object, and dense ranks of its pixels among all pixels of its compartment and field.
//
//   sorted   the values of each object row, ascending
//   ranks    rank of a pixel = how many distinct values of its compartment and field are smaller than its own: 0, 1, ...
//   levels   distinct values of each compartment and field
//   Both follow from one sort of all listed pixels of a field and channel: read in ascending order, a pixel's value is
//   appended to each row it belongs to, and the rank of each compartment it belongs to grows where the value does.
//
// Source   CellProfiler MeasureColocalization (rank weighted colocalization), MeasureObjectIntensity (quartiles, MAD).
// Oracle   SciPy's rankdata, NumPy's sort (tests/test_order_numpy.py); torch's sort in order.py, which CUDA uses instead
// Launch   see each kernel. sort_values works with one thread a block: it is the host's way (least-significant-digit
//          radix sort), one block a field and channel.
// Order    sorted values and dense ranks are unique: equal values are equal bits, so the order of ties cannot show.
#include "jg.cuh"

// What a listed pixel belongs to: cell << 4 | bit k for compartment k. One block a cell.
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

constexpr int RUN = 64;                                // pixels of the list that one entry of `runs` tells of (order.py)
constexpr int WELL_AHEAD = 16;                          // entries: two lines of a cache
constexpr int DIGIT = 11, DIGITS = 1 << DIGIT, PASSES = 3;
struct SortScratch { uint32_t at[PASSES][DIGITS]; };
struct Pair { uint32_t key, at; };                     // a value and its pixel's place in the field's list

// A key that grows with the value; both zeros get one key.
JG_FN uint32_t key_of(float value) {
    union { float value; uint32_t bits; } u = {value + 0.0f};
    return u.bits >> 31 ? ~u.bits : u.bits | 0x80000000u;
}

// A field's n values as pairs in ascending order, by digits from the lowest; only the bits in which the values differ
// are sorted by. Returns the buffer that holds the result; keys are less the least.
JG_FN Pair* radix_sort(const float* __restrict__ value, int n, Pair* from, Pair* to, SortScratch& s) {
    uint32_t least = 0xffffffffu, most = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t key = key_of(value[i]);
        least = jg::least(least, key);
        most = jg::most(most, key);
    }
    int bits = 0;
    while (bits < 32 && (most - least) >> bits) ++bits;
    const int passes = jg::most(1, (bits + DIGIT - 1) / DIGIT), width = jg::most(1, (bits + passes - 1) / passes);
    const uint32_t mask = (1u << width) - 1;
    for (int p = 0; p < PASSES; ++p)
        for (uint32_t d = 0; d <= mask; ++d) s.at[p][d] = 0;
    for (int i = 0; i < n; ++i) {                      // a digit past the highest bit is 0 everywhere
        const uint32_t key = key_of(value[i]) - least;
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
    for (int i = 0; i < n; ++i) {
        const uint32_t key = key_of(value[i]) - least;
        Pair* const at = from + s.at[0][key & mask]++;
        *at = {key, uint32_t(i)};
        jg::fetch_to_write(at + WELL_AHEAD);
    }
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

// The sorted pixels of a field to their cells, each with its ranks, and from there to their rows: a cell's pixels fit the
// nearest cache, a field's do not. K bounds the number of compartments.
template <int K> struct Ranked { uint32_t at; int32_t rank[K]; };  // at: place in the field's list << K | compartments
struct Field {
    const float* value;                                // of the field's listed pixels
    const int32_t* member;
    const int64_t *cell_start, *start, *row_start;
    int64_t first_pixel;
    int n, first_cell, last_cell, compartments, cells;
};
template <int K> JG_FN void spread(
    const Field& f, const Pair* __restrict__ pairs, Ranked<K>* __restrict__ ranked, int32_t* __restrict__ end,
    int32_t* __restrict__ runs, float* __restrict__ sorted, int32_t* __restrict__ ranks, int32_t* __restrict__ levels)
{
    for (int cell = f.first_cell; cell < f.last_cell; ++cell) end[cell] = int(f.cell_start[cell] - f.first_pixel);
    // A cell's pixels of one kind stand together, so few runs of the list have several members: the table, not the list,
    // stays in the nearest cache while it is asked at random.
    for (int i = 0; i < f.n; i += RUN) {
        const int32_t m = f.member[i];
        runs[i / RUN] = m == f.member[jg::least(i + RUN, f.n) - 1] ? m : -1;
    }
    int32_t rank[K];
    uint32_t last[K];
    for (int k = 0; k < K; ++k) rank[k] = -1, last[k] = 0xffffffffu;
    for (int i = 0; i < f.n; ++i) {
        const Pair pair = pairs[i];
        int m = runs[pair.at / RUN];
        if (m < 0) m = f.member[pair.at];
        Ranked<K> r;
        r.at = pair.at << K | uint32_t(m & ((1 << K) - 1));
        for (int k = 0; k < K; ++k) {
            const bool mine = m >> k & 1;
            rank[k] += int(mine & (pair.key != last[k]));
            last[k] = mine ? pair.key : last[k];
            r.rank[k] = rank[k];
        }
        Ranked<K>* const to = ranked + end[m >> MARKS]++;
        *to = r;
        jg::fetch_to_write(to + WELL_AHEAD);
    }
    for (int cell = f.first_cell; cell < f.last_cell; ++cell) {        // end is now past its last pixel
        float* to[K];
        int32_t* place[K];
        for (int k = 0; k < K; ++k) {
            const int row = jg::least(k, f.compartments - 1) * f.cells + cell;
            to[k] = sorted + f.row_start[row];
            place[k] = ranks + (f.row_start[row] - f.start[row] + f.first_pixel);
        }
        const int from = int(f.cell_start[cell] - f.first_pixel);
        jg::fetch_ahead(f.value + from, end[cell] - from);
        for (int i = from; i < end[cell]; ++i) {
            const Ranked<K> r = ranked[i];
            const uint32_t at = r.at >> K;
            const float v = f.value[at] + 0.0f;        // one zero
            float no_value;
            int32_t no_rank;
            for (int k = 0; k < K; ++k) {              // without a branch: which pixel is where looks random here
                const bool mine = r.at >> k & 1;
                *(mine ? to[k] : &no_value) = v;
                *(mine ? place[k] + at : &no_rank) = r.rank[k];
                to[k] += mine;
            }
        }
    }
    for (int k = 0; k < f.compartments; ++k) levels[k] = rank[k] + 1;
}

// In   values       float32 [C, P]
//      pixel_start  int64   [B + 1]   each field's first entry of the list
//      field_start  int64   [B + 1]   each field's first cell
//      cell_start   int64   [N + 1]   each cell's first entry of the list
//      member       int32   [P]       of list_members
//      start        int64   [K * N]   each row's first entry of the list
//      row_start    int64   [K * N + 1]  each row's first entry of sorted and ranks
//      task         the launch's first task; block b does task + b: task t is channel t % C of field t / C
//      longest      the most listed pixels of a field
// Out  sorted       float32 [C, R]    R = row_start[K * N]
//      ranks        int32   [C, R]    in the order of the list
//      levels       int32   [B, C, K]
//      pairs        uint64  [blocks, 2, longest]       scratch of the block: used again by the next launch, so that it stays
//      ranked       int32   [blocks, longest, 1 + K']  in the cache; K' = 1, 3 or 4, the least that is not below K
//      cursor       int32   [blocks, N]
//      runs         int32   [blocks, ceil(longest / 64)]
extern "C" __global__ void __launch_bounds__(128, 4) sort_values(
    const float* __restrict__ values, const int64_t* __restrict__ pixel_start, const int64_t* __restrict__ field_start,
    const int64_t* __restrict__ cell_start, const int32_t* __restrict__ member,
    const int64_t* __restrict__ start, const int64_t* __restrict__ row_start, int64_t n_pixels, int32_t task,
    int32_t longest, int32_t channels, int32_t compartments, int32_t cells, float* __restrict__ sorted,
    int32_t* __restrict__ ranks, int32_t* __restrict__ levels, uint64_t* __restrict__ pairs, int32_t* __restrict__ ranked,
    int32_t* __restrict__ cursor, int32_t* __restrict__ runs)
{
    JG_SHARED(SortScratch, s);
    JG_ONCE {
        const int64_t block = int64_t(blockIdx.x), place = block * longest;
        const int field = (task + int(block)) / channels, c = (task + int(block)) % channels;
        const int64_t first = pixel_start[field], size = row_start[compartments * cells];
        const int n = int(pixel_start[field + 1] - first);
        Pair* buffer = reinterpret_cast<Pair*>(pairs) + 2 * place;
        const Field f = {values + c * n_pixels + first, member + first, cell_start, start, row_start, first, n,
                         int(field_start[field]), int(field_start[field + 1]), compartments, cells};
        const Pair* in_order = radix_sort(f.value, n, buffer, buffer + longest, s);
        int32_t* end = cursor + block * cells;
        int32_t* run = runs + block * ((longest + RUN - 1) / RUN);
        int32_t* at_most = levels + (int64_t(field) * channels + c) * compartments;
        float* out = sorted + c * size;
        int32_t* rank = ranks + c * size;
        if (compartments <= 1) spread<1>(f, in_order, reinterpret_cast<Ranked<1>*>(ranked) + place, end, run, out, rank, at_most);
        else if (compartments <= 3) spread<3>(f, in_order, reinterpret_cast<Ranked<3>*>(ranked) + place, end, run, out, rank, at_most);
        else spread<4>(f, in_order, reinterpret_cast<Ranked<4>*>(ranked) + place, end, run, out, rank, at_most);
    }
}
JG_REGISTER(sort_values)
