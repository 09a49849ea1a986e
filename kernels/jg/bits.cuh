// bits.cuh: pixels of a row as words of 64, the first in the lowest bit.
#pragma once
#include "jg/jg.cuh"

namespace jg {

#if !defined(JG_SERIAL)
// A warp's word: bit l and bit 32 + l are lane l's. In every lane; the whole warp calls it.
JG_FN uint64_t warp_word(bool low, bool high) {
    const uint32_t first = __ballot_sync(0xffffffffu, low), second = __ballot_sync(0xffffffffu, high);
    return uint64_t(second) << 32 | first;
}
#endif

// put(k, word) for words k of n pixels, by one thread of a warp each; bit i of word k is set where test(64 k + i) is, and not beyond n.
// The whole warp calls it; `test` is plain arithmetic.
template <class Test, class Put> JG_FN void warp_words(int n, Test test, Put put) {
#if defined(JG_SERIAL)
    int k = 0;
    for (; 64 * k + 64 <= n; ++k) put(k, flagged<64>(64 * k, test));
    if (64 * k == n) return;
    uint64_t last = 0;
    if (n >= 64) last = flagged<64>(n - 64, test) >> (64 * k + 64 - n);
    else for (int i = 0; i < n; ++i) last |= uint64_t(test(i) != 0) << i;
    put(k, last);
#else
    for (int k = 0; 64 * k < n; ++k) {
        const int i = 64 * k + lane();
        const uint64_t word = warp_word(i < n && test(i), i + 32 < n && test(i + 32));
        if (lane() == 0) put(k, word);
    }
#endif
}

}  // namespace jg
