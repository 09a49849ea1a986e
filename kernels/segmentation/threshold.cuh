// threshold.cuh: doubles as bits, for atomic minima and maxima of values that are not negative.
#pragma once
#include "jg/jg.cuh"

namespace {
union Double { double value; uint64_t bits; };  // the order of non-negative doubles is that of their bits
JG_FN double value_of(uint64_t bits) { Double d; d.bits = bits; return d.value; }
JG_FN uint64_t bits_of(double value) { Double d; d.value = value; return d.bits; }
}  // namespace
