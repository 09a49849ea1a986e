// neighbors.cu: how many objects stand within a distance of an object, how much of its outline they touch, and which are nearest.
//
//   object     its pixels before discarding, which can hand it some of a discarded object (IdentifySecondaryObjects)
//   outline    the object's pixels with one of their 8 neighbours outside it, or on the image's border
//   neighbours the other objects with a pixel no farther than the distance d from one of the object's (d = 1: beside it)
//   touching   the outline's pixels with another object's no farther than d + 1/2
//   nearest    by centres (means of coordinates): distances and angle among all objects, discarded ones too; numbers among the
//              kept ones, ties by number
//
// Source   CellProfiler 4.2.8 MeasureObjectNeighbors, whose structuring elements are disks of d and d + 1/2.
// Oracle   SciPy's dilations and centrosome's outlines (tests/test_neighbors_scipy.py); CellProfiler's output on the real fields
// Launch   neighbor_centres a block an image row; neighbor_contacts any number of blocks, each takes every gridDim-th object,
//          so that the map is a block's; neighbor_nearest an item an object; any block size, 0.3 KB of shared memory.
// Order    integers; nearest is a total order (distance, number).
#include "jg_math.cuh"

// In   labels  int32  [B, H, W]      objects before any was discarded
// Out  sums    uint64 [B, M, 3]      pixels, sum of y and of x of labels 0 .. M - 1; 0 before
extern "C" __global__ void __launch_bounds__(128, 8) neighbor_centres(
    const int32_t* __restrict__ labels, int32_t height, int32_t width, int32_t most, uint64_t* __restrict__ sums)
{
    const int field = int(blockIdx.x) / height, y = int(blockIdx.x) % height;
    const int32_t* __restrict__ line = labels + int64_t(blockIdx.x) * width;
    const auto add_run = [&](int x) {                  // whoever stands at a run's beginning adds all of it
        const int label = line[x];
        int end = x + 1;
        while (end < width && line[end] == label) ++end;
        uint64_t* __restrict__ sum = sums + (int64_t(field) * most + label) * 3;
        const uint64_t n = uint64_t(end - x);
        jg::atomic_sum(sum, n);
        jg::atomic_sum(sum + 1, n * uint64_t(y));
        jg::atomic_sum(sum + 2, n * uint64_t(x + end - 1) / 2);
    };
    JG_ONCE if (line[0]) add_run(0);
    const int part = (width - 1 + jg::warps() - 1) / jg::warps(), first = 1 + part * jg::warp_id();    // a warp's columns
    jg::warp_each(jg::most(0, jg::least(part, width - first)),
                  [&](int i) { return uint8_t((line[first + i] != 0) & (line[first + i - 1] != line[first + i])); },
                  [&](int i, int) { add_run(first + i); });
}
JG_REGISTER(neighbor_centres)

constexpr int MOST_DISTANCES = 8;
constexpr int AHEAD = 8;                               // lines asked for before they are needed
constexpr int MARGIN = 8;                              // least columns of a map beside the box (neighbors.py)
enum Kind { MINE = 0, NOTHING = 1, OTHER = 3 };        // of a map's pixels; outside the image is nothing

// A pixel and those beside it: 0 where all are the object's. Words of bytes are read the lowest first, as on all CPUs we build for.
JG_FN uint32_t three_around(const uint8_t* __restrict__ at) {
#if defined(JG_SERIAL)
    uint32_t four;                                     // one more, cut off
    memcpy(&four, at - 1, 4);
    return four << 8;
#else
    return uint32_t(at[-1] | at[0] | at[1]);
#endif
}

// Whether any of at[-reach] .. at[reach] is another object's.
JG_FN bool others_in(const uint8_t* __restrict__ at, int reach) {
#if defined(JG_SERIAL)
    if (reach < MARGIN) {                              // 16 pixels in two words, those beyond the reach masked
        uint64_t left, right;
        memcpy(&left, at - 8, 8);
        memcpy(&right, at, 8);
        const uint64_t other = 0x0202020202020202ull;
        return ((left & (reach ? other << (64 - 8 * reach) : 0)) | (right & (other >> (56 - 8 * reach)))) != 0;
    }
#endif
    int others = 0;
    for (int dx = -reach; dx <= reach; ++dx) others |= at[dx];
    return (others & 2) != 0;
}

// In   labels       int32 [B, H, W]    as above
//      pixel        int32 [P]          y << 16 | x
//      start, stop  int64 [N]          each object's range of the list, of this compartment
//      box          int32 [N, 4]       its box
//      field, number int32 [N]
//      distances    int32 [D]
//      spans        int32 [D, 2, S]    how far a disk of the distance, and of the distance and a half, reaches to either side in
//                                      the rows 0 .. S - 1 above or below its centre; S - 1 is the largest distance
//      room         bytes of a map: at least (h + 2 m) * (w + 2 m) of every box, m the larger of S - 1 and 8
// Work maps         uint8 [blocks, room] the box and its surroundings, see Kind
// Out  contacts     int32 [N, 1 + 2 D] outline pixels; then for each distance neighbours and outline pixels touched
//      seen         int32 [N, D, M]    whether the object of that label is a neighbour; 0 before
extern "C" __global__ void __launch_bounds__(128, 8) neighbor_contacts(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ pixel, const int64_t* __restrict__ start,
    const int64_t* __restrict__ stop, const int32_t* __restrict__ box, const int32_t* __restrict__ field,
    const int32_t* __restrict__ number, const int32_t* __restrict__ distances, const int32_t* __restrict__ spans,
    int32_t n_distances, int32_t rows, int32_t objects, int32_t height, int32_t width, int32_t most, int64_t room,
    uint8_t* __restrict__ maps, int32_t* __restrict__ contacts, int32_t* __restrict__ seen)
{
    JG_SHARED(jg::CountScratch<MOST_DISTANCES + 1>, s);
    const int margin = jg::most(rows - 1, MARGIN);
    uint8_t* __restrict__ map = maps + blockIdx.x * room;
    for (int object = int(blockIdx.x); object < objects; object += int(gridDim.x)) {
        const int mine = number[object], n = int(stop[object] - start[object]);
        const int y0 = box[4 * object] - margin, x0 = box[4 * object + 1] - margin;
        const int h = n ? box[4 * object + 2] + margin - y0 : 0, pitch = box[4 * object + 3] + margin - x0;
        const int32_t* __restrict__ plane = labels + int64_t(field[object]) * height * width;
        const int32_t* __restrict__ pixels = pixel + start[object];
        int32_t* __restrict__ met = seen + int64_t(object) * n_distances * most;
        jg::Counts<MOST_DISTANCES + 1> count = {};
        __syncthreads();                                   // the object before is done with the map
        JG_FOR_YX(y, x, 0, h, 0, pitch) map[y * pitch + x] = NOTHING;
        __syncthreads();
        const int from = jg::most(x0, 0), inside = jg::least(x0 + pitch, width) - from, last_y = jg::least(y0 + h, height);
        for (int y = jg::most(y0, 0) + jg::warp_id(); y < last_y; y += jg::warps()) {
            const int32_t* __restrict__ label = plane + int64_t(y) * width + from;
            uint8_t* __restrict__ to = map + (y - y0) * pitch + from - x0;
            if (y + AHEAD < last_y) jg::fetch_ahead(label + int64_t(AHEAD) * width, inside);
            for (int x = jg::lane(); x < inside; x += jg::WARP)
                to[x] = uint8_t(label[x] == mine ? MINE : label[x] ? OTHER : NOTHING);
        }
        __syncthreads();
        JG_FOR(i, n) {
            const int y = pixels[i] >> 16, x = pixels[i] & 0xffff;
            const uint8_t* __restrict__ at = map + (y - y0) * pitch + x - x0;
            if (*at != MINE) continue;                     // a pixel that was another's before discarding
            if ((three_around(at - pitch) | three_around(at) | three_around(at + pitch)) == MINE) continue;
            ++count.v[MOST_DISTANCES];
            for (int d = 0; d < n_distances; ++d) {
                const int32_t* __restrict__ near = spans + 2 * d * rows;
                const int32_t* __restrict__ wide = near + rows;
                bool touched = false;
                int last = mine;                           // the label met last: most of a row is one object
                for (int dy = -distances[d]; dy <= distances[d]; ++dy) {
                    const uint8_t* __restrict__ row = at + dy * pitch;
                    const int r = dy < 0 ? -dy : dy;
                    if (!others_in(row, wide[r])) continue;
                    touched = true;
                    for (int dx = -near[r]; dx <= near[r]; ++dx) {
                        if (row[dx] != OTHER) continue;
                        const int other = plane[int64_t(y + dy) * width + x + dx];
                        if (other == last) continue;
                        last = other;
                        if (jg::atomic_read(met + d * most + other) == 0) jg::atomic_most(met + d * most + other, 1);
                    }
                }
                count.v[d] += touched;
            }
        }
        count = jg::block_count<MOST_DISTANCES + 1>(count, s);             // its barrier also ends the writing of met
        jg::Counts<MOST_DISTANCES + 1> known = {};
        for (int d = 0; d < n_distances; ++d)
            JG_FOR(m, most) known.v[d] += uint64_t(jg::atomic_read(met + d * most + m));
        known = jg::block_count<MOST_DISTANCES + 1>(known, s);
        JG_ONCE {
            int32_t* __restrict__ out = contacts + int64_t(object) * (1 + 2 * n_distances);
            out[0] = int32_t(count.v[MOST_DISTANCES]);
            for (int d = 0; d < n_distances; ++d) {
                out[1 + 2 * d] = int32_t(known.v[d]);
                out[2 + 2 * d] = int32_t(count.v[d]);
            }
        }
    }
}
JG_REGISTER(neighbor_contacts)

struct Nearest { double distance; int label; };

// Keeps the two nearest of those shown, in the order (distance, label); labels are shown in ascending order.
JG_FN void keep_nearer(double distance, int label, Nearest& first, Nearest& second) {
    if (distance < first.distance) {
        second = first;
        first = {distance, label};
    } else if (distance < second.distance) {
        second = {distance, label};
    }
}

// In   sums         of neighbor_centres
//      field, number int32 [N]
//      kept         int32 [B]          labels of kept objects of each field are 1 .. kept
// Out  nearest      float64 [N, 5]     number of the nearest kept object, distance to the nearest, the same of the second, angle
//                                      between both in degrees; 0 where there is none, nan for an object without pixels
extern "C" __global__ void __launch_bounds__(128, 6) neighbor_nearest(
    const uint64_t* __restrict__ sums, const int32_t* __restrict__ field, const int32_t* __restrict__ number,
    const int32_t* __restrict__ kept, int32_t objects, int32_t most, double* __restrict__ nearest)
{
    JG_FOR_ITEMS(i, objects) {
        const uint64_t* __restrict__ of_field = sums + int64_t(field[i]) * most * 3;
        const uint64_t* __restrict__ own = of_field + int64_t(number[i]) * 3;
        double* __restrict__ out = nearest + i * 5;
        if (own[0] == 0) {
            out[0] = out[2] = 0;
            out[1] = out[3] = out[4] = 0.0 / double(own[0]);
            continue;
        }
        const double y = double(own[1]) / double(own[0]), x = double(own[2]) / double(own[0]);
        const double never = 1e300;
        Nearest first = {never, 0}, second = {never, 0}, first_kept = {never, 0}, second_kept = {never, 0};
        for (int m = 1; m < most; ++m) {
            const uint64_t* __restrict__ other = of_field + int64_t(m) * 3;
            if (m == number[i] || other[0] == 0) continue;
            const double dy = y - double(other[1]) / double(other[0]), dx = x - double(other[2]) / double(other[0]);
            const double distance = sqrt(dy * dy + dx * dx);
            keep_nearer(distance, m, first, second);
            if (m <= kept[field[i]]) keep_nearer(distance, m, first_kept, second_kept);
        }
        double v[2][2] = {};                           // x, y to the nearest and to the second
        for (int k = 0; k < 2; ++k) {
            const int label = k ? second.label : first.label;
            if (label == 0) continue;
            const uint64_t* __restrict__ other = of_field + int64_t(label) * 3;
            v[k][0] = double(other[2]) / double(other[0]) - x;
            v[k][1] = double(other[1]) / double(other[0]) - y;
        }
        out[0] = first_kept.label;
        out[1] = sqrt(v[0][0] * v[0][0] + v[0][1] * v[0][1]);
        out[2] = second_kept.label;
        out[3] = sqrt(v[1][0] * v[1][0] + v[1][1] * v[1][1]);
        out[4] = 0;
        if (second.label) {                            // arc cosine as 2 atan2: 1 - cosine and 1 + cosine are exact
            const double cosine = (v[0][0] * v[1][0] + v[0][1] * v[1][1]) /
                sqrt((v[0][0] * v[0][0] + v[0][1] * v[0][1]) * (v[1][0] * v[1][0] + v[1][1] * v[1][1]));
            const double angle = 2 * jg::atan2_same(sqrt(1 - cosine), sqrt(1 + cosine));
            out[4] = cosine >= -1 && cosine <= 1 ? angle * 180.0 / jg::PI : (cosine - cosine) / 0.0;
        }
    }
}
JG_REGISTER(neighbor_nearest)
