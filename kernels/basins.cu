// basins.cu: the basins of a plane and the forest of their lowest passes, for the watershed and for reconstruction.
//
//   Pixels are in a total order: key, then raster index. Every pixel steps to the lowest of itself and its neighbours;
//   following the steps ends at a local minimum, and pixels with the same minimum are a basin. A pass is a step from a
//   pixel down to a neighbour in another basin; its key is (key of the pixel, its index, direction), unique.
//   A round: every basin that is left takes its lowest pass and so hangs itself on another; the trees so formed are one
//   basin from then on, named by the root. On the way to a root the passes grow, so the highest one is a basin's own:
//   from basin b the lowest way to its root climbs to climb(b). Rounds go on until no pass is left: at most log2 of the basins.
//   Up: what a root collects of its tree passes through the members' own passes. Down: what a basin is told comes from
//   up(b) through climb(b), last round first. watershed.cu and granularity.cu do these two walks.
//
// Source   Boruvka's minimum spanning forest over basins (design.md, 'Basins').
// Oracle   a sequential flood (tests/reference/flood.py) through watershed.cu; scikit-image's reconstruction through
//          granularity.cu
// Order    every choice is by unique integers, so neither schedule nor block size can matter. Basins are numbered in raster
//          order of their minima.
#include "basins.cuh"

// The step of every pixel, and how many minima a row has.
//
// Launch   a block a band of BAND rows of a plane, frame rows included, a warp a row; no shared memory.
// In   key        uint32  [P, H + 2, W + 2]  framed planes; OUTSIDE takes no part
// Out  basin      int32   [P, H + 2, W + 2]  ~index of the pixel stepped to (a minimum's is its own), or NO_BASIN
//      minima     int32   [P, H]
extern "C" __global__ void __launch_bounds__(128, 8) basin_descend(
    const uint32_t* __restrict__ key, int32_t height, int32_t width, int32_t connectivity,
    int32_t* __restrict__ basin, int32_t* __restrict__ minima)
{
    const int pitch = width + 2, bands = (height + 2 + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    for (int y = y0 + jg::warp_id(); y < jg::least(y0 + jg::BAND, height + 2); y += jg::warps()) {
        const uint32_t* __restrict__ k = key + base + int64_t(y) * pitch;
        int32_t* __restrict__ to = basin + base + int64_t(y) * pitch;
        if (y == 0 || y == height + 1) {
            for (int x = jg::lane(); x < pitch; x += jg::WARP) to[x] = jg::NO_BASIN;
            continue;
        }
        if (jg::lane() == 0) to[0] = to[pitch - 1] = jg::NO_BASIN;
        int own = 0;
        if (connectivity == 8) {
            for (int x = 1 + jg::lane(); x <= width; x += jg::WARP) {
                uint32_t low = k[x - pitch - 1];
                int s = -pitch - 1;
                // strict, in raster order: of equal keys the first stays
                uint32_t c = k[x - pitch];      s = c < low ? -pitch : s;      low = jg::least(low, c);
                c = k[x - pitch + 1];           s = c < low ? -pitch + 1 : s;  low = jg::least(low, c);
                c = k[x - 1];                   s = c < low ? -1 : s;          low = jg::least(low, c);
                c = k[x];                       s = c < low ? 0 : s;           low = jg::least(low, c);
                c = k[x + 1];                   s = c < low ? 1 : s;           low = jg::least(low, c);
                c = k[x + pitch - 1];           s = c < low ? pitch - 1 : s;   low = jg::least(low, c);
                c = k[x + pitch];               s = c < low ? pitch : s;       low = jg::least(low, c);
                c = k[x + pitch + 1];           s = c < low ? pitch + 1 : s;
                const bool in = k[x] != jg::OUTSIDE;
                to[x] = in ? ~(y * pitch + x + s) : jg::NO_BASIN;
                own += in && s == 0;
            }
        } else {
            for (int x = 1 + jg::lane(); x <= width; x += jg::WARP) {
                uint32_t low = k[x - pitch];
                int s = -pitch;
                uint32_t c = k[x - 1];          s = c < low ? -1 : s;          low = jg::least(low, c);
                c = k[x];                       s = c < low ? 0 : s;           low = jg::least(low, c);
                c = k[x + 1];                   s = c < low ? 1 : s;           low = jg::least(low, c);
                c = k[x + pitch];               s = c < low ? pitch : s;
                const bool in = k[x] != jg::OUTSIDE;
                to[x] = in ? ~(y * pitch + x + s) : jg::NO_BASIN;
                own += in && s == 0;
            }
        }
        own = jg::warp_sum(own);
        if (jg::lane() == 0) minima[int64_t(plane) * height + y - 1] = own;
    }
}
JG_REGISTER(basin_descend)

// Numbers for the minima, in raster order within the plane, and the basins' lowest passes set to none.
//
// Launch   a block a band of BAND rows, a warp a row; no shared memory.
// In   row_end    int32   [P, H]             minima up to and with the row (running sum of `minima`)
// Out  basin      int32   [P, H + 2, W + 2]  the number, 0 .., at the minima; others as they were
//      best       uint64  [P, capacity]      NEVER
extern "C" __global__ void __launch_bounds__(128, 8) basin_number(
    const int32_t* __restrict__ row_end, int32_t height, int32_t width, int32_t capacity,
    int32_t* __restrict__ basin, uint64_t* __restrict__ best)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    for (int y = y0 + jg::warp_id(); y < jg::least(y0 + jg::BAND, height); y += jg::warps()) {
        const int32_t* __restrict__ ends = row_end + int64_t(plane) * height;
        const int first = y ? ends[y - 1] : 0, here = (y + 1) * pitch + 1;
        if (ends[y] == first) continue;
        int32_t* to = basin + base + here;
        jg::warp_select(width, [&](int x) { return to[x] == ~(here + x); }, [&](int x, int k) {
            to[x] = first + k;
            best[int64_t(plane) * capacity + first + k] = jg::NEVER;
        });
    }
}
JG_REGISTER(basin_number)

// Every pixel's basin, by following its steps.
//
// A way that is known is written along the whole of it, so a serial run visits a pixel twice and no more. Other threads may
// read a pixel meanwhile: they find the step or the number it leads to, and both give the same basin.
//
// Launch   a block a band of BAND rows, a warp a row; no shared memory.
// In, out  basin  int32   [P, H + 2, W + 2]  steps and numbered minima in, basins (or NO_BASIN) out
extern "C" __global__ void __launch_bounds__(128, 8) basin_resolve(int32_t height, int32_t width, int32_t* basin)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    int32_t* of = basin + int64_t(plane) * (height + 2) * pitch;
    JG_FOR_YX(y, x, y0 + 1, jg::least(y0 + jg::BAND, height) + 1, 1, width + 1) {
        const int p = y * pitch + x;
        int32_t v = jg::atomic_read(of + p);
        if (v >= 0 || v == jg::NO_BASIN) continue;
        const int32_t first = v;
        do v = jg::atomic_read(of + ~v); while (v < 0);
        jg::atomic_write(of + p, v);
        for (int q = ~first;;) {
            const int32_t next = jg::atomic_read(of + q);
            if (next >= 0) break;
            jg::atomic_write(of + q, v);
            q = ~next;
        }
    }
}
JG_REGISTER(basin_resolve)

// The pixels from which a pass leads, listed row by row, and every basin's lowest pass.
//
// Launch   a block a band of BAND rows, a warp a row; no shared memory; atomic minima on `best`, whose result has no order.
// In   key          uint32  [P, H + 2, W + 2]
//      basin        int32   [P, H + 2, W + 2]
// Out  border       int32   [P, H, W]          from each row's start: x | directions of the passes << 16
//      border_count int32   [P, H]
//      best         uint64  [P, capacity]      step key of the lowest pass that touches the basin
extern "C" __global__ void __launch_bounds__(128, 8) basin_border(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, int32_t height, int32_t width,
    int32_t connectivity, int32_t capacity, int32_t* __restrict__ border, int32_t* __restrict__ border_count,
    uint64_t* best)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    const uint32_t* __restrict__ k = key + base;
    const int32_t* __restrict__ of = basin + base;
    uint64_t* low = best + int64_t(plane) * capacity;
    for (int y = y0 + jg::warp_id(); y < jg::least(y0 + jg::BAND, height); y += jg::warps()) {
        const int64_t row = int64_t(plane) * height + y;
        int32_t* list = border + row * width;
        int found = 0;
        const int n = jg::warp_select(width, [&](int x) {
            const int p = (y + 1) * pitch + x + 1, mine = of[p];
            found = 0;
            if (mine < 0) return false;
            int seen = mine;                             // a second pass to the basin just met is the higher one
            for (int d = 0; d < 8; ++d) {
                if (!jg::is_direction(d, connectivity)) continue;
                const int q = p + jg::step_to(d, pitch), other = of[q];
                if (other < 0 || other == mine || other == seen || (d < 4 ? k[q] > k[p] : k[q] >= k[p])) continue;
                seen = other;
                const uint64_t pass = jg::step_key(k[p], p, d);
                if (!found) jg::atomic_least(low + mine, pass);
                jg::atomic_least(low + other, pass);
                found |= 1 << d;
            }
            return found != 0;
        }, [&](int x, int i) { list[i] = x | found << 16; });
        if (jg::lane() == 0) border_count[row] = n;
    }
}
JG_REGISTER(basin_border)

// The forest: rounds of hanging every basin that is left on another by its lowest pass.
//
// Launch   a block a plane, up to 1024 threads: a few hundred thousand passes shrink by half or more a round, all within one
//          block, so that the loop ends when the work does; 4 bytes of shared memory.
// In   key          uint32  [P, H + 2, W + 2]
//      basin        int32   [P, H + 2, W + 2]
//      row_end      int32   [P, H]             its last entry is the plane's number of basins
// In, out  border, border_count, best          as basin_border made them; used up
// Out  up           int32   [P, capacity]      the root of the basin's tree in the round that hung it; a last root's is its own
//      climb         uint64  [P, capacity]      the step key of the basin's own pass in that round
//      round        int32   [P, capacity]      that round, 1 ..; 0 for a last root
//      rounds       int32   [P]                rounds made
//      rep, parent  int32   [P, capacity]      scratch
extern "C" __global__ void __launch_bounds__(1024) basin_forest(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ row_end,
    int32_t height, int32_t width, int32_t capacity, int32_t* border, int32_t* border_count, uint64_t* best,
    int32_t* up, uint64_t* climb, int32_t* round, int32_t* rounds, int32_t* rep, int32_t* parent)
{
    JG_SHARED(int, left);
    const int pitch = width + 2, plane = int(blockIdx.x), n = row_end[int64_t(plane) * height + height - 1];
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    const uint32_t* __restrict__ k = key + base;
    const int32_t* __restrict__ of = basin + base;
    border += int64_t(plane) * height * width;
    border_count += int64_t(plane) * height;
    best += int64_t(plane) * capacity;
    up += int64_t(plane) * capacity;
    climb += int64_t(plane) * capacity;
    round += int64_t(plane) * capacity;
    rep += int64_t(plane) * capacity;
    parent += int64_t(plane) * capacity;

    JG_FOR(i, n) { rep[i] = i; up[i] = i; round[i] = 0; climb[i] = jg::NEVER; }
    __syncthreads();
    for (int r = 1;; ++r) {
        JG_ONCE left = 0;
        JG_FOR(i, n) {
            if (round[i]) continue;
            const uint64_t b = best[i];
            if (b == jg::NEVER) { parent[i] = i; continue; }
            const int p = int((b & 0xffffffffu) >> 3), q = p + jg::step_to(int(b & 7), pitch);
            const int from = rep[of[p]], other = from == i ? rep[of[q]] : from;
            parent[i] = best[other] == b && i < other ? i : other;     // of two that chose each other the first is the root
        }
        __syncthreads();
        int hung = 0;
        JG_FOR(i, n) {
            if (round[i]) continue;
            int root = i;
            while (parent[root] != root) root = parent[root];
            up[i] = root;
            hung |= root != i;
        }
        jg::gather_most(&left, hung);
        __syncthreads();
        if (!left) {
            JG_ONCE rounds[plane] = r - 1;
            return;
        }
        JG_FOR(i, n) {
            rep[i] = up[rep[i]];
            if (!round[i] && up[i] != i) { round[i] = r; climb[i] = best[i]; }
            best[i] = jg::NEVER;
        }
        __syncthreads();
        for (int y = jg::warp_id(); y < height; y += jg::warps()) {
            int32_t* list = border + int64_t(y) * width;
            int item = 0;
            const int count = jg::warp_select(border_count[y], [&](int j) {
                const int x = list[j] & 0xffff, was = list[j] >> 16, p = (y + 1) * pitch + x + 1, mine = rep[of[p]];
                int found = 0, seen = mine;
                for (int bits = was; bits; bits &= bits - 1) {
                    const int d = jg::lowest_bit(bits), other = rep[of[p + jg::step_to(d, pitch)]];
                    if (other == mine || other == seen) continue;
                    seen = other;
                    const uint64_t b = jg::step_key(k[p], p, d);
                    if (!found) jg::atomic_least(best + mine, b);
                    jg::atomic_least(best + other, b);
                    found |= 1 << d;
                }
                item = x | found << 16;
                return found != 0;
            }, [&](int, int i) { list[i] = item; });
            __syncwarp();                                // the count is read by the whole warp above
            if (jg::lane() == 0) border_count[y] = count;
        }
        __syncthreads();
    }
}
JG_REGISTER(basin_forest)
