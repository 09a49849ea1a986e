// number_points.cu: single pixels (seeds, maxima) numbered in raster order.
//
// Oracle   NumPy (tests/segmentation/test_label.py)
// Launch   a block per row.
// Order    integers; numbers follow raster order.
#include "jg/bits.cuh"

namespace {
constexpr int CHUNK = 64;                      // words of a row looked at together
struct Words { uint64_t word[CHUNK]; };
}

// How many points stand in each row. A block per row.
// In   points   uint8 [B, H, W]
// Out  in_row   int32 [B * H]
extern "C" __global__ void __launch_bounds__(128, 8) count_points(
    const uint8_t* __restrict__ points, int32_t width, int32_t* __restrict__ in_row)
{
    JG_SHARED(jg::CountScratch<1>, s);
    const uint8_t* __restrict__ row = points + int64_t(blockIdx.x) * width;
    jg::Counts<1> mine = {};
    JG_FOR(x, width) mine.v[0] += row[x] != 0;
    const jg::Counts<1> all = jg::block_count(mine, s);
    JG_ONCE in_row[blockIdx.x] = int(all.v[0]);
}
JG_REGISTER(count_points)

// Numbers points 1..n in raster order. A block per row, one warp per word of 64 pixels.
// In   points   uint8 [B, H, W]
//      in_row   int32 [B * H]     points in each row
//      before   int32 [B * H]     points in the rows before it, same field
// Out  number   int32 [B, H, W]   0 where there is no point
extern "C" __global__ void __launch_bounds__(128, 8) number_points(
    const uint8_t* __restrict__ points, const int32_t* __restrict__ in_row, const int32_t* __restrict__ before,
    int32_t width, int32_t* __restrict__ number)
{
    JG_SHARED(Words, s);
    const uint8_t* __restrict__ row = points + int64_t(blockIdx.x) * width;
    int32_t* __restrict__ out = number + int64_t(blockIdx.x) * width;
    if (in_row[blockIdx.x] == 0) {                       // as most are
        JG_FOR(x, width) out[x] = 0;
        return;
    }
    int next = before[blockIdx.x] + 1;
    for (int x0 = 0; x0 < width; x0 += 64 * CHUNK) {
        const int n = jg::smaller(CHUNK, (width - x0 + 63) / 64);
        for (int k = jg::warp_id(); k < n; k += jg::warps()) {
            const int from = x0 + 64 * k;
            jg::warp_words(jg::smaller(64, width - from), [=](int x) { return row[from + x] != 0; },
                           [&](int, uint64_t word) { s.word[k] = word; });
        }
        __syncthreads();
        int here = next;
        for (int k = 0; k < n; ++k) {
            const uint64_t word = s.word[k];
            if (k % jg::warps() == jg::warp_id()) {
                int32_t* __restrict__ to = out + x0 + 64 * k;
                const int w = jg::smaller(64, width - x0 - 64 * k);
                if (word == 0) {
                    for (int x = jg::lane(); x < w; x += jg::WARP) to[x] = 0;
                } else {
                    for (int x = jg::lane(); x < w; x += jg::WARP)
                        to[x] = word >> x & 1 ? here + jg::count_bits(word & ((uint64_t(1) << x) - 1)) : 0;
                }
            }
            here += jg::count_bits(word);
        }
        next = here;
        __syncthreads();
    }
}
JG_REGISTER(number_points)
