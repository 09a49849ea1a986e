// objects.cu: the pixels of a batch's objects, listed, and their values gathered into list order.
//
// Source   design.md, 'Arrays': one list a cell, so that Cytoplasm, Nuclei and Cells are ranges of it.
// Oracle   NumPy on drawn labels (tests/test_objects_numpy.py)
// Launch   a thread an item over the grid (JG_FOR_ITEMS), any block size; no shared memory.
// Order    nothing is accumulated.
#include "jg.cuh"

// In   pixels       float32 [B, C, H, W]   corrected intensity, 0..1
//      pixel        int32   [P]            y << 16 | x
//      pixel_field  int32   [P]            position in the batch of each pixel's field
// Out  values       float32 [C, P]
extern "C" __global__ void __launch_bounds__(128, 8) gather_values(
    const float* __restrict__ pixels, const int32_t* __restrict__ pixel, const int32_t* __restrict__ pixel_field,
    int64_t n_pixels, int32_t channels, int32_t height, int32_t width, float* __restrict__ values)
{
    JG_FOR_ITEMS(i, n_pixels) {
        const int y = pixel[i] >> 16, x = pixel[i] & 0xffff;
        const int64_t plane = int64_t(height) * width;
        const float* __restrict__ at = pixels + int64_t(pixel_field[i]) * channels * plane + int64_t(y) * width + x;
        for (int c = 0; c < channels; ++c) values[c * n_pixels + i] = at[c * plane];
    }
}
JG_REGISTER(gather_values)
