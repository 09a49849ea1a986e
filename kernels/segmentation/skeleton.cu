// skeleton.cu: a mask is thinned to lines, and what the lines' pixels are is counted by label.
//
//   thin_in_order    pixel after pixel in a given order: one stays if the table says so of its 3 x 3 neighbourhood as it is when its
//                    turn comes, after all pixels before it. Pixels of the image's first row always stay, as centrosome leaves them.
//   thin_in_turns    in two turns over and over, until nothing goes: in each all pixels go at once of which the turn's table says so.
//                    A pixel is looked at again only where one of its neighbours went.
//   skeleton_points  branches, branch points and ends by the label that reaches them, and lengths
//
// Source   centrosome skeletonize, of CellProfiler MeasureObjectSkeleton and Morph; scikit-image 0.18.3 skeletonize (Zhang's), of
//          MorphologicalSkeleton; MeasureObjectSkeleton.
// Oracle   centrosome.cpmorphology, skimage.morphology.skeletonize (tests/features/test_skeleton.py)
// Launch   thinning: a block per field, of which one thread works: each pixel depends on those before it; skeleton_points: a block a row.
//          Any block size.
// Order    the given one; of turns none, pixels are a set; whole-number sums.
#include "jg/jg.cuh"

namespace {
// What is set of a pixel's neighbourhood: bit 3 (dy + 1) + dx + 1 is the pixel at dy, dx; beyond the image none is.
template <class F> JG_FN int neighbourhood(int y, int x, int height, int width, F is_set) {
    int index = 0;
    for (int bit = 0; bit < 9; ++bit) {
        const int v = y + bit / 3 - 1, u = x + bit % 3 - 1;
        if (v >= 0 && v < height && u >= 0 && u < width && is_set(int64_t(v) * width + u)) index |= 1 << bit;
    }
    return index;
}
}  // namespace

// In   order   int32 [n]      pixels of all fields, each as y * width + x of its field
//      start   int64 [B + 1]  first of each field's
//      table   uint8 [512]    by neighbourhood: bit 3 (dy + 1) + dx + 1 is the pixel at dy, dx; beyond the image none is set
// In and out  points  uint8 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) thin_in_order(
    const int32_t* __restrict__ order, const int64_t* __restrict__ start, const uint8_t* __restrict__ table, int32_t height,
    int32_t width, uint8_t* __restrict__ points)
{
    uint8_t* __restrict__ mine = points + int64_t(blockIdx.x) * height * width;
    JG_ONCE {
        for (int64_t i = start[blockIdx.x]; i < start[blockIdx.x + 1]; ++i) {
            const int y = order[i] / width, x = order[i] % width;
            if (y == 0) continue;
            mine[order[i]] = table[neighbourhood(y, x, height, width, [&](int64_t at) { return mine[at] != 0; }) | 16];
        }
    }
}
JG_REGISTER(thin_in_order)

// In   table   uint8 [512]    by neighbourhood: bit 0 that a set pixel goes in the first turn, bit 1 in the second
// In and out  points  uint8 [B, H, W]
// Scr  due     uint8 [B, H, W]      bit per turn: the pixel is on the turn's list
//      list    int32 [B, 3, H, W]   what each turn looks at, and what goes
extern "C" __global__ void __launch_bounds__(128, 8) thin_in_turns(
    const uint8_t* __restrict__ table, int32_t height, int32_t width, uint8_t* __restrict__ points, uint8_t* __restrict__ due,
    int32_t* __restrict__ list)
{
    const int plane = height * width;
    uint8_t *__restrict__ mine = points + int64_t(blockIdx.x) * plane, *__restrict__ on = due + int64_t(blockIdx.x) * plane;
    int32_t* __restrict__ lists = list + int64_t(blockIdx.x) * 3 * plane;
    JG_ONCE {
        int32_t* __restrict__ gone = lists + 2 * int64_t(plane);
        int count[2] = {0, 0};
        const auto index_of = [&](int at) {
            const int y = at / width, x = at % width;
            if (y == 0 || y == height - 1 || x == 0 || x == width - 1)
                return neighbourhood(y, x, height, width, [&](int64_t i) { return mine[i] != 0; });
            const uint8_t* __restrict__ p = mine + at - width - 1;
            const uint8_t *__restrict__ q = p + width, *__restrict__ r = q + width;
            return p[0] | p[1] << 1 | p[2] << 2 | q[0] << 3 | q[1] << 4 | q[2] << 5 | r[0] << 6 | r[1] << 7 | r[2] << 8;
        };
        for (int i = 0; i < plane; ++i) {
            if (mine[i]) mine[i] = 1;
            on[i] = 0;
        }
        for (int i = 0; i < plane; ++i) {
            if (!mine[i]) continue;
            const int goes = table[index_of(i)];
            for (int turn = 0; turn < 2; ++turn)
                if (goes >> turn & 1) {
                    lists[turn * int64_t(plane) + count[turn]++] = i;
                    on[i] |= uint8_t(1 << turn);
                }
        }
        for (int turn = 0; count[0] + count[1]; turn ^= 1) {
            const int32_t* __restrict__ looked = lists + turn * int64_t(plane);
            int n = 0;
            for (int k = 0; k < count[turn]; ++k) {
                const int i = looked[k];
                on[i] &= uint8_t(~(1 << turn));
                if (mine[i] && (table[index_of(i)] >> turn & 1)) gone[n++] = i;
            }
            count[turn] = 0;
            for (int k = 0; k < n; ++k) mine[gone[k]] = 0;
            for (int k = 0; k < n; ++k) {
                const int y = gone[k] / width, x = gone[k] % width;
                for (int bit = 0; bit < 9; ++bit) {
                    const int v = y + bit / 3 - 1, u = x + bit % 3 - 1, to = v * width + u;
                    if (v < 0 || v >= height || u < 0 || u >= width || !mine[to] || on[to] == 3) continue;
                    for (int next = 0; next < 2; ++next)
                        if (!(on[to] >> next & 1)) lists[next * int64_t(plane) + count[next]++] = to;
                    on[to] = 3;
                }
            }
        }
    }
}
JG_REGISTER(thin_in_turns)

// In   points   uint8 [B, H, W]     the skeleton's pixels that a seed reaches;  outside  uint8 [B, H, W]   not in a seed, before that
//      of       int32 [B, H, W]     the seed that reaches a pixel;  way  float64 [B, H, W]   how far it is, pixels
//      what     uint8 [512]         of a set pixel's neighbourhood: bit 0 a branch point, bit 1 an end, then how many trunks it is
//      length   int32 [512]         its share of length, times 2^24
//      capacity                     above the highest seed
// Out  sums     uint64 [B, capacity, 4]   starts as 0; trunks, branch points, ends, length times 2^24
extern "C" __global__ void __launch_bounds__(128, 8) skeleton_points(
    const uint8_t* __restrict__ points, const uint8_t* __restrict__ outside, const int32_t* __restrict__ of,
    const double* __restrict__ way, const uint8_t* __restrict__ what, const int32_t* __restrict__ length, double near_by,
    int32_t height, int32_t width, int32_t capacity, uint64_t* __restrict__ sums)
{
    const int y = int(blockIdx.x) % height, field = int(blockIdx.x) / height;
    const int64_t plane = int64_t(field) * height * width;
    const uint8_t *__restrict__ set = points + plane, *__restrict__ beyond = outside + plane;
    const int32_t* __restrict__ label = of + plane;
    const bool at_one = height > 1 && width > 1 && set[width + 1];
    // CellProfiler's square of branch points: three pixels of a square, and the image's pixel at 1, 1 for the fourth.
    const auto odd = [&](int v, int u) {
        const int64_t i = int64_t(v) * width + u;
        return at_one && v >= 0 && u >= 0 && v + 1 < height && u + 1 < width && set[i] && set[i + width] && set[i + 1];
    };
    JG_FOR(x, width) {
        const int64_t at = int64_t(y) * width + x;
        const int seed = label[at];
        if (!seed) continue;
        uint64_t* __restrict__ to = sums + (int64_t(field) * capacity + seed) * 4;
        const bool near = way[plane + at] <= near_by;
        const int index = neighbourhood(y, x, height, width, [&](int64_t i) { return set[i] != 0; });
        const int is = set[at] ? what[index] : 0;
        if (near) {
            if (is >> 2 && neighbourhood(y, x, height, width, [&](int64_t i) { return beyond[i] != 0; }))
                jg::atomic_sum(to, uint64_t(is >> 2));
        } else {
            if ((is & 1) || odd(y, x) || odd(y - 1, x - 1)) jg::atomic_sum(to + 1, uint64_t(1));
            if (is >> 1 & 1) jg::atomic_sum(to + 2, uint64_t(1));
        }
        if (beyond[at])
            jg::atomic_sum(to + 3, uint64_t(length[neighbourhood(y, x, height, width, [&](int64_t i) {
                return beyond[i] && label[i] == seed;
            })]));
    }
}
JG_REGISTER(skeleton_points)
