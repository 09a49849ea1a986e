// illumination.cu: raw counts summed over the fields of a plate, and divided by their illumination function.
//
//   correct          I(p) = min(max(raw(p) / s / f(p), 0), 1), NaN -> 0; s the image's full scale; two float32 divisions, each rounded
//   correct_sums     the same of sums of planes, whose mean a projection is
//   accumulate_fields sum(p) += raw_0(p) + ... + raw_B-1(p)
//
// Source   CellProfiler LoadData (counts to float32, divided by full scale), CorrectIlluminationApply (Divide, both truncations);
//          CorrectIlluminationCalculate's mean over all images, which is exact here.
// Oracle   NumPy's float32 arithmetic, bit for bit (tests/images/test_illumination_numpy.py); CellProfiler's functions
// Launch   a thread per item over the grid, any block size; no shared memory. correct, correct_sums: the blocks of a field follow each other, so
//          that no item divides by the field's size.
// Order    correct, correct_sums: nothing is accumulated. accumulate_fields: integers.
#include "jg/jg.cuh"

namespace jg {

template <class Count>
JG_FN void correct_counts(
    const Count* __restrict__ pixels, const float* __restrict__ illumination, const float* __restrict__ scales, int64_t n_values,
    int64_t n_pixels, float* __restrict__ corrected)
{
    const int64_t chunks = (n_values + ITEMS - 1) / ITEMS;
    const int64_t field = int64_t(blockIdx.x) / chunks;
    const int64_t start = (int64_t(blockIdx.x) - field * chunks) * ITEMS;
    const Count* __restrict__ raw = pixels + field * n_values + start;
    const float* __restrict__ function = illumination + start;
    float* __restrict__ out = corrected + field * n_values + start;
    const int n = int(smaller(int64_t(ITEMS), n_values - start));
    const float* __restrict__ scale = scales + field * (n_values / n_pixels) + start / n_pixels;  // of the first item's image
    const int64_t before = start % n_pixels;
    const bool several = before + n > n_pixels;             // items of more than one image: few blocks have them
    JG_FOR(i, n) {
        const float full = scale[several ? (before + i) / n_pixels : 0];
        const float value = float(raw[i]) / full / function[i];
        const float low = value > 0.0f ? value : 0.0f;      // NaN is not above 0
        out[i] = low > 1.0f ? 1.0f : low;
    }
}

}  // namespace jg

// In   pixels        uint16  [B, n_values]   n_values = C * n_pixels
//      illumination  float32 [n_values]
//      scales        float32 [B, C]
// Out  corrected     float32 [B, n_values]
extern "C" __global__ void __launch_bounds__(128, 8) correct(
    const uint16_t* __restrict__ pixels, const float* __restrict__ illumination, const float* __restrict__ scales,
    int64_t n_values, int64_t n_pixels, float* __restrict__ corrected)
{
    jg::correct_counts(pixels, illumination, scales, n_values, n_pixels, corrected);
}
JG_REGISTER(correct)

// In   pixels        int32   [B, n_values]   sums of planes, below 2^24
//      the others, and out, as above; a scale is the full scale times the number of planes
extern "C" __global__ void __launch_bounds__(128, 8) correct_sums(
    const int32_t* __restrict__ pixels, const float* __restrict__ illumination, const float* __restrict__ scales,
    int64_t n_values, int64_t n_pixels, float* __restrict__ corrected)
{
    jg::correct_counts(pixels, illumination, scales, n_values, n_pixels, corrected);
}
JG_REGISTER(correct_sums)

// In      pixels  uint16 [B, n_values]
// In/out  sums    int64  [n_values]
extern "C" __global__ void __launch_bounds__(128, 8) accumulate_fields(
    const uint16_t* __restrict__ pixels, int32_t fields, int64_t n_values, int64_t* __restrict__ sums)
{
    const int64_t start = int64_t(blockIdx.x) * jg::ITEMS;
    const int n = int(jg::smaller(int64_t(jg::ITEMS), n_values - start));
    int64_t* __restrict__ out = sums + start;
    for (int b = 0; b < fields; ++b) {
        const uint16_t* __restrict__ raw = pixels + b * n_values + start;
        JG_FOR(i, n) out[i] += raw[i];                       // item i stays with its thread
    }
}
JG_REGISTER(accumulate_fields)
