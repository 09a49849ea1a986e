// order_ranks.cu: the steps between two library sorts that give a GPU what sort_values (order_statistics.cu) gives a CPU.
//
//   An entry is a listed pixel in one channel; n = channels * listed pixels. Entries are sorted by (channel, field, value). A
//   level is a run of equal keys. below[k][l] counts the levels up to l that have a pixel of compartment k (and all of those
//   before k); less what it is before the entry's channel and field, and less 1, that is the dense rank of each such pixel. A second, stable sort by
//   (channel, cell) leaves each cell's pixels in ascending order, from which every row takes its own.
//
// Source   CellProfiler MeasureColocalization (rank weighted colocalization), MeasureObjectIntensity (quartiles, MAD).
// Oracle   SciPy's rankdata, NumPy's sort (tests/features/test_order_statistics.py); order_statistics.cu's sort_values: equal everywhere
// Launch   rank_keys, rank_steps, rank_marks, rank_entries: a thread per entry. rank_rows: a block per cell and channel, a warp a
//          compartment. Any block size; no shared memory.
// Order    ranks and sorted values are unique: equal values are equal bits, so the order of ties cannot show. Marks are all 1.
#include "jg/jg.cuh"

constexpr int MARKS = 4;                               // bits of the compartments in a member word (order_statistics.cu)

// In   values       float32 [C, P]
//      pixel_field  int32   [P]      position in the batch of each listed pixel's field
// Out  key          int64   [C, P]   (channel, field, value): grows with the value, 0 and -0 alike
extern "C" __global__ void __launch_bounds__(128, 8) rank_keys(
    const float* __restrict__ values, const int32_t* __restrict__ pixel_field, int64_t n_pixels, int64_t n_items,
    int32_t fields, int64_t* __restrict__ key)
{
    JG_FOR_ITEMS(i, n_items) {
        const int64_t c = i / n_pixels;
        const uint32_t bits = uint32_t(jg::bits_of(values[i] + 0.0f));
        const uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
        key[i] = (c * fields + pixel_field[i - c * n_pixels]) << 32 | int64_t(ascending);
    }
}
JG_REGISTER(rank_keys)

// In   key   int64 [n]   ascending
// Out  step  int32 [n]   1 where a level begins
extern "C" __global__ void __launch_bounds__(128, 8) rank_steps(
    const int64_t* __restrict__ key, int64_t n_items, int32_t* __restrict__ step)
{
    JG_FOR_ITEMS(i, n_items) step[i] = i == 0 || key[i] != key[i - 1];
}
JG_REGISTER(rank_steps)

// In   at       int64 [n]   each entry's place before the sort
//      member   int32 [P]   of list_members (order_statistics.cu)
//      level    int32 [n]   1, 2, ... of each entry
// Out  word     int32 [n]   the entry's member word
//      group    int32 [n]   channel * cells + cell
//      present  int32 [K, n]  1 where level l, at l - 1, has a pixel of compartment k; zeros before
extern "C" __global__ void __launch_bounds__(128, 8) rank_marks(
    const int64_t* __restrict__ at, const int32_t* __restrict__ member, const int32_t* __restrict__ level, int64_t n_pixels,
    int64_t n_items, int32_t compartments, int32_t cells, int32_t* __restrict__ word, int32_t* __restrict__ group,
    int32_t* __restrict__ present)
{
    JG_FOR_ITEMS(i, n_items) {
        const int64_t c = at[i] / n_pixels;
        const int m = member[at[i] - c * n_pixels];
        word[i] = m;
        group[i] = int(c) * cells + (m >> MARKS);
        for (int k = 0; k < compartments; ++k)
            if (m >> k & 1) jg::atomic_write(present + k * n_items + level[i] - 1, 1);
    }
}
JG_REGISTER(rank_marks)

// In   pixel_start  int64 [B + 1]      each field's first entry of the list
//      start        int64 [K * N]      each row's
//      row_start    int64 [K * N + 1]  each row's first entry of ranks
//      below        int32 [K, n]       `present`, summed from its first entry on, through all compartments
// Out  ranks        int32 [C, R]       R = row_start[K * N]; in the order of the list
//      levels       int32 [B, C, K]    zeros before
extern "C" __global__ void __launch_bounds__(128, 8) rank_entries(
    const int64_t* __restrict__ at, const int32_t* __restrict__ word, const int32_t* __restrict__ level,
    const int32_t* __restrict__ below, const int32_t* __restrict__ pixel_field, const int64_t* __restrict__ pixel_start,
    const int64_t* __restrict__ start, const int64_t* __restrict__ row_start, int64_t n_pixels, int64_t n_items,
    int64_t n_row_pixels, int32_t channels, int32_t compartments, int32_t cells, int32_t* __restrict__ ranks,
    int32_t* __restrict__ levels)
{
    JG_FOR_ITEMS(i, n_items) {
        const int64_t c = at[i] / n_pixels, p = at[i] - c * n_pixels, here = c * n_pixels;
        const int field = pixel_field[p], m = word[i];
        const int64_t first = here + pixel_start[field];         // of the same channel and field
        const bool last = i + 1 == here + pixel_start[field + 1];
        for (int k = 0; k < compartments; ++k) {
            const bool mine = m >> k & 1;
            if (!mine && !last) continue;
            const int64_t begin = k * n_items - 1;               // the entry before the compartment's first level
            const int64_t base = begin + level[first] - 1;
            const int count = below[begin + level[i]] - (base >= 0 ? below[base] : 0);
            const int row = k * cells + (m >> MARKS);
            if (mine) ranks[c * n_row_pixels + row_start[row] + p - start[row]] = count - 1;
            if (last) levels[(int64_t(field) * channels + c) * compartments + k] = count;
        }
    }
}
JG_REGISTER(rank_entries)

// In   key         int64 [n]       sorted
//      word        int32 [n]
//      by_cell     int64 [n]       entries in the order of (channel, cell), each cell's as they stood
//      cell_start  int64 [N + 1]   each cell's first entry of the list
// Out  sorted      float32 [C, R]
extern "C" __global__ void __launch_bounds__(128, 8) rank_rows(
    const int64_t* __restrict__ key, const int32_t* __restrict__ word, const int64_t* __restrict__ by_cell,
    const int64_t* __restrict__ cell_start, const int64_t* __restrict__ row_start, int64_t n_pixels, int64_t n_row_pixels,
    int32_t compartments, int32_t cells, float* __restrict__ sorted)
{
    const int cell = int(blockIdx.x) % cells, c = int(blockIdx.x) / cells;
    const int64_t* __restrict__ mine = by_cell + c * n_pixels + cell_start[cell];
    const int n = int(cell_start[cell + 1] - cell_start[cell]);
    for (int k = jg::warp_id(); k < compartments; k += jg::warps()) {
        float* __restrict__ out = sorted + c * n_row_pixels + row_start[k * cells + cell];
        jg::warp_pick(n, [&](int i) { return word[mine[i]] >> k & 1; }, [&](int i, int place) {
            const uint32_t ascending = uint32_t(key[mine[i]]);
            out[place] = jg::float_of(int32_t(ascending >> 31 ? ascending & 0x7fffffffu : ~ascending));
        });
    }
}
JG_REGISTER(rank_rows)
