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

constexpr int DIGIT = 11, DIGITS = 1 << DIGIT, PASSES = 3;
struct SortScratch { uint32_t at[PASSES][DIGITS]; };
struct Pair { uint32_t key, at; };                     // a value and its pixel's place in the field's list

// A key that grows with the value; both zeros get one key.
JG_FN uint32_t key_of(float value) {
    union { float value; uint32_t bits; } u = {value + 0.0f};
    return u.bits >> 31 ? ~u.bits : u.bits | 0x80000000u;
}
JG_FN float value_of(uint32_t key) {
    union { uint32_t bits; float value; } u;
    u.bits = key >> 31 ? key & 0x7fffffffu : ~key;
    return u.value;
}

// A field's n values as pairs in ascending order, by digits from the lowest; only the bits in which the values differ
// are sorted by. Returns the buffer that holds the result; keys are less `low`.
JG_FN Pair* radix_sort(const float* __restrict__ value, int n, Pair* from, Pair* to, uint32_t* low, SortScratch& s) {
    uint32_t least = 0xffffffffu, most = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t key = key_of(value[i]);
        least = jg::least(least, key);
        most = jg::most(most, key);
    }
    *low = least;
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
    for (int i = 0; i < n; ++i) {
        const uint32_t key = key_of(value[i]) - least;
        from[s.at[0][key & mask]++] = {key, uint32_t(i)};
    }
    for (int p = 1; p < passes; ++p) {
        for (int i = 0; i < n; ++i) {
            const Pair pair = from[i];
            to[s.at[p][pair.key >> (p * width) & mask]++] = pair;
        }
        Pair* t = from;
        from = to;
        to = t;
    }
    return from;
}

// The sorted pixels of a field to their cells, each with its ranks, and from there to their rows: a cell's pixels fit the
// nearest cache, a field's do not. K bounds the number of compartments.
template <int K> struct Ranked { float value; uint32_t at; int32_t rank[K]; };   // at: place in the field's list << K | compartments
template <int K> JG_FN void spread(
    const Pair* __restrict__ pairs, int n, uint32_t low, int64_t first, const int32_t* __restrict__ member,
    const int64_t* __restrict__ start, const int64_t* __restrict__ row_start, int compartments, int cells,
    Ranked<K>* __restrict__ ranked, int32_t* __restrict__ end, float* __restrict__ sorted, int32_t* __restrict__ ranks,
    int32_t* __restrict__ levels)
{
    for (int i = 0, cell = -1; i < n; ++i)             // a cell's pixels stand together in the list
        if (member[i] >> MARKS != cell) {
            cell = member[i] >> MARKS;
            end[cell] = i;
        }
    int32_t rank[K];
    uint32_t last[K];
    for (int k = 0; k < K; ++k) rank[k] = -1, last[k] = 0xffffffffu;
    constexpr int AHEAD = 64;                          // look-ups that miss the cache overlap when they stand together
    for (int i0 = 0; i0 < n; i0 += AHEAD) {
        const int some = jg::least(AHEAD, n - i0);
        int32_t words[AHEAD];
        for (int j = 0; j < some; ++j) words[j] = member[pairs[i0 + j].at];
        for (int j = 0; j < some; ++j) {
            const Pair pair = pairs[i0 + j];
            const int m = words[j];
            Ranked<K> r;
            r.value = value_of(pair.key + low);
            r.at = pair.at << K | uint32_t(m & ((1 << K) - 1));
            for (int k = 0; k < K; ++k) {
                const bool mine = m >> k & 1;
                rank[k] += int(mine & (pair.key != last[k]));
                last[k] = mine ? pair.key : last[k];
                r.rank[k] = rank[k];
            }
            ranked[end[m >> MARKS]++] = r;
        }
    }
    for (int i0 = 0; i0 < n;) {                        // cell after cell; end is now past its last pixel
        const int cell = member[i0] >> MARKS, i1 = end[cell];
        for (int k = 0; k < compartments; ++k) {
            const int row = k * cells + cell;
            float* __restrict__ value = sorted + row_start[row];
            int32_t* __restrict__ place = ranks + (row_start[row] - start[row] + first);
            float no_value;
            int32_t no_rank;
            for (int i = i0; i < i1; ++i) {            // without a branch: which pixel is where looks random here
                const Ranked<K>& r = ranked[i];
                const bool mine = r.at >> k & 1;
                *(mine ? value : &no_value) = r.value;
                *(mine ? place + (r.at >> K) : &no_rank) = r.rank[k];
                value += mine;
            }
        }
        i0 = i1;
    }
    for (int k = 0; k < compartments; ++k) levels[k] = rank[k] + 1;
}

// In   values       float32 [C, P]
//      pixel_start  int64   [B + 1]   each field's first entry of the list
//      member       int32   [P]       of list_members
//      start        int64   [K * N]   each row's first entry of the list
//      row_start    int64   [K * N + 1]  each row's first entry of sorted and ranks
//      task         the launch's first task; block b does task + b: task t is channel t % C of field t / C
//      longest      the most listed pixels of a field
// Out  sorted       float32 [C, R]    R = row_start[K * N]
//      ranks        int32   [C, R]    in the order of the list
//      levels       int32   [B, C, K]
//      pairs        uint64  [blocks, 2, longest]       scratch of the block: used again by the next launch, so that it stays
//      ranked       int32   [blocks, longest, 2 + K']  in the cache; K' = 1, 3 or 4, the least that is not below K
//      cursor       int32   [blocks, N]
extern "C" __global__ void __launch_bounds__(128, 8) sort_values(
    const float* __restrict__ values, const int64_t* __restrict__ pixel_start, const int32_t* __restrict__ member,
    const int64_t* __restrict__ start, const int64_t* __restrict__ row_start, int64_t n_pixels, int32_t task,
    int32_t longest, int32_t channels, int32_t compartments, int32_t cells, float* __restrict__ sorted,
    int32_t* __restrict__ ranks, int32_t* __restrict__ levels, uint64_t* __restrict__ pairs, int32_t* __restrict__ ranked,
    int32_t* __restrict__ cursor)
{
    JG_SHARED(SortScratch, s);
    JG_ONCE {
        const int64_t block = int64_t(blockIdx.x), place = block * longest;
        const int field = (task + int(block)) / channels, c = (task + int(block)) % channels;
        const int64_t first = pixel_start[field], size = row_start[compartments * cells];
        const int n = int(pixel_start[field + 1] - first);
        Pair* buffer = reinterpret_cast<Pair*>(pairs) + 2 * place;
        uint32_t low;
        const Pair* in_order = radix_sort(values + c * n_pixels + first, n, buffer, buffer + longest, &low, s);
        int32_t* end = cursor + block * cells;
        int32_t* at_most = levels + (int64_t(field) * channels + c) * compartments;
        float* out = sorted + c * size;
        int32_t* rank = ranks + c * size;
        if (compartments == 1)
            spread<1>(in_order, n, low, first, member + first, start, row_start, compartments, cells, reinterpret_cast<Ranked<1>*>(ranked) + place, end, out, rank, at_most);
        else if (compartments <= 3)
            spread<3>(in_order, n, low, first, member + first, start, row_start, compartments, cells, reinterpret_cast<Ranked<3>*>(ranked) + place, end, out, rank, at_most);
        else
            spread<4>(in_order, n, low, first, member + first, start, row_start, compartments, cells, reinterpret_cast<Ranked<4>*>(ranked) + place, end, out, rank, at_most);
    }
}
JG_REGISTER(sort_values)
