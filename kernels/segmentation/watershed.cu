// watershed.cu: the seeded watershed as a priority flood in the order (key, raster index), by basins and pointers.
//
//   Definition: a queue holds the seeds. The lowest pixel in it is taken; its unlabelled neighbours take its label and enter
//   the queue; until it is empty. Pixels outside the mask are never entered, and seeds there do not count.
//   M(p) is the lowest pass between a seed and p: the smallest, over ways from a seed to p, of the highest pixel on the way.
//   A seed keeps its label. A pixel that is itself M(p) was entered from its neighbour with the smallest M; any other was
//   entered in one go after the pixel that is M(p) and has its label. What no seed reaches stays 0.
//
// Source   scikit-image's watershed (CellProfiler's IdentifyPrimaryObjects and IdentifySecondaryObjects), which breaks
//          equal values by age in the queue instead of by raster index.
// Differs  over six real fields, from CellProfiler's own labels: cells in 0 of 2,427,361 labelled pixels (cpjump1) and 3 of
//          2,821,899 (jump-production), objects before any is discarded in 0 of 648,619 and 0 of 639,628 (docs/segmentation.md).
// Oracle   tests/helpers/reference/flood.py, a sequential queue in the same order: equal everywhere. scikit-image's: equal where
//          values are distinct (declumping's jittered distances are). Another comparison than the one above, from
//          CellProfiler's nuclei within a mask of the test's own threshold: 1 of the 2.7 million labelled pixels differs from
//          scikit-image's in the cells of six real fields, whose RNA images have ties (tests/segmentation/test_watershed.py).
// Order    one order of unique integers decides everything; the atomics are minima.
#include "segmentation/basins.cuh"

// Values to framed keys: order-preserving, OUTSIDE where the mask is 0.
//
// Launch   a block a band of BAND rows of a plane, frame rows included, a warp per row; no shared memory.
// In   values  float32 [P, H, W]          no NaN; -0 counts as 0
//      mask    uint8   [P, H, W]
// Out  key     uint32  [P, H + 2, W + 2]
extern "C" __global__ void __launch_bounds__(128, 8) watershed_keys(
    const float* __restrict__ values, const uint8_t* __restrict__ mask, int32_t height, int32_t width,
    uint32_t* __restrict__ key)
{
    const int pitch = width + 2, bands = (height + 2 + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height + 2); y += jg::warps()) {
        uint32_t* __restrict__ out = key + (int64_t(plane) * (height + 2) + y) * pitch;
        if (y == 0 || y == height + 1) {
            for (int x = jg::lane(); x < pitch; x += jg::WARP) out[x] = jg::OUTSIDE;
            continue;
        }
        const int64_t row = (int64_t(plane) * height + y - 1) * width;
        const float* __restrict__ v = values + row;
        const uint8_t* __restrict__ in = mask + row;
        if (jg::lane() == 0) *out = out[pitch - 1] = jg::OUTSIDE;
        for (int x = jg::lane(); x < width; x += jg::WARP) {
            const int32_t bits = jg::bits_of(v[x] + 0.0f);
            const uint32_t k = bits < 0 ? ~uint32_t(bits) : uint32_t(bits) | 0x80000000u;
            out[x + 1] = in[x] ? k : jg::OUTSIDE;
        }
    }
}
JG_REGISTER(watershed_keys)

// The lowest seed of every basin.
//
// Launch   a block a band of BAND rows, a warp per row; no shared memory; atomic minima on `reached`.
// In   key      uint32  [P, H + 2, W + 2]
//      basin    int32   [P, H + 2, W + 2]
//      seeds    int32   [P, H, W]          0 is none
// Out  reached  uint64  [P, capacity]      the order of the basin's lowest seed; NEVER before and where there is none
extern "C" __global__ void __launch_bounds__(128, 8) watershed_seed(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ seeds,
    int32_t height, int32_t width, int32_t capacity, uint64_t* reached)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    uint64_t* low = reached + int64_t(plane) * capacity;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        const int32_t* __restrict__ seed = seeds + (int64_t(plane) * height + y) * width;
        const int first = (y + 1) * pitch + 1;
        const int32_t* __restrict__ of = basin + base + first;
        jg::warp_each(width, [=](int x) { return (seed[x] != 0) & (of[x] >= 0); }, [&](int x, int) {
            jg::atomic_min(low + of[x], jg::order_of(key[base + first + x], first + x));
        });
    }
}
JG_REGISTER(watershed_seed)

// M of every basin's lowest pixel: up the forest and down again (basins.cu).
//
// Launch   a block per plane, up to 1024 threads; no shared memory; atomic minima within the block.
// In   up, climb, hung, hung_end   as basin_forest made them
// In, out  reached  uint64  [P, capacity]  the lowest seed in the basin; then the smallest of that and of what leads in
extern "C" __global__ void __launch_bounds__(1024) watershed_flood(
    const int32_t* __restrict__ up, const uint64_t* __restrict__ climb, const int32_t* __restrict__ hung,
    const int32_t* __restrict__ hung_end, int32_t capacity, uint64_t* reached)
{
    const int plane = int(blockIdx.x);
    up += int64_t(plane) * capacity;
    climb += int64_t(plane) * capacity;
    hung += int64_t(plane) * capacity;
    hung_end += int64_t(plane) * jg::ROUNDS;
    reached += int64_t(plane) * capacity;
    for (int r = 1; r < jg::ROUNDS && hung_end[r - 1] < hung_end[jg::ROUNDS - 1]; ++r) {
        const int n = hung_end[r] - hung_end[r - 1];
        JG_FOR(t, n) {
            const int i = hung[hung_end[r - 1] + t];
            jg::lower_to(reached + up[i], jg::larger(climb[i], reached[i]));
        }
        __syncthreads();
    }
    for (int r = jg::ROUNDS - 1; r >= 1; --r) {
        const int n = hung_end[r] - hung_end[r - 1];
        if (n == 0) continue;
        JG_FOR(t, n) {
            const int i = hung[hung_end[r - 1] + t];
            reached[i] = jg::smaller(reached[i], jg::larger(climb[i], reached[up[i]]));
        }
        __syncthreads();
    }
}
JG_REGISTER(watershed_flood)

// Where every pixel has its label from.
//
// Launch   a block a band of BAND rows, a warp per row; no shared memory.
// In   key      uint32  [P, H + 2, W + 2]
//      basin    int32   [P, H + 2, W + 2]
//      seeds    int32   [P, H, W]
//      reached  uint64  [P, capacity]
// Out  link     int32   [P, H + 2, W + 2]  a label (0 outside and where no seed reaches), or ~index of the pixel to ask;
//                                          the frame is not written

//   A pixel whose lower neighbours all are in its own basin follows its steepest step, whatever M is: both are entered from the
//   same side, or both in one go after the pixel that is M. One in six needs more than its neighbours' keys and basins.

// The neighbour with the smallest M; what is outside has the highest key there is.
template <int CONNECTIVITY> JG_FN int entered_from(const uint32_t* __restrict__ k, const int32_t* __restrict__ of,
                                                   const uint64_t* __restrict__ low, int p, int pitch)
{
    const int mine = of[p];
    uint64_t minimum = jg::NEVER;
    int from = p;
    JG_UNROLL for (int d = 0; d < 8; ++d) {
        if (!jg::is_direction(d, CONNECTIVITY)) continue;
        const int q = p + jg::step_to(d, pitch), c = of[q];
        const uint64_t here = jg::larger(low[c < 0 ? mine : c], jg::order_of(k[q], q));
        from = here < minimum ? q : from;
        minimum = jg::smaller(here, minimum);
    }
    return from;
}

// Links of a row as far as neighbours alone decide them; the others' lead to themselves. On a GPU all but labels do: where one
// lane looks up M the others wait for it, and would have looked at their neighbours for nothing.
template <int CONNECTIVITY> JG_FN void easy_links(const uint32_t* __restrict__ k, const int32_t* __restrict__ of,
                                                  const int32_t* __restrict__ seed, int first, int pitch, int width,
                                                  int32_t* __restrict__ to)
{
    jg::each_inside(k, width, [=](int x) {
        int step = 0;
#if defined(JG_SERIAL)
        step = jg::steepest<CONNECTIVITY>(k, x, pitch) >> 8;
        int other = 0;
        for (int d = 0; d < 8; ++d) {
            const int q = x + jg::step_to(d, pitch);
            if (jg::is_direction(d, CONNECTIVITY)) other |= (k[q] <= k[x]) & (of[q] != of[x]);
        }
        step = other ? 0 : step;
#else
        (void)pitch;
#endif
        const int label = seed[x];                       // read before it is asked for: masked loads are slow
        to[x] = jg::chosen(of[x] < 0, 0, jg::chosen(label != 0, label, ~(first + x + step)));
    }, [=](int x) { to[x] = 0; });
}

extern "C" __global__ void __launch_bounds__(128, 8) watershed_link(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ seeds,
    const uint64_t* __restrict__ reached, int32_t height, int32_t width, int32_t connectivity, int32_t capacity,
    int32_t* __restrict__ link)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    const uint32_t* __restrict__ k = key + base;
    const int32_t* __restrict__ of = basin + base;
    const uint64_t* __restrict__ low = reached + int64_t(plane) * capacity;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        const int32_t* __restrict__ seed = seeds + (int64_t(plane) * height + y) * width;
        const int first = (y + 1) * pitch + 1;
        int32_t* __restrict__ to = link + base + first;
        if (connectivity == 8) easy_links<8>(k + first, of + first, seed, first, pitch, width, to);
        else easy_links<4>(k + first, of + first, seed, first, pitch, width, to);
        jg::warp_each(width, [=](int x) { return to[x] == ~(first + x); }, [&](int x, int) {
            const int p = first + x, mine = of[p];
            const uint64_t m = low[mine];
            if (m == jg::NEVER) to[x] = 0;
            else if (m > jg::order_of(k[p], p)) to[x] = ~int(m & 0xffffffffu);
            else to[x] = ~(connectivity == 8 ? entered_from<8>(k, of, low, p, pitch) : entered_from<4>(k, of, low, p, pitch));
        });
    }
}
JG_REGISTER(watershed_link)

// Labels, by following the links.
//
// Launch   a block a band of `rows` rows, any block size; no shared memory.
// In, out  link    int32  [P, H + 2, W + 2]
// Out      labels  int32  [P, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) watershed_settle(
    int32_t height, int32_t width, int32_t rows, int32_t* link, int32_t* __restrict__ labels)
{
    const int pitch = width + 2, bands = (height + rows - 1) / rows;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * rows, y1 = jg::smaller(y0 + rows, height);
    int32_t* at = link + int64_t(plane) * (height + 2) * pitch;
    jg::follow_rows(at, pitch, width, y0 + 1, y1 + 1);
    for (int y = y0; y < y1; ++y)
        JG_FOR(x, width) labels[(int64_t(plane) * height + y) * width + x] = jg::followed(at + (y + 1) * pitch + x + 1);
}
JG_REGISTER(watershed_settle)
