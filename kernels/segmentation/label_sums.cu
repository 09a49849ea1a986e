// label_sums.cu: pixels and sums of places of every object, and how many pixels objects of two sets share.
//
// Source   CellProfiler's add_object_location_measurements and relate_children
// Oracle   NumPy's bincount (tests/segmentation/test_label_sums.py)
// Launch   a block a row of a field; no shared memory. Runs of one label are added up first.
// Order    none matters: whole numbers
#include "jg/jg.cuh"

// In   labels    int32 [B, H, W]            0 .. capacity - 1
// Out  sums      uint64 [B, capacity, 3]    zeros at first: pixels, sum of x, sum of y; of label 0 nothing
extern "C" __global__ void __launch_bounds__(128, 8) label_sums(
    const int32_t* __restrict__ labels, int32_t height, int32_t width, int32_t capacity, uint64_t* __restrict__ sums)
{
    const int y = int(blockIdx.x) % height;
    const int32_t* __restrict__ row = labels + int64_t(blockIdx.x) * width;
    uint64_t* __restrict__ out = sums + int64_t(int(blockIdx.x) / height) * capacity * 3;
    JG_FOR(start, width) {
        const int mine = row[start];
        if (mine == 0 || (start > 0 && row[start - 1] == mine)) continue;    // a run is its first pixel's thread's
        int end = start + 1;
        while (end < width && row[end] == mine) ++end;
        const uint64_t n = uint64_t(end - start);
        jg::atomic_sum(&out[int64_t(mine) * 3], n);
        jg::atomic_sum(&out[int64_t(mine) * 3 + 1], n * uint64_t(start + end - 1) / 2);
        jg::atomic_sum(&out[int64_t(mine) * 3 + 2], n * uint64_t(y));
    }
}
JG_REGISTER(label_sums)

// In   first, second   int32 [B, H, W]      labels 0 .. rows - 1 and 0 .. columns - 1
// Out  shared          uint32 [B, rows, columns]   zeros at first: pixels that have both; nothing where either is 0
extern "C" __global__ void __launch_bounds__(128, 8) shared_pixels(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, int32_t height, int32_t width, int32_t rows,
    int32_t columns, uint32_t* __restrict__ shared)
{
    const int32_t* __restrict__ a = first + int64_t(blockIdx.x) * width;
    const int32_t* __restrict__ b = second + int64_t(blockIdx.x) * width;
    uint32_t* __restrict__ out = shared + int64_t(int(blockIdx.x) / height) * rows * columns;
    JG_FOR(start, width) {
        const int i = a[start], j = b[start];
        if (i == 0 || j == 0 || (start > 0 && a[start - 1] == i && b[start - 1] == j)) continue;
        int end = start + 1;
        while (end < width && a[end] == i && b[end] == j) ++end;
        jg::atomic_sum(&out[int64_t(i) * columns + j], uint32_t(end - start));
    }
}
JG_REGISTER(shared_pixels)
