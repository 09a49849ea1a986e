// basins.cuh: what the kernels over basins share: the layout of a plane, its total order, its eight directions.
//
// A plane is H x W pixels with a frame one pixel wide around it: row pitch W + 2, pixel (y, x) at (y + 1) * pitch + x + 1,
// so that every pixel has eight neighbours. An index within a plane is below 2^29. The frame, and every pixel that takes
// no part, has the key OUTSIDE.
#pragma once
#include "jg.cuh"

namespace jg {

constexpr uint32_t OUTSIDE = 0xffffffffu;              // as a key
constexpr int32_t NO_BASIN = -2147483647 - 1;          // in the array of basins
constexpr uint64_t NEVER = ~uint64_t(0);               // no pass, not reached
constexpr int BAND = 8;                                // rows a block (basins.py: BAND)
constexpr int ROUNDS = 32;                             // more than the forest can take, and one (basins.py: ROUNDS)

// Directions 0 .. 7 in raster order of the neighbours: the first four have a lower index than the pixel itself.
JG_FN int step_to(int d, int pitch) {
    const int e = d + (d > 3), row = (e > 2) + (e > 5);
    return (row - 1) * pitch + e - 3 * row - 1;
}
JG_FN bool is_direction(int d, int connectivity) { return connectivity == 8 || d == 1 || d == 3 || d == 4 || d == 6; }

// The total order of a plane's pixels, (key, raster index), as one number.
JG_FN uint64_t order_of(uint32_t key, int p) { return uint64_t(key) << 32 | uint32_t(p); }

// The number that the links from p lead to, written to p. A link is ~index of the pixel to ask next, a number is not negative.
// A way longer than three steps is written along the whole of it, so a serial run stays linear; other threads that follow
// links meanwhile find the link or the number it leads to, and both give the same number.
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

}  // namespace jg
