// descend.cuh: basin_descend's rows (basins.cu) by 64 pixels at a time, where a processor has vectors of 64 bytes and masks.
#pragma once
#include "segmentation/basins.cuh"

#if defined(JG_SERIAL) && defined(__AVX512F__) && defined(__AVX512BW__)
#  define JG_DESCEND_64 1
namespace jg {

// Steps and passes of the pixels x .. x + 63 of a row: k[x] is the first one's key, to[x] its step, ring[0] its byte, p its index.
// What is in the ring around each pixel is a word a place of the ring, a bit a pixel; the rest is descend_row's, on words.
template <int CONNECTIVITY> JG_FN void descend_64(
    const uint32_t* __restrict__ k, int x, int p, int pitch, int32_t* __restrict__ to, uint8_t* __restrict__ ring, int& minima, int& passes)
{
    constexpr bool ALL = CONNECTIVITY == 8;
    constexpr int SELF = 8, N_CANDIDATES = ALL ? 9 : 5, NONE = 0;
    const int step[9] = {-pitch - 1, -pitch, -pitch + 1, 1, pitch + 1, pitch, pitch - 1, -1, 0};      // by places of the ring
    constexpr int IN_ORDER[2][9] = {{1, 7, SELF, 3, 5, NONE, NONE, NONE, NONE}, {0, 1, 2, 7, SELF, 3, 6, 5, 4}};   // raster order
    uint64_t below[8] = {}, lower[N_CANDIDATES] = {}, in = 0;
    for (int i = 0; i < 64; i += 16) in |= uint64_t(_mm512_cmpneq_epu32_mask(_mm512_loadu_si512(k + x + i), _mm512_set1_epi32(-1))) << i;
    if (in == 0) {
        for (int i = 0; i < 64; i += 16) _mm512_storeu_si512(to + x + i, _mm512_set1_epi32(NO_BASIN));
        _mm512_storeu_si512(ring, _mm512_setzero_si512());
        return;
    }
    for (int i = 0; i < 64; i += 16) {
        const uint32_t* __restrict__ at = k + x + i;
        const __m512i mine = _mm512_loadu_si512(at);
        const __m512i here = _mm512_sub_epi32(_mm512_set1_epi32(~(p + i)), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        const __mmask16 inside = __mmask16(in >> i);
        for (int q = 0; q < 8; ++q) {                    // of equal keys the first in raster order is lower
            const __m512i other = _mm512_loadu_si512(at + step[q]);
            const bool before = q < 3 || q == 7;
            below[q] |= uint64_t(before ? _mm512_cmple_epu32_mask(other, mine) : _mm512_cmplt_epu32_mask(other, mine)) << i;
        }
        __m512i low = _mm512_loadu_si512(at + step[IN_ORDER[ALL][0]]);
        __m512i link = _mm512_sub_epi32(here, _mm512_set1_epi32(step[IN_ORDER[ALL][0]]));
        for (int c = 1; c < N_CANDIDATES; ++c) {
            const int by = step[IN_ORDER[ALL][c]];
            const __m512i other = _mm512_loadu_si512(at + by);
            const __mmask16 is_lower = _mm512_cmplt_epu32_mask(other, low);
            lower[c] |= uint64_t(is_lower) << i;
            low = _mm512_mask_mov_epi32(low, is_lower, other);
            link = _mm512_mask_sub_epi32(link, is_lower, here, _mm512_set1_epi32(by));
        }
        _mm512_storeu_si512(to + x + i, _mm512_mask_mov_epi32(_mm512_set1_epi32(NO_BASIN), inside, link));
    }
    uint64_t stepped[9] = {}, later = 0;                  // to which place each pixel steps
    for (int c = N_CANDIDATES - 1; c > 0; --c) {
        stepped[IN_ORDER[ALL][c]] = lower[c] & ~later;
        later |= lower[c];
    }
    stepped[IN_ORDER[ALL][0]] = ~later;
    minima += count_bits(in & stepped[SELF]);
    uint64_t e[8], own = 0;                               // run_ends, a place at a time
    for (int q = 0; q < 8; ++q) {
        const uint64_t between = below[(q + 7) & 7] & below[(q + 1) & 7];
        e[q] = q % 2 ? below[q] : ALL ? below[q] | between : below[q] & between;
    }
    uint64_t reached[8] = {};                             // of the run that the step is in, from there on
    for (int turn = 0; turn < 16; ++turn) {
        const int q = turn & 7;
        own = reached[q] = e[q] & (stepped[q] | own);
    }
    __m512i bytes = _mm512_setzero_si512();
    for (int q = 0; q < 8; ++q) {
        const uint64_t ends = in & e[(q + 7) & 7] & ~e[q] & ~reached[(q + 7) & 7];
        passes += count_bits(ends);
        bytes = _mm512_or_si512(bytes, _mm512_maskz_set1_epi8(ends, char(1 << q)));
    }
    _mm512_storeu_si512(ring, bytes);
}
}  // namespace jg
#endif
