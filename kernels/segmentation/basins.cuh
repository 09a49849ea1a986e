// basins.cuh: what the kernels over basins share: the layout of a plane, its total order, its eight directions.
//
// A plane is H x W pixels with a frame one pixel wide around it: row pitch W + 2, pixel (y, x) at (y + 1) * pitch + x + 1,
// so that every pixel has eight neighbours. An index within a plane is below 2^29. The frame, and every pixel that takes
// no part, has the key OUTSIDE.
#pragma once
#include "jg/jg.cuh"

namespace jg {

constexpr uint32_t OUTSIDE = 0xffffffffu;              // as a key
constexpr int32_t NO_BASIN = -2147483647 - 1;          // in the array of basins
constexpr uint64_t NEVER = ~uint64_t(0);               // no pass, not reached
constexpr int BAND = 8;                                // rows per block (basins.py: BAND)
constexpr int STRETCH = 64;                            // pixels of a row that the serial build passes over together
constexpr int ROUNDS = 32;                             // more than the forest can take, and one (basins.py: ROUNDS)

// Directions 0 .. 7 in raster order of the neighbours: the first four have a lower index than the pixel itself.
JG_FN int step_to(int d, int pitch) {
    const int e = d + (d > 3), row = (e > 2) + (e > 5);
    return (row - 1) * pitch + e - 3 * row - 1;
}
JG_FN bool is_direction(int d, int connectivity) { return connectivity == 8 || d == 1 || d == 3 || d == 4 || d == 6; }

// The ring around a pixel, as bits of a byte: its neighbours clockwise from the upper left.
namespace ring {
constexpr int NW = 1, N = 2, NE = 4, E = 8, SE = 16, S = 32, SW = 64, W = 128, CORNERS = NW | NE | SE | SW, SIDES = N | E | S | W;
}

// The step to the lowest of k[x] and its neighbours, of equal keys the first in raster order, times 256, and its place in the ring.
template <int CONNECTIVITY> JG_FN int steepest(const uint32_t* __restrict__ k, int x, int pitch) {
    uint32_t low = CONNECTIVITY == 8 ? k[x - pitch - 1] : k[x - pitch];
    int best = CONNECTIVITY == 8 ? (-pitch - 1) * 256 + ring::NW : -pitch * 256 + ring::N;
    auto lower = [&](int step, int place) {
        const uint32_t next = smaller(low, k[x + step]);
        best = next == low ? best : step * 256 + place;
        low = next;
    };
    if (CONNECTIVITY == 8) { lower(-pitch, ring::N); lower(-pitch + 1, ring::NE); }
    lower(-1, ring::W);
    lower(0, 0);
    lower(1, ring::E);
    if (CONNECTIVITY == 8) lower(pitch - 1, ring::SW);
    lower(pitch, ring::S);
    if (CONNECTIVITY == 8) lower(pitch + 1, ring::SE);
    return best;
}

// inside(x) for the x of a row by one warp, k[0] being the first pixel's key. The serial build passes over stretches that are all
// outside, for which outside(x) says what is written; within others inside(x) is asked for pixels outside too.
template <class Inside, class Outside> JG_FN void each_inside(const uint32_t* __restrict__ k, int width, Inside inside, Outside outside) {
#if defined(JG_SERIAL)
    for (int x0 = 0; x0 < width; x0 += STRETCH) {
        const int x1 = smaller(x0 + STRETCH, width);
        uint32_t low = OUTSIDE;
        for (int x = x0; x < x1; ++x) low = smaller(low, k[x]);
        if (low == OUTSIDE) for (int x = x0; x < x1; ++x) outside(x);
        else for (int x = x0; x < x1; ++x) inside(x);
    }
#else
    for (int x = lane(); x < width; x += WARP) {
        if (k[x] == OUTSIDE) outside(x);
        else inside(x);
    }
#endif
}

// The total order of a plane's pixels, (key, raster index), as one number.
JG_FN uint64_t order_of(uint32_t key, int p) { return uint64_t(key) << 32 | uint32_t(p); }

// The number that the links from p lead to, written to p. A link is ~index of the pixel to ask next, a number is not negative.
// A way longer than three steps is written along the whole of it; other threads that follow links meanwhile find the link or
// the number it leads to, and both give the same number.
JG_FN int32_t follow(int32_t* links, int p) {
    int q = p;
    int32_t v = jg::atomic_read(links + p);
    q = jg::chosen(v < 0, ~v, q);                        // no branch: the number of steps cannot be foreseen
    v = jg::atomic_read(links + q);
    q = jg::chosen(v < 0, ~v, q);
    v = jg::atomic_read(links + q);
    q = jg::chosen(v < 0, ~v, q);
    v = jg::atomic_read(links + q);
    if (v < 0) {
        do v = jg::atomic_read(links + ~v); while (v < 0);
        for (q = p;;) {
            const int32_t next = jg::atomic_read(links + q);
            if (next >= 0) break;
            jg::atomic_write(links + q, v);
            q = ~next;
        }
    }
    jg::atomic_write(links + p, v);
    return v;
}

// The number of every link in rows y0 .. y1 - 1 of the framed plane, written to its place; NO_BASIN stays. Rows of other blocks
// are read, and by the serial build never written.
//
//   The serial build: upwards and from right to left every link becomes what it leads to, be it a link. A link that leads
//   down has then gone as far as links down lead; one that leads up meets numbers on the way back down. One in fifty is left
//   after one more step, and is followed, and its way through these rows with it.
JG_FN void follow_rows(int32_t* links, int pitch, int width, int y0, int y1) {
#if defined(JG_SERIAL)
    const auto links_of = [=](const int32_t* row, int x0) {    // which of 64 pixels hold links, as bits
        const auto is_link = [=](int x) { return uint32_t(row[x]) > uint32_t(NO_BASIN); };
        if (x0 + 64 <= width) return flagged<64>(x0, is_link);
        uint64_t result = 0;
        for (int x = x0; x < width; ++x) result |= uint64_t(is_link(x)) << (x - x0);
        return result;
    };
    for (int y = y1 - 1; y >= y0; --y) {
        int32_t* row = links + int64_t(y) * pitch + 1;
        for (int x0 = (width - 1) / 64 * 64; x0 >= 0; x0 -= 64)
            for (uint64_t bits = links_of(row, x0); bits;) {
                const int bit = highest_bit(bits), x = x0 + bit;
                bits ^= uint64_t(1) << bit;
                atomic_write(row + x, atomic_read(links + ~row[x]));
            }
    }
    const int first = y0 * pitch, end = y1 * pitch;
    for (int y = y0; y < y1; ++y) {
        const int here = y * pitch + 1;
        for (int x0 = 0; x0 < width; x0 += 64)
            for (uint64_t bits = links_of(links + here, x0); bits; bits &= bits - 1) {
                const int p = here + x0 + __builtin_ctzll(bits);
                int32_t v = links[p];
                if (v < 0) v = atomic_read(links + ~v);
                if (v < 0) {
                    do v = atomic_read(links + ~v); while (v < 0);
                    for (int q = p;;) {
                        const int32_t next = atomic_read(links + q);
                        if (next >= 0) break;
                        if (q >= first && q < end) atomic_write(links + q, v);
                        q = ~next;
                    }
                }
                atomic_write(links + p, v);
            }
    }
#else
    for (int y = y0; y < y1; ++y)
        JG_FOR(x, width) {
            const int p = y * pitch + x + 1;
            const int32_t v = atomic_read(links + p);
            if (v < 0 && v != NO_BASIN) follow(links, p);
        }
#endif
}

// A number that follow_rows left, of the same block's rows.
JG_FN int32_t followed(const int32_t* at) {
#if defined(JG_SERIAL)
    return *at;                                          // nobody else writes here
#else
    return atomic_read(at);
#endif
}

}  // namespace jg
