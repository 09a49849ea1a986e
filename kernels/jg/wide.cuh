// wide.cuh: eight values at a time, where a processor has vectors of eight doubles and 32 of them; for sums like jg::block_sum's.
#pragma once
#include "jg/jg.cuh"

#if defined(JG_SERIAL) && defined(__AVX512F__) && defined(__AVX512VL__)
#  define JG_WIDE 1
#  include <immintrin.h>
namespace jg {

constexpr int WIDE = 8;                                // values of a vector; lanes l .. l + 7 of block_sum
typedef float Floats __attribute__((vector_size(4 * WIDE)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDE)));
typedef double Doubles __attribute__((vector_size(8 * WIDE)));
typedef uint8_t Mask;                                  // a bit per value
constexpr Mask ALL = 255;

JG_FN Floats floats_at(const float* p) { Floats v; memcpy(&v, p, sizeof(v)); return v; }
JG_FN Ints ints_at(const int32_t* p) { Ints v; memcpy(&v, p, sizeof(v)); return v; }
JG_FN Floats first_floats(const float* p, Mask first) { return Floats(_mm256_maskz_loadu_ps(first, p)); }
JG_FN Ints first_ints(const int32_t* p, Mask first) { return Ints(_mm256_maskz_loadu_epi32(first, p)); }
JG_FN Mask not_below(Floats x, float y) { return _mm256_cmp_ps_mask(__m256(x), _mm256_set1_ps(y), _CMP_GE_OQ); }
JG_FN Ints size_of(Ints x) { return Ints(_mm256_maskz_abs_epi32(ALL, __m256i(x))); }
// GCC 12 widens vectors of this length by halves, and warns of its own intrinsics without a mask.
JG_FN Doubles doubles_of(Floats x) { return Doubles(_mm512_maskz_cvtps_pd(ALL, __m256(x))); }
JG_FN Doubles doubles_of(Ints x) { return Doubles(_mm512_maskz_cvtepi32_pd(ALL, __m256i(x))); }
// Values where the mask is set; a sum is never -0, so that leaving one out is adding 0.
JG_FN void add_to(Doubles& sum, Mask where, Doubles x) { sum = Doubles(_mm512_mask_add_pd(__m512d(sum), where, __m512d(sum), __m512d(x))); }

// The sum of 32 lanes as block_sum folds them: vectors of lanes 0 .. 7, 8 .. 15, ...
JG_FN double folded(const Doubles (&lanes)[4]) {
    const Doubles a = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    const double b[4] = {a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]};
    return (b[0] + b[2]) + (b[1] + b[3]);
}

}  // namespace jg
#endif
