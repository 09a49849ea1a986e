// radial_sums.cu: an object's intensity in the rings and wedges of radial_distribution.cu, and its Zernike moments.
//
//   Sums of intensity are float32, pixel after pixel in raster order; the measures of a ring are defined in radial_distribution.cu.
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensityDistribution, whose sums are float32
// Oracle   SciPy, centrosome (tests/features/test_radial_distribution.py); CellProfiler's own output on the real fields
// Launch   any number of blocks, each takes every gridDim-th row and up to 8 channels of it, since they share the order of pixels;
//          30 KB of shared memory; radial_zernike likewise, all channels of a row.
// Order    a sum is added up by one thread in raster order, or is jg::block_sum.
#include "jg/register_loads.cuh"
#include "jg/jg_math.cuh"
#include "features/radial_distribution.cuh"

struct Ring { enum Measure {
    FracAtD, MeanFrac, RadialCV, COUNT
}; };
struct Moment { enum Measure {
    ZernikeMagnitude, ZernikePhase, COUNT
}; };

// Sums of a row's values by slot: ring * 8 + wedge, and the whole ring; a slot's values are added in raster order. The serial
// build walks the row once for all slots. On a GPU the pixels are first listed by ring: each thread counts those of some lines,
// a running total over the threads says where each writes, and then a warp streams a ring's list: its lanes fetch 32 pixels at a
// time, the next while these are added, and four lanes a channel add them one by one, each to its two wedges and the ring.
constexpr int SLOTS = MAX_BINS * WEDGES;
constexpr int MAX_CHANNELS = 8;                       // channels of a block
constexpr int SEGMENTS = 128, ADDING = 4;             // parts of a row's lines; warps that add
struct RingSums {
    float wedge[SLOTS][MAX_CHANNELS], whole[MAX_BINS][MAX_CHANNELS];
    int32_t count[SLOTS], begin[MAX_BINS + 1];
};
// Of the pixels in rows y0 .. y1 - 1, four at a time: act(their codes, place of the first in the map).
template <class Act> JG_FN void each_four(
    int y0, int y1, int pitch, int x0, const int32_t* __restrict__ ends, const uint8_t* __restrict__ code, Act act)
{
    for (int y = y0; y < y1; ++y) {
        const int end = y * pitch + ends[2 * y + 1] + 1 - x0;
        for (int i = (y * pitch + ends[2 * y] - x0) & ~3; i < end; i += 4) act(*reinterpret_cast<const uint32_t*>(code + i), i);
    }
}

constexpr int SOME = 64;

#if defined(JG_SERIAL)
template <int C> JG_FN void add_line(
    const float* __restrict__ value, int64_t n_pixels, const int32_t* __restrict__ at, const uint8_t* __restrict__ code, int x, int end,
    RingSums& s)
{
    for (int stop = x; x < end; x = stop) {            // a run of one slot is added up in registers
        const int mine = code[x];
        while (stop < end && code[stop] == mine) ++stop;
        if (mine == NO_RING) continue;
        s.count[mine] += stop - x;
        float* __restrict__ wedge = s.wedge[mine];
        float* __restrict__ whole = s.whole[mine / WEDGES];
        float a[C], b[C];
        for (int c = 0; c < C; ++c) { a[c] = wedge[c]; b[c] = whole[c]; }
        for (int i = x; i < stop; ++i)
            for (int c = 0; c < C; ++c) {
                const float v = value[c * n_pixels + at[i]];
                a[c] += v;
                b[c] += v;
            }
        for (int c = 0; c < C; ++c) { wedge[c] = a[c]; whole[c] = b[c]; }
    }
}
#else
struct Streams {
    int32_t cursor[MAX_BINS * SEGMENTS];               // where the next pixel of a ring and segment goes
    float value[ADDING][MAX_CHANNELS][jg::WARP + 1];     // 32 pixels of each channel; rows of it start in different banks
};

// A ring's sums and counts by a warp, from its list of n pixels in raster order: place in the row's list << 3 | wedge.
JG_FN void add_ring(
    const float* __restrict__ value, int64_t n_pixels, int taken, const int32_t* __restrict__ list, int n, int r,
    float (*__restrict__ stream)[jg::WARP + 1], RingSums& s)
{
    const int lane = jg::lane(), q = lane % 4, mine = lane / 4, c = jg::smaller(mine, taken - 1);     // wedges q and q + 4
    float first = 0, second = 0, whole = 0;
    int n_first = 0, n_second = 0;
    int entry = 0, next = 0;
    float held[MAX_CHANNELS];
    if (n > 0) {
        entry = list[jg::smaller(lane, n - 1)];
        next = list[jg::smaller(jg::WARP + lane, n - 1)];
        JG_UNROLL for (int k = 0; k < MAX_CHANNELS; ++k) if (k < taken) held[k] = value[k * n_pixels + (entry >> 3)];
    }
    for (int i = 0; i < n; i += jg::WARP) {
        JG_UNROLL for (int k = 0; k < MAX_CHANNELS; ++k) if (k < taken) stream[k][lane] = held[k];
        const bool here = i + lane < n;
        const uint32_t all = __ballot_sync(0xffffffffu, here), one = __ballot_sync(0xffffffffu, entry & 1),
                       two = __ballot_sync(0xffffffffu, entry & 2), four = __ballot_sync(0xffffffffu, entry & 4);
        __syncwarp();                                  // a vote orders no memory
        entry = next;
        JG_UNROLL for (int k = 0; k < MAX_CHANNELS; ++k) if (k < taken) held[k] = value[k * n_pixels + (entry >> 3)];
        next = list[jg::smaller(i + 2 * jg::WARP + lane, n - 1)];
        JG_UNROLL for (int k = 0; k < MAX_CHANNELS; ++k) if (k < taken) jg::held_here(held[k]);
        jg::held_here(next);
        const uint32_t low = all & (q & 1 ? one : ~one) & (q & 2 ? two : ~two), in_first = low & ~four, in_second = low & four;
        n_first += __popc(in_first);
        n_second += __popc(in_second);
        const float* __restrict__ from = stream[c];
        if (all == 0xffffffffu) {
            JG_UNROLL for (int k = 0; k < jg::WARP; ++k) {
                const float v = from[k];
                whole += v;
                if (in_first >> k & 1) first += v;
                if (in_second >> k & 1) second += v;
            }
        } else {
            for (int k = 0; all >> k & 1; ++k) {       // the last lanes are not there
                const float v = from[k];
                whole += v;
                if (in_first >> k & 1) first += v;
                if (in_second >> k & 1) second += v;
            }
        }
        __syncwarp();
    }
    if (mine < taken) {
        s.wedge[r * WEDGES + q][c] = first;
        s.wedge[r * WEDGES + q + 4][c] = second;
        if (q == 0) s.whole[r][c] = whole;
    }
    if (mine == 0) {
        s.count[r * WEDGES + q] = n_first;
        s.count[r * WEDGES + q + 4] = n_second;
    }
}
#endif

// In   values        float32 [C, P]
//      pixel         int32   [P]          y << 16 | x; a row has 2^28 at most
//      start, stop   int64   [rows]       each row's range of the list
//      box, schedule, map_start, line_start, extent, ring as of radial_rings
//      turns         rows * ceil(C / 8): a block takes every gridDim-th group of 8 channels of a row
//      capacity          at least h (w + 15) of every box
// Out  result         float64 [rows, C, 3, bins]   FracAtD, MeanFrac, RadialCV
//      place         int32   [blocks, 2, capacity]    scratch: positions in the row's list by pixel; the list of each ring
extern "C" __global__ void __launch_bounds__(128, 4) radial_sums(
    const float* __restrict__ values, const int32_t* __restrict__ pixel, const int64_t* __restrict__ start,
    const int64_t* __restrict__ stop, const int32_t* __restrict__ box, const int32_t* __restrict__ schedule,
    const int64_t* __restrict__ map_start, const int64_t* __restrict__ line_start, const int32_t* __restrict__ extent,
    const uint8_t* __restrict__ ring, int64_t n_pixels, int32_t channels, int32_t bins, int32_t turns, int64_t capacity,
    double* __restrict__ result, int32_t* __restrict__ place)
{
    JG_SHARED(RingSums, s);
    const int groups = (channels + MAX_CHANNELS - 1) / MAX_CHANNELS, slots = bins * WEDGES;
    int32_t* __restrict__ map = place + int64_t(blockIdx.x) * 2 * capacity;
    for (int turn = int(blockIdx.x); turn < turns; turn += int(gridDim.x)) {
        const int row = schedule[turn / groups], c0 = turn % groups * MAX_CHANNELS, taken = jg::smaller(MAX_CHANNELS, channels - c0);
        const int y0 = box[4 * row], x0 = box[4 * row + 1], h = box[4 * row + 2] - y0;
        const int pitch = (box[4 * row + 3] - x0 + CHUNK - 1) / CHUNK * CHUNK, n = int(stop[row] - start[row]);
        const int32_t* __restrict__ pixels = pixel + start[row];
        const int32_t* __restrict__ ends = extent + line_start[row] * 2;
        const uint8_t* __restrict__ code = ring + map_start[row];
        const float* __restrict__ value = values + c0 * n_pixels + start[row];
        __syncthreads();                               // the turn before is done with the scratch
#if defined(JG_SERIAL)
        for (int i = 0; i < n; i += SOME) {            // places first, which makes vectors
            int32_t to[SOME];
            const int here = jg::smaller(SOME, n - i);
            for (int k = 0; k < here; ++k) to[k] = ((pixels[i + k] >> 16) - y0) * pitch + (pixels[i + k] & 0xffff) - x0;
            for (int k = 0; k < here; ++k) map[to[k]] = i + k;
        }
        for (int r = 0; r < slots; ++r) {
            s.count[r] = 0;
            for (int c = 0; c < MAX_CHANNELS; ++c) s.wedge[r][c] = s.whole[r / WEDGES][c] = 0;
        }
        for (int y = 0; y < h; ++y) {
            const int a = ends[2 * y] - x0, b = ends[2 * y + 1] + 1 - x0;
            const int32_t* __restrict__ at = map + y * pitch;
            const uint8_t* __restrict__ codes = code + y * pitch;
            switch (taken) {
                case 1: add_line<1>(value, n_pixels, at, codes, a, b, s); break;
                case 2: add_line<2>(value, n_pixels, at, codes, a, b, s); break;
                case 3: add_line<3>(value, n_pixels, at, codes, a, b, s); break;
                case 4: add_line<4>(value, n_pixels, at, codes, a, b, s); break;
                case 5: add_line<5>(value, n_pixels, at, codes, a, b, s); break;
                case 6: add_line<6>(value, n_pixels, at, codes, a, b, s); break;
                case 7: add_line<7>(value, n_pixels, at, codes, a, b, s); break;
                default: add_line<8>(value, n_pixels, at, codes, a, b, s);
            }
        }
#else
        JG_SHARED(Streams, streams);
        int32_t* __restrict__ by_ring = map + capacity;
        int32_t* cursor = streams.cursor;
        for (int i = int(threadIdx.x); i < n; i += LINES * int(blockDim.x)) {
            int held[LINES];
            JG_UNROLL for (int k = 0; k < LINES; ++k) held[k] = pixels[jg::smaller(i + k * int(blockDim.x), n - 1)];
            JG_UNROLL for (int k = 0; k < LINES; ++k) jg::held_here(held[k]);
            JG_UNROLL for (int k = 0; k < LINES; ++k)
                if (i + k * int(blockDim.x) < n)
                    map[((held[k] >> 16) - y0) * pitch + (held[k] & 0xffff) - x0] = i + k * int(blockDim.x);
        }
        JG_FOR(k, bins * SEGMENTS) cursor[k] = 0;
        __syncthreads();
        JG_FOR(g, SEGMENTS)
            each_four(h * g / SEGMENTS, h * (g + 1) / SEGMENTS, pitch, x0, ends, code, [&](uint32_t four, int) {
                JG_UNROLL for (int k = 0; k < 4; ++k) {
                    const int mine = four >> 8 * k & 255;
                    if (mine != NO_RING) ++cursor[mine / WEDGES * SEGMENTS + g];
                }
            });
        __syncthreads();
        JG_FOR(r, bins) {
            int total = 0;
            for (int g = 0; g < SEGMENTS; ++g) {
                const int mine = cursor[r * SEGMENTS + g];
                cursor[r * SEGMENTS + g] = total;
                total += mine;
            }
            s.begin[r + 1] = total;
        }
        __syncthreads();
        JG_ONCE {
            s.begin[0] = 0;
            for (int r = 1; r <= bins; ++r) s.begin[r] += s.begin[r - 1];
        }
        __syncthreads();
        JG_FOR(g, SEGMENTS)
            each_four(h * g / SEGMENTS, h * (g + 1) / SEGMENTS, pitch, x0, ends, code, [&](uint32_t four, int i) {
                int at[4];
                JG_UNROLL for (int k = 0; k < 4; ++k) at[k] = (four >> 8 * k & 255) != NO_RING ? map[i + k] : 0;
                JG_UNROLL for (int k = 0; k < 4; ++k) {
                    const int mine = four >> 8 * k & 255, r = mine / WEDGES;
                    if (mine != NO_RING) by_ring[s.begin[r] + cursor[r * SEGMENTS + g]++] = at[k] << 3 | mine % WEDGES;
                }
            });
        __syncthreads();
        const int adding = jg::smaller(ADDING, jg::warps());
        for (int r = jg::warp_id() < adding ? bins - 1 - jg::warp_id() : -1; r >= 0; r -= adding)     // the outermost takes longest
            add_ring(value, n_pixels, taken, by_ring + s.begin[r], s.begin[r + 1] - s.begin[r], r,
                     streams.value[jg::warp_id()], s);
#endif
        __syncthreads();
        JG_FOR(t, taken * bins) {
            const int c = t / bins, bin = t % bins;
            float all = 0;
            double pixels_of = 0, in_ring = 0;
            for (int b = 0; b < bins; ++b) all += s.whole[b][c];
            for (int r = 0; r < slots; ++r) pixels_of += s.count[r];
            double mean[WEDGES], total = 0, square = 0;
            int filled = 0;
            for (int g = 0; g < WEDGES; ++g) {
                const int count = s.count[bin * WEDGES + g];
                in_ring += count;
                filled += count > 0;
                mean[g] = count ? s.wedge[bin * WEDGES + g][c] / double(count) : 0.0;
                total += mean[g];
            }
            const double centre = total / filled;
            for (int g = 0; g < WEDGES; ++g)
                if (s.count[bin * WEDGES + g]) square += (mean[g] - centre) * (mean[g] - centre);
            const double deviation = sqrt(square / filled);
            const float share = s.whole[bin][c] / all;
            double* __restrict__ out = result + (int64_t(row) * channels + c0 + c) * Ring::COUNT * bins + bin;
            out[Ring::FracAtD * bins] = share;
            out[Ring::MeanFrac * bins] = share / (in_ring / pixels_of + 2.220446049250313e-16);
            out[Ring::RadialCV * bins] = filled == 0 ? 0.0 : centre == 0 ? deviation : deviation / centre;
        }
    }
}
JG_REGISTER(radial_sums)

// Zernike moments of the intensity on the object's smallest enclosing circle: sum v R_nm(r^2) (y + i x)^m in radii from its
// centre. magnitude = |moment| / pixels, phase = atan2(real, imaginary), as CellProfiler has it.
// A circle without radius (one pixel) gives nan.
//
// In   values, pixel, start, stop, schedule as above
//      hull          float64 [rows, 6]    of trace_hulls (area_shape.cu): circle y, x, radius at 2, 3, 4
//      orders        int32   [Z, 2]       n, m
//      polynomials   float64 [Z, 5]       coefficients of R_nm in r^2, the highest first, (n - m) / 2 + 1 of them
// Tmp  place         float64 [blocks, 6, capacity]   of a row's pixels: y and x in radii, r^2, (y + i x)^m, R_nm
// Out  result         float64 [rows, C, 2, Z]
template <int C> JG_FN void add_moments(
    const float* __restrict__ value, int64_t n_pixels, int n, const double* __restrict__ place, int64_t capacity,
    jg::SumScratch<2 * C>& s, double* __restrict__ out, int stride, int n_orders)
{
    const double *square = place + 2 * capacity, *real = place + 3 * capacity, *imaginary = real + capacity,
                 *radial = imaginary + capacity;
    const jg::Vec<2 * C> sum = jg::block_sum<2 * C>(n, s, [&](int i) {
        jg::Vec<2 * C> part;
        JG_UNROLL for (int c = 0; c < C; ++c) {
            const double w = square[i] > 1 ? 0.0 : value[c * n_pixels + i] * radial[i];
            part.v[2 * c] = w * real[i];
            part.v[2 * c + 1] = w * imaginary[i];
        }
        return part;
    });
    JG_ONCE {
        for (int c = 0; c < C; ++c) {
            const double a = sum.v[2 * c], b = sum.v[2 * c + 1];
            out[c * stride + Moment::ZernikeMagnitude * n_orders] = sqrt(a * a + b * b) / n;
            out[c * stride + Moment::ZernikePhase * n_orders] = a == a ? jg::atan2_same(a, b) : a;
        }
    }
}

extern "C" __global__ void __launch_bounds__(128, 8) radial_zernike(
    const float* __restrict__ values, const int32_t* __restrict__ pixel, const int64_t* __restrict__ start,
    const int64_t* __restrict__ stop, const int32_t* __restrict__ schedule, const double* __restrict__ hull,
    const int32_t* __restrict__ orders, const double* __restrict__ polynomials, int64_t n_pixels, int32_t rows, int32_t channels,
    int32_t n_orders, int64_t capacity, double* __restrict__ place, double* __restrict__ result)
{
    constexpr int TOGETHER = 4;                        // channels
    JG_SHARED(jg::SumScratch<2 * TOGETHER>, several);
    JG_SHARED(jg::SumScratch<2>, one);
    double* __restrict__ own = place + int64_t(blockIdx.x) * 6 * capacity;
    double *ys = own, *xs = ys + capacity, *square = xs + capacity, *real = square + capacity, *imaginary = real + capacity,
           *radial = imaginary + capacity;
    for (int r = int(blockIdx.x); r < rows; r += int(gridDim.x)) {
        const int row = schedule[r], n = int(stop[row] - start[row]);
        const int32_t* __restrict__ at = pixel + start[row];
        const double cy = hull[row * 6 + 2], cx = hull[row * 6 + 3], radius = hull[row * 6 + 4];
        JG_FOR(i, n) {
            const double y = ((at[i] >> 16) - cy) / radius, x = ((at[i] & 0xffff) - cx) / radius;
            ys[i] = y;
            xs[i] = x;
            square[i] = x * x + y * y;
            real[i] = 1;
            imaginary[i] = 0;
        }
        __syncthreads();
        int highest = 0;
        for (int z = 0; z < n_orders; ++z) highest = jg::larger(highest, orders[2 * z + 1]);
        for (int m = 0; m <= highest; ++m) {
            if (m) JG_FOR(i, n) {
                const double next = real[i] * ys[i] - imaginary[i] * xs[i];
                imaginary[i] = real[i] * xs[i] + imaginary[i] * ys[i];
                real[i] = next;
            }
            for (int z = 0; z < n_orders; ++z) {
                if (orders[2 * z + 1] != m) continue;
                const int terms = (orders[2 * z] - m) / 2 + 1;
                const double* __restrict__ weight = polynomials + 5 * z;
                JG_FOR(i, n) radial[i] = 0 * square[i] + weight[0];    // nan without a radius
                for (int k = 1; k < terms; ++k) JG_FOR(i, n) radial[i] = radial[i] * square[i] + weight[k];
                __syncthreads();
                double* __restrict__ out = result + int64_t(row) * channels * Moment::COUNT * n_orders + z;
                const int stride = Moment::COUNT * n_orders;
                int c = 0;
                for (; c + TOGETHER <= channels; c += TOGETHER)
                    add_moments<TOGETHER>(values + c * n_pixels + start[row], n_pixels, n, own, capacity, several, out + c * stride,
                                          stride, n_orders);
                for (; c < channels; ++c)
                    add_moments<1>(values + c * n_pixels + start[row], n_pixels, n, own, capacity, one, out + c * stride, stride,
                                   n_orders);
            }
        }
    }
}
JG_REGISTER(radial_zernike)
