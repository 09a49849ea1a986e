// basins.cu: the basins of a plane and the forest of their lowest passes, for the watershed and for reconstruction.
//
//   Pixels are in a total order: key, then raster index. Every pixel steps to the lowest of itself and its neighbours;
//   following the steps ends at a local minimum, and pixels with the same minimum are a basin. A pass is a pixel between its
//   own basin and another that a neighbour below it is in. Neighbours below it that hang together around it, pixel by pixel,
//   are joined by ways below it, so one of them stands for all, and those that hang together with the pixel it steps to
//   lead nowhere new. What is left are saddles, one pixel in six or so, where every border pixel would be one in two.
//   A round: every basin that is left takes its lowest pass (of one pixel's passes the first in ring order) and so hangs
//   itself on another; the trees so formed are one basin from then on, named by the root. On the way to a root the passes
//   grow, so the highest one is a basin's own: from basin b the lowest way to its root climbs to climb(b), the order of a
//   pixel. Rounds go on until no pass is left: at most log2 of the basins.
//   Up: what a root collects of its tree passes through the members' own passes. Down: what a basin is told comes from
//   up(b) through climb(b), last round first. watershed.cu and granularity.cu do these two walks.
//
// Source   Boruvka's minimum spanning forest over basins (design.md, 'Basins').
// Oracle   a sequential flood (tests/helpers/reference/flood.py) through watershed.cu; scikit-image's reconstruction through
//          granularity.cu
// Order    every choice is by unique integers, so neither schedule nor block size can matter. Basins are numbered in raster
//          order of their minima.
#include "segmentation/basins.cuh"
#include "segmentation/descend.cuh"

using namespace jg::ring;

// Past the end of every run of neighbours in `below`, but for the run that the neighbour `step` is in. Sides that touch a
// corner below join it; with 4 neighbours a corner counts only between two sides, with 8 two sides are joined across it.
template <int CONNECTIVITY> JG_FN int run_ends(int below, int step) {
    const int sides = below & SIDES, between = (sides << 1 | sides >> 7) & sides >> 1, corners = below & CORNERS;
    const int e = sides | (CONNECTIVITY == 8 ? corners | between : corners & between), twice = e | e << 8;
    const int own = (twice + step) & ~twice;             // the carry runs to the end of the run
    return (e << 1 | e >> 7) & ~e & ~(own | own >> 8) & 255;
}
// The step to the neighbour at a place 0 .. 7 of the ring.
JG_FN int around(int place, int pitch) { return ((27200 >> 2 * place & 3) - 1) * pitch + (1700 >> 2 * place & 3) - 1; }
JG_FN int few_bits(int byte) {                           // how many are set: plain arithmetic, which vectorises
    const int twos = byte - (byte >> 1 & 0x55), fours = (twos & 0x33) + (twos >> 2 & 0x33);
    return (fours + (fours >> 4)) & 15;
}

// The step of every pixel and what it lies between, and how many minima and passes per row can have.
//
// Launch   a block a band of BAND rows of a plane, frame rows included, a warp per row; no shared memory.
// In   key        uint32  [P, H + 2, W + 2]  framed planes; OUTSIDE takes no part
// Out  basin      int32   [P, H + 2, W + 2]  ~index of the pixel stepped to (a minimum's is its own), or NO_BASIN
//      ring       uint8   [P, H, W]          a bit for every pass, just past the neighbour that it leads down to
//      count      int32   [2, P, H]          minima; passes
template <int CONNECTIVITY> JG_FN void descend_row(const uint32_t* __restrict__ k, int y, int pitch, int width,
                                                   int32_t* __restrict__ to, uint8_t* __restrict__ ring, int& minima, int& passes)
{
    int result = 0, leading = 0, done = 0;
#if defined(JG_DESCEND_64)
    for (; done + 64 <= width; done += 64)
        jg::descend_64<CONNECTIVITY>(k, done + 1, y * pitch + done + 1, pitch, to, ring + done, result, leading);
#endif
    jg::each_inside(k + 1 + done, width - done, [&](int far) {
        const int i = done + far, x = i + 1, best = jg::steepest<CONNECTIVITY>(k, x, pitch), step = best >> 8;
        const uint32_t mine = k[x], nw = k[x - pitch - 1], n = k[x - pitch], ne = k[x - pitch + 1], w = k[x - 1], e = k[x + 1],
                       sw = k[x + pitch - 1], s = k[x + pitch], se = k[x + pitch + 1];
        auto before = [=](uint32_t key, int place) { return jg::smaller(key, mine) == key ? place : 0; };
        auto after = [=](uint32_t key, int place) { return jg::smaller(key, mine) == mine ? 0 : place; };
        const int below = before(nw, NW) | before(n, N) | before(ne, NE) | before(w, W) | after(e, E) | after(sw, SW) | after(s, S)
            | after(se, SE);
        const bool in = mine != jg::OUTSIDE;
        const int ends = in ? run_ends<CONNECTIVITY>(below, best & 255) : 0;
        to[x] = in ? ~(y * pitch + x + step) : jg::NO_BASIN;
        ring[i] = uint8_t(ends);
        result += in && step == 0;
        leading += few_bits(ends);
    }, [&](int far) { to[done + far + 1] = jg::NO_BASIN; ring[done + far] = 0; });
    minima = result;
    passes = leading;
}
extern "C" __global__ void __launch_bounds__(128, 8) basin_descend(
    const uint32_t* __restrict__ key, int32_t planes, int32_t height, int32_t width, int32_t connectivity,
    int32_t* __restrict__ basin, uint8_t* __restrict__ ring, int32_t* __restrict__ count)
{
    const int pitch = width + 2, bands = (height + 2 + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height + 2); y += jg::warps()) {
        const uint32_t* __restrict__ k = key + base + int64_t(y) * pitch;
        int32_t* __restrict__ to = basin + base + int64_t(y) * pitch;
        if (y == 0 || y == height + 1) {
            for (int x = jg::lane(); x < pitch; x += jg::WARP) to[x] = jg::NO_BASIN;
            continue;
        }
        if (jg::lane() == 0) to[0] = to[pitch - 1] = jg::NO_BASIN;
        const int64_t row = int64_t(plane) * height + y - 1;
        int minima = 0, passes = 0;
        if (connectivity == 8) descend_row<8>(k, y, pitch, width, to, ring + row * width, minima, passes);
        else descend_row<4>(k, y, pitch, width, to, ring + row * width, minima, passes);
        minima = jg::warp_sum(minima);
        passes = jg::warp_sum(passes);
        if (jg::lane() == 0) {
            count[row] = minima;
            count[int64_t(planes) * height + row] = passes;
        }
    }
}
JG_REGISTER(basin_descend)

// Numbers for the minima, in raster order within the plane.
//
// Launch   a block a band of BAND rows, a warp per row; no shared memory.
// In   row_end    int32   [P, H]             minima up to and with the row (running sum of `count`)
// Out  basin      int32   [P, H + 2, W + 2]  the number, 0 .., at the minima; others as they were
//      best       uint64  [P, capacity]      NEVER, for each basin
//      hung_end   int32   [P, ROUNDS]        0
//      left       int32   [P, 2]             0
extern "C" __global__ void __launch_bounds__(128, 8) basin_number(
    const int32_t* __restrict__ row_end, int32_t height, int32_t width, int32_t capacity, int32_t* __restrict__ basin,
    uint64_t* __restrict__ best, int32_t* __restrict__ hung_end, int32_t* __restrict__ left)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    if (y0 == 0) {
        JG_FOR(r, jg::ROUNDS) hung_end[int64_t(plane) * jg::ROUNDS + r] = 0;
        JG_FOR(r, 2) left[plane * 2 + r] = 0;
    }
    best += int64_t(plane) * capacity;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        const int32_t* __restrict__ ends = row_end + int64_t(plane) * height;
        const int first = y ? ends[y - 1] : 0, here = (y + 1) * pitch + 1;
        if (ends[y] == first) continue;
        int32_t* to = basin + base + here;
        jg::warp_pick(width, [=](int x) { return to[x] == ~(here + x); }, [=](int x, int k) {
            to[x] = first + k;
            best[first + k] = jg::NEVER;
        });
    }
}
JG_REGISTER(basin_number)

// Every pixel's basin, by following its steps.
//
// Launch   a block a band of `rows` rows, any block size; no shared memory.
// In, out  basin  int32   [P, H + 2, W + 2]  steps and numbered minima in, basins (or NO_BASIN) out
extern "C" __global__ void __launch_bounds__(128, 8) basin_resolve(int32_t height, int32_t width, int32_t rows, int32_t* basin)
{
    const int pitch = width + 2, bands = (height + rows - 1) / rows;
    const int plane = int(blockIdx.x) / bands, y0 = 1 + int(blockIdx.x) % bands * rows;
    jg::follow_rows(basin + int64_t(plane) * (height + 2) * pitch, pitch, width, y0, jg::smaller(y0 + rows, height + 1));
}
JG_REGISTER(basin_resolve)

// A pass: the pixel's key and index, its basin and the other one.
struct Pass { uint32_t key; int32_t p, mine, other; };

// Tells both basins of a row's passes of each, as key and place in the list, which is in raster order. ALONE: no other block
// has to do with the plane.
template <bool ALONE> JG_FN void tell(const Pass* list, int count, int start, uint64_t* best) {
    for (int j = jg::lane(); j < count; j += jg::WARP) {
        const uint64_t order = jg::order_of(list[j].key, start + j);
        if constexpr (ALONE) {
            jg::lower_to(best + list[j].mine, order);
            jg::lower_to(best + list[j].other, order);
        } else {
            const int both[2] = {list[j].mine, list[j].other};
            for (int i : both)
                if (order < jg::atomic_read(best + i)) jg::atomic_min(best + i, order);
        }
    }
}

// Lists them row by row, in raster order and around the ring, without those that lead back to the same basin; `telling`: tells
// every basin its lowest one too, which is where the first round of the forest begins.
//
// Launch   a block a band of BAND rows, a warp per row; no shared memory.
// In   key         uint32  [P, H + 2, W + 2]
//      basin       int32   [P, H + 2, W + 2]
//      ring        uint8   [P, H, W]
//      pass_end    int32   [P, H]              passes up to and with the row (running sum of `count`): places in the list
// Out  passes      int32   [P, maximum, 4]        `Pass`, from each row's first place
//      pass_count  int32   [P, H]              how many a row has
// In, out  best    uint64  [P, capacity]       the order of a basin's lowest pass
extern "C" __global__ void __launch_bounds__(128, 8) basin_passes(
    const uint32_t* __restrict__ key, const int32_t* __restrict__ basin, const uint8_t* __restrict__ ring,
    const int32_t* __restrict__ pass_end, int32_t height, int32_t width, int32_t maximum, int32_t capacity, int32_t telling,
    int32_t* __restrict__ passes, int32_t* __restrict__ pass_count, uint64_t* best)
{
    const int pitch = width + 2, bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    const int64_t base = int64_t(plane) * (height + 2) * pitch;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        const int64_t row = int64_t(plane) * height + y;
        const uint8_t* __restrict__ bits = ring + row * width;
        const int first = (y + 1) * pitch + 1, start = y ? pass_end[row - 1] : 0;
        Pass* list = reinterpret_cast<Pass*>(passes) + int64_t(plane) * maximum + start;
        const int n = jg::warp_gather(width, list, [=](int x) { return bits[x]; }, [=](int x, int ends, jg::Gathering<Pass> add) {
            const int p = first + x, mine = basin[base + p];
            for (; ends; ends &= ends - 1) {
                const int other = basin[base + p + around((jg::lowest_bit(ends) + 7) & 7, pitch)];
                add(Pass{key[base + p], p, mine, other}, mine != other);
            }
        });
        if (jg::lane() == 0) pass_count[row] = n;
        if (!telling) continue;
        __syncwarp();
        tell<false>(list, n, start, best + int64_t(plane) * capacity);
    }
}
JG_REGISTER(basin_passes)

// Gives a row's passes their basins' new names, drops those that now lie inside one basin, and tells every basin its lowest pass.
template <bool ALONE> JG_FN void survey_row(
    const int32_t* __restrict__ up, bool renamed, int start, Pass* list, int32_t* pass_count, uint64_t* best)
{
    int count = *pass_count;
    if (count == 0) return;
    if (renamed) {
        count = jg::warp_compact(count, list, [=](int j, Pass* pass) {
            *pass = list[j];
            pass->mine = up[pass->mine];
            pass->other = up[pass->other];
            return pass->mine != pass->other;
        });
        __syncwarp();
        if (jg::lane() == 0) *pass_count = count;
    }
    tell<ALONE>(list, count, start, best);
}

// The basin that basin i hangs itself on by its lowest pass; of two that chose each other the first is the root, which stays.
JG_FN int hangs_on(int i, const Pass* __restrict__ list, const uint64_t* __restrict__ best) {
    const uint64_t b = best[i];
    if (b == jg::NEVER) return i;
    const Pass& pass = list[uint32_t(b)];
    const int other = pass.mine == i ? pass.other : pass.mine;
    return best[other] == b && i < other ? i : other;
}
// The order of the pixel of basin i's lowest pass.
JG_FN uint64_t climb_of(int i, const Pass* __restrict__ list, const uint64_t* __restrict__ best) {
    return jg::order_of(uint32_t(best[i] >> 32), list[uint32_t(best[i])].p);
}

// A round of the forest by many blocks, where a GPU has them: the first two have nine tenths of the work. basin_survey begins the
// second, as basin_passes does the first; basin_hang ends either.
//
// Launch   basin_survey: a block a band of BAND rows, a warp per row. basin_hang: `parts` blocks per plane. No shared memory.
// In   pass_end, up as of basin_forest
// In, out  passes, pass_count, best            as of basin_forest; the round's own `best`
extern "C" __global__ void __launch_bounds__(128, 8) basin_survey(
    const int32_t* __restrict__ pass_end, const int32_t* __restrict__ up, int32_t height, int32_t maximum, int32_t capacity,
    int32_t* passes, int32_t* pass_count, uint64_t* best)
{
    const int bands = (height + jg::BAND - 1) / jg::BAND;
    const int plane = int(blockIdx.x) / bands, y0 = int(blockIdx.x) % bands * jg::BAND;
    for (int y = y0 + jg::warp_id(); y < jg::smaller(y0 + jg::BAND, height); y += jg::warps()) {
        const int64_t row = int64_t(plane) * height + y;
        const int start = y ? pass_end[row - 1] : 0;
        survey_row<false>(up + int64_t(plane) * capacity, true, start, reinterpret_cast<Pass*>(passes) + int64_t(plane) * maximum + start,
                   pass_count + row, best + int64_t(plane) * capacity);
    }
}
JG_REGISTER(basin_survey)

// In   row_end    int32   [P, H]             its last entry is the plane's number of basins, which are all there in round 1
//      live       int32   [P, capacity]      in round 2: the roots of round 1, left[0] of them
//      passes     int32   [P, maximum, 4]
//      best       uint64  [P, capacity]      the order of a basin's lowest pass in this round
// Out  up, climb, hung                       as of basin_forest
//      next       uint64  [P, capacity]      NEVER, for each basin that goes on
//      going_on   int32   [P, capacity]      the roots that had a pass, in no order
// In, out  hung_end   int32   [P, ROUNDS]    entry `round`: how many are hung in it
//      left       int32   [P, 2]             entry round - 1: how many go on
extern "C" __global__ void __launch_bounds__(128, 8) basin_hang(
    const int32_t* __restrict__ row_end, const int32_t* __restrict__ live, const int32_t* __restrict__ passes,
    const uint64_t* __restrict__ best, int32_t height, int32_t maximum, int32_t capacity, int32_t parts, int32_t round,
    int32_t* __restrict__ up, uint64_t* __restrict__ climb, int32_t* __restrict__ hung, uint64_t* __restrict__ next,
    int32_t* __restrict__ going_on, int32_t* hung_end, int32_t* left)
{
    const int plane = int(blockIdx.x) / parts, part = int(blockIdx.x) % parts;
    const int64_t base = int64_t(plane) * capacity;
    const Pass* list = reinterpret_cast<const Pass*>(passes) + int64_t(plane) * maximum;
    hung_end += int64_t(plane) * jg::ROUNDS;
    left += plane * 2;
    const int n = round == 1 ? row_end[int64_t(plane) * height + height - 1] : left[0];
    const int before = round == 1 ? 0 : hung_end[1];
    for (int t = part * int(blockDim.x) + int(threadIdx.x); t < n; t += parts * int(blockDim.x)) {
        const int i = round == 1 ? t : live[base + t];
        int root = i;
        for (int on = hangs_on(root, list, best + base); on != root; on = hangs_on(root, list, best + base)) root = on;
        up[base + i] = root;
        if (root != i) {
            climb[base + i] = climb_of(i, list, best + base);
            hung[base + before + jg::atomic_sum(hung_end + round, 1)] = i;
        } else if (best[base + i] != jg::NEVER) {
            next[base + i] = jg::NEVER;
            going_on[base + jg::atomic_sum(left + round - 1, 1)] = i;
        }
    }
}
JG_REGISTER(basin_hang)

// The forest: rounds of hanging every basin that is left on another by its lowest pass, after the `rounds` that many blocks did.
//
// Launch   a block per plane, up to 1024 threads: passes shrink by half or more a round, all within one block, so that the loop
//          ends when the work does; 8 bytes of shared memory.
// In   row_end      int32   [P, H]             its last entry is the plane's number of basins
//      pass_end     int32   [P, H]             where each row's passes end
//      left         int32   [P, 2]             its last entry: how many of `parent` go on, where there were rounds before
// In, out  passes, pass_count                  as basin_passes made them; used up
//      best         uint64  [P, capacity]      NEVER for those that go on
//      parent       int32   [P, capacity]      those that go on, where there were rounds before; scratch
//      hung_end     int32   [P, ROUNDS]        how many are hung after each round, the first entry 0; the last one repeats. Of rounds
//                                              before: how many are hung in each
// Out  up           int32   [P, capacity]      the root of the basin's tree in the round that hung it; a last root's is its own
//      climb        uint64  [P, capacity]      the order of the basin's own pass in that round; a last root's is not set
//      hung         int32   [P, capacity]      basins by the round that hung them; no order within a round
//      live         int32   [P, capacity]      scratch
extern "C" __global__ void __launch_bounds__(1024, 1) basin_forest(
    const int32_t* __restrict__ row_end, const int32_t* __restrict__ pass_end, const int32_t* __restrict__ left, int32_t height,
    int32_t maximum, int32_t capacity, int32_t rounds, int32_t* passes, int32_t* pass_count, int32_t* up, uint64_t* climb, int32_t* hung, int32_t* hung_end, uint64_t* best,
    int32_t* live, int32_t* parent)
{
    struct Counts { int live, hung; };
    JG_SHARED(Counts, counts);
    const int plane = int(blockIdx.x), n = row_end[int64_t(plane) * height + height - 1];
    Pass* list = reinterpret_cast<Pass*>(passes) + int64_t(plane) * maximum;
    pass_end += int64_t(plane) * height;
    pass_count += int64_t(plane) * height;
    best += int64_t(plane) * capacity;
    up += int64_t(plane) * capacity;
    climb += int64_t(plane) * capacity;
    hung += int64_t(plane) * capacity;
    hung_end += int64_t(plane) * jg::ROUNDS;
    live += int64_t(plane) * capacity;
    parent += int64_t(plane) * capacity;

    int remaining = rounds ? left[plane * 2 + rounds - 1] : n;
    JG_FOR(t, remaining) live[t] = rounds ? parent[t] : t;
    JG_ONCE {
        counts.hung = 0;
        for (int r = 1; r < jg::ROUNDS; ++r) {
            if (r <= rounds) counts.hung += hung_end[r];
            hung_end[r] = counts.hung;
        }
    }
    for (int r = rounds + 1; remaining > 0; ++r) {
        __syncthreads();
        for (int y = jg::warp_id(); y < height; y += jg::warps()) {
            const int start = y ? pass_end[y - 1] : 0;
            survey_row<true>(up, r > 1, start, list + start, pass_count + y, best);
        }
        JG_ONCE counts.live = 0;
        __syncthreads();
        JG_FOR(t, remaining) parent[live[t]] = hangs_on(live[t], list, best);
        __syncthreads();
        JG_FOR(t, remaining) {
            const int i = live[t];
            int root = i;
            while (parent[root] != root) root = parent[root];
            up[i] = root;
            if (root != i) {
                climb[i] = climb_of(i, list, best);
                hung[jg::take_place(&counts.hung)] = i;
            }
        }
        __syncthreads();
        // the roots that had a pass go on; their number is in parent's place until `live` has been read
        JG_FOR(t, remaining) {
            const int i = live[t];
            if (up[i] == i && best[i] != jg::NEVER) parent[jg::take_place(&counts.live)] = i;
            best[i] = jg::NEVER;
        }
        JG_ONCE for (int s = r; s < jg::ROUNDS; ++s) hung_end[s] = counts.hung;
        __syncthreads();
        remaining = counts.live;
        JG_FOR(t, remaining) live[t] = parent[t];
    }
}
JG_REGISTER(basin_forest)
