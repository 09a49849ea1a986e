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

// Numbers for the minima, in raster order within the plane.
//
// Launch   a block a band of BAND rows, a warp a row; no shared memory.
// In   row_end    int32   [P, H]             minima up to and with the row (running sum of `minima`)
// Out  basin      int32   [P, H + 2, W + 2]  the number, 0 .., at the minima; others as they were
extern "C" __global__ void __launch_bounds__(128, 8) basin_number(
    const int32_t* __restrict__ row_end, int32_t height, int32_t width, int32_t* __restrict__ basin)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    for (int y = y0 + jg::warp_id(); y < jg::least(y0 + jg::BAND, height); y += jg::warps()) {
        const int32_t* __restrict__ ends = row_end + int64_t(plane) * height;
        const int first = y ? ends[y - 1] : 0, here = (y + 1) * pitch + 1;
        if (ends[y] == first) continue;
        int32_t* to = basin + base + here;
        jg::warp_pick(width, [=](int x) { return to[x] == ~(here + x); }, [=](int x, int k) { to[x] = first + k; });
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
        if (jg::atomic_read(of + p) != jg::NO_BASIN) jg::follow(of, p);
    }
}
JG_REGISTER(basin_resolve)

// A pixel with a pass to a later neighbour: its column, its basin and those of the neighbours in the directions 4 .. 7 that
// the connectivity has (its own where there is no neighbour). In memory SIDES + 2 numbers (basins.py: ENTRY).
template <int CONNECTIVITY> struct Entry { int32_t x, mine, side[CONNECTIVITY / 2]; };
template <int CONNECTIVITY> JG_FN int side_direction(int i) { return CONNECTIVITY == 8 ? 4 + i : 4 + 2 * i; }

// Lists them row by row.
//
// Launch   a block a band of BAND rows, a warp a row; no shared memory.
// In   basin        int32   [P, H + 2, W + 2]
// Out  border       int32   [P, H, W, SIDES + 2]   entries, from each row's start
//      border_count int32   [P, H]
template <int CONNECTIVITY> JG_FN int border_row(const int32_t* __restrict__ here, int pitch, int width, int32_t* border) {
    Entry<CONNECTIVITY>* list = reinterpret_cast<Entry<CONNECTIVITY>*>(border);
    return jg::warp_pick(width, [=](int x) {
        const int mine = here[x], e = here[x + 1], s = here[x + pitch];
        int found = ((mine != e) & ((mine | e) >= 0)) | ((mine != s) & ((mine | s) >= 0));
        if (CONNECTIVITY == 8) {
            const int sw = here[x + pitch - 1], se = here[x + pitch + 1];
            found |= ((mine != sw) & ((mine | sw) >= 0)) | ((mine != se) & ((mine | se) >= 0));
        }
        return found;
    }, [=](int x, int i) {
        Entry<CONNECTIVITY> entry = {x, here[x], {}};
        JG_UNROLL for (int j = 0; j < CONNECTIVITY / 2; ++j) {
            const int other = here[x + jg::step_to(side_direction<CONNECTIVITY>(j), pitch)];
            entry.side[j] = jg::chosen(other < 0, entry.mine, other);
        }
        list[i] = entry;
    });
}

extern "C" __global__ void __launch_bounds__(128, 8) basin_border(
    const int32_t* __restrict__ basin, int32_t height, int32_t width, int32_t connectivity, int32_t* __restrict__ border,
    int32_t* __restrict__ border_count)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    for (int y = y0 + jg::warp_id(); y < jg::least(y0 + jg::BAND, height); y += jg::warps()) {
        const int64_t row = int64_t(plane) * height + y;
        const int32_t* __restrict__ here = basin + (int64_t(plane) * (height + 2) + y + 1) * pitch + 1;
        int32_t* list = border + row * width * (connectivity / 2 + 2);
        const int n = connectivity == 8 ? border_row<8>(here, pitch, width, list) : border_row<4>(here, pitch, width, list);
        if (jg::lane() == 0) border_count[row] = n;
    }
}
JG_REGISTER(basin_border)

// Tells the basins on both sides of an entry's passes. No branch depends on the pixels: none could be foreseen.
template <int CONNECTIVITY> JG_FN void meet(const uint32_t* __restrict__ k, const Entry<CONNECTIVITY>& entry, int p, int pitch,
                                            uint64_t* best)
{
    uint64_t least = jg::NEVER;
    JG_UNROLL for (int j = 0; j < CONNECTIVITY / 2; ++j) {
        const int d = side_direction<CONNECTIVITY>(j), q = p + jg::step_to(d, pitch), other = entry.side[j];
        const uint64_t mine = jg::step_key(k[p], p, d), theirs = jg::step_key(k[q], q, 7 - d);
        const uint64_t pass = jg::chosen(other == entry.mine, jg::NEVER, jg::chosen(theirs > mine, theirs, mine));
        least = jg::chosen(pass < least, pass, least);
        jg::lower_to(best + other, pass);
    }
    jg::lower_to(best + entry.mine, least);
}

// Gives the entries their basins' new names, drops those that have become one basin's inside, and tells every basin its
// lowest pass.
template <int CONNECTIVITY> JG_FN void survey(const uint32_t* __restrict__ k, const int32_t* __restrict__ up, bool first_round,
                                              int height, int width, int32_t* border, int32_t* border_count, uint64_t* best)
{
    typedef Entry<CONNECTIVITY> E;
    const int pitch = width + 2;
    for (int y = jg::warp_id(); y < height; y += jg::warps()) {
        E* list = reinterpret_cast<E*>(border) + int64_t(y) * width;
        const int first = (y + 1) * pitch + 1;
        int count = border_count[y];
        if (count == 0) continue;
        if (!first_round) {
            count = jg::warp_compact(count, list, [=](int j, E* entry) {
                *entry = list[j];
                entry->mine = up[entry->mine];
                int apart = 0;
                JG_UNROLL for (int i = 0; i < CONNECTIVITY / 2; ++i) {
                    entry->side[i] = up[entry->side[i]];
                    apart |= entry->side[i] ^ entry->mine;
                }
                return apart != 0;
            });
            __syncwarp();
            if (jg::lane() == 0) border_count[y] = count;
        }
        for (int j = jg::lane(); j < count; j += jg::WARP) meet<CONNECTIVITY>(k, list[j], first + list[j].x, pitch, best);
    }
}

// The forest: rounds of hanging every basin that is left on another by its lowest pass.
//
// Launch   a block a plane, up to 1024 threads: a few hundred thousand passes shrink by half or more a round, all within one
//          block, so that the loop ends when the work does; 8 bytes of shared memory.
// In   key          uint32  [P, H + 2, W + 2]
//      basin        int32   [P, H + 2, W + 2]
//      row_end      int32   [P, H]             its last entry is the plane's number of basins
// In, out  border, border_count                as basin_border made them; used up
// Out  up           int32   [P, capacity]      the root of the basin's tree in the round that hung it; a last root's is its own
//      climb        uint64  [P, capacity]      the step key of the basin's own pass in that round; a last root's is not set
//      hung         int32   [P, capacity]      basins by the round that hung them; no order within a round
//      hung_end     int32   [P, ROUNDS]        how many are hung after each round, the first entry 0; the last one repeats
//      best         uint64  [P, capacity]      scratch: the lowest pass of a basin
//      live, rep, parent    int32   [P, capacity]  scratch
extern "C" __global__ void __launch_bounds__(1024) basin_forest(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const int32_t* __restrict__ row_end,
    int32_t height, int32_t width, int32_t connectivity, int32_t capacity, int32_t* border, int32_t* border_count,
    int32_t* up, uint64_t* climb, int32_t* hung, int32_t* hung_end, uint64_t* best, int32_t* live, int32_t* rep, int32_t* parent)
{
    struct Counts { int live, hung; };
    JG_SHARED(Counts, counts);
    const int pitch = width + 2, plane = int(blockIdx.x), n = row_end[int64_t(plane) * height + height - 1];
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    const uint32_t* __restrict__ k = key + base;
    const int32_t* __restrict__ of = basin + base;
    border += int64_t(plane) * height * width * (connectivity / 2 + 2);
    border_count += int64_t(plane) * height;
    best += int64_t(plane) * capacity;
    up += int64_t(plane) * capacity;
    climb += int64_t(plane) * capacity;
    hung += int64_t(plane) * capacity;
    hung_end += int64_t(plane) * jg::ROUNDS;
    live += int64_t(plane) * capacity;
    rep += int64_t(plane) * capacity;
    parent += int64_t(plane) * capacity;

    JG_FOR(i, n) { rep[i] = i; live[i] = i; best[i] = jg::NEVER; }
    JG_FOR(r, jg::ROUNDS) hung_end[r] = 0;
    JG_ONCE counts.hung = 0;
    int left = n;
    for (int r = 1; left > 0; ++r) {
        __syncthreads();
        if (connectivity == 8) survey<8>(k, up, r == 1, height, width, border, border_count, best);
        else survey<4>(k, up, r == 1, height, width, border, border_count, best);
        JG_ONCE counts.live = 0;
        __syncthreads();
        JG_FOR(t, left) {
            const int i = live[t];
            const uint64_t b = best[i];
            if (b == jg::NEVER) { parent[i] = i; continue; }
            const int p = int((b & 0xffffffffu) >> 3), q = p + jg::step_to(int(b & 7), pitch);
            const int from = rep[of[p]], other = from == i ? rep[of[q]] : from;
            parent[i] = best[other] == b && i < other ? i : other;     // of two that chose each other the first is the root
        }
        __syncthreads();
        JG_FOR(t, left) {
            const int i = live[t];
            int root = i;
            while (parent[root] != root) root = parent[root];
            up[i] = root;
            if (root != i) {
                climb[i] = best[i];
                hung[jg::take_place(&counts.hung)] = i;
            }
        }
        __syncthreads();
        JG_FOR(i, n) rep[i] = up[rep[i]];
        // the roots that had a pass go on; their number is in parent's place until `live` has been read
        JG_FOR(t, left) {
            const int i = live[t];
            if (up[i] == i && best[i] != jg::NEVER) parent[jg::take_place(&counts.live)] = i;
            best[i] = jg::NEVER;
        }
        JG_ONCE for (int s = r; s < jg::ROUNDS; ++s) hung_end[s] = counts.hung;
        __syncthreads();
        left = counts.live;
        JG_FOR(t, left) live[t] = parent[t];
    }
}
JG_REGISTER(basin_forest)
