// expand.cu: seeds grown into cells by distance.
//
//   Each pixel within N of a seed pixel takes the label of the nearest one; of equals the leftmost, then the topmost.
//
// Source   CellProfiler IdentifySecondaryObjects; SciPy's order of ties.
// Oracle   scipy.ndimage.distance_transform_edt (tests/segmentation/test_expand.py)
// Launch   as the kernels say.
// Order    comparisons of integers.
#include "jg/bits.cuh"

namespace {
constexpr int16_t NOWHERE = 0x7fff;
constexpr int STRIP = 256;             // columns of a block of nearest_in_column (expand.py: STRIP)
constexpr int FARTHEST = 1000;         // expand.py: FARTHEST
constexpr int PLACE = 11;              // bits of a place among 2 FARTHEST + 1; 21 are left for 2 FARTHEST^2 + 1
struct Strip { int16_t steps[STRIP]; };
}  // namespace

// Launch   one block per strip of STRIP columns and `band` rows, which a thread's columns go down and up again.
// In   seeds   int32 [B, H, W]
//      band    rows of a block
// Out  rise    int16 [B, H, W]   y of the nearest seed pixel in the column less y, at most `reach`; the upper of equals; 0x7fff: none
extern "C" __global__ void __launch_bounds__(128, 8) nearest_in_column(
    const int32_t* __restrict__ seeds, int32_t height, int32_t width, int32_t reach, int32_t band, int16_t* __restrict__ rise)
{
    JG_SHARED(Strip, s);
    const int strips = (width + STRIP - 1) / STRIP, bands = (height + band - 1) / band, of_field = int(blockIdx.x) % (strips * bands);
    const int x0 = of_field % strips * STRIP, n = jg::smaller(STRIP, width - x0), y0 = of_field / strips * band;
    const int y1 = jg::smaller(height, y0 + band);
    const int64_t at = int64_t(int(blockIdx.x) / (strips * bands)) * height * width + x0;
    JG_FOR(x, n) s.steps[x] = NOWHERE;
    for (int y = jg::larger(0, y0 - reach); y < y1; ++y) {         // a column stays with its thread
        const int32_t* __restrict__ row = seeds + at + int64_t(y) * width;
        int16_t* __restrict__ out = rise + at + int64_t(y) * width;
        const bool own = y >= y0;
        JG_FOR(x, n) {
            const int16_t steps = row[x] ? 0 : int16_t(s.steps[x] + (s.steps[x] != NOWHERE));
            s.steps[x] = steps;
            if (own) out[x] = steps <= reach ? int16_t(-steps) : NOWHERE;
        }
    }
    JG_FOR(x, n) s.steps[x] = NOWHERE;
    for (int y = jg::smaller(height, y1 + reach) - 1; y >= y0; --y) {
        const int32_t* __restrict__ row = seeds + at + int64_t(y) * width;
        int16_t* __restrict__ out = rise + at + int64_t(y) * width;
        const bool own = y < y1;
        JG_FOR(x, n) {
            const int16_t steps = row[x] ? 0 : int16_t(s.steps[x] + (s.steps[x] != NOWHERE));
            s.steps[x] = steps;
            if (own) {
                const int16_t known = out[x], above = known == NOWHERE ? NOWHERE : int16_t(-known);
                out[x] = steps < above && steps <= reach ? steps : known;
            }
        }
    }
}
JG_REGISTER(nearest_in_column)

// Launch   a block per row, a warp 64 pixels of it.
// Out  labels  int32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) grow_by_distance(
    const int32_t* __restrict__ seeds, const int16_t* __restrict__ rise, int32_t width, int32_t reach,
    int32_t* __restrict__ labels)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int32_t* __restrict__ seed = seeds + at;
    const int16_t* __restrict__ up = rise + at;
    int32_t* __restrict__ out = labels + at;
    const int none = reach * reach + 1;
    for (int x0 = 64 * jg::warp_id(); x0 < width; x0 += 64 * jg::warps()) {
        const int n = jg::smaller(64, width - x0);
#if defined(JG_SERIAL)
        // Keys: the squared distance, and then the place in the row. Those of `base` are of column x0 - reach + i; beyond the image none.
        uint32_t base[64 + 2 * FARTHEST], key[64];
        const int first = jg::larger(0, x0 - reach), last = jg::smaller(width, x0 + 64 + reach);
        int16_t nearest = NOWHERE;
        for (int u = first; u < last; ++u) {
            const int16_t away = up[u] < 0 ? int16_t(-up[u]) : up[u];
            nearest = jg::smaller(nearest, away);
        }
        if (nearest == NOWHERE) {
            for (int x = x0; x < x0 + n; ++x) out[x] = 0;
            continue;
        }
        for (int i = 0; i < 64 + 2 * reach; ++i) base[i] = uint32_t(none) << PLACE;
        for (int u = first; u < last; ++u) {
            const int square = int(up[u]) * up[u];
            base[u - x0 + reach] = uint32_t(jg::smaller(square, none)) << PLACE;
        }
        for (int i = 0; i < 64; ++i) key[i] = ~0u;
        for (int j = -reach; j <= reach; ++j) {
            const uint32_t more = (uint32_t(j * j) << PLACE) + uint32_t(j + reach);
            const uint32_t* __restrict__ from = base + j + reach;
            for (int i = 0; i < 64; ++i) key[i] = jg::smaller(key[i], from[i] + more);
        }
        for (int i = 0; i < n; ++i) {
            const int u = x0 + i - reach + int(key[i] & ((1u << PLACE) - 1));
            out[x0 + i] = int(key[i] >> PLACE) < none ? seed[u + int64_t(up[u]) * width] : 0;
        }
#else
        uint64_t any = 0;
        for (int i = jg::lane() - reach; i - jg::lane() < 64 + reach; i += 64) {
            const int u = x0 + i, v = u + 32;
            any |= jg::warp_word(u >= 0 && u < width && up[u] != NOWHERE, v >= 0 && v < width && up[v] != NOWHERE);
        }
        for (int x = x0 + jg::lane(); x < x0 + n; x += jg::WARP) {
            int best = none, dx = 0, dy = 0;
            if (any) {
                if (up[x] != NOWHERE) { dy = up[x]; best = dy * dy; }
                for (int j = 1; j <= reach && j * j <= best; ++j) {      // outward: what is to the left wins over equals met before
                    if (x >= j) {
                        const int rise_there = up[x - j], square = rise_there * rise_there + j * j;
                        if (square <= best) { best = square; dx = -j; dy = rise_there; }
                    }
                    if (x + j < width) {
                        const int rise_there = up[x + j], square = rise_there * rise_there + j * j;
                        if (square < best) { best = square; dx = j; dy = rise_there; }
                    }
                }
            }
            out[x] = best < none ? seed[x + dx + int64_t(dy) * width] : 0;
        }
#endif
    }
}
JG_REGISTER(grow_by_distance)
