// radial_distribution.cu: how a channel's intensity is spread from an object's centre to its edge, in rings of scaled distance.
//
//   edge e(p)     Euclidean distance to the nearest pixel that is not the object's (the image's border is no edge)
//   centre        the pixel with the largest e; of several, the first in raster order
//   inner d(p)    length of the shortest path inside the object from the centre, steps of 1 and sqrt 2 to the 8 neighbours
//   ring          floor(bins * d / (d + e + 0.001)); pixels without a path from the centre are left out
//   FracAtD       the ring's share of the intensity      MeanFrac   that share over (the ring's share of the pixels + 2^-52)
//   RadialCV      coefficient of variation of the mean intensities of the ring's 8 wedges, those that have pixels; 0 without any
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensityDistribution ('Object centers are these objects', scaled), whose sums are
//          float32; it takes any of several farthest pixels.
// Oracle   SciPy, centrosome's propagate (tests/features/test_radial_distribution.py); CellProfiler's own output on the real fields
// Launch   any number of blocks, each takes every gridDim-th row, so that scratch is a block's and not a row's.
// Order    distances are exact integers: a path of a straight and b diagonal steps is a S + b T, S and T of two consecutive
//          convergents of sqrt 2. Of two paths whose b differ by less than S the shorter one is less, and the sum gives back a and b.
//          The inner distance is the one solution of "no neighbour offers less", so any schedule of offers finds it. A ring is
//          decided in single precision where that cannot err, else in double.
#include "jg/register_loads.cuh"
#include "jg/jg_math.cuh"
#include "features/radial_distribution.cuh"

constexpr int MARGIN = CHUNK;                          // columns on either side of a line of paths

// A path of a straight and b diagonal steps is a S + b T. Below LIMIT that gives back a and b: b is below S, and T * INVERSE = 1
// modulo S. UNTOUCHED is no path; what LIMIT - 1 offers is less.
struct Short {                                         // in 16 bits, paths of less than 239 pixels
    typedef uint16_t Steps;
    static constexpr int S = 169, T = 239, INVERSE = 99, LIMIT = S * T, UNTOUCHED = 65535 - T;
};
struct Long {                                          // paths of less than 64,000 pixels; longer ones count as none
    typedef int32_t Steps;
    static constexpr int S = 33461, T = 47321, INVERSE = 19601, UNTOUCHED = 0x7fffffff - T, LIMIT = UNTOUCHED;
};

// The length a + b sqrt 2.
template <class L> JG_FN double path_length(int steps) {
    const double product = double(steps) * L::INVERSE; // below 2^53
    const int turns = int(product * (1.0 / L::S));     // one off at most
    double diagonal = product - double(turns) * L::S;
    diagonal += diagonal < 0 ? L::S : diagonal >= L::S ? -L::S : 0;
    return rint((steps - diagonal * L::T) * (1.0 / L::S)) + diagonal * 1.41421356237309504880;
}
template <class L> JG_FN int ring_of(int steps, int squared, int bins) {
    const double inner = path_length<L>(steps), whole = inner + sqrt(double(squared));
    return int(inner / (whole + 0.001) * bins);
}

// A line of a map from column a to b - 1: on a GPU a column stays with its thread; the serial build takes whole chunks, a vector
// at a time, whatever stands in the rest of them.
#if defined(JG_SERIAL)
#define ALONG(x, a, b)                                                                             \
    for (int x##_0 = (a) / CHUNK * CHUNK; x##_0 < (b); x##_0 += CHUNK)                             \
        _Pragma("GCC unroll 1") for (int x = x##_0; x < x##_0 + CHUNK; ++x)
#else
#define ALONG(x, a, b) JG_FOR_OWN(x, a, b)
#endif

// Whether any thread says so, in all of them: three words in turn, so that one barrier does.
struct Votes { int32_t any[3]; };
JG_FN int vote(Votes& s, int& turn, int mine) {
    const int next = turn == 2 ? 0 : turn + 1;
    jg::gather_max(&s.any[turn], mine);
    JG_ONCE s.any[next] = 0;
    __syncthreads();
    const int result = s.any[turn];
    turn = next;
    return result;
}

// The pixels of a line offer to each other until none takes: afterwards the line is what it would be if that were all there is.
// `spare` is another line, UNTOUCHED on either side of the columns; nothing else of it is read before it is written.
template <class L> JG_FN void spread(
    typename L::Steps* __restrict__ line, typename L::Steps* __restrict__ spare, const typename L::Steps* __restrict__ shut, int a,
    int b, Votes& s, int& turn)
{
    typedef typename L::Steps Steps;
    Steps *from = line, *to = spare;
    for (;;) {
        const Steps* __restrict__ old = from;
        Steps* __restrict__ now = to;
        Steps moved = 0;
        ALONG(x, a, b) {
            const Steps offer = Steps(jg::smaller(old[x - 1], old[x + 1]) + L::S);
            const Steps v = jg::larger(jg::smaller(old[x], offer), shut[x]);
            moved |= Steps(v ^ old[x]);
            now[x] = v;
        }
        if (!vote(s, turn, moved != 0)) return;        // the two are equal, so either will do
        Steps* const other = from;
        from = to;
        to = other;
    }
}

// A line takes what the line beside it offers, and spreads it. Ends with a barrier. Returns whether the line changed, in all threads.
template <class L> JG_FN int relax(
    typename L::Steps* __restrict__ line, const typename L::Steps* __restrict__ beside, typename L::Steps* __restrict__ spare,
    const typename L::Steps* __restrict__ shut, int a, int b, Votes& s, int& turn)
{
    typedef typename L::Steps Steps;
    Steps changed = 0;
    ALONG(x, a, b) {
        const Steps across = Steps(jg::smaller(beside[x - 1], beside[x + 1]) + L::T);
        const Steps offer = jg::smaller(Steps(beside[x] + L::S), across);
        const Steps v = jg::larger(jg::smaller(line[x], offer), shut[x]);
        changed |= Steps(v ^ line[x]);
        line[x] = v;
    }
    if (!vote(s, turn, changed != 0)) return 0;        // it was settled in itself before
    spread<L>(line, spare, shut, a, b, s, turn);
    return 1;
}

struct RadialScratch { Votes votes; int32_t longest; };
struct Row {
    int h, w, pitch, centre;
    const int32_t* squared;                            // of its part of the map
    const int32_t* ends;                               // first and last column of each line
    int x0;
    __device__ int from(int y) const { return ends[2 * y] - x0; }
    __device__ int to(int y) const { return ends[2 * y + 1] + 1 - x0; }
};

// Rings of one object. False, for all threads, where a path is too long for L.
template <class L> JG_FN bool find_rings(
    const Row row, int bins, typename L::Steps* __restrict__ maps, uint8_t* __restrict__ asks, uint8_t* __restrict__ ring,
    RadialScratch& s)
{
    typedef typename L::Steps Steps;
    const int h = row.h, wide = row.pitch + 2 * MARGIN, cy = row.centre / row.pitch, cx = row.centre % row.pitch;
    Steps* __restrict__ path = maps + wide + MARGIN;   // steps from the centre, a line more above and below
    Steps* __restrict__ shut = path + (h + 1) * wide;  // UNTOUCHED where there is no pixel, else 0
    Steps* __restrict__ spare = shut + h * wide;
    uint8_t* __restrict__ from_above = asks;           // whether a line has yet to ask the line above or below it
    uint8_t* __restrict__ from_below = asks + h;
    int turn = 0;
    __syncthreads();                                   // the row before is done with the scratch
    JG_FOR(i, (h + 2) * wide) maps[i] = L::UNTOUCHED;
    JG_FOR(i, h) from_above[i] = from_below[i] = 0;
#if defined(JG_SERIAL)
    for (int y = 0; y < h; ++y)
        ALONG(x, row.from(y), row.to(y)) shut[y * wide + x] = row.squared[y * row.pitch + x] > 0 ? Steps(0) : Steps(L::UNTOUCHED);
#else
    for (int y = jg::warp_id(); y < h; y += LINES * jg::warps())
        for (int x = jg::lane(); x < row.w; x += jg::WARP) {
            int squared[LINES];                        // of several lines at once: memory answers late
            JG_UNROLL for (int k = 0; k < LINES; ++k) squared[k] = row.squared[jg::smaller(y + k * jg::warps(), h - 1) * row.pitch + x];
            JG_UNROLL for (int k = 0; k < LINES; ++k) jg::held_here(squared[k]);
            JG_UNROLL for (int k = 0; k < LINES; ++k)
                if (y + k * jg::warps() < h) shut[(y + k * jg::warps()) * wide + x] = squared[k] > 0 ? 0 : L::UNTOUCHED;
        }
#endif
    JG_ONCE s.votes.any[0] = s.longest = 0;
    __syncthreads();
    JG_ONCE {
        path[cy * wide + cx] = 0;
        if (cy > 0) from_below[cy - 1] = 1;
        if (cy + 1 < h) from_above[cy + 1] = 1;
    }
    __syncthreads();
    const auto ends = [&](int a, int b) {              // of the spare line
#if defined(JG_SERIAL)
        spare[a / CHUNK * CHUNK - 1] = spare[(b + CHUNK - 1) / CHUNK * CHUNK] = L::UNTOUCHED;
#else
        JG_ONCE spare[a - 1] = spare[b] = L::UNTOUCHED;
#endif
    };
    ends(row.from(cy), row.to(cy));
    spread<L>(path + cy * wide, spare, shut + cy * wide, row.from(cy), row.to(cy), s.votes, turn);

    // Down and up over the lines in turn. A line asks the one before it if that has changed since it last asked.
    for (int sweep = 0;; ++sweep) {
        const int step = sweep & 1 ? -1 : 1;
        uint8_t* __restrict__ asked = sweep & 1 ? from_below : from_above;
        uint8_t* __restrict__ other = sweep & 1 ? from_above : from_below;
        int any = 0, fresh = 0;
        for (int y = sweep & 1 ? h - 2 : 1; y >= 0 && y < h; y += step) {
            if (!(fresh | asked[y])) continue;
            const int a = row.from(y), b = row.to(y);
            if (a < b) ends(a, b);
            fresh = relax<L>(path + y * wide, path + (y - step) * wide, spare, shut + y * wide, a, b, s.votes, turn);
            any |= fresh;
            JG_ONCE {
                asked[y] = 0;
                if (fresh) other[y - step] = 1;
            }
        }
        __syncthreads();
        if (sweep && !any) break;
    }

    int longest = 0;
    for (int y = jg::warp_id(); y < h; y += jg::warps()) {
        const int a = row.from(y), b = row.to(y), lower = y > cy, steep = y < cy ? cy - y : y - cy;
        const Steps* __restrict__ steps = path + y * wide;
        const int32_t* __restrict__ squared = row.squared + y * row.pitch;
        uint8_t* __restrict__ out = ring + y * row.pitch;
        // In single precision first: S / T is sqrt 2 to 9e-6, so that a place is wrong by 3e-6 of bins at most.
        const float width = float(bins), unsure = 1e-5f * width;
#if defined(JG_SERIAL)
        for (int x0 = a / CHUNK * CHUNK; x0 < b; x0 += CHUNK) {
            int32_t code[CHUNK], any = 0;              // of one width, that the loop becomes vectors; 256: in doubt
            _Pragma("GCC unroll 1") for (int l = 0; l < CHUNK; ++l) {
                const int mine = steps[x0 + l], dx = x0 + l - cx;
                const float inner = float(mine) * (1.0f / L::S);
                const float place = inner / (inner + sqrtf(float(squared[x0 + l])) + 0.001f) * width;
                const int at = int(place), wedge = lower + 2 * int(dx > 0) + 4 * int(steep > (dx < 0 ? -dx : dx));
                const float beyond = place - float(at);
                const int doubt = int(beyond < unsure) | int(beyond > 1.0f - unsure);
                const int reached = -int(mine < L::UNTOUCHED);
                code[l] = ((at * WEDGES + wedge + 256 * doubt) & reached) | (NO_RING & ~reached);
                any |= code[l];
                longest = jg::larger(longest, mine & reached);
            }
            _Pragma("GCC unroll 1") for (int l = 0; l < CHUNK; ++l) out[x0 + l] = uint8_t(code[l]);
            if (any < 256) continue;
            for (int l = 0; l < CHUNK; ++l)
                if (code[l] >= 256)
                    out[x0 + l] = uint8_t(ring_of<L>(steps[x0 + l], squared[x0 + l], bins) * WEDGES + code[l] % WEDGES);
        }
#else
        for (int x = jg::lane(); x < row.pitch; x += jg::WARP) {
            const int dx = x - cx, mine = x >= a && x < b ? int(steps[x]) : L::UNTOUCHED;
            out[x] = NO_RING;
            if (mine >= L::UNTOUCHED) continue;
            const float inner = float(mine) * (1.0f / L::S);
            const float place = inner / (inner + sqrtf(float(squared[x])) + 0.001f) * width;
            const int wedge = lower + 2 * int(dx > 0) + 4 * int(steep > (dx < 0 ? -dx : dx));
            int at = int(place);
            const float beyond = place - float(at);
            if (beyond < unsure || beyond > 1.0f - unsure) at = ring_of<L>(mine, squared[x], bins);
            longest = jg::larger(longest, mine);
            out[x] = uint8_t(at * WEDGES + wedge);
        }
#endif
    }
    jg::gather_max(&s.longest, longest);
    __syncthreads();
    return s.longest < L::LIMIT;
}

// In   box           int32   [rows, 4]
//      schedule      int32   [rows]
//      map_start     int64   [rows + 1]   each row's first entry of squared and ring
//      squared       int32   [M]          of distance_map.cu
//      centre        int32   [rows]
//      line_start    int64   [rows + 1]   each row's first line
//      extent        int32   [L, 2]       first and last column of each line, 32767 and -1 where it has no pixel (outline.cu)
//      capacity          at least (2 h + 3) * (w + 47) + 16 of every box
//      height        of a field
// Out  ring          uint8   [M]          ring * 8 + wedge, 255 where there is no path; the serial build leaves chunks out that are
//                                         before the first or after the last pixel of their line
//      maps          int32   [blocks, capacity]        scratch
//      asks          uint8   [blocks, 2, height]   scratch
extern "C" __global__ void __launch_bounds__(128, 6) radial_rings(
    const int32_t* __restrict__ box, const int32_t* __restrict__ schedule, const int64_t* __restrict__ map_start,
    const int32_t* __restrict__ squared, const int32_t* __restrict__ centre, const int64_t* __restrict__ line_start,
    const int32_t* __restrict__ extent, int32_t rows, int32_t height, int64_t capacity, int32_t bins, uint8_t* __restrict__ ring,
    int32_t* __restrict__ maps, uint8_t* __restrict__ asks)
{
    JG_SHARED(RadialScratch, s);
    int32_t* __restrict__ map = maps + blockIdx.x * capacity;
    uint8_t* __restrict__ ask = asks + int64_t(blockIdx.x) * 2 * height;
    for (int turn = int(blockIdx.x); turn < rows; turn += int(gridDim.x)) {
        const int i = schedule[turn], h = box[4 * i + 2] - box[4 * i], w = box[4 * i + 3] - box[4 * i + 1];
        if (h == 0) continue;
        const Row row = {h, w, (w + CHUNK - 1) / CHUNK * CHUNK, centre[i], squared + map_start[i], extent + line_start[i] * 2,
                         box[4 * i + 1]};
        uint8_t* __restrict__ out = ring + map_start[i];
        if (!find_rings<Short>(row, bins, reinterpret_cast<uint16_t*>(map), ask, out, s)) find_rings<Long>(row, bins, map, ask, out, s);
    }
}
JG_REGISTER(radial_rings)
