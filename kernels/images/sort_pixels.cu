// sort_pixels.cu: whole images' pixels in order, for statistics that depend on their values alone (image_quality.cu).
//
//   sort_pixels   any values;  sort_counts   whole counts over a scale, such as a file's pixels
//
// Oracle   NumPy's sort (tests/features/test_image_quality.py)
// Launch   a block per image; any block size. sort_counts: one thread of it works.
// Order    equal pixels are equal bits, so any order of them is the same result.
#include "jg/jg.cuh"

namespace {
constexpr int ABREAST = 2, PARTS = 32, DIGITS = 2048;     // parts of an image per thread sorts at once; parts and values of a digit at most

constexpr int COUNTS = 65536, CHUNK = 256;                // counts that there are; pixels whose counts are found at once

struct Ends { int minimum, maximum; };                    // bits of an image's smallest and largest pixel
}  // namespace

// The host's way: torch sorts on a GPU. A radix sort: by the highest of three digits of what tells the smallest from the largest,
// then each bin by the others, by one thread. A thread goes through several parts of the image side by side, so that it need not
// wait for the count of one before the next.
//
// In   values   float32 [planes, n]   not negative
// Out  sorted   float32 [planes, n]
// Scr  other    float32 [planes, n]
//      counts   uint32  [planes, PARTS + 1, DIGITS]
extern "C" __global__ void __launch_bounds__(128) sort_pixels(
    const float* __restrict__ values, int32_t n, float* sorted, float* other, uint32_t* counts)
{
    JG_SHARED(Ends, ends);
    const float* __restrict__ from = values + int64_t(blockIdx.x) * n;
    float* __restrict__ to = sorted + int64_t(blockIdx.x) * n;
    float* __restrict__ between = other + int64_t(blockIdx.x) * n;
    uint32_t* __restrict__ ends_of = counts + int64_t(blockIdx.x) * (PARTS + 1) * DIGITS;      // of each bin, its end
    uint32_t* __restrict__ places = ends_of + DIGITS;
    JG_ONCE ends = {jg::bits_of(from[0]), jg::bits_of(from[0])};
    __syncthreads();
    int minimum = jg::bits_of(from[0]), maximum = minimum;
    JG_FOR(i, n) {
        const int bits = jg::bits_of(from[i]);
        minimum = jg::smaller(minimum, bits);
        maximum = jg::larger(maximum, bits);
    }
    jg::gather_min(&ends.minimum, minimum);
    jg::gather_max(&ends.maximum, maximum);
    __syncthreads();
    minimum = ends.minimum;
    int wide = 1;                                        // bits of a digit
    while ((ends.maximum - minimum) >> (3 * wide)) ++wide;
    const int bins = 1 << wide, mask = bins - 1, teams = jg::smaller(int(blockDim.x), PARTS / ABREAST), length = n / (teams * ABREAST);
    auto digit = [&](float v, int k) { return (jg::bits_of(v) - minimum) >> (k * wide) & mask; };
    const int team = int(threadIdx.x), first = team * ABREAST * length;
    uint32_t* __restrict__ own = places + int64_t(team < teams ? team : 0) * ABREAST * DIGITS;
    if (team < teams) {
        for (int k = 0; k < ABREAST; ++k)
            for (int d = 0; d < bins; ++d) own[k * DIGITS + d] = 0;
        for (int i = first; i < first + length; ++i)
            for (int k = 0; k < ABREAST; ++k) ++own[k * DIGITS + digit(from[i + k * length], 2)];
        if (team == teams - 1)
            for (int i = first + ABREAST * length; i < n; ++i) ++own[(ABREAST - 1) * DIGITS + digit(from[i], 2)];
    }
    __syncthreads();
    JG_ONCE {
        uint32_t next = 0;
        for (int d = 0; d < bins; ++d) {
            for (int part = 0; part < teams * ABREAST; ++part) {
                const uint32_t here = places[part * DIGITS + d];
                places[part * DIGITS + d] = next;
                next += here;
            }
            ends_of[d] = next;
        }
    }
    __syncthreads();
    if (team < teams) {
        for (int i = first; i < first + length; ++i)
            for (int k = 0; k < ABREAST; ++k) {
                const float v = from[i + k * length];
                to[own[k * DIGITS + digit(v, 2)]++] = v;
            }
        if (team == teams - 1)
            for (int i = first + ABREAST * length; i < n; ++i) to[own[(ABREAST - 1) * DIGITS + digit(from[i], 2)]++] = from[i];
    }
    __syncthreads();
    if (team < teams)
        for (int bin = team; bin < bins; bin += teams) {
            const int start = bin ? int(ends_of[bin - 1]) : 0, size = int(ends_of[bin]) - start;
            if (size < 2) continue;
            uint32_t* __restrict__ one = own;
            uint32_t* __restrict__ two = own + DIGITS;
            float* __restrict__ a = to + start;
            float* __restrict__ b = between + start;
            for (int d = 0; d < bins; ++d) one[d] = two[d] = 0;
            for (int i = 0; i < size; ++i) {
                ++one[digit(a[i], 0)];
                ++two[digit(a[i], 1)];
            }
            for (int d = 0, next_one = 0, next_two = 0; d < bins; ++d) {
                const int here_one = int(one[d]), here_two = int(two[d]);
                one[d] = uint32_t(next_one);
                two[d] = uint32_t(next_two);
                next_one += here_one;
                next_two += here_two;
            }
            for (int i = 0; i < size; ++i) b[one[digit(a[i], 0)]++] = a[i];
            for (int i = 0; i < size; ++i) a[two[digit(b[i], 1)]++] = b[i];
        }
}
JG_REGISTER(sort_pixels)

// The host's way too. A pixel is count / scale in single precision, rounded once.
//
// In   values   float32 [planes, n]   not negative
// Out  sorted   float32 [planes, n]   where all are such
//      other    int32   [planes]      1: some are not
// Scr  counts   uint32  [planes, 2, COUNTS]
extern "C" __global__ void __launch_bounds__(128) sort_counts(
    const float* __restrict__ values, int32_t n, float scale, float* __restrict__ sorted, uint32_t* __restrict__ counts,
    int32_t* __restrict__ other)
{
    const float* __restrict__ from = values + int64_t(blockIdx.x) * n;
    float* __restrict__ to = sorted + int64_t(blockIdx.x) * n;
    uint32_t* __restrict__ count = counts + int64_t(blockIdx.x) * 2 * COUNTS;
    JG_ONCE {
        for (int k = 0; k < 2 * COUNTS; ++k) count[k] = 0;
        int wrong = 0;
        for (int first = 0; first < n && !wrong; first += CHUNK) {
            const int length = jg::smaller(CHUNK, n - first);
            int32_t at[CHUNK];
            for (int i = 0; i < length; ++i) {
                const float v = from[first + i];
                const int k = int(jg::smaller(v * scale + 0.5f, float(COUNTS - 1)));
                at[i] = k;
                wrong |= float(k) / scale != v;
            }
            for (int i = 0; i < length; ++i) ++count[(i & 1) * COUNTS + at[i]];      // in turns: equals need not wait for each other
        }
        other[blockIdx.x] = wrong;
        int next = 0;
        for (int k = 0; !wrong && k < COUNTS && next < n; ++k) {
            const float v = float(k) / scale;
            const int end = next + int(count[k] + count[COUNTS + k]);
            for (; next < end; ++next) to[next] = v;
        }
    }
}
JG_REGISTER(sort_counts)
