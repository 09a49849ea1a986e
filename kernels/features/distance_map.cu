// distance_map.cu: how deep each pixel lies in its object, and the object's radii.
//
//   squared   squared Euclidean distance from each pixel of the object to the nearest pixel that is not the object's, 0 elsewhere;
//             the image's border is no edge, and where there is no other edge either the distance is FAR
//   centre    the pixel with the largest distance; of several, the first in raster order
//   radii     largest, mean and median (mean of the middle two) of the distances, here with an edge all around the image
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensityDistribution ('squared', centre), MeasureObjectSizeShape (radii); the
//          search is design.md's: columns first, then along the row; on a GPU the row's lower envelope (Meijster et al. 2000;
//          Felzenszwalb and Huttenlocher 2012).
// Oracle   SciPy (tests/features/test_area_shape.py, test_radial_distribution.py); CellProfiler's own output on the real fields
// Launch   blocks take object rows in turns, each with scratch of its own; a thread per column, then a line. The serial build
//          takes CHUNK pixels of a line together. 17 KB of shared memory.
// Order    integers, but for roots of single numbers, and jg::block_sum over distances.
#include "jg/register_loads.cuh"
#define ROLLED _Pragma("GCC unroll 1")

constexpr int BINS = 4096;                             // squared distances tallied at a time
constexpr int CHUNK = 16;                              // a line of a map is a multiple of this (distance_map.py: CHUNK)
constexpr int AHEAD = 8;                               // lines, or on a GPU pixels, asked for before they are needed
constexpr int STEP = 4;                                // distances looked at before asking whether to go on (serial build)
constexpr int FAR = 32767;                             // no edge in this column; 2 FAR^2 still fits 32 bits
constexpr int SHORT = 176;                             // (SHORT + STEP)^2 + SHORT^2 fits 16 bits
constexpr int NARROW = 2 * SHORT - 2;                  // no pixel of an object so narrow is SHORT deep

constexpr int RUN = 33;                                // bins that one thread adds up: odd, so that threads use different banks
constexpr int RUNS = (BINS + RUN - 1) / RUN;
struct Depths { uint32_t bin[BINS + CHUNK], run[RUNS]; int maximum, centre; int64_t counted; double middle[2]; };
struct Box { int h, w, pitch; bool up, down, left, right; };   // whether beyond that side there is an edge

#if !defined(JG_SERIAL)
// Where the column u of a line is the nearest: from `begin` on, at `square` to the edge within the column.
struct Arc {
    int u, begin, square;
    __device__ __forceinline__ int square_at(int x) const { return square + (x - u) * (x - u); }
};
template <class T> JG_FN Arc listed(int32_t entry, const T* __restrict__ line) {
    const int u = int(uint32_t(entry) >> 16);
    return {u, entry & 0xffff, int(line[u])};
}
#endif

// The map of one object, in squares of T: `top` for no edge in the column, which nothing may reach. near: scratch, h lines of
// pitch, and in the serial build four more and some. Sets s.maximum, s.centre and the first s.bin. Starts and ends with a barrier.
template <class T> JG_FN void find_depths(
    const int32_t* __restrict__ label, int64_t width, int n, const Box box, int top, T* __restrict__ near,
    int32_t* __restrict__ squared, Depths& s)
{
    const int h = box.h, w = box.w, pitch = box.pitch;
    JG_ONCE { s.maximum = -1; s.centre = 0x7fffffff; }
    JG_FOR(i, BINS + CHUNK) s.bin[i] = 0;
    __syncthreads();
#if defined(JG_SERIAL)
    const bool closed = box.left && box.right;
    const int margin = ((closed ? jg::smaller(h, w) / 2 + 1 : w) + STEP + 2 * CHUNK) / CHUNK * CHUNK;
    const T none = T(top * top);
    T* __restrict__ under = near + h * pitch;          // steps of the line before the first, then of the line below
    T* __restrict__ line = under + pitch + margin;     // squares of one line and beyond its ends, as far as is looked
    for (int x = 0; x < pitch; ++x) under[x] = T(box.up ? 0 : top);
    for (int y = 0; y < h; ++y) {
        if (y + AHEAD < h) jg::fetch_ahead(label + (y + AHEAD) * width, w);
        const int32_t* __restrict__ from = label + y * width;
        T* __restrict__ now = near + y * pitch;
        const T* __restrict__ before = y ? now - pitch : under;
        const auto one = [&](int x) {
            const T steps = jg::smaller(T(before[x] + 1), T(top));
            now[x] = from[x] == n ? steps : T(0);
        };
        int x = 0;
        for (; x + CHUNK <= w; x += CHUNK)
            ROLLED for (int l = 0; l < CHUNK; ++l) one(x + l);
        if (x < w && w >= CHUNK) ROLLED for (int l = 0; l < CHUNK; ++l) one(w - CHUNK + l);
        else for (; x < w; ++x) one(x);
        for (x = w; x < pitch; ++x) now[x] = 0;
    }
    int maximum = -1, deepest = 0;
    for (int x = 0; x < pitch; ++x) under[x] = T(box.down ? 0 : top);
    for (int x = -margin; x < 0; ++x) line[x] = box.left ? T(0) : none;
    for (int x = w; x < pitch + margin; ++x) line[x] = box.right ? T(0) : none;
    for (int y = h - 1; y >= 0; --y) {
        const T* __restrict__ now = near + y * pitch;
        for (int x0 = 0; x0 < w; x0 += CHUNK)
            ROLLED for (int x = x0; x < x0 + CHUNK; ++x) {
                const T steps = jg::smaller(now[x], T(under[x] + 1));
                under[x] = steps;
                line[x] = T(steps * steps);
            }
        if (!box.right) for (int x = w; x < pitch; ++x) line[x] = none;
        int32_t* __restrict__ to = squared + y * pitch;
        for (int x0 = 0; x0 < w; x0 += CHUNK) {
            T best[CHUNK];
            T worst = 0;
            ROLLED for (int l = 0; l < CHUNK; ++l) {
                best[l] = line[x0 + l];
                worst = jg::larger(worst, best[l]);
            }
            if (!closed && x0 + CHUNK > w) {           // there, what lies beyond the line's end is not 0
                worst = 0;
                for (int l = 0; l < CHUNK; ++l) {
                    if (x0 + l >= w) best[l] = 0;
                    worst = jg::larger(worst, best[l]);
                }
            }
            for (int j = 1; j * j < int(worst) && (closed || j <= w); j += STEP) {
                for (int k = j; k < j + STEP; ++k) {
                    const int away = jg::smaller(k, w);
                    const T further = T(away * away);
                    const T* __restrict__ left = line + x0 - k;
                    const T* __restrict__ right = line + x0 + k;
                    ROLLED for (int l = 0; l < CHUNK; ++l)
                        best[l] = jg::smaller(best[l], T(jg::smaller(left[l], right[l]) + further));
                }
                worst = 0;
                ROLLED for (int l = 0; l < CHUNK; ++l) worst = jg::larger(worst, best[l]);
            }
            ROLLED for (int l = 0; l < CHUNK; ++l) to[x0 + l] = best[l];
            if (worst == 0) continue;
            int32_t bin[CHUNK];                        // what does not count, where it hinders nobody
            ROLLED for (int l = 0; l < CHUNK; ++l) bin[l] = (best[l] > 0) & (int(best[l]) < BINS) ? int(best[l]) : BINS + l;
            for (int l = 0; l < CHUNK; ++l) ++s.bin[bin[l]];
            if (int(worst) < maximum) continue;
            if (int(worst) > maximum || deepest / pitch > y) {        // of several the first: lines come from below, pixels from the left
                maximum = worst;
                int l = 0;
                while (best[l] != worst) ++l;
                deepest = y * pitch + x0 + l;
            }
        }
    }
    s.maximum = maximum;
    s.centre = deepest;
#else
    JG_FOR(x, w) {
        int steps = box.up ? 0 : top;
        for (int y0 = 0; y0 < h; y0 += AHEAD) {
            int held[AHEAD];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) held[k] = label[int64_t(jg::smaller(y0 + k, h - 1)) * width + x];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) jg::held_here(held[k]);
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                if (y0 + k >= h) break;
                steps = held[k] == n ? jg::smaller(steps + 1, top) : 0;
                near[(y0 + k) * pitch + x] = T(steps);
            }
        }
        steps = box.down ? 0 : top;
        for (int y0 = h - 1; y0 >= 0; y0 -= AHEAD) {
            int held[AHEAD];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) held[k] = near[jg::larger(y0 - k, 0) * pitch + x];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) jg::held_here(held[k]);
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                if (y0 - k < 0) break;
                steps = jg::smaller(held[k], steps + 1);
                near[(y0 - k) * pitch + x] = T(steps * steps);
            }
        }
    }
    __syncthreads();
    // A thread per line, so nobody waits between its ends. Of the parabolas (x - u)^2 + near[u] those that are lowest somewhere
    // are listed from left to right, each with where it begins, in the line's own part of `squared`: entry k belongs to a u of
    // at least k, so writing squares from the right end takes each entry's place when it has been read.
    int maximum = -1, deepest = 0x7fffffff;
    JG_FOR(y, h) {
        const T* __restrict__ line = near + y * pitch;
        int32_t* to = squared + y * pitch;
        Arc arc = {0, 0, int(line[0])};
        int arcs = 0;                                     // listed below `arc`
        for (int u0 = 1; u0 < w; u0 += AHEAD) {
            int held[AHEAD];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) held[k] = line[jg::smaller(u0 + k, w - 1)];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) jg::held_here(held[k]);
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                const int u = u0 + k, square = held[k];
                if (u >= w) break;
                while (arc.square_at(arc.begin) > square + (u - arc.begin) * (u - arc.begin)) {     // lower than it throughout
                    if (arcs == 0) { arc = {-1, 0, 0}; break; }
                    arc = listed(to[--arcs], line);
                }
                if (arc.u < 0) { arc = {u, 0, square}; continue; }
                const int begin = 1 + (u * u - arc.u * arc.u + square - arc.square) / (2 * (u - arc.u));   // not below 0 here
                if (begin >= w) continue;
                to[arcs++] = int32_t(uint32_t(arc.u) << 16 | uint32_t(arc.begin));
                arc = {u, begin, square};
            }
        }
        int deep = -1, at = 0;
        for (int x = w - 1; x >= 0; --x) {
            int best = arc.square_at(x);
            if (box.left) best = jg::smaller(best, (x + 1) * (x + 1));
            if (box.right) best = jg::smaller(best, (w - x) * (w - x));
            if (x == arc.begin && arcs > 0) arc = listed(to[--arcs], line);
            to[x] = best;
            if (best > 0 && best < BINS) jg::tally(&s.bin[best]);
            if (best >= deep) { deep = best; at = x; }    // of several the first
        }
        if (deep > maximum) {                             // a thread's lines come in order
            maximum = deep;
            deepest = y * pitch + at;
        }
    }
    jg::gather_max(&s.maximum, maximum);
    __syncthreads();
    jg::gather_min(&s.centre, maximum == s.maximum ? deepest : 0x7fffffff);
#endif
    __syncthreads();
}

// In   first .. fourth  int32 [B, H, W]  labels of the compartments, in row order
//      field, number, box, schedule      as ever
//      map_start   int64   [R + 1]       each row's first entry of squared: lines of its box, each a multiple of CHUNK
//      capacity        at least h (w + 15) + 4 w + 142 of every box
// Out  near        int32   [blocks, capacity]  scratch
//      squared     int32   [M]
//      centre      int32   [R]           place in the row's part of squared
//      radii       float64 [R, 3]        largest, mean, median; 0 for an empty row
extern "C" __global__ void __launch_bounds__(128, 6) measure_depths(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, const int32_t* __restrict__ third,
    const int32_t* __restrict__ fourth, const int32_t* __restrict__ field, const int32_t* __restrict__ number,
    const int32_t* __restrict__ box, const int32_t* __restrict__ schedule, const int64_t* __restrict__ map_start, int32_t rows,
    int32_t cells, int32_t height, int32_t width, int64_t capacity, int32_t* __restrict__ near, int32_t* __restrict__ squared,
    int32_t* __restrict__ centre, double* __restrict__ radii)
{
    JG_SHARED(Depths, s);
    JG_SHARED(jg::SumScratch<2>, scratch);
    int32_t* __restrict__ mine = near + blockIdx.x * capacity;
    for (int turn = int(blockIdx.x); turn < rows; turn += int(gridDim.x)) {
        const int row = schedule[turn], k = row / cells, cell = row % cells, n = number[cell];
        const int y0 = box[row * 4], x0 = box[row * 4 + 1], y1 = box[row * 4 + 2], x1 = box[row * 4 + 3];
        const int h = y1 - y0, w = x1 - x0, pitch = (w + CHUNK - 1) / CHUNK * CHUNK;
        if (h == 0) {
            JG_FOR(i, 3) radii[row * 3 + i] = 0;
            JG_ONCE centre[row] = 0;
            continue;
        }
        const int32_t* __restrict__ label = (k == 0 ? first : k == 1 ? second : k == 2 ? third : fourth)
                                            + (int64_t(field[cell]) * height + y0) * width + x0;
        int32_t* __restrict__ map = squared + map_start[row];
        if (jg::smaller(h, w) <= NARROW)
            find_depths(label, width, n, {h, w, pitch, true, true, true, true}, SHORT, reinterpret_cast<uint16_t*>(mine), map, s);
        else find_depths(label, width, n, {h, w, pitch, true, true, true, true}, FAR, mine, map, s);
        const int maximum = s.maximum;
        JG_ONCE {
            centre[row] = s.centre;
            s.middle[0] = s.middle[1] = 0;
        }
        jg::Vec<2> total = {{0, 0}};                   // distance, pixels
        for (int pass = 0; pass < 2; ++pass) {         // the sum and count; then, count known, the middle ones
            const int64_t count = int64_t(total.v[1]), wanted[2] = {(count - 1) / 2, count / 2};
            JG_ONCE s.counted = 0;
            for (int base = 0; base <= maximum; base += BINS) {
                const int bins = jg::smaller(BINS, maximum + 1 - base);
                if (base + pass > 0 && maximum >= BINS) {             // the first were tallied as they were found
                    __syncthreads();
                    JG_FOR(i, bins) s.bin[i] = 0;
                    __syncthreads();
                    JG_FOR_YX(y, x, 0, h, 0, w) {
                        const int value = map[y * pitch + x], bin = value - base;
                        if (value > 0 && bin >= 0 && bin < bins) jg::tally(&s.bin[bin]);
                    }
                    __syncthreads();
                }
                if (pass == 0) {
                    const jg::Vec<2> part = jg::block_sum<2>(bins, scratch, [&](int i) {
                        return jg::Vec<2>{{s.bin[i] * sqrt(double(base + i)), double(s.bin[i])}};
                    });
                    total.v[0] += part.v[0];
                    total.v[1] += part.v[1];
                } else {
                    const int runs = (bins + RUN - 1) / RUN;
                    JG_FOR(g, runs) {
                        uint32_t counted = 0;
                        for (int i = g * RUN; i < jg::smaller((g + 1) * RUN, bins); ++i) counted += s.bin[i];
                        s.run[g] = counted;
                    }
                    __syncthreads();
                    JG_ONCE {
                        int64_t counted = s.counted;
                        for (int g = 0; g < runs; ++g) {
                            const int64_t after = counted + s.run[g];
                            for (int m = 0; m < 2; ++m) {
                                if (counted > wanted[m] || wanted[m] >= after) continue;
                                int i = g * RUN;
                                for (int64_t next = counted + s.bin[i]; next <= wanted[m]; next += s.bin[i]) ++i;
                                s.middle[m] = sqrt(double(base + i));
                            }
                            counted = after;
                        }
                        s.counted = counted;
                    }
                    __syncthreads();
                }
            }
        }
        JG_ONCE {
            radii[row * 3] = sqrt(double(maximum));
            radii[row * 3 + 1] = total.v[0] / total.v[1];
            radii[row * 3 + 2] = (s.middle[0] + s.middle[1]) / 2;
        }
        __syncthreads();
        if (y0 > 0 && x0 > 0 && y1 < height && x1 < width) continue;
        find_depths(label, width, n, {h, w, pitch, y0 > 0, y1 < height, x0 > 0, x1 < width}, FAR, mine, map, s);
        JG_ONCE centre[row] = s.centre;
        __syncthreads();
    }
}
JG_REGISTER(measure_depths)
