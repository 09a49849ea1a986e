// objects.cu: the objects of a batch counted, boxed and listed, and their values gathered into list order.
//
//   The pattern of a pixel, seen from cell n, is the set of compartments whose label there is n. A cell whose patterns all
//   stand in the class order is listed once, class by class, so that each compartment is a range of its list; any
//   other cell is listed once a compartment. Raster order within a class or compartment.
//
// Source   design.md, 'Arrays': one list a cell, so that Cytoplasm, Nuclei and Cells are ranges of it.
// Oracle   NumPy on drawn labels (tests/features/test_objects.py)
// Launch   count_objects: one block a row of a field. list_objects, gather_values: one block per cell (and channel). sum_objects,
//          describe_objects: a thread per cell. Any size.
// Order    integers only: sums, minima and maxima, so no order can show. Lists are placed by counting.
#include "jg/jg.cuh"

constexpr int GROUP = 16;       // pixels per thread compares before it looks closer
constexpr int BAND = 128;       // rows of a cell's box placed at a time
constexpr int AHEAD = 4;        // lines asked for before they are needed
#if defined(JG_SERIAL)
constexpr int NEARBY = 16;      // pixels of a list that are mostly in one or two lines of a cache
#else
constexpr int NEARBY = 1 << 30; // a GPU has other threads to run meanwhile
#endif
constexpr int WELL_AHEAD = 128; // pixels of a list
constexpr int CLASSES = 5;      // lists a cell may have, at most

struct Placed { int32_t v[BAND + 1][CLASSES]; };           // entries of each list before each row of a band
template <int K> struct Tuple { int32_t v[K]; };
template <int K> struct Planes { const int32_t* v[K]; };

// The run of equal labels `t` begins (or, closing, ends before) x in row y: -x and +x sum to its length.
template <int K> JG_FN void mark(const Tuple<K>& t, bool closing, int b, int y, int x, int capacity,
                                 int32_t* counts, int32_t* boxes, int32_t* extremes)
{
    for (int k = 0; k < K; ++k) {
        const int32_t n = t.v[k];
        if (n == 0) continue;
        jg::atomic_max(extremes + 2 * b, n);
        jg::atomic_min(extremes + 2 * b + 1, n);
        if (n < 0 || n > capacity) continue;
        int pattern = 0;
        for (int j = 0; j < K; ++j) pattern |= int(t.v[j] == n) << j;
        const int64_t at = int64_t(b) * capacity + n - 1;
        if ((pattern & ((1 << k) - 1)) == 0) jg::atomic_sum(counts + (at << K) + pattern, closing ? x : -x);
        int32_t* box = boxes + (at * K + k) * 4;
        if (closing) {
            jg::atomic_max(box + 3, x);
        } else {
            jg::atomic_min(box, y);
            jg::atomic_min(box + 1, x);
            jg::atomic_max(box + 2, y + 1);
        }
    }
}

template <int K> JG_FN void count_row(const Planes<K>& row, int b, int y, int width, int capacity,
                                      int32_t* counts, int32_t* boxes, int32_t* extremes)
{
    JG_FOR(g, (width + GROUP - 1) / GROUP) {
        const int x0 = g * GROUP, x1 = jg::smaller(x0 + GROUP, width);
        int32_t change = x0 == 0 || x1 == width;
        if (!change)
            for (int k = 0; k < K; ++k) {
                const int32_t* at = row.v[k] + x0;
                for (int i = 0; i < GROUP; ++i) change |= at[i] ^ at[i - 1];
            }
        if (!change) continue;
        Tuple<K> before;
        for (int k = 0; k < K; ++k) before.v[k] = x0 ? row.v[k][x0 - 1] : 0;
        for (int x = x0; x < x1; ++x) {
            Tuple<K> here;
            bool equal = true;
            for (int k = 0; k < K; ++k) { here.v[k] = row.v[k][x]; equal &= here.v[k] == before.v[k]; }
            if (equal) continue;
            mark<K>(before, true, b, y, x, capacity, counts, boxes, extremes);
            mark<K>(here, false, b, y, x, capacity, counts, boxes, extremes);
            before = here;
        }
        if (x1 == width) mark<K>(before, true, b, y, width, capacity, counts, boxes, extremes);
    }
}

// In   first .. fourth  int32 [B, H, W]  labels, 0 is background; those past `compartments` are not read
// Out  counts    int32 [B, capacity, 2^compartments]     pixels of each cell by pattern; zeros before
//      boxes     int32 [B, capacity, compartments, 4]    half-open y0, x0, y1, x1; (big, big, 0, 0) before
//      extremes  int32 [B, 2]                            highest and lowest label other than 0; zeros before
extern "C" __global__ void __launch_bounds__(128, 8) count_objects(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, const int32_t* __restrict__ third,
    const int32_t* __restrict__ fourth, int32_t compartments, int32_t capacity, int32_t height, int32_t width,
    int32_t* __restrict__ counts, int32_t* __restrict__ boxes, int32_t* __restrict__ extremes)
{
    const int b = int(blockIdx.x) / height, y = int(blockIdx.x) % height;
    const int64_t at = int64_t(blockIdx.x) * width;
    if (compartments == 1) count_row<1>({{first + at}}, b, y, width, capacity, counts, boxes, extremes);
    if (compartments == 2) count_row<2>({{first + at, second + at}}, b, y, width, capacity, counts, boxes, extremes);
    if (compartments == 3) count_row<3>({{first + at, second + at, third + at}}, b, y, width, capacity, counts, boxes, extremes);
    if (compartments == 4)
        count_row<4>({{first + at, second + at, third + at, fourth + at}}, b, y, width, capacity, counts, boxes, extremes);
}
JG_REGISTER(count_objects)

// What of a cell follows from its counts and boxes.
struct Cell {
    int32_t area[4], lines[4], columns[4];              // by compartment; areas and boxes of none are 0
    int32_t of_class[CLASSES];
    int32_t size;                                       // of all its lists
    bool shared;                                        // every pattern it has stands in the class order: listed once
};
JG_FN Cell cell_of(const int32_t* count, const int32_t* box, const int32_t* class_of, int compartments) {
    Cell c = {};
    c.shared = true;
    for (int p = 1; p < 1 << compartments; ++p) {
        const int n = count[p], at = class_of[p];
        if (n == 0) continue;
        for (int k = 0; k < compartments; ++k) c.area[k] += p >> k & 1 ? n : 0;
        if (at < 0) c.shared = false;
        for (int i = 0; i < CLASSES; ++i) c.of_class[i] += i == at ? n : 0;
        c.size += n;
    }
    for (int k = 0; k < compartments; ++k) {
        c.lines[k] = jg::larger(box[4 * k + 2] - box[4 * k], 0);
        c.columns[k] = jg::larger(box[4 * k + 3] - box[4 * k + 1], 0);
    }
    if (c.shared) return c;
    c.size = 0;
    for (int k = 0; k < compartments; ++k) c.size += c.area[k];
    return c;
}

// What the host must know of each field. One thread per entry of the table of counts.
//
// In   counts, boxes, extremes  of count_objects
//      class_of  int32  [2^compartments]   place of a pattern in the class order, -1 for one that has none
// Out  seen      uint64 [B, SEEN]          zeros before
enum Seen { HIGHEST, BELOW, PRESENT, PIXELS, COLUMNS, BOX_PIXELS, ROW_PIXELS, LARGEST, LARGEST_BOX, LINES, SEEN = LINES + 4 };  // objects.py
constexpr int PITCH = 8;        // a box's lines in scratch start at multiples of this (objects.py)
extern "C" __global__ void __launch_bounds__(128, 8) sum_objects(
    const int32_t* __restrict__ counts, const int32_t* __restrict__ boxes, const int32_t* __restrict__ extremes,
    const int32_t* __restrict__ class_of, int32_t compartments, int32_t capacity, int64_t fields, uint64_t* __restrict__ seen)
{
    JG_FOR_ITEMS(i, fields * capacity) {
        const int64_t b = i / capacity;
        const int highest = extremes[2 * b], lowest = extremes[2 * b + 1], n = int(i - b * capacity);
        uint64_t* of = seen + b * SEEN;
        if (n == 0) {
            of[HIGHEST] = uint64_t(highest);
            of[BELOW] = uint64_t(-int64_t(lowest));
        }
        if (n >= highest) continue;
        const Cell c = cell_of(counts + (i << compartments), boxes + i * compartments * 4, class_of, compartments);
        jg::atomic_sum(of + PRESENT, uint64_t(c.size > 0));
        jg::atomic_sum(of + PIXELS, uint64_t(c.size));
        for (int k = 0; k < compartments; ++k) {
            const int pitch = (c.columns[k] + PITCH - 1) / PITCH * PITCH;
            jg::atomic_sum(of + LINES + k, uint64_t(c.lines[k]));
            jg::atomic_sum(of + COLUMNS, uint64_t(c.columns[k]));
            jg::atomic_sum(of + BOX_PIXELS, uint64_t(c.lines[k]) * uint64_t(c.columns[k]));
            jg::atomic_sum(of + ROW_PIXELS, uint64_t(c.area[k]));
            jg::atomic_max(of + LARGEST, uint64_t(c.area[k]));
            jg::atomic_max(of + LARGEST_BOX, uint64_t(c.lines[k]) * uint64_t(pitch));
        }
    }
}
JG_REGISTER(sum_objects)

// The cells of all fields, one after the other, a thread per cell. Where lists and rows begin is counted from the cell's own first.
//
// In   counts, boxes, class_of   as above
//      field_start  int64 [B + 1]      each field's first cell
// Out  field, number, shared  int32 [N]
//      size      int64 [N + 1]         0, then the pixels of each cell's lists
//      lines     int64 [K * N + 1]     0, then the lines of each row's box
//      area      int64 [K, N]          pixels of each row
//      first     int64 [K, N]          its first entry
//      lists     int64 [N, CLASSES]    the first entry of each list
//      box       int32 [K, N, 4];  cell_box  int32 [N, 4]
extern "C" __global__ void __launch_bounds__(128, 8) describe_objects(
    const int32_t* __restrict__ counts, const int32_t* __restrict__ boxes, const int32_t* __restrict__ class_of,
    const int64_t* __restrict__ field_start, int32_t compartments, int32_t capacity, int64_t cells,
    int32_t* __restrict__ field, int32_t* __restrict__ number, int32_t* __restrict__ shared, int64_t* __restrict__ size,
    int64_t* __restrict__ lines, int64_t* __restrict__ area, int64_t* __restrict__ first, int64_t* __restrict__ lists,
    int32_t* __restrict__ box, int32_t* __restrict__ cell_box)
{
    JG_FOR_ITEMS(i, cells + 1) {
        if (i == cells) { size[0] = lines[0] = 0; continue; }
        int b = 0;
        while (field_start[b + 1] <= i) ++b;
        const int n = int(i - field_start[b]);
        const int64_t at = int64_t(b) * capacity + n;
        const int32_t* from = boxes + at * compartments * 4;
        const Cell c = cell_of(counts + (at << compartments), from, class_of, compartments);
        field[i] = b;
        number[i] = n + 1;
        shared[i] = c.shared;
        size[i + 1] = c.size;
        int before = 0, begin[CLASSES], min_y = 1 << 30, min_x = 1 << 30, max_y = 0, max_x = 0;
        for (int l = 0; l < CLASSES; ++l) {
            begin[l] = before;
            lists[i * CLASSES + l] = before;
            before += c.shared ? c.of_class[l] : l < compartments ? c.area[l] : 0;
        }
        for (int k = 0; k < compartments; ++k) {
            int own = k;
            if (c.shared) {                            // the first class that it is in
                own = CLASSES - 1;
                for (int p = 1; p < 1 << compartments; ++p)
                    if ((p >> k & 1) && class_of[p] >= 0) own = jg::smaller(own, class_of[p]);
            }
            const int64_t row = k * cells + i;
            const bool any = c.area[k] > 0;
            area[row] = c.area[k];
            lines[row + 1] = any ? c.lines[k] : 0;
            int start = 0;
            for (int l = 0; l < CLASSES; ++l) start = l == own ? begin[l] : start;
            first[row] = start;
            for (int j = 0; j < 4; ++j) box[4 * row + j] = any ? from[4 * k + j] : 0;
            if (!any) continue;
            min_y = jg::smaller(min_y, from[4 * k]);
            min_x = jg::smaller(min_x, from[4 * k + 1]);
            max_y = jg::larger(max_y, from[4 * k + 2]);
            max_x = jg::larger(max_x, from[4 * k + 3]);
        }
        cell_box[4 * i] = min_y;
        cell_box[4 * i + 1] = min_x;
        cell_box[4 * i + 2] = max_y;
        cell_box[4 * i + 3] = max_x;
    }
}
JG_REGISTER(describe_objects)

// Calls put(list, x) for each entry that row y of a box adds to the cell's lists.
template <int K, class F> JG_FN void each_entry(const Planes<K>& row, int x0, int x1, int n, bool shared,
                                                const int32_t* class_of, F put)
{
    for (int x = x0; x < x1; ++x) {
        int pattern = 0;
        for (int k = 0; k < K; ++k) pattern |= int(row.v[k][x] == n) << k;
        if (pattern == 0) continue;
        if (shared) put(class_of[pattern], x);
        else for (int k = 0; k < K; ++k) if (pattern >> k & 1) put(k, x);
    }
}

template <int K> JG_FN void list_cell(const Planes<K>& planes, int n, bool shared, const int32_t* box, const int64_t* list_start,
                                      const int32_t* class_of, int width, int field, Placed& placed,
                                      int32_t* pixel, int32_t* pixel_field)
{
    const int y0 = box[0], x0 = box[1], y1 = box[2], x1 = box[3];
    int64_t at[CLASSES];
    for (int c = 0; c < CLASSES; ++c) at[c] = list_start[c];
    for (int band = y0; band < y1; band += BAND) {
        const int rows = jg::smaller(BAND, y1 - band);
        JG_FOR(r, rows) {
            Planes<K> row;
            for (int k = 0; k < K; ++k) row.v[k] = planes.v[k] + int64_t(band + r) * width;
            if (band + r + AHEAD < y1)
                for (int k = 0; k < K; ++k) jg::fetch_ahead(row.v[k] + int64_t(AHEAD) * width + x0, x1 - x0);
            int32_t sum[CLASSES] = {};
            each_entry<K>(row, x0, x1, n, shared, class_of, [&](int c, int) { ++sum[c]; });
            for (int c = 0; c < CLASSES; ++c) placed.v[r + 1][c] = sum[c];
        }
        JG_ONCE for (int c = 0; c < CLASSES; ++c) placed.v[0][c] = 0;
        __syncthreads();
        JG_FOR(c, CLASSES) for (int r = 0; r < rows; ++r) placed.v[r + 1][c] += placed.v[r][c];
        __syncthreads();
        JG_FOR(r, rows) {
            Planes<K> row;
            for (int k = 0; k < K; ++k) row.v[k] = planes.v[k] + int64_t(band + r) * width;
            int64_t to[CLASSES];
            for (int c = 0; c < CLASSES; ++c) to[c] = at[c] + placed.v[r][c];
            each_entry<K>(row, x0, x1, n, shared, class_of, [&](int c, int x) {
                pixel[to[c]] = (band + r) << 16 | x;
                pixel_field[to[c]++] = field;
            });
        }
        for (int c = 0; c < CLASSES; ++c) at[c] += placed.v[rows][c];
        __syncthreads();
    }
}

// In   first .. fourth  int32 [B, H, W]  labels, as counted
//      field       int32 [N]          position in the batch of each cell's field
//      number      int32 [N]          its label
//      cell_box    int32 [N, 4]       the box of all its compartments together
//      list_start  int64 [N, CLASSES] first entry of each of its lists
//      shared      int32 [N]          1: listed by class, 0: by compartment
//      class_of    int32 [2^compartments]  place of a pattern in the class order
// Out  pixel       int32 [P]          y << 16 | x
//      pixel_field int32 [P]
extern "C" __global__ void __launch_bounds__(128, 8) list_objects(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, const int32_t* __restrict__ third,
    const int32_t* __restrict__ fourth, int32_t compartments, int32_t height, int32_t width,
    const int32_t* __restrict__ field, const int32_t* __restrict__ number, const int32_t* __restrict__ cell_box,
    const int64_t* __restrict__ list_start, const int32_t* __restrict__ shared, const int32_t* __restrict__ class_of,
    int32_t* __restrict__ pixel, int32_t* __restrict__ pixel_field)
{
    JG_SHARED(Placed, placed);
    const int cell = int(blockIdx.x), n = number[cell], b = field[cell];
    const bool once = shared[cell] != 0;
    const int64_t at = int64_t(b) * height * width;
    const int32_t* box = cell_box + cell * 4;
    const int64_t* lists = list_start + int64_t(cell) * CLASSES;
    if (compartments == 1) list_cell<1>({{first + at}}, n, once, box, lists, class_of, width, b, placed, pixel, pixel_field);
    if (compartments == 2) list_cell<2>({{first + at, second + at}}, n, once, box, lists, class_of, width, b, placed, pixel, pixel_field);
    if (compartments == 3)
        list_cell<3>({{first + at, second + at, third + at}}, n, once, box, lists, class_of, width, b, placed, pixel, pixel_field);
    if (compartments == 4)
        list_cell<4>({{first + at, second + at, third + at, fourth + at}}, n, once, box, lists, class_of, width, b, placed, pixel, pixel_field);
}
JG_REGISTER(list_objects)

// In   pixels      float32 [B, C, H, W]  corrected intensity, 0..1
//      pixel       int32   [P]           y << 16 | x
//      cell_start  int64   [N + 1]       each cell's range of pixel
//      field       int32   [N]
// Out  values      float32 [C, P]
extern "C" __global__ void __launch_bounds__(128, 8) gather_values(
    const float* __restrict__ pixels, const int32_t* __restrict__ pixel, const int64_t* __restrict__ cell_start,
    const int32_t* __restrict__ field, int64_t n_pixels, int32_t channels, int32_t height, int32_t width,
    float* __restrict__ values)
{
    const int cell = int(blockIdx.x) / channels, c = int(blockIdx.x) % channels;
    const int64_t start = cell_start[cell];
    const int n = int(cell_start[cell + 1] - start);
    const float* __restrict__ plane = pixels + (int64_t(field[cell]) * channels + c) * height * width;
    const int32_t* __restrict__ from = pixel + start;
    float* __restrict__ to = values + c * n_pixels + start;
    const auto place = [&](int i) { return (from[i] >> 16) * width + (from[i] & 0xffff); };
    for (int i0 = 0; i0 < n; i0 += jg::smaller(NEARBY, n)) {   // lines of a cell lie far apart: asked for before they are needed
        const int i1 = jg::smaller(NEARBY, n - i0) + i0;
        jg::fetch_ahead(plane + place(jg::smaller(i0 + WELL_AHEAD, n - 1)), 1);
        JG_FOR_OWN(i, i0, i1) to[i] = plane[place(i)];
    }
}
JG_REGISTER(gather_values)
