// radial.cu: how a channel's intensity is spread from an object's centre to its edge, in rings of scaled distance.
//
//   edge e(p)     Euclidean distance to the nearest pixel that is not the object's (the image's border is no edge)
//   centre        the pixel with the largest e; of several, the first in raster order
//   inner d(p)    length of the shortest path inside the object from the centre, steps of 1 and sqrt 2 to the 8 neighbours
//   ring          floor(bins * d / (d + e + 0.001)); pixels without a path from the centre are left out
//   FracAtD       the ring's share of the intensity      MeanFrac   that share over (the ring's share of the pixels + 2^-52)
//   RadialCV      coefficient of variation of the mean intensities of the ring's 8 wedges, those that have pixels; 0 without any
//   Sums of intensity are float32, pixel after pixel in raster order.
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensityDistribution ('Object centers are these objects', scaled), whose sums are
//          float32; it takes any of several farthest pixels.
// Oracle   SciPy, centrosome's propagate (tests/test_radial_centrosome.py); CellProfiler's own output on the real fields
// Launch   radial_rings: any number of blocks, each takes every gridDim-th row, so that scratch is a block's and not a row's;
//          radial_sums: one block a row, all its channels, since they share the order of pixels.
// Order    distances are exact integers: a path of a straight and b diagonal steps is a S + b T with T / S next to sqrt 2, which
//          orders paths to one pixel as their lengths do (those differ by 0.17 or not at all) and gives back a and b. The inner
//          distance is the one solution of "no neighbour offers less", so any schedule of offers finds it. Sums have one order.
#include "jg_math.cuh"

constexpr int STRAIGHT = 33461, DIAGONAL = 47321;      // consecutive convergents: coprime, T / S - sqrt 2 is 3e-10
constexpr int INVERSE = 19601;                         // DIAGONAL * INVERSE = 1 modulo STRAIGHT
constexpr int UNTOUCHED = 0x7fffffff - DIAGONAL;       // a path of more than 64,000 pixels counts as none
constexpr int FAR = 32767;                             // no edge in this column
constexpr int WEDGES = 8, MOST_BINS = 31, NO_RING = 255;

// The length a + b sqrt 2 of a path of a S + b T: b is known modulo S, which no field's paths reach.
JG_FN double path_length(int steps) {
    const double product = double(steps) * INVERSE;    // below 2^53
    const int turns = int(product * (1.0 / STRAIGHT)); // one off at most
    double diagonal = product - double(turns) * STRAIGHT;
    diagonal += diagonal < 0 ? STRAIGHT : diagonal >= STRAIGHT ? -STRAIGHT : 0;
    return rint((steps - diagonal * DIAGONAL) * (1.0 / STRAIGHT)) + diagonal * 1.41421356237309504880;
}

struct RadialScratch { int32_t farthest, centre, moved, changed; };

// One line, from x = a to b - 1, takes what the line beside it offers, then its own pixels offer to each other until none takes:
// afterwards the line is what it would be if that were all there is. Ends with a barrier. Returns whether this thread's pixels
// changed.
JG_FN int relax_line(
    int32_t* __restrict__ line, const int32_t* __restrict__ beside, const int32_t* __restrict__ list, int a, int b,
    int32_t* __restrict__ offers, RadialScratch& s)
{
    int changed = 0;
    JG_FOR_OWN(x, a, b) {
        const int offer = jg::least(beside[x] + STRAIGHT, jg::least(beside[x - 1], beside[x + 1]) + DIAGONAL);
        const int v = list[x] < 0 ? UNTOUCHED : jg::least(line[x], offer);
        changed |= v ^ line[x];
        line[x] = v;
    }
    for (;;) {
        __syncthreads();
        int moved = 0;
        JG_FOR_OWN(x, a, b) {
            const int offer = jg::least(line[x - 1], line[x + 1]) + STRAIGHT;
            offers[x] = list[x] < 0 ? UNTOUCHED : jg::least(line[x], offer);
            moved |= offers[x] ^ line[x];
        }
        jg::gather_most(&s.moved, moved != 0);
        changed |= moved;
        __syncthreads();
        if (!s.moved) break;
        JG_FOR_OWN(x, a, b) line[x] = offers[x];
        __syncthreads();
        JG_ONCE s.moved = 0;
    }
    return changed != 0;
}

// In   pixel         int32   [P]          y << 16 | x
//      start, stop   int64   [rows]       each row's range of the list
//      box           int32   [rows, 4]
//      schedule      int32   [rows]
//      row_start     int64   [rows + 1]   each row's first entry of place and ring
//      line_start    int64   [rows + 1]   each row's first line
//      extent        int32   [L, 2]       first and last column of each line, 32767 and -1 where it has no pixel (outline.cu)
//      height, width of a field
//      room          at least the largest (h + 2) * (w + 2) of a box
// Out  place         int32   [R]          the row's pixels in raster order: position in its list
//      ring          uint8   [R]          ring * 8 + wedge of each, 255 where there is no path
//      maps          int32   [blocks, 4, room]             scratch
//      lines         int32   [blocks, height + width + 4]  scratch
extern "C" __global__ void __launch_bounds__(128, 8) radial_rings(
    const int32_t* __restrict__ pixel, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int32_t* __restrict__ box, const int32_t* __restrict__ schedule, const int64_t* __restrict__ row_start,
    const int64_t* __restrict__ line_start, const int32_t* __restrict__ extent, int32_t rows, int32_t height, int32_t width, int64_t room, int32_t bins, int32_t* __restrict__ place,
    uint8_t* __restrict__ ring, int32_t* __restrict__ maps, int32_t* __restrict__ lines)
{
    JG_SHARED(RadialScratch, s);
    int32_t* __restrict__ list = maps + int64_t(blockIdx.x) * 4 * room;    // position in the list, -1 outside the object
    int32_t* __restrict__ gap = list + room;           // squared distance to the edge within the column; later the code
    int32_t* __restrict__ edge = gap + room;           // squared distance to the edge
    int32_t* __restrict__ path = edge + room;          // steps from the centre
    int32_t* __restrict__ of_line = lines + int64_t(blockIdx.x) * (height + width + 4);
    int32_t* __restrict__ offers = of_line + height + 2;
    for (int turn = int(blockIdx.x); turn < rows; turn += int(gridDim.x)) {
        const int row = schedule[turn];
        const int n = int(stop[row] - start[row]);
        if (n == 0) continue;
        const int y0 = box[4 * row] - 1, x0 = box[4 * row + 1] - 1;
        const int h = box[4 * row + 2] + 1 - y0, w = box[4 * row + 3] + 1 - x0;   // a pixel more on each side
        const int32_t* __restrict__ pixels = pixel + start[row];
        const int32_t* __restrict__ ends = extent + line_start[row] * 2;
        const auto line_from = [&](int y) { return ends[2 * y - 2] - x0; };        // of line y of the maps; an empty one ends before
        const auto line_to = [&](int y) { return ends[2 * y - 1] + 1 - x0; };
        __syncthreads();                               // the row before is done with the scratch
        JG_FOR(i, h * w) { list[i] = -1; path[i] = UNTOUCHED; }
        JG_ONCE { s.farthest = -1; s.centre = 0x7fffffff; s.moved = 0; }
        __syncthreads();
        JG_FOR(i, n) list[((pixels[i] >> 16) - y0) * w + (pixels[i] & 0xffff) - x0] = i;
        __syncthreads();

        // Edge: down and up the columns, which stay with their threads, then along each line no farther than something nearer
        // than what is known may stand. A thread keeps the first of its own farthest pixels.
        for (int y = 0; y < h; ++y)
            JG_FOR(x, w) {
                const int open = (y0 + y < 0) | (y0 + y >= height) | (x0 + x < 0) | (x0 + x >= width) ? FAR : 0;
                const int above = y ? gap[(y - 1) * w + x] + 1 : FAR;
                gap[y * w + x] = list[y * w + x] < 0 ? open : jg::least(above, FAR);
            }
        for (int y = h - 2; y >= 0; --y)
            JG_FOR(x, w) gap[y * w + x] = jg::least(gap[y * w + x], gap[(y + 1) * w + x] + 1);
        __syncthreads();
        JG_FOR(i, h * w) edge[i] = gap[i] *= gap[i];
        __syncthreads();
        int farthest = -1, centre = 0x7fffffff;
        for (int y = 1; y < h - 1; ++y) {
            int32_t* __restrict__ to = edge + y * w;
            const int32_t* __restrict__ from = gap + y * w;
            const int a = line_from(y), b = line_to(y);
            int worst = -1;
            JG_FOR_OWN(x, a, b) worst = jg::most(worst, to[x]);
            for (int j = 1; j < w && j * j < worst; ++j) {
                const int further = j * j, left = jg::least(j, w - j), right = jg::most(j, w - j);
                const int inner = jg::most(a, jg::least(b, left)), outer = jg::most(inner, jg::least(b, right));
                worst = -1;
                JG_FOR_OWN(x, a, inner) {
                    to[x] = jg::least(to[x], from[x + j] + further);
                    worst = jg::most(worst, to[x]);
                }
                JG_FOR_OWN(x, inner, outer) {          // both sides, or neither
                    const int nearest = left == j ? jg::least(from[x - j], from[x + j]) + further : to[x];
                    to[x] = jg::least(to[x], nearest);
                    worst = jg::most(worst, to[x]);
                }
                JG_FOR_OWN(x, outer, b) {
                    to[x] = jg::least(to[x], from[x - j] + further);
                    worst = jg::most(worst, to[x]);
                }
            }
            if (worst <= farthest) continue;
            farthest = worst;
            centre = 0x7fffffff;
            JG_FOR_OWN(x, a, b) centre = jg::least(centre, to[x] == worst ? y * w + x : 0x7fffffff);
        }
        jg::gather_most(&s.farthest, farthest);
        __syncthreads();
        jg::gather_least(&s.centre, farthest == s.farthest ? centre : 0x7fffffff);
        __syncthreads();
        centre = s.centre;
        const int cy = centre / w, cx = centre % w;

        // Paths: from the centre's line down, then up and down over all lines in turn until a turn changes nothing: what it
        // asked holds, and what the turn before it asked still does.
        JG_ONCE { path[centre] = 0; s.changed = 0; }
        __syncthreads();
        const auto relax = [&](int y, int other) {
            return relax_line(path + y * w, path + other * w, list + y * w, line_from(y), line_to(y), offers, s);
        };
        for (int y = cy; y < h - 1; ++y) relax(y, y - 1);
        for (int up = 1;; up ^= 1) {
            int changed = 0;
            if (up) for (int y = h - 3; y > 0; --y) changed |= relax(y, y + 1);
            else for (int y = 2; y < h - 1; ++y) changed |= relax(y, y - 1);
            jg::gather_most(&s.changed, changed);
            __syncthreads();
            if (!s.changed) break;
            __syncthreads();
            JG_ONCE s.changed = 0;
            __syncthreads();
        }

        for (int y = 1 + jg::warp_id(); y < h - 1; y += jg::warps())
            for (int x = line_from(y) + jg::lane(); x < line_to(y); x += jg::WARP) {
                const int i = y * w + x, dy = y - cy, dx = x - cx;
                const double inner = path_length(path[i]), whole = inner + sqrt(double(edge[i]));
                const int at = int(inner / (whole + 0.001) * bins);
                const int wedge = int(dy > 0) + 2 * int(dx > 0) + 4 * int((dy < 0 ? -dy : dy) > (dx < 0 ? -dx : dx));
                gap[i] = path[i] >= UNTOUCHED ? NO_RING : at * WEDGES + wedge;
            }
        JG_FOR(y, h) {
            int count = 0;
            if (y >= 1 && y < h - 1) for (int x = line_from(y); x < line_to(y); ++x) count += list[y * w + x] >= 0;
            of_line[y] = count;
        }
        __syncthreads();
        JG_ONCE {
            int total = 0;
            for (int y = 0; y < h; ++y) {
                const int count = of_line[y];
                of_line[y] = total;
                total += count;
            }
        }
        __syncthreads();
        JG_FOR(y, h) {
            if (y < 1 || y >= h - 1) continue;
            int64_t at = row_start[row] + of_line[y];
            for (int i = y * w + line_from(y); i < y * w + line_to(y); ++i) {  // without a branch: what is written outside
                place[at] = list[i];                                           // is written over, and the last is not outside
                ring[at] = uint8_t(gap[i]);
                at += list[i] >= 0;
            }
        }
    }
}
JG_REGISTER(radial_rings)

// One slot's sum over the row: slot = ring * 8 + wedge, or RINGS + ring for a whole ring. On a GPU every thread walks the row
// for its own slots; the serial build walks it once for all. Either way a slot's values are added in raster order.
constexpr int RINGS = (MOST_BINS + 1) * WEDGES, SLOTS = RINGS + MOST_BINS + 1;
constexpr int MOST_CHANNELS = 8;                       // channels of a block
struct RingSums { float sum[SLOTS][MOST_CHANNELS]; uint32_t count[RINGS]; };

#if defined(JG_SERIAL)
// The values of C channels from i to end - 1, which are of one wedge and ring, added to both in registers.
template <int C> JG_FN void add_run(const float* __restrict__ value, int64_t n_pixels, const int32_t* __restrict__ at, int i,
                                    int end, float* __restrict__ wedge, float* __restrict__ whole)
{
    float a[C], b[C];
    for (int c = 0; c < C; ++c) { a[c] = wedge[c]; b[c] = whole[c]; }
    for (; i < end; ++i)
        for (int c = 0; c < C; ++c) {
            const float v = value[c * n_pixels + at[i]];
            a[c] += v;
            b[c] += v;
        }
    for (int c = 0; c < C; ++c) { wedge[c] = a[c]; whole[c] = b[c]; }
}
#endif

// In   values        float32 [C, P]
//      start         int64   [rows]
//      schedule      int32   [rows]
//      row_start, place, ring of radial_rings
//      block = position in the schedule * ceil(C / 8) + group of 8 channels
// Out  found         float64 [rows, C, 3, bins]   FracAtD, MeanFrac, RadialCV
extern "C" __global__ void __launch_bounds__(128, 6) radial_sums(
    const float* __restrict__ values, const int64_t* __restrict__ start, const int32_t* __restrict__ schedule,
    const int64_t* __restrict__ row_start, const int32_t* __restrict__ place, const uint8_t* __restrict__ ring,
    int64_t n_pixels, int32_t channels, int32_t bins, double* __restrict__ found)
{
    JG_SHARED(RingSums, s);
    const int groups = (channels + MOST_CHANNELS - 1) / MOST_CHANNELS;
    const int row = schedule[int(blockIdx.x) / groups], c0 = int(blockIdx.x) % groups * MOST_CHANNELS;
    const int taken = jg::least(MOST_CHANNELS, channels - c0), rings = (bins + 1) * WEDGES;
    const int n = int(row_start[row + 1] - row_start[row]);
    const int32_t* __restrict__ at = place + row_start[row];
    const uint8_t* __restrict__ code = ring + row_start[row];
    const float* __restrict__ value = values + c0 * n_pixels + start[row];
    JG_FOR(r, rings) s.count[r] = 0;
    __syncthreads();
#if defined(JG_SERIAL)
    for (int r = 0; r < rings; ++r)
        for (int c = 0; c < MOST_CHANNELS; ++c) s.sum[r][c] = 0;
    for (int r = 0; r <= bins; ++r)
        for (int c = 0; c < MOST_CHANNELS; ++c) s.sum[RINGS + r][c] = 0;
    for (int i = 0, end = 0; i < n; i = end) {         // a run of one slot is added up in registers
        while (end < n && code[end] == code[i]) ++end;
        if (code[i] == NO_RING) continue;
        s.count[code[i]] += uint32_t(end - i);
        float* __restrict__ wedge = s.sum[code[i]];
        float* __restrict__ whole = s.sum[RINGS + code[i] / WEDGES];
        for (int c = 0; c < taken; c += 4) {
            if (taken - c >= 4) add_run<4>(value + c * n_pixels, n_pixels, at, i, end, wedge + c, whole + c);
            else
                for (int k = c; k < taken; ++k) add_run<1>(value + k * n_pixels, n_pixels, at, i, end, wedge + k, whole + k);
        }
    }
#else
    JG_FOR(i, n)
        if (code[i] != NO_RING) jg::tally(&s.count[code[i]]);
    JG_FOR(t, (rings + bins + 1) * taken) {
        const int slot = t / taken, c = t % taken, r = slot < rings ? slot : slot - rings;
        const int shift = slot < rings ? 0 : 3;
        float sum = 0;
        for (int i = 0; i < n; ++i)
            if (code[i] != NO_RING && code[i] >> shift == r) sum += value[c * n_pixels + at[i]];
        s.sum[slot < rings ? slot : RINGS + r][c] = sum;
    }
#endif
    __syncthreads();
    JG_FOR(t, taken * bins) {
        const int c = t / bins, bin = t % bins;
        float all = 0;
        double pixels = 0, in_ring = 0;
        for (int b = 0; b <= bins; ++b) all += s.sum[RINGS + b][c];
        for (int r = 0; r < rings; ++r) pixels += s.count[r];
        double mean[WEDGES], total = 0, square = 0;
        int filled = 0;
        for (int g = 0; g < WEDGES; ++g) {
            const uint32_t count = s.count[bin * WEDGES + g];
            in_ring += count;
            filled += count > 0;
            mean[g] = count ? s.sum[bin * WEDGES + g][c] / double(count) : 0.0;
            total += mean[g];
        }
        const double centre = total / filled;
        for (int g = 0; g < WEDGES; ++g)
            if (s.count[bin * WEDGES + g]) square += (mean[g] - centre) * (mean[g] - centre);
        const double deviation = sqrt(square / filled);
        const float share = s.sum[RINGS + bin][c] / all;
        double* __restrict__ out = found + (int64_t(row) * channels + c0 + c) * 3 * bins + bin;
        out[0] = share;
        out[bins] = share / (in_ring / pixels + 2.220446049250313e-16);
        out[2 * bins] = filled == 0 ? 0.0 : centre == 0 ? deviation : deviation / centre;
    }
}
JG_REGISTER(radial_sums)

// Zernike moments of the intensity on the object's smallest enclosing circle: sum v R_nm(r^2) (y + i x)^m in radii from its
// centre. magnitude = |moment| / pixels, phase = atan2(real, imaginary), as CellProfiler has it.
// A circle without radius (one pixel) gives nan.
//
// In   values, pixel, start, stop, schedule as above
//      hull          float64 [rows, 6]    of trace_hulls (shape.cu): circle y, x, radius at 2, 3, 4
//      orders        int32   [Z, 2]       n, m
//      polynomials   float64 [Z, 5]       coefficients of R_nm in r^2, the highest first, (n - m) / 2 + 1 of them
// Out  found         float64 [rows, C, 2, Z]
extern "C" __global__ void __launch_bounds__(128, 8) radial_zernike(
    const float* __restrict__ values, const int32_t* __restrict__ pixel, const int64_t* __restrict__ start,
    const int64_t* __restrict__ stop, const int32_t* __restrict__ schedule, const double* __restrict__ hull,
    const int32_t* __restrict__ orders, const double* __restrict__ polynomials, int64_t n_pixels, int32_t channels, int32_t n_orders,
    double* __restrict__ found)
{
    JG_SHARED(jg::SumScratch<2>, s);
    const int row = schedule[int(blockIdx.x) / channels], c = int(blockIdx.x) % channels;
    const int n = int(stop[row] - start[row]);
    const float* __restrict__ value = values + c * n_pixels + start[row];
    const int32_t* __restrict__ at = pixel + start[row];
    const double cy = hull[row * 6 + 2], cx = hull[row * 6 + 3], radius = hull[row * 6 + 4];
    double* __restrict__ out = found + (int64_t(row) * channels + c) * 2 * n_orders;
    for (int z = 0; z < n_orders; ++z) {
        const int m = orders[2 * z + 1], terms = (orders[2 * z] - m) / 2 + 1;
        const double* __restrict__ weight = polynomials + 5 * z;
        const jg::Vec<2> sum = jg::block_sum<2>(n, s, [&](int i) {
            const double y = ((at[i] >> 16) - cy) / radius, x = ((at[i] & 0xffff) - cx) / radius, square = x * x + y * y;
            double radial = 0, real = 1, imaginary = 0;
            for (int k = 0; k < terms; ++k) radial = radial * square + weight[k];
            for (int k = 0; k < m; ++k) {
                const double r = real * y - imaginary * x;
                imaginary = real * x + imaginary * y;
                real = r;
            }
            const double w = square > 1 ? 0.0 : value[i] * radial;
            return jg::Vec<2>{{w * real, w * imaginary}};
        });
        JG_ONCE {
            out[z] = sqrt(sum.v[0] * sum.v[0] + sum.v[1] * sum.v[1]) / n;
            out[n_orders + z] = sum.v[0] == sum.v[0] ? jg::atan2_same(sum.v[0], sum.v[1]) : sum.v[0];
        }
    }
}
JG_REGISTER(radial_zernike)
