// granularity.cuh: what granularity_background.cu writes and granularity.cu reads: values that are not negative as keys, high ones first.
#pragma once
#include "segmentation/basins.cuh"

namespace jg {

constexpr int32_t HIGHEST = 0x7fffffff;                // key = HIGHEST - bits of the value
JG_FN uint32_t key_of(float value) { return uint32_t(HIGHEST - bits_of(value)); }
JG_FN int32_t bits_of_key(uint32_t key) { return HIGHEST - int32_t(key); }

}  // namespace jg
