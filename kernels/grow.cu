// grow.cu: seeds grown into cells by distance.
//
//   Each pixel within N of a seed pixel takes the label of the nearest one; of equals the leftmost, then the topmost.
//
// Source   CellProfiler IdentifySecondaryObjects; SciPy's order of ties.
// Oracle   scipy.ndimage.distance_transform_edt (tests/test_grow_centrosome.py)
// Launch   a block a row.
// Order    comparisons of integers.
#include "jg.cuh"

namespace {
constexpr int NOWHERE = 0x7fff;
}  // namespace

// In   seeds   int32 [B, H, W]
// Out  rise    int16 [B, H, W]   y of the nearest seed pixel in the column less y, at most `reach`; the upper of equals; 0x7fff: none
extern "C" __global__ void __launch_bounds__(128, 8) nearest_in_column(
    const int32_t* __restrict__ seeds, int32_t height, int32_t width, int32_t reach, int16_t* __restrict__ rise)
{
    const int y = int(blockIdx.x) % height;
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        int found = seeds[at + x] ? 0 : NOWHERE;
        for (int k = 1; k <= reach && found == NOWHERE; ++k) {
            if (y >= k && seeds[at + x - int64_t(k) * width]) found = -k;
            else if (y + k < height && seeds[at + x + int64_t(k) * width]) found = k;
        }
        rise[at + x] = int16_t(found);
    }
}
JG_REGISTER(nearest_in_column)

// Out  labels  int32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) grow_by_distance(
    const int32_t* __restrict__ seeds, const int16_t* __restrict__ rise, int32_t width, int32_t reach,
    int32_t* __restrict__ labels)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    JG_FOR(x, width) {
        int best = reach * reach + 1, dx = 0, dy = 0;
        for (int u = jg::most(0, x - reach); u <= jg::least(width - 1, x + reach); ++u) {
            const int up = rise[at + u], squared = up == NOWHERE ? best : up * up + (u - x) * (u - x);
            if (squared < best) { best = squared; dx = u - x; dy = up; }
        }
        labels[at + x] = best <= reach * reach ? seeds[at + x + dx + int64_t(dy) * width] : 0;
    }
}
JG_REGISTER(grow_by_distance)
