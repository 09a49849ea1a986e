// label.cu: connected components by union-find over runs, their numbers in raster order, what lies outside, and holes.
//
//   A component is a set of pixels joined in eight directions (foreground, mask != 0) or four (background, mask == 0). Its root is
//   its first pixel in raster order; a background component that reaches the image's border is 'outside'.
//   A row is kept as words of 64 pixels, all that is asked of neighbours is logic on words, and only runs are joined: a run of a
//   row within a tile is known by its first pixel, the one place of `parent` that is used.
//
// Source   Playne & Hawick (2018), a union by atomic minimum; CellProfiler numbers components as scipy.ndimage.label does.
// Oracle   scipy.ndimage.label, binary_fill_holes (tests/segmentation/test_label.py)
// Launch   label_tiles: a block a tile of 64 x 64 pixels, 17 KB of shared memory; the serial build takes the tiles beside each other
//          at once, in the first one's block, and joins them. label_seams: a thread per item; the others a block per row.
// Order    a root is the smallest index of its component however unions interleave; numbers follow the roots' order.
#include "jg/bits.cuh"

namespace {
constexpr int TILE = 64;                       // rows and columns of a tile (label.py: TILE)
constexpr int PITCH = TILE + 1;                // of a tile's parents: a column's lie in different banks
constexpr int SEAM_ITEMS = 128;                // items of a block of label_seams (label.py: SEAM_ITEMS)
constexpr int CHUNK = 64;                      // words of a row looked at together
constexpr int UNLABELLED = -1, OUTSIDE = -2;
constexpr int RANKED = -3;                     // RANKED - r: the root that has r others before it in its row
constexpr int FOREGROUND = 1, BACKGROUND = 2;  // which classes are joined

struct Tile {
    uint64_t word[TILE];
    int32_t parent[TILE * PITCH];
};
struct Words { uint64_t word[CHUNK]; };

// The end of the chain of parents from i, or OUTSIDE. Links only ever lead to smaller numbers.
JG_FN int find(const int32_t* parent, int i) {
    while (i >= 0) {
        const int up = jg::atomic_read(parent + i);
        if (up == i) break;
        i = up;
    }
    return i;
}

// Joins two sets: the larger root is hung below the smaller one, and what it was hung below meanwhile is joined too.
JG_FN void join(int32_t* parent, int a, int b) {
    for (;;) {
        a = find(parent, a);
        b = find(parent, b);
        if (a == b) return;
        if (a < b) { const int swap = a; a = b; b = swap; }
        const int before = jg::atomic_min(parent + a, b);
        if (before == a) return;
        a = before;
    }
}

// Words of pixels of one class: a row's, or those that are not.
struct Line {
    const uint64_t* word;
    int width;
    uint64_t flip;                             // 0 foreground, all bits background

    __device__ __forceinline__ uint64_t at(int k) const {
        const int n = width - 64 * k;
        return n <= 0 || k < 0 ? 0 : (word[k] ^ flip) & (n < 64 ? (uint64_t(1) << n) - 1 : ~uint64_t(0));
    }
    // First pixel of the run that x belongs to: within its tile, in the serial build of all.
    __device__ __forceinline__ int start_of(int x) const {
        int k = x >> 6;
        uint64_t gaps = ~(word[k] ^ flip) & ((uint64_t(1) << (x & 63)) - 1);
#if defined(JG_SERIAL)
        while (gaps == 0 && k > 0) gaps = ~(word[--k] ^ flip);
#endif
        return gaps ? 64 * k + jg::highest_bit(gaps) + 1 : 64 * k;
    }
    // Where runs begin: within their tiles, in the serial build all in all.
    __device__ __forceinline__ uint64_t starts(int k) const {
        const uint64_t w = at(k);
#if defined(JG_SERIAL)
        return w & ~(w << 1 | at(k - 1) >> 63);
#else
        return w & ~(w << 1);
#endif
    }
};
JG_FN Line line_of(const uint64_t* word, int width, bool foreground) {
    return {word, width, foreground ? 0 : ~uint64_t(0)};
}

// What is beside a word, in the row and in the row above: the pixel before it and the pixel after it, 0 or 1.
struct Sides { uint64_t before, above_before, after, above_after; };

// touch(x, u) for pixels x of w that touch pixels u of the word above, -1 .. 64, once each contact of two runs, of the x in `own`.
template <class Touch> JG_FN void contacts(uint64_t w, uint64_t above, Sides side, bool corners, uint64_t own, Touch touch) {
    const uint64_t left = w << 1 | side.before, above_left = above << 1 | side.above_before;
    for (uint64_t n = w & above & ~(left & above_left) & own; n; n &= n - 1) {
        const int x = jg::lowest_bit(n);
        touch(x, x);
    }
    if (!corners) return;
    const uint64_t alone = w & ~above & own;
    for (uint64_t n = alone & above_left & ~left; n; n &= n - 1) {
        const int x = jg::lowest_bit(n);
        touch(x, x - 1);
    }
    for (uint64_t n = alone & (above >> 1 | side.above_after << 63) & ~(w >> 1 | side.after << 63); n; n &= n - 1) {
        const int x = jg::lowest_bit(n);
        touch(x, x + 1);
    }
}

// The contacts of word k with the row above, over tiles' borders too.
template <class Touch> JG_FN void contacts_of(Line row, Line above, int k, Touch touch) {
    const bool corners = row.flip == 0;
    const Sides side = {row.at(k - 1) >> 63, above.at(k - 1) >> 63, row.at(k + 1) & 1, above.at(k + 1) & 1};
    contacts(row.at(k), above.at(k), side, corners, ~uint64_t(0),
             [&](int x, int u) { touch(row.start_of(64 * k + x), above.start_of(64 * k + u)); });
}

JG_FN bool takes_part(bool foreground, int classes) { return (classes & (foreground ? FOREGROUND : BACKGROUND)) != 0; }

// put(x, end, of(start, foreground)) for pieces of a row, each of one run; `start` its first pixel within its tile.
template <class Of, class Put> JG_FN void each_run(const uint64_t* word, int width, Of of, Put put) {
#if defined(JG_SERIAL)
    for (int x = 0; x < width;) {
        const bool foreground = (word[x >> 6] >> (x & 63) & 1) != 0;
        const uint64_t flip = foreground ? ~uint64_t(0) : 0;
        int k = x >> 6;
        uint64_t change = (word[k] ^ flip) & ~uint64_t(0) << (x & 63);
        while (change == 0 && 64 * (k + 1) < width) change = word[++k] ^ flip;
        const int end = change ? jg::smaller(width, 64 * k + __builtin_ctzll(change)) : width;
        put(x, end, of(x, foreground));
        x = end;
    }
#else
    JG_FOR(x, width) {
        const bool foreground = (word[x >> 6] >> (x & 63) & 1) != 0;
        put(x, x + 1, of(line_of(word, width, foreground).start_of(x), foreground));
    }
#endif
}
}  // namespace

// In   mask     uint8 [B, H, W]   0: background
//      classes  1 foreground, 2 background, 3 both
//      words    ceil(W / 64)
// Out  bits     uint64 [B, H, words]  the foreground
//      parent   int32 [B, H, W]   where a run of a row begins within its tile: a place where a run of the same component and tile
//                                 begins, as index in its field, or -2 if background that reaches the border; elsewhere nothing
extern "C" __global__ void __launch_bounds__(128, 8) label_tiles(
    const uint8_t* __restrict__ mask, int32_t height, int32_t width, int32_t classes, int32_t words,
    uint64_t* __restrict__ bits, int32_t* __restrict__ parent)
{
    const int down = (height + TILE - 1) / TILE, tile = int(blockIdx.x) % (words * down), k = tile % words;
    const int y0 = tile / words * TILE, h = jg::smaller(TILE, height - y0);
    const int64_t first = int64_t(int(blockIdx.x) / (words * down)) * height, plane = first * width;
#if defined(JG_SERIAL)
    if (k) return;
    int32_t* __restrict__ links = parent + plane;
    const auto root_of = [&](int i) {
        while (i >= 0 && links[i] != i) i = links[i];
        return i;
    };
    for (int y = y0; y < y0 + h; ++y) {
        const uint8_t* __restrict__ in = mask + plane + int64_t(y) * width;
        uint64_t* __restrict__ row = bits + (first + y) * words;
        jg::warp_words(width, [=](int x) { return in[x] != 0; }, [=](int j, uint64_t word) { row[j] = word; });
        for (int c = 0; c < 2; ++c) {
            if (!takes_part(c == 0, classes)) continue;
            const Line line = line_of(row, width, c == 0), above = line_of(row - words, width, c == 0);
            const bool border = c && (y == 0 || y == height - 1);
            const int own = y * width;
            int last = 0;
            for (int j = 0; j < words; ++j) {
                uint64_t n = line.starts(j);
                if (line.at(j) & ~n & 1) links[own + 64 * j] = own + last;   // a run goes on over the side of a tile
                for (; n; n &= n - 1) {
                    last = 64 * j + jg::lowest_bit(n);
                    links[own + last] = border ? OUTSIDE : own + last;
                }
            }
            if (c && line.at(0) & 1) links[own] = OUTSIDE;
            if (c && line.at((width - 1) >> 6) >> ((width - 1) & 63)) links[own + line.start_of(width - 1)] = OUTSIDE;
            if (y == y0) continue;
            for (int j = 0; j < words; ++j)
                contacts_of(line, above, j, [&](int x, int u) {
                    const int a = root_of(own + x), b = root_of(own - width + u);
                    if (a != b) links[jg::larger(a, b)] = jg::smaller(a, b);
                });
        }
    }
#else
    JG_SHARED(Tile, s);
    const int x0 = k * TILE, w = jg::smaller(TILE, width - x0);
    constexpr int ROWS = 4;                              // that a warp asks for at once
    for (int r0 = jg::warp_id() * ROWS; r0 < h; r0 += jg::warps() * ROWS) {
        bool set[ROWS][2];
        JG_UNROLL for (int r = 0; r < ROWS; ++r)
            JG_UNROLL for (int j = 0; j < 2; ++j) {
                const int x = jg::lane() + 32 * j;
                set[r][j] = r0 + r < h && x < w && mask[plane + int64_t(y0 + r0 + r) * width + x0 + x] != 0;
            }
        JG_UNROLL for (int r = 0; r < ROWS; ++r) {
            const uint64_t word = jg::warp_word(set[r][0], set[r][1]);
            if (jg::lane() == 0 && r0 + r < h) {
                s.word[r0 + r] = word;
                bits[(first + y0 + r0 + r) * words + k] = word;
            }
        }
    }
    JG_FOR(i, h * PITCH) s.parent[i] = i;
    __syncthreads();
    JG_FOR(i, 4 * h) {                                   // each class of half a row's pixels
        const int y = i >> 2, c = i & 1;
        if (!takes_part(c == 0, classes)) continue;
        const uint64_t own = i & 2 ? ~uint64_t(0) << 32 : 0xffffffffull;
        const Line line = line_of(s.word + y, w, c == 0), above = line_of(s.word + y - 1, w, c == 0);
        if (y)
            contacts(line.at(0), above.at(0), Sides{0, 0, 0, 0}, c == 0, own, [&](int x, int u) {
                join(s.parent, y * PITCH + line.start_of(x), (y - 1) * PITCH + above.start_of(u));
            });
        if (c == 0) continue;
        const bool border = y0 + y == 0 || y0 + y == height - 1;
        const uint64_t left = x0 == 0 ? 1 : 0, right = x0 + w == width ? uint64_t(1) << (w - 1) : 0;
        for (uint64_t n = (border ? line.starts(0) : line.at(0) & (left | right)) & own; n; n &= n - 1)
            join(s.parent, y * PITCH + line.start_of(jg::lowest_bit(n)), OUTSIDE);
    }
    __syncthreads();
    JG_FOR(i, 4 * h) {
        const int y = i >> 2, c = i & 1;
        if (!takes_part(c == 0, classes)) continue;
        const Line line = line_of(s.word + y, w, c == 0);
        for (uint64_t n = line.starts(0) & (i & 2 ? ~uint64_t(0) << 32 : 0xffffffffull); n; n &= n - 1) {
            const int x = jg::lowest_bit(n), root = find(s.parent, y * PITCH + x);
            parent[plane + int64_t(y0 + y) * width + x0 + x] =
                root < 0 ? root : (y0 + root / PITCH) * width + x0 + root % PITCH;
        }
    }
#endif
}
JG_REGISTER(label_tiles)

// The joins across tiles' borders. An item is a word of a tile's first row and what touches it from above, or, where tiles lie
// side by side, a row at a border between two.
// In   n_items  B * (lines * words + columns * H), of so many borders below and beside each other
extern "C" __global__ void __launch_bounds__(128, 8) label_seams(
    const uint64_t* __restrict__ bits, int32_t height, int32_t width, int32_t classes, int32_t words, int64_t n_items,
    int32_t* __restrict__ parent)
{
    const int lines = (height - 1) / TILE, columns = words - 1, across = lines * words, a_field = across + columns * height;
    const int64_t begin = int64_t(blockIdx.x) * SEAM_ITEMS;
    JG_FOR(j, int(jg::smaller(int64_t(SEAM_ITEMS), n_items - begin))) {
        const int64_t field = (begin + j) / a_field;
        const int i = int((begin + j) % a_field);
        int32_t* __restrict__ links = parent + field * height * width;
        const uint64_t* __restrict__ word = bits + field * height * words;
        const bool lying = i < across;
        const int y = lying ? (i / words + 1) * TILE : (i - across) / columns, k = lying ? i % words : (i - across) % columns + 1;
        for (int c = 0; c < 2; ++c) {
            if (!takes_part(c == 0, classes)) continue;
            const Line row = line_of(word + int64_t(y) * words, width, c == 0), above = line_of(row.word - words, width, c == 0);
            if (lying) {
                contacts_of(row, above, k, [&](int x, int u) { join(links, y * width + x, (y - 1) * width + u); });
                continue;
            }
#if !defined(JG_SERIAL)
            const uint64_t right = row.at(k) & 1, left = row.at(k - 1) >> 63;
            const int x = 64 * k, before = row.start_of(x - 1);
            if (right && left) {                         // not where the row above, of the same tiles, has joined the two
                if (y % TILE == 0 || !(above.at(k) & 1 && above.at(k - 1) >> 63)) join(links, y * width + x, y * width + before);
            } else if (c == 0 && right) {
                if (y > 0 && above.at(k - 1) >> 63) join(links, y * width + x, (y - 1) * width + above.start_of(x - 1));
                const Line below = line_of(row.word + words, width, true);
                if (y + 1 < height && below.at(k - 1) >> 63) join(links, y * width + x, (y + 1) * width + below.start_of(x - 1));
            }
#endif
        }
    }
}
JG_REGISTER(label_seams)

// In, out  parent   int32 [B, H, W]   after all joins; then the first pixel of the component; -1 class left out, -2 background
//                                     joined to the border
// Out      filled   int32 [B, H, W]   where both classes were joined: 1 but for background joined to the border, which is the
//                                     foreground and its holes; not written for one class
extern "C" __global__ void __launch_bounds__(128, 8) label_roots(
    const uint64_t* __restrict__ bits, int32_t height, int32_t width, int32_t classes, int32_t words, int32_t* parent,
    int32_t* __restrict__ filled)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int y = int(blockIdx.x) % height;
    int32_t* links = parent + at - int64_t(y) * width;
    const auto root_of = [&](int start, bool foreground) {
        return takes_part(foreground, classes) ? find(links, y * width + start) : UNLABELLED;
    };
    each_run(bits + int64_t(blockIdx.x) * words, width, root_of, [&](int x, int end, int root) {
        jg::atomic_write(parent + at + x, root);         // of a run only the first pixel is read by others
        for (int u = x + 1; u < end; ++u) parent[at + u] = root;
        if (classes == (FOREGROUND | BACKGROUND))
            for (; x < end; ++x) filled[at + x] = root != OUTSIDE;
    });
}
JG_REGISTER(label_roots)

// The roots of each row, counted and numbered from 0. A block per row.
// In       bits     as label_tiles made them, of the foreground alone
// In, out  parent   int32 [B, H, W]   after all joins; then -3 - r at the root that has r others before it in its row
// Out      in_row   int32 [B * H]
extern "C" __global__ void __launch_bounds__(128, 8) count_roots(
    const uint64_t* __restrict__ bits, int32_t height, int32_t width, int32_t words, int32_t* __restrict__ parent,
    int32_t* __restrict__ in_row)
{
    JG_SHARED(Words, s);
    const int own = int(blockIdx.x) % height * width;
    int32_t* __restrict__ links = parent + int64_t(int(blockIdx.x) / height) * height * width + own;
    const Line line = line_of(bits + int64_t(blockIdx.x) * words, width, true);
    int before = 0;
    for (int k0 = 0; k0 < words; k0 += CHUNK) {
        const int n = jg::smaller(CHUNK, words - k0);
        JG_FOR(k, n) {
            uint64_t roots = 0;
            for (uint64_t m = line.starts(k0 + k); m; m &= m - 1) {
                const int x = jg::lowest_bit(m);
                roots |= uint64_t(links[64 * (k0 + k) + x] == own + 64 * (k0 + k) + x) << x;
            }
            s.word[k] = roots;
        }
        __syncthreads();
        JG_FOR(k, n) {
            if (s.word[k] == 0) continue;
            int rank = before;
            for (int j = 0; j < k; ++j) rank += jg::count_bits(s.word[j]);
            for (uint64_t m = s.word[k]; m; m &= m - 1) links[64 * (k0 + k) + jg::lowest_bit(m)] = RANKED - rank++;
        }
        for (int k = 0; k < n; ++k) before += jg::count_bits(s.word[k]);
        __syncthreads();
    }
    JG_ONCE in_row[blockIdx.x] = before;
}
JG_REGISTER(count_roots)

// In   parent   of count_roots
//      before   int32 [B * H]     roots in the rows before it, same field
// Out  labels   int32 [B, H, W]   components 1..n by first pixel, 0 the background. A block per row.
extern "C" __global__ void __launch_bounds__(128, 8) label_numbers(
    const uint64_t* __restrict__ bits, const int32_t* __restrict__ parent, const int32_t* __restrict__ before, int32_t height,
    int32_t width, int32_t words, int32_t* __restrict__ labels)
{
    const int y = int(blockIdx.x) % height;
    const int64_t field = int64_t(blockIdx.x) - y;
    const int32_t* __restrict__ links = parent + field * width;
    int32_t* __restrict__ out = labels + int64_t(blockIdx.x) * width;
    const auto number_of = [&](int start, bool foreground) {
        if (!foreground) return 0;
        int root = y * width + start, link = links[root];
        while (link >= 0) {
            root = link;
            link = links[root];
        }
        return before[field + root / width] + 1 + RANKED - link;
    };
    each_run(bits + int64_t(blockIdx.x) * words, width, number_of, [&](int x, int end, int number) {
        for (; x < end; ++x) out[x] = number;
    });
}
JG_REGISTER(label_numbers)
