// queue.cu: floods that CellProfiler runs from one queue, entry after entry, with its order among equals.
//
//   flood_in_queue    watershed: the entry with the smallest value goes first, of equals the one that came earlier; a pixel takes its
//                     label when it enters. Seeds enter in raster order as equals, so that the heap's own moves decide among them.
//   spread_in_queue   labels along the shortest way, steps 1 or the root of 2: the entry with the smallest way goes first, of equals
//                     (the last bit of a way does not count) the lowest label, then the first in raster order.
//
//                     Seeds stand in the queue in raster order, which the heap's moves only then put in its own.
//
// Where no two values are equal watershed.cu gives the same labels as flood_in_queue, by many threads. The heaps are those of the
// sources: a parent is 2 i + 1's and 2 i + 2's, the last entry fills the first's place, and equals do not move.
//
// Source   scikit-image 0.18.3 watershed, centrosome propagate; CellProfiler IdentifyPrimaryObjects, IdentifySecondaryObjects,
//          MeasureObjectSkeleton, MeasureObjectIntensityDistribution.
// Oracle   scikit-image, centrosome (tests/segmentation/test_queue.py); CellProfiler's labels of raw images
// Launch   a block per field, of which one thread works. Any block size.
// Order    the queue's.
#include "jg/jg.cuh"

namespace {
struct Entry { double value; int32_t tie, place; };

JG_FN bool before(const Entry& a, const Entry& b) { return a.value != b.value ? a.value < b.value : a.tie < b.tie; }
JG_FN bool before_all(const Entry& a, const Entry& b) {
    return a.value != b.value || a.tie != b.tie ? before(a, b) : a.place < b.place;
}

// An entry's place is found before it is written; the comparisons are the sources', whose entries swap places on the way.
template <class E, class F> JG_FN void push(E* heap, int& n, const E& entry, F less) {
    int child = n++;
    while (child > 0) {
        const int parent = (child + 1) / 2 - 1;
        if (!less(entry, heap[parent])) break;
        heap[child] = heap[parent];
        child = parent;
    }
    heap[child] = entry;
}

// The hole goes down to the end along the smaller children, and the last entry from there up to its place: the same place as on the
// way down, since entries rise along it, and a branch fewer that cannot be foreseen.
template <class E, class F> JG_FN E pop(E* heap, int& n, F less) {
    const E first = heap[0];
    if (--n == 0) return first;
    const E last = heap[n];
    int i = 0, child = 1;
    for (; child + 1 < n; child = 2 * i + 1) {
        jg::fetch_to_write(heap + jg::smaller(4 * i + 3, n));
        child += less(heap[child + 1], heap[child]);
        heap[i] = heap[child];
        i = child;
    }
    if (child < n) {
        heap[i] = heap[child];
        i = child;
    }
    while (i > 0) {
        const int parent = (i + 1) / 2 - 1;
        if (less(heap[parent], last)) break;
        heap[i] = heap[parent];
        i = parent;
    }
    heap[i] = last;
    return first;
}

// A way without its last bit, which does not count; it is not negative, so its bits are ordered as it is.
JG_FN double without_last_bit(double way) {
    union { double value; uint64_t bits; } u = {way};
    u.bits &= ~uint64_t(1);
    return u.value;
}

// Entries of flood_in_queue where heights are float32 values: a height's bits in their order, above a number that is an age, the seeds'
// being lower than any; seeds of one height are equals. `place` says which pixel a number is.
JG_FN uint64_t short_entry(double height, uint32_t number) {
    const int32_t bits = jg::bits_of(float(height) + 0.0f);
    const uint32_t key = bits < 0 ? ~uint32_t(bits) : uint32_t(bits) | 0x80000000u;
    return uint64_t(key) << 32 | number;
}

template <class E, class Make, class Less, class Place> JG_FN void flood(
    E* entries, const double* __restrict__ v, const uint8_t* __restrict__ inside, int height, int width, int directions,
    int32_t* __restrict__ label, Make make, Less less, Place place_of)
{
    constexpr int DY[8] = {-1, 0, 0, 1, -1, -1, 1, 1}, DX[8] = {0, -1, 1, 0, -1, 1, -1, 1};
    int n = 0;
    for (int i = 0; i < height * width; ++i)
        if (label[i]) push(entries, n, make(v[i], i, true), less);
    while (n > 0) {
        const int place = place_of(pop(entries, n, less)), y = place / width, x = place % width;
        for (int k = 0; k < directions; ++k) {
            const int to_y = y + DY[k], to_x = x + DX[k], to = to_y * width + to_x;
            if (to_y < 0 || to_y >= height || to_x < 0 || to_x >= width || !inside[to] || label[to]) continue;
            label[to] = label[place];
            push(entries, n, make(v[to], to, false), less);
        }
    }
}
}  // namespace

// In   value   float64 [B, H, W];  mask  uint8 [B, H, W];  seeds  int32 [B, H, W], of which those outside the mask do not count
//      directions   8, or 4 without corners
//      singles      1: the values are of single precision, and entries half as long
// Out  labels  int32 [B, H, W]
//      heap    float64 [B, 2 H W]   scratch
extern "C" __global__ void __launch_bounds__(128, 8) flood_in_queue(
    const double* __restrict__ value, const uint8_t* __restrict__ mask, const int32_t* __restrict__ seeds, int32_t height,
    int32_t width, int32_t directions, int32_t singles, int32_t* __restrict__ labels, double* __restrict__ heap)
{
    const int plane = height * width;
    const int64_t at = int64_t(blockIdx.x) * plane;
    const double* __restrict__ v = value + at;
    const uint8_t* __restrict__ inside = mask + at;
    int32_t* __restrict__ label = labels + at;
    JG_FOR(i, plane) label[i] = inside[i] ? seeds[at + i] : 0;
    __syncthreads();
    JG_ONCE {
        if (singles) {
            uint64_t* entries = reinterpret_cast<uint64_t*>(heap + 2 * at);
            int32_t* pixel = reinterpret_cast<int32_t*>(entries + plane);
            uint32_t n_seeds = 0, number = 0;
            for (int i = 0; i < plane; ++i) n_seeds += label[i] != 0;
            flood(entries, v, inside, height, width, directions, label, [&](double h, int i, bool) {
                pixel[number] = i;
                return short_entry(h, number++);
            }, [&](uint64_t a, uint64_t b) {
                return a < b && ((a ^ b) >> 32 != 0 || uint32_t(b) >= n_seeds);
            }, [&](uint64_t e) { return int(pixel[uint32_t(e)]); });
        } else {
            int age = 0;
            flood(reinterpret_cast<Entry*>(heap + 2 * at), v, inside, height, width, directions, label,
                  [&](double h, int i, bool seed) { return Entry{h, seed ? 0 : ++age, i}; }, before,
                  [](const Entry& e) { return int(e.place); });
        }
    }
}
JG_REGISTER(flood_in_queue)

// In   mask    uint8 [B, H, W];  seeds  int32 [B, H, W], which keep their label in the mask or out of it
// Out  labels  int32 [B, H, W];  way  float64 [B, H, W]   pixels; -1 where none leads
//      heap    float64 [B, 2 capacity]   scratch; room at least 3 H W, since a pixel enters again only when a straight step follows a
//              slanting one
extern "C" __global__ void __launch_bounds__(128, 8) spread_in_queue(
    const uint8_t* __restrict__ mask, const int32_t* __restrict__ seeds, int32_t height, int32_t width, int64_t capacity,
    int32_t* __restrict__ labels, double* __restrict__ way, double* __restrict__ heap)
{
    const int plane = height * width;
    const int64_t at = int64_t(blockIdx.x) * plane;
    const uint8_t* __restrict__ inside = mask + at;
    int32_t* __restrict__ label = labels + at;
    double* __restrict__ d = way + at;
    JG_FOR(i, plane) {
        label[i] = 0;
        d[i] = seeds[at + i] > 0 ? 0.0 : -1.0;
    }
    __syncthreads();
    JG_ONCE {
        Entry* entries = reinterpret_cast<Entry*>(heap + 2 * int64_t(blockIdx.x) * capacity);
        int n = 0;
        for (int i = 0; i < plane; ++i)
            if (seeds[at + i] && inside[i]) entries[n++] = Entry{0.0, seeds[at + i], i};   // as they come: no heap yet
        while (n > 0) {
            const Entry first = pop(entries, n, before_all);
            if (label[first.place]) continue;
            label[first.place] = first.tie;
            const int y = first.place / width, x = first.place % width;
            for (int k = 0; k < 9; ++k) {
                const int to_y = y + k / 3 - 1, to_x = x + k % 3 - 1, to = to_y * width + to_x;
                if (k == 4 || to_y < 0 || to_y >= height || to_x < 0 || to_x >= width || label[to] > 0 || !inside[to]) continue;
                const double sum = sqrt(double(k % 2 ? 1 : 2)) + d[first.place];
                if (d[to] == -1 || d[to] > sum) {
                    d[to] = sum;
                    push(entries, n, Entry{without_last_bit(sum), first.tie, to}, before_all);
                }
            }
        }
        for (int i = 0; i < plane; ++i)
            if (seeds[at + i] > 0) label[i] = seeds[at + i];
    }
}
JG_REGISTER(spread_in_queue)
