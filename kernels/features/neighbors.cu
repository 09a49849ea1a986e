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
// Oracle   SciPy's dilations and centrosome's outlines (tests/features/test_neighbors.py); CellProfiler's output on the real fields
// Launch   neighbor_centres a block per image row; neighbor_contacts any number of blocks, each takes every gridDim-th object,
//          so that the map is a block's; neighbor_nearest a warp per object; any block size, 0.3 KB of shared memory.
// Order    integers; nearest is a total order (distance, number).
#include "jg/one_item_per_thread.cuh"
#include "jg/jg_math.cuh"

// In   labels  int32  [B, H, W]      objects before any was discarded
//      words   ceil(W / 64)
// Out  sums    uint64 [B, M, 3]      pixels, sum y and sum x of labels 0 .. M - 1; 0 before
//      bits    uint64 [2, B, H, words]  where there is a label; where the next pixel of the row has another
extern "C" __global__ void __launch_bounds__(128, 8) neighbor_centres(
    const int32_t* __restrict__ labels, int32_t height, int32_t width, int32_t words, int32_t maximum, int64_t n_words,
    uint64_t* __restrict__ sums, uint64_t* __restrict__ bits)
{
    const int field = int(blockIdx.x) / height, y = int(blockIdx.x) % height;
    const int32_t* __restrict__ line = labels + int64_t(blockIdx.x) * width;
    uint64_t* __restrict__ some = bits + int64_t(blockIdx.x) * words;
    uint64_t* __restrict__ change = some + n_words;
    const int part = (words + jg::warps() - 1) / jg::warps(), first = part * jg::warp_id();    // a warp's words
    const int32_t* __restrict__ from = line + 64 * first;
    const int n = jg::larger(0, jg::smaller(64 * part, width - 64 * first)), pairs = jg::smaller(n, width - 1 - 64 * first);
    jg::warp_words(n, [=](int i) { return from[i] != 0; }, [=](int k, uint64_t word) { some[first + k] = word; });
    jg::warp_words(pairs, [=](int i) { return from[i] != from[i + 1]; }, [=](int k, uint64_t word) { change[first + k] = word; });
    if (n > 0 && pairs % 64 == 0 && pairs < n && jg::lane() == 0) change[words - 1] = 0;      // the row's last pixel stands alone in it
    __syncthreads();
    JG_FOR(k, words) {
        uint64_t begin = some[k] & (change[k] << 1 | (k ? change[k - 1] >> 63 : 1));
        for (; begin; begin &= begin - 1) {
            const int x = jg::lowest_bit(begin), start = 64 * k + x;
            int j = k;
            uint64_t last = change[k] & ~uint64_t(0) << x;
            while (last == 0 && ++j < words) last = change[j];
            const int end = last ? 64 * j + jg::lowest_bit(last) + 1 : width;
            uint64_t* __restrict__ sum = sums + (int64_t(field) * maximum + line[start]) * 3;
            const uint64_t pixels = uint64_t(end - start);
            jg::atomic_sum(sum, pixels);
            jg::atomic_sum(sum + 1, pixels * uint64_t(y));
            jg::atomic_sum(sum + 2, pixels * uint64_t(start + end - 1) / 2);
        }
    }
}
JG_REGISTER(neighbor_centres)

enum Contact { OUTLINE, NumberOfNeighbors, TOUCHED };   // pixels of the outline; then for each distance. PercentTouching: TOUCHED of OUTLINE
struct Nearest { enum Measure {
    FirstClosestObjectNumber, FirstClosestDistance, SecondClosestObjectNumber, SecondClosestDistance, AngleBetweenNeighbors,
    COUNT
}; };
constexpr int MAX_DISTANCES = 8;
constexpr int AHEAD = 8;                               // lines asked for before they are needed
constexpr int MAPS = 5;                                // of an object (neighbors.py: MAPS)

// to[i]: from[i] and the pixels to either side of it. Rows of words follow each other; what comes over from another row lies in
// the margin, farther from the object than is looked at. from[-1] and from[n] are read.
JG_FN void widen(const uint64_t* __restrict__ from, int n, uint64_t* __restrict__ to) {
    JG_FOR(i, n) to[i] = from[i] | from[i] << 1 | from[i] >> 1 | from[i - 1] >> 63 | from[i + 1] << 63;
}

struct Words { int first, last; };                         // first .. last - 1

// out[i] for the words `to`: what lies within a disk of pixels of `a`, none of which lies outside the words `of`. span[r] is how far
// the disk reaches to either side in the rows r above and below its centre, falling from span[0]. `a` and `b`, n words each, are
// used up. Ends with a barrier.
JG_FN void dilate(uint64_t* __restrict__ a, uint64_t* __restrict__ b, int n, const int32_t* __restrict__ span, int away, int pitch,
                  Words of, Words to, uint64_t* __restrict__ out)
{
    JG_FOR_OWN(i, to.first, to.last) out[i] = 0;               // a word stays with its thread
    int r = away;
    for (int reach = 0;; ++reach) {
        for (; r >= 0 && span[r] == reach; --r) {
            const int up = r * pitch;
            JG_FOR_OWN(i, jg::larger(to.first, of.first + up), jg::smaller(to.last, of.last + up)) out[i] |= a[i - up];
            JG_FOR_OWN(j, jg::larger(to.first, of.first - up), jg::smaller(to.last, of.last - up)) out[j] |= a[j + up];
        }
        if (r < 0) break;
        widen(a, n, b);
        __syncthreads();
        uint64_t* const swap = a;
        a = b;
        b = swap;
    }
    __syncthreads();
}

// In   labels       int32 [B, H, W]    as above
//      kept         int32 [B, H, W]    the objects' own pixels
//      bits         of neighbor_centres
//      box          int32 [N, 4]       each object's box
//      start, stop  int64 [N]          its range of the pixel list
//      field, number int32 [N]
//      distances    int32 [D]
//      spans        int32 [D, 2, S]    how far a disk of the distance, and of the distance and a half, reaches to either side in
//                                      the rows 0 .. S - 1 above or below its centre; S - 1 is the largest distance
//      capacity         words of a block's maps: MAPS times (h + 2 (S - 1)) * ((w + 2 (S - 1)) / 64 + 2) + 2 of every box at least
// Work maps         uint64 [blocks, capacity] of the box and S - 1 pixels around it
//      seen         int32 [blocks, D, M]  the last object of the block, counted from 1, that met the one of that label; 0 before
// Out  contacts     int32 [N, 1 + 2 D] outline pixels; then for each distance neighbours and outline pixels touched
extern "C" __global__ void __launch_bounds__(128, 8) neighbor_contacts(
    const int32_t* __restrict__ labels, const int32_t* __restrict__ kept, const uint64_t* __restrict__ bits,
    const int32_t* __restrict__ box, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int32_t* __restrict__ field, const int32_t* __restrict__ number, const int32_t* __restrict__ distances,
    const int32_t* __restrict__ spans,
    int32_t n_distances, int32_t rows, int32_t objects, int32_t height, int32_t width, int32_t words, int32_t maximum,
    int64_t n_words, int64_t capacity, uint64_t* __restrict__ maps, int32_t* __restrict__ contacts, int32_t* __restrict__ seen)
{
    JG_SHARED(jg::CountScratch<MAX_DISTANCES + 1>, s);
    const int margin = rows - 1;
    for (int object = int(blockIdx.x); object < objects; object += int(gridDim.x)) {
        const int mine = number[object], y0 = box[4 * object], x0 = box[4 * object + 1], x1 = box[4 * object + 3];
        const int h = stop[object] > start[object] ? box[4 * object + 2] - y0 : 0, top = y0 - margin, lines = h ? h + 2 * margin : 0;
        const int from = (x0 - margin) >> 6, pitch = ((x1 - 1 + margin) >> 6) - from + 1;     // words; may lie outside the image
        const int size = lines * pitch, first = margin * pitch, last = first + h * pitch;     // of the box's lines
        const int64_t plane = int64_t(field[object]) * height;
        const int32_t* __restrict__ label = labels + plane * width;
        const int32_t* __restrict__ own = kept + plane * width;
        const uint64_t* __restrict__ some = bits + plane * words;
        const uint64_t* __restrict__ change = some + n_words;
        uint64_t* __restrict__ inside = maps + blockIdx.x * capacity + 1;      // the object; later what is found
        uint64_t* __restrict__ others = inside + size + 2;
        uint64_t* __restrict__ outline = others + size + 2;
        uint64_t* __restrict__ a = outline + size + 2;
        uint64_t* __restrict__ b = a + size + 2;
        const auto place = [=](int i) { return int64_t(top + i / pitch) * width + 64 * (from + i % pitch); };   // of a word
        int32_t* __restrict__ met = seen + int64_t(blockIdx.x) * n_distances * maximum;
        const int stamp = object + 1;                      // a block's objects come in order, so that it grows
        jg::Counts<MAX_DISTANCES + 1> count = {}, known = {};
        __syncthreads();                                   // the object before is done with the map
        JG_FOR(m, MAPS) inside[m * (size + 2) - 1] = inside[m * (size + 2) + size] = 0;
        for (int i = jg::warp_id(); i < lines; i += jg::warps()) {
            const int y = top + i;
            if (y >= 0 && y + AHEAD < height && i + AHEAD < lines) jg::fetch_ahead(label + int64_t(y + AHEAD) * width + x0, x1 - x0);
            for (int k = 0; k < pitch; ++k) {
                const int x = 64 * (from + k);
                const bool in = y >= 0 && y < height && from + k >= 0 && from + k < words;
                const uint64_t all = in ? some[int64_t(y) * words + from + k] : 0;
                const auto put = [&](int, uint64_t word) {
                    inside[i * pitch + k] = word;
                    others[i * pitch + k] = all & ~word;
                };
                if (all) {
                    const int32_t* __restrict__ at = label + int64_t(y) * width + x;
                    jg::warp_words(jg::smaller(64, width - x), [=](int j) { return at[j] == mine; }, put);
                } else if (jg::lane() == 0) put(0, 0);
            }
        }
        __syncthreads();
        JG_FOR(i, size) {
            uint64_t rim = 0;
            if (i >= first && i < last && inside[i]) {
                uint64_t whole = ~uint64_t(0);
                for (int dy = -1; dy <= 1; ++dy) {
                    const uint64_t* __restrict__ at = inside + i + dy * pitch;
                    whole &= at[0] & (at[0] << 1 | at[-1] >> 63) & (at[0] >> 1 | at[1] << 63);
                }
                rim = inside[i] & ~whole;
                if (rim) jg::fetch_ahead(own + place(i) + jg::lowest_bit(rim), 1);
            }
            outline[i] = rim;
        }
        JG_FOR(i, size) {                                  // without pixels that are another's, of one discarded or not
            uint64_t rim = outline[i];
            for (uint64_t left = rim; left; left &= left - 1)
                if (own[place(i) + jg::lowest_bit(left)] != mine) rim &= ~(left & (~left + 1));
            outline[i] = rim;
            count.v[MAX_DISTANCES] += uint64_t(jg::count_bits(rim));
        }
        __syncthreads();
        for (int d = 0; d < n_distances; ++d) {
            const int away = distances[d];
            const int32_t* __restrict__ near = spans + 2 * d * rows;
            JG_FOR(j, size) a[j] = others[j];
            __syncthreads();
            dilate(a, b, size, near + rows, away, pitch, Words{0, size}, Words{first, last}, inside);
            JG_FOR_OWN(i, first, last) count.v[d] += uint64_t(jg::count_bits(inside[i] & outline[i]));
            JG_FOR(i, size) a[i] = outline[i];
            __syncthreads();
            const Words around = {first - away * pitch, last + away * pitch};
            dilate(a, b, size, near, away, pitch, Words{first, last}, around, inside);
            int before = mine;                             // the label met before: most of a row is one object
            JG_FOR_OWN(i, around.first, around.last) {
                const uint64_t result = inside[i] & others[i];
                if (result == 0) continue;
                // Of each run of others its first pixel here, and where one gives way to another.
                const uint64_t changed = change[int64_t(top + i / pitch) * words + from + i % pitch] << 1;
                for (uint64_t ask = result & (~(result << 1) | changed); ask; ask &= ask - 1) {
                    const int other = label[place(i) + jg::lowest_bit(ask)];
                    if (other == before) continue;
                    before = other;
                    int32_t* __restrict__ last_met = met + int64_t(d) * maximum + other;
                    if (jg::atomic_read(last_met) != stamp && jg::atomic_max(last_met, stamp) != stamp) ++known.v[d];
                }
            }
            __syncthreads();
        }
        count = jg::block_count<MAX_DISTANCES + 1>(count, s);
        known = jg::block_count<MAX_DISTANCES + 1>(known, s);
        JG_ONCE {
            int32_t* __restrict__ out = contacts + int64_t(object) * (1 + 2 * n_distances);
            out[OUTLINE] = int32_t(count.v[MAX_DISTANCES]);
            for (int d = 0; d < n_distances; ++d) {
                out[NumberOfNeighbors + 2 * d] = int32_t(known.v[d]);
                out[TOUCHED + 2 * d] = int32_t(count.v[d]);
            }
        }
    }
}
JG_REGISTER(neighbor_contacts)

// The two nearest of those shown, in the order (distance, label): distance and label of the first, then of the second. 0: none.
typedef jg::Vec<4> Two;
JG_FN bool nearer(double distance, double label, double than, double than_label) {
    return distance < than || (distance == than && label < than_label);
}
JG_FN Two keep_nearer(Two known, double distance, double label) {
    if (nearer(distance, label, known.v[0], known.v[1])) return {{distance, label, known.v[0], known.v[1]}};
    if (nearer(distance, label, known.v[2], known.v[3])) return {{known.v[0], known.v[1], distance, label}};
    return known;
}
JG_FN Two both(const Two& a, const Two& b) { return keep_nearer(keep_nearer(a, b.v[0], b.v[1]), b.v[2], b.v[3]); }

constexpr double NEAR = 1 + 1e-14;                     // of squares whose roots may round to the same
constexpr int OBJECTS = 4;                             // of a block (neighbors.py: OBJECTS)

// In   centre       float64 [B, M, 2]  y, x of labels 0 .. M - 1: means over pixels; nan without any
//      field, number int32 [N]
//      kept         int32 [B]          labels of kept objects of each field are 1 .. kept
// Out  nearest      float64 [N, 5]     number of the nearest kept object, distance to the nearest, the same of the second, angle
//                                      between both in degrees; 0 where there is none, nan for an object without pixels
extern "C" __global__ void __launch_bounds__(128, 6) neighbor_nearest(
    const double* __restrict__ centre, const int32_t* __restrict__ field, const int32_t* __restrict__ number,
    const int32_t* __restrict__ kept, int32_t objects, int32_t maximum, double* __restrict__ nearest)
{
    const int begin = int(blockIdx.x) * OBJECTS, end = jg::smaller(objects, begin + OBJECTS);
    for (int i = begin + jg::warp_id(); i < end; i += jg::warps()) {
        const double* __restrict__ of_field = centre + int64_t(field[i]) * maximum * 2;
        const double y = of_field[int64_t(number[i]) * 2], x = of_field[int64_t(number[i]) * 2 + 1];
        double* __restrict__ out = nearest + int64_t(i) * Nearest::COUNT;
        if (!(y >= 0)) {
            if (jg::lane() == 0) {
                out[Nearest::FirstClosestObjectNumber] = out[Nearest::SecondClosestObjectNumber] = 0;
                out[Nearest::FirstClosestDistance] = out[Nearest::SecondClosestDistance] = out[Nearest::AngleBetweenNeighbors] = y;
            }
            continue;
        }
        const double never = 1e300;
        const int mine = number[i], n_kept = kept[field[i]];
        Two all = {{never, 0, never, 0}}, of_kept = all;
        for (int m = 1 + jg::lane(); m < maximum; m += jg::WARP) {
            const double dy = y - of_field[int64_t(m) * 2], dx = x - of_field[int64_t(m) * 2 + 1], squared = dy * dy + dx * dx;
            // Far more than the second nearest, whatever the root rounds to; or nan, without pixels.
            const double second = m <= n_kept ? of_kept.v[2] : all.v[2];
            if (!(squared <= second * second * NEAR) || m == mine) continue;
            const double distance = sqrt(squared);
            all = keep_nearer(all, distance, m);
            if (m <= n_kept) of_kept = keep_nearer(of_kept, distance, m);
        }
        all = jg::warp_fold(all, both);
        of_kept = jg::warp_fold(of_kept, both);
        if (jg::lane()) continue;
        double v[2][2] = {};                           // x, y to the nearest and to the second
        for (int k = 0; k < 2; ++k) {
            const int label = int(all.v[k ? 3 : 1]);
            if (label == 0) continue;
            v[k][0] = of_field[int64_t(label) * 2 + 1] - x;
            v[k][1] = of_field[int64_t(label) * 2] - y;
        }
        out[Nearest::FirstClosestObjectNumber] = of_kept.v[1];
        out[Nearest::FirstClosestDistance] = sqrt(v[0][0] * v[0][0] + v[0][1] * v[0][1]);
        out[Nearest::SecondClosestObjectNumber] = of_kept.v[3];
        out[Nearest::SecondClosestDistance] = sqrt(v[1][0] * v[1][0] + v[1][1] * v[1][1]);
        out[Nearest::AngleBetweenNeighbors] = 0;
        if (all.v[3] > 0) {                            // arc cosine as 2 atan2: 1 - cosine and 1 + cosine are exact
            const double cosine = (v[0][0] * v[1][0] + v[0][1] * v[1][1]) /
                sqrt((v[0][0] * v[0][0] + v[0][1] * v[0][1]) * (v[1][0] * v[1][0] + v[1][1] * v[1][1]));
            const double angle = 2 * jg::atan2_same(sqrt(1 - cosine), sqrt(1 + cosine));
            out[Nearest::AngleBetweenNeighbors] = cosine >= -1 && cosine <= 1 ? angle * 180.0 / jg::PI : (cosine - cosine) / 0.0;
        }
    }
}
JG_REGISTER(neighbor_nearest)
