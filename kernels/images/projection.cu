// projection.cu: the planes of a field made one image per channel, plane by plane as they are decoded.
//
//   project_max   max(p) = larger of max(p) and plane(p)
//   project_sum   sum(p) = sum(p) + plane(p); the mean is the sum over the number of planes, which `correct_sums` divides by
//
// Source   CellProfiler MakeProjection (Maximum, Average), whose average adds float32 numbers plane by plane; the sum is exact here.
// Oracle   NumPy; CellProfiler's arithmetic (tests/images/test_projection.py)
// Launch   the chunks of an image follow each other, jg::ITEMS pixels each; any block size; no shared memory.
// Order    integers; a pixel stays with one thread.
#include "jg/jg.cuh"

namespace jg {

// fold(number in the images, pixel of the plane) for each pixel of a block's chunk.
template <class Fold>
JG_FN void each_pixel(const uint16_t* planes, const int32_t* places, int64_t n_pixels, Fold fold) {
    const int64_t chunks = (n_pixels + ITEMS - 1) / ITEMS;
    const int64_t plane = int64_t(blockIdx.x) / chunks;
    const int64_t start = (int64_t(blockIdx.x) - plane * chunks) * ITEMS;
    const int n = int(smaller(int64_t(ITEMS), n_pixels - start));
    const uint16_t* const from = planes + plane * n_pixels + start;
    const int64_t to = int64_t(places[plane]) * n_pixels + start;
    JG_FOR(i, n) fold(to + i, from[i]);
}

}  // namespace jg

// In      planes  uint16 [M, n_pixels]   a plane of each of M images
//         places  int32  [M]             their numbers among the images; none twice
// In/out  images  uint16 [images, n_pixels]   0 before the first plane
extern "C" __global__ void __launch_bounds__(128, 8) project_max(
    const uint16_t* __restrict__ planes, const int32_t* __restrict__ places, int64_t n_pixels, uint16_t* __restrict__ images)
{
    jg::each_pixel(planes, places, n_pixels, [&](int64_t at, uint16_t v) { images[at] = images[at] < v ? v : images[at]; });
}
JG_REGISTER(project_max)

// In      planes, places   as above
// In/out  sums    int32  [images, n_pixels]   0 before the first plane; below 2^24 for 256 planes
extern "C" __global__ void __launch_bounds__(128, 8) project_sum(
    const uint16_t* __restrict__ planes, const int32_t* __restrict__ places, int64_t n_pixels, int32_t* __restrict__ sums)
{
    jg::each_pixel(planes, places, n_pixels, [&](int64_t at, uint16_t v) { sums[at] += v; });
}
JG_REGISTER(project_sum)
