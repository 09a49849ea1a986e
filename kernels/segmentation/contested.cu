// contested.cu: the pixels that several seeds contend for, listed in raster order and ranked for the watershed.
//
//   depth = 1 - intensity, or minus the distance to the edge, or that less a fixed tiny random number per pixel. Pixels are sorted by
//   it (by the library, stably, so that equal ones stay in raster order); a pixel's key is its place among all of the batch.
//
// Source   CellProfiler IdentifyPrimaryObjects: the landscape of its declumping watershed.
// Oracle   torch's nonzero and sort (tests/segmentation/test_contested.py)
// Launch   list_contested: a block a band of BAND rows, a warp per row. rank_contested: a thread a place of the list. Any size.
// Order    lists are placed by counting; sqrt is IEEE's; the sort is stable, so keys are unique.
//
// A list has `capacity` places: what lies beyond is not listed, and the caller learns that from the count.
#include "jg/jg.cuh"

constexpr int BAND = 4;                                // declump.py: BAND
enum Depth { INTENSITY, DISTANCE, JITTERED };          // declump.py: DEPTHS

// In   contested  uint8   [B, H, W]
//      upto       int64   [B, H]      contested pixels of the rows up to this one
//      image      float64 [B, H, W]   read for INTENSITY only
//      squared    int32   [B, H, W]   squared distance to the edge; read for the others
//      jitter     float64 [H, W]      read for JITTERED
// Out  place      int64   [capacity]      index in the batch
//      depth      float64 [capacity]
extern "C" __global__ void __launch_bounds__(128, 8) list_contested(
    const uint8_t* __restrict__ contested, const int64_t* __restrict__ upto, const double* __restrict__ image,
    const int32_t* __restrict__ squared, const double* __restrict__ jitter, int32_t height, int32_t width, int64_t rows,
    int32_t kind, int64_t capacity, int64_t* __restrict__ place, double* __restrict__ depth)
{
    const int64_t first = int64_t(blockIdx.x) * BAND, end = jg::smaller(first + BAND, rows);
    for (int64_t row = first + jg::warp_id(); row < end; row += jg::warps()) {
        const int64_t before = row ? upto[row - 1] : 0;
        if (upto[row] == before) continue;
        const int64_t at = row * width, of_field = row % height * width;
        jg::warp_pick(width, [&](int x) { return contested[at + x]; }, [&](int x, int k) {
            if (before + k >= capacity) return;
            place[before + k] = at + x;
            double d;
            if (kind == INTENSITY) d = 1.0 - image[at + x];
            else d = -sqrt(double(squared[at + x]));
            depth[before + k] = kind == JITTERED ? d - jitter[of_field + x] : d;
        });
    }
}
JG_REGISTER(list_contested)

// In   order  int64  [capacity]              places of the list by rising depth; those past the count come last
//      place  int64  [capacity]
//      count  int64  [1]                 listed pixels
// Out  key    uint32 [B, H + 2, W + 2]   framed; 0xffffffff before and where nothing is contested
extern "C" __global__ void __launch_bounds__(128, 8) rank_contested(
    const int64_t* __restrict__ order, const int64_t* __restrict__ place, const int64_t* __restrict__ count, int64_t capacity,
    int32_t height, int32_t width, uint32_t* __restrict__ key)
{
    const int64_t n = jg::smaller(capacity, count[0]);
    JG_FOR_ITEMS(i, n) {
        const int64_t p = place[order[i]], row = p / width;
        key[(row + 2 * (row / height) + 1) * (width + 2) + p % width + 1] = uint32_t(i);
    }
}
JG_REGISTER(rank_contested)
