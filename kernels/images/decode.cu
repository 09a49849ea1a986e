// decode.cu: raw images on the device made whole, and what is checked of each as it is read.
//
//   raw_place    pixels that came as they are to their place, bytes swapped, differences along a row summed (TIFF's predictor 2)
//   raw_counts   smallest and largest count, rows of zeros, saturated counts, and five sums over every 16th row for the sharpness
//   raw_same     which images of a field are equal, of those with the same smallest and largest count
//
// All of it whole numbers: focus.py makes the same judgements of them as of those that NumPy counts on a CPU.
//
// Source   focus.py; TIFF 6.0, section 14 (predictor)
// Oracle   NumPy, tifffile (tests/images/test_decode_numpy.py)
// Launch   raw_place, raw_counts: one block per image and group of 16 rows; raw_same: a pair of images and group of 16 rows. Any
//          block size; 2.5 KB of shared memory.
// Order    integers; what blocks share they change by integer atomics alone.
#include "jg/jg.cuh"

namespace jg {
constexpr int GROUP = 16;                              // rows of a block; checks.EVERY
constexpr int SWAP = 1, PREDICT = 2;                   // what raw_place is to do
constexpr int RUNS = 8;                                // of a row, each summed by one thread

JG_FN uint16_t swapped(uint16_t v) { return uint16_t(v << 8 | v >> 8); }
}  // namespace jg

// In   data    uint8   [D]
//      places  int64   [M, 3]   of each image to be touched: its number in pixels; where its pixels are in data, lowest byte
//                               first, or -1 where they are in their place; SWAP and PREDICT
// Out  pixels  uint16  [images, H, W]
extern "C" __global__ void __launch_bounds__(128) raw_place(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ places, int32_t height, int32_t width,
    uint16_t* __restrict__ pixels)
{
    struct Shared { uint16_t run[jg::GROUP][jg::RUNS]; };
    JG_SHARED(Shared, s);
    const int groups = (height + jg::GROUP - 1) / jg::GROUP;
    const int64_t* const place = places + 3 * int64_t(int(blockIdx.x) / groups);
    const int y0 = int(blockIdx.x) % groups * jg::GROUP, rows = jg::smaller(jg::GROUP, height - y0);
    const int64_t first = int64_t(y0) * width, n = int64_t(height) * width;
    uint16_t* const to = pixels + place[0] * n + first;
    const uint8_t* const from = place[1] < 0 ? nullptr : data + place[1] + 2 * first;
    const bool swap = place[2] & jg::SWAP;
    JG_FOR(i, rows * width) {
        const uint16_t v = from ? uint16_t(from[2 * i] | from[2 * i + 1] << 8) : to[i];
        to[i] = swap ? jg::swapped(v) : v;
    }
    if (!(place[2] & jg::PREDICT)) return;
    __syncthreads();
    const int run = (width + jg::RUNS - 1) / jg::RUNS;
    JG_FOR(p, rows * jg::RUNS) {
        const int y = p / jg::RUNS, r = p % jg::RUNS;
        uint16_t sum = 0;
        for (int x = r * run; x < jg::smaller(width, (r + 1) * run); ++x) sum = uint16_t(sum + to[y * width + x]);
        s.run[y][r] = sum;
    }
    __syncthreads();
    JG_FOR(p, rows * jg::RUNS) {
        const int y = p / jg::RUNS, r = p % jg::RUNS;
        uint16_t sum = 0;
        for (int q = 0; q < r; ++q) sum = uint16_t(sum + s.run[y][q]);
        for (int x = r * run; x < jg::smaller(width, (r + 1) * run); ++x)
            to[y * width + x] = sum = uint16_t(sum + to[y * width + x]);
    }
}
JG_REGISTER(raw_place)

// In   given   int64   [K, 2]         numbers of the images to be looked at, and the count from which a pixel of each is saturated
//      pixels  uint16  [images, H, W]
// Out  counts  uint64  [images, 9]    0 before. 65535 - the smallest count; the largest; rows of zeros; saturated counts; and over every
//                                     16th row the sums of a, b, c, a * b, a * c of pixels a, b, c side by side
extern "C" __global__ void __launch_bounds__(128, 10) raw_counts(
    const int64_t* __restrict__ given, const uint16_t* __restrict__ pixels, int32_t height, int32_t width,
    uint64_t* __restrict__ counts)
{
    struct Shared { jg::CountScratch<7> scratch; int32_t any[jg::GROUP]; };
    JG_SHARED(Shared, s);
    const int groups = (height + jg::GROUP - 1) / jg::GROUP;
    const int64_t* const asked = given + 2 * int64_t(int(blockIdx.x) / groups);
    const int64_t image = asked[0];
    const int top = int(asked[1]);
    const int y0 = int(blockIdx.x) % groups * jg::GROUP, rows = jg::smaller(jg::GROUP, height - y0);
    const uint16_t* const from = pixels + image * height * width + int64_t(y0) * width;
    JG_FOR(y, jg::GROUP) s.any[y] = y >= rows;
    __syncthreads();
    int low = 65535, high = 0, full = 0;
    for (int y = 0; y < rows; ++y) {
        int maximum = 0;
        jg::each_value(from + y * width, width, [&](int v) {
            low = jg::smaller(low, v);
            maximum = jg::larger(maximum, v);
            full += v >= top;
        });
        high = jg::larger(high, maximum);
        if (maximum) jg::atomic_write(&s.any[y], 1);      // the same by all
    }
    __syncthreads();
    jg::Counts<7> n = {{0, uint64_t(full), 0, 0, 0, 0, 0}};
    JG_FOR(y, jg::GROUP) n.v[0] += s.any[y] == 0;
    JG_FOR(x, width - 2) {
        const uint64_t a = from[x], b = from[x + 1], c = from[x + 2];
        n.v[2] += a; n.v[3] += b; n.v[4] += c; n.v[5] += a * b; n.v[6] += a * c;
    }
    low = jg::warp_min(low);
    high = jg::warp_max(high);
    if (jg::lane() == 0) {
        jg::atomic_max(counts + 9 * image, uint64_t(65535 - low));
        jg::atomic_max(counts + 9 * image + 1, uint64_t(high));
    }
    n = jg::block_count(n, s.scratch);
    JG_ONCE JG_UNROLL for (int k = 0; k < 7; ++k) if (n.v[k]) jg::atomic_sum(counts + 9 * image + 2 + k, n.v[k]);
}
JG_REGISTER(raw_counts)

// In   pixels   uint16  [B, C, H, W]
//      counts   uint64  [B * C, 9]      as above; 0 for an image that was not looked at
// Out  differs  int64   [B, C * (C - 1) / 2]   0 before. 1 for a pair c, d < c at c * (c - 1) / 2 + d whose images differ, or whose
//                                              ranges do, or whose images are constant
extern "C" __global__ void __launch_bounds__(128) raw_same(
    const uint16_t* __restrict__ pixels, const uint64_t* __restrict__ counts, int32_t channels, int32_t height, int32_t width,
    int64_t* __restrict__ differs)
{
    const int groups = (height + jg::GROUP - 1) / jg::GROUP, pairs = channels * (channels - 1) / 2;
    const int pair = int(blockIdx.x) / groups, field = pair / pairs;
    int c = 1, d = pair % pairs;
    for (; d >= c; ++c) d -= c;
    const int64_t one = int64_t(field) * channels + c, other = int64_t(field) * channels + d;
    const uint64_t* const a = counts + 9 * one;
    const uint64_t* const b = counts + 9 * other;
    uint64_t* const mine = reinterpret_cast<uint64_t*>(differs + pair);
    if (a[0] != b[0] || a[1] != b[1] || a[0] + a[1] <= 65535) {
        JG_ONCE jg::atomic_write(mine, uint64_t(1));
        return;
    }
    const int y0 = int(blockIdx.x) % groups * jg::GROUP, y1 = jg::smaller(y0 + jg::GROUP, height);
    const int64_t n = int64_t(height) * width;
    JG_FOR(i, (y1 - y0) * width) {
        const int64_t at = int64_t(y0) * width + i;
        if (pixels[one * n + at] != pixels[other * n + at]) {
            jg::atomic_write(mine, uint64_t(1));
            break;
        }
    }
}
JG_REGISTER(raw_same)
