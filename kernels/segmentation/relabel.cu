// relabel.cu: sizes and border contact of labels, new numbers by table, holes, outlines.
//
//   Holes, on the graph of labels and of four-connected pieces of background, joined where pixels touch in four directions:
//   what touches the image's border is no hole; what touches a piece of background that is no hole is none; what touches two labels
//   that are no holes is none. All else lies within one label, and takes it; a hole
//   within holes takes the smallest label that they take.
//
// Source   CellProfiler IdentifyPrimaryObjects, IdentifySecondaryObjects, IdentifyTertiaryObjects; centrosome fill_labeled_holes, outline.
// Oracle   centrosome, SciPy (tests/segmentation/test_label.py)
// Launch   a block per row, or a thread per pixel; resolve_holes: a block per field.
// Order    integer sums, minima and maxima; the holes are a least fixed point, which any order of steps reaches.
#include "jg/jg.cuh"

namespace {
constexpr int NONE = 0x7fffffff;

// A node's three words: whether it is no hole, the smallest and the largest label beside it that is none.
struct Node { int32_t *solid, *low, *high; };
struct Change { int any; };

JG_FN void touch(const Node& from, bool from_label, int number, const Node& to, int* changed) {
    if (!jg::atomic_read(from.solid) || jg::atomic_read(to.solid)) return;
    bool solid = !from_label;
    if (from_label) {
        const int low = jg::atomic_min(to.low, number), high = jg::atomic_max(to.high, number);
        if (low > number || high < number) *changed = 1;
        solid = jg::smaller(low, number) != jg::larger(high, number);
    }
    if (solid && jg::atomic_max(to.solid, 1) == 0) *changed = 1;
}

// A hole that no solid label touches is named by the holes around it.
JG_FN void pass_on(const Node& from, const Node& to, int* changed) {
    if (*from.solid || *to.solid || *to.high) return;
    const int name = jg::atomic_read(from.low);
    if (jg::atomic_min(to.low, name) > name) *changed = 1;
}
}  // namespace

// In   labels   int32 [B, H, W]   0 .. capacity - 1
// Out  area     int32 [B, capacity]   pixels; starts as 0
//      border   int32 [B, capacity]   1: touches the image's border; starts as 0
extern "C" __global__ void __launch_bounds__(128, 8) label_extents(
    const int32_t* __restrict__ labels, int32_t height, int32_t width, int32_t capacity, int32_t* __restrict__ area,
    int32_t* __restrict__ border)
{
    const int32_t* __restrict__ row = labels + int64_t(blockIdx.x) * width;
    const int y = int(blockIdx.x) % height;
    const int64_t field = int64_t(int(blockIdx.x) / height) * capacity;
    JG_FOR(x, width) {
        const int label = row[x];
        if (label == 0 || (x > 0 && row[x - 1] == label)) continue;
        int end = x + 1;
        while (end < width && row[end] == label) ++end;
        jg::atomic_sum(area + field + label, end - x);
        if (y == 0 || y == height - 1 || x == 0 || end == width) jg::atomic_max(border + field + label, 1);
    }
}
JG_REGISTER(label_extents)

// Out  first, second  int32 [B, H, W]   labels through two tables [B, capacity]; the second may be the first
extern "C" __global__ void __launch_bounds__(128, 8) apply_tables(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ table, const int32_t* __restrict__ other, int32_t capacity,
    int32_t height, int32_t width, int32_t* __restrict__ first, int32_t* __restrict__ second)
{
    const int64_t at = int64_t(blockIdx.x) * width, field = int64_t(int(blockIdx.x) / height) * capacity;
    JG_FOR(x, width) {
        const int label = labels[at + x];
        first[at + x] = table[field + label];
        second[at + x] = other[field + label];
    }
}
JG_REGISTER(apply_tables)

// Out  first  int32 [B, H, W]   labels through one table
extern "C" __global__ void __launch_bounds__(128, 8) apply_table(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ table, int32_t capacity, int32_t height, int32_t width,
    int32_t* __restrict__ first)
{
    const int64_t at = int64_t(blockIdx.x) * width, field = int64_t(int(blockIdx.x) / height) * capacity;
    JG_FOR(x, width) first[at + x] = table[field + labels[at + x]];
}
JG_REGISTER(apply_table)

// The greatest of `values` within each label.
// Out  maximum     int32 [B, capacity]   starts as 0
extern "C" __global__ void __launch_bounds__(128, 8) label_maximum(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ values, int32_t height, int32_t width, int32_t capacity,
    int32_t* __restrict__ maximum)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int64_t field = int64_t(int(blockIdx.x) / height) * capacity;
    JG_FOR(x, width) {
        const int label = labels[at + x], value = values[at + x];
        if (label == 0 || value == 0 || (x > 0 && labels[at + x - 1] == label && values[at + x - 1] == value)) continue;
        jg::atomic_max(maximum + field + label, value);
    }
}
JG_REGISTER(label_maximum)

// Seeds of the cells: an object that was kept, or that touches the border; and where cells may be.
// In   unedited int32 [B, H, W]   objects before any was discarded;  kept  int32 [B, H, W]   those kept, filled
//      border   int32 [B, capacity]   by unedited label;  number  int32 [B, capacity]   what an unedited label is called now
//      values   float32, one plane per field;  threshold  float64 [B]
// Out  seeds    int32 [B, H, W];  mask  uint8 [B, H, W];  depth  float32 [B, H, W]   1 - value
extern "C" __global__ void __launch_bounds__(128, 8) cell_seeds(
    const int32_t* __restrict__ unedited, const int32_t* __restrict__ kept, const int32_t* __restrict__ border,
    const int32_t* __restrict__ number, int32_t capacity, const float* __restrict__ values, int64_t offset, int64_t stride,
    int32_t height, int32_t width, const double* __restrict__ threshold, int32_t* __restrict__ seeds,
    uint8_t* __restrict__ mask, float* __restrict__ depth)
{
    const int y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const int64_t at = int64_t(blockIdx.x) * width;
    const float* __restrict__ value = values + offset + field * stride + int64_t(y) * width;
    const double t = threshold[field];
    const int32_t *touches = border + int64_t(field) * capacity, *called = number + int64_t(field) * capacity;
    JG_FOR(x, width) {
        mask[at + x] = double(value[x]) >= t;
        depth[at + x] = 1.0f - value[x];
    }
    JG_FOR(x, width) {                                   // the same threads
        const int label = unedited[at + x], seed = label && (kept[at + x] || touches[label]) ? called[label] : 0;
        seeds[at + x] = seed;
        if (seed) mask[at + x] = 1;
    }
}
JG_REGISTER(cell_seeds)

// Cytoplasm: the cell without its nucleus, or without what lies inside the nucleus's outline.
// In   nuclei, cells  int32 [B, H, W]
//      outline        1: outline pixels of a nucleus (one of eight neighbours differs, or it lies on the border) stay
extern "C" __global__ void __launch_bounds__(128, 8) cytoplasm_of(
    const int32_t* __restrict__ nuclei, const int32_t* __restrict__ cells, int32_t height, int32_t width, int32_t outline,
    int32_t* __restrict__ cytoplasm)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int y = int(blockIdx.x) % height;
    const int32_t *__restrict__ row = nuclei + at, *__restrict__ cell = cells + at;
    int32_t* __restrict__ out = cytoplasm + at;
    if (!outline || y == 0 || y == height - 1) {
        JG_FOR(x, width) out[x] = row[x] == 0 || outline ? cell[x] : 0;
        return;
    }
    const int32_t *__restrict__ above = row - width, *__restrict__ below = row + width;
    JG_FOR(k, width - 2) {
        const int x = k + 1, mine = row[x];
        const int differ = (above[x - 1] ^ mine) | (above[x] ^ mine) | (above[x + 1] ^ mine) | (row[x - 1] ^ mine)
            | (row[x + 1] ^ mine) | (below[x - 1] ^ mine) | (below[x] ^ mine) | (below[x + 1] ^ mine);
        out[x] = (mine == 0) | (differ != 0) ? cell[x] : 0;
    }
    JG_ONCE {
        *out = *cell;
        out[width - 1] = cell[width - 1];
    }
}
JG_REGISTER(cytoplasm_of)

// Start of the holes: the nodes' words, and the labels that touch the border or the background outside.
// In   root     int32 [B, H, W]   background by label.cu: first pixel of the piece, -2 outside, -1 no background
// Out  words    int32 [3, B, H * W + capacity]   solid, low, high: by root, then by label (those start as 0, NONE, 0)
extern "C" __global__ void __launch_bounds__(128, 8) start_holes(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ root, int32_t height, int32_t width, int32_t capacity,
    int64_t n_words, int32_t* __restrict__ words)
{
    const int64_t at = int64_t(blockIdx.x) * width, plane = int64_t(height) * width;
    const int y = int(blockIdx.x) % height;
    const int64_t field = int64_t(blockIdx.x) / height;
    int32_t* __restrict__ node = words + field * (plane + capacity);
    JG_FOR(x, width) {
        const int64_t p = at + x, here = p - field * plane;
        const int label = labels[p];
        if (label == 0) {
            if (root[p] == int(here)) {
                node[here] = 0;
                node[n_words + here] = NONE;
                node[2 * n_words + here] = 0;
            }
            continue;
        }
        const bool solid = y == 0 || y == height - 1 || x == 0 || x == width - 1 || root[p - width] == -2 || root[p + width] == -2
            || root[p - 1] == -2 || root[p + 1] == -2;
        if (solid && !jg::atomic_read(node + plane + label)) jg::atomic_max(node + plane + label, 1);
    }
}
JG_REGISTER(start_holes)

// The contacts that are not settled yet, each run of them once.
// Out  contact  int32 [B, 2 H W, 2]   nodes: root, or H W + label;  count  int32 [B]   starts as 0
extern "C" __global__ void __launch_bounds__(128, 8) list_contacts(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ root, const int32_t* __restrict__ words, int32_t height,
    int32_t width, int32_t capacity, int32_t* __restrict__ contact, int32_t* __restrict__ count)
{
    const int64_t at = int64_t(blockIdx.x) * width, plane = int64_t(height) * width;
    const int y = int(blockIdx.x) % height;
    const int64_t field = int64_t(blockIdx.x) / height;
    const int32_t* __restrict__ solid = words + field * (plane + capacity) + plane;
    int32_t* __restrict__ list = contact + field * plane * 4;
    JG_FOR(x, width) {
        const int64_t p = at + x;
        const int a = labels[p], right = x + 1 < width ? labels[p + 1] : a, under = y + 1 < height ? labels[p + width] : a;
        if ((a == right) & (a == under)) continue;
        for (int side = 0; side < 2; ++side) {
            const int64_t q = p + (side ? width : 1);
            const int b = side ? under : right;
            if (a == b || (a == 0 && root[p] == -2) || (b == 0 && root[q] == -2)) continue;
            if (a && b && solid[a] && solid[b]) continue;
            if (side && x > 0 && labels[p - 1] == a && labels[q - 1] == b
                && (a || root[p - 1] == root[p]) && (b || root[q - 1] == root[q])) continue;
            const int slot = jg::atomic_sum(count + field, 1);   // the list's order does not matter
            list[2 * slot] = a ? int(plane) + a : root[p];
            list[2 * slot + 1] = b ? int(plane) + b : root[q];
        }
    }
}
JG_REGISTER(list_contacts)

extern "C" __global__ void __launch_bounds__(1024) resolve_holes(
    const int32_t* __restrict__ contact, const int32_t* __restrict__ count, int32_t capacity, int64_t plane, int64_t n_words,
    int32_t* __restrict__ words)
{
    JG_SHARED(Change, s);
    const int64_t field = blockIdx.x;
    const int32_t* __restrict__ list = contact + field * plane * 4;
    const int n = count[field];
    const int pixels = int(plane);
    int32_t* __restrict__ of_field = words + field * (plane + capacity);
    auto node = [&](int k) { return Node{of_field + k, of_field + n_words + k, of_field + 2 * n_words + k}; };
    for (int stage = 0; stage < 2; ++stage) {
        for (;;) {
            JG_ONCE s.any = 0;
            __syncthreads();
            int changed = 0;
            JG_FOR(i, n) {
                const int a = list[2 * i], b = list[2 * i + 1];
                if (stage == 0) {
                    touch(node(a), a > pixels, a - pixels, node(b), &changed);
                    touch(node(b), b > pixels, b - pixels, node(a), &changed);
                } else {
                    pass_on(node(a), node(b), &changed);
                    pass_on(node(b), node(a), &changed);
                }
            }
            jg::gather_max(&s.any, changed);
            __syncthreads();
            const bool done = s.any == 0;
            __syncthreads();
            if (done) break;
        }
    }
}
JG_REGISTER(resolve_holes)

// In   objects  1: objects that lie within another take its label too; 0: only background is filled
// Out  filled   int32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) fill_holes(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ root, const int32_t* __restrict__ words, int32_t capacity,
    int32_t height, int32_t width, int64_t n_words, int32_t objects, int32_t* __restrict__ filled)
{
    const int64_t at = int64_t(blockIdx.x) * width, plane = int64_t(height) * width;
    const int32_t* __restrict__ node = words + int64_t(int(blockIdx.x) / height) * (plane + capacity);
    JG_FOR(x, width) {
        int label = labels[at + x];
        if (label == 0 ? root[at + x] >= 0 : objects != 0) {
            const int64_t k = label ? plane + label : root[at + x];
            if (node[k] == 0) label = node[k + n_words] == NONE ? 0 : node[k + n_words];
        }
        filled[at + x] = label;
    }
}
JG_REGISTER(fill_holes)
