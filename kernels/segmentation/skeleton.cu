// skeleton.cu: a mask is thinned to lines, pixel after pixel in a given order.
//
//   A pixel stays if the table says so of its 3 x 3 neighbourhood as it is when its turn comes, after all pixels before it. Pixels of
//   the image's first row always stay, as centrosome leaves them.
//
// Source   centrosome skeletonize, of CellProfiler MeasureObjectSkeleton and Morph.
// Oracle   centrosome.cpmorphology.skeletonize (tests/features/test_skeleton.py)
// Launch   a block per field, of which one thread works: each pixel depends on those before it. Any block size.
// Order    the given one.
#include "jg/jg.cuh"

// In   order   int32 [n]      pixels of all fields, each as y * width + x of its field
//      start   int64 [B + 1]  first of each field's
//      table   uint8 [512]    by neighbourhood: bit 3 (dy + 1) + dx + 1 is the pixel at dy, dx; beyond the image none is set
// In and out  points  uint8 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) thin_in_order(
    const int32_t* __restrict__ order, const int64_t* __restrict__ start, const uint8_t* __restrict__ table, int32_t height,
    int32_t width, uint8_t* __restrict__ points)
{
    uint8_t* __restrict__ mine = points + int64_t(blockIdx.x) * height * width;
    JG_ONCE {
        for (int64_t i = start[blockIdx.x]; i < start[blockIdx.x + 1]; ++i) {
            const int y = order[i] / width, x = order[i] % width;
            if (y == 0) continue;
            int index = 16;
            for (int bit = 0; bit < 9; ++bit) {
                const int v = y + bit / 3 - 1, u = x + bit % 3 - 1;
                if (bit != 4 && v >= 0 && v < height && u >= 0 && u < width && mine[int64_t(v) * width + u]) index |= 1 << bit;
            }
            mine[order[i]] = table[index];
        }
    }
}
JG_REGISTER(thin_in_order)
