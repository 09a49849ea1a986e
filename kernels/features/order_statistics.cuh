// order_statistics.cuh: what is read off an object's sorted values.
#pragma once
#include "jg/jg.cuh"

namespace {
// Quartiles and median stand at position n q, counted from 0 and interpolated, or are the last value where that has no successor;
// MAD is the same with q = 1/2 of the sorted |v - median|. All 0 of no values.
enum Quantile { MIN, LOWER, MEDIAN, UPPER, MAD, MAX, QUANTILES };

// Position n q of m sorted values.
template <class F> JG_FN double at_position(int n, double fraction, F value) {
    const double place = n * fraction;
    const int i = int(place);
    const double part = place - i;
    return i < n - 1 ? value(i) * (1 - part) + value(i + 1) * part : value(i);
}
// The k-th smallest (from 0) of |x[i] - centre| over n ascending x: c of them from below the centre, the rest from above.
JG_FN double deviation(const float* __restrict__ x, int n, double centre, int below, int k) {
    int low = jg::larger(0, k + 1 - (n - below)), high = jg::smaller(below, k + 1);
    while (low < high) {                               // the smallest c whose next from below is not less than the last from above
        const int c = (low + high) / 2;
        if (centre - x[below - 1 - c] < x[below + k - c] - centre) low = c + 1;
        else high = c;
    }
    const double from_below = low > 0 ? centre - x[below - low] : 0, from_above = k + 1 > low ? x[below + k - low] - centre : 0;
    return jg::larger(from_below, from_above);
}

JG_FN void find_quantiles(const float* __restrict__ x, int n, double* __restrict__ out) {
    for (int q = 0; q < QUANTILES; ++q) out[q] = 0;
    if (n == 0) return;
    const auto value = [&](int k) { return double(x[k]); };
    const double median = at_position(n, 0.5, value);
    int below = 0, past = n;                           // values below the median
    while (below < past) {
        const int middle = (below + past) / 2;
        if (x[middle] < median) below = middle + 1;
        else past = middle;
    }
    out[MIN] = x[0];
    out[LOWER] = at_position(n, 0.25, value);
    out[MEDIAN] = median;
    out[UPPER] = at_position(n, 0.75, value);
    out[MAD] = at_position(n, 0.5, [&](int k) { return deviation(x, n, median, below, k); });
    out[MAX] = x[n - 1];
}
}  // namespace
