// radial_centres.cu: rings of an object around the centres of other objects, or out to a radius, by place in its map.
//
//   t = d / r, or where r is 0  d / (d + e + 0.001),   ring = smaller(floor(n t), n)
//   d is the way from the centre that reached the pixel, e the distance to the object's edge; ring n is the overflow.
//   A wedge is which side of the centre's row, column and diagonals a pixel lies on.
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensityDistribution, "Centers of other objects" and "Edges of other objects".
// Oracle   a NumPy twin of its arithmetic (tests/features/test_radial_centres.py); CellProfiler's own output of JUMP production
// Launch   any number of blocks; each takes every gridDim-th row. Any block size.
// Order    each place is by itself: doubles, without sums.
#include "jg/jg.cuh"
#include "features/radial_distribution.cuh"

// In   box        int32 [rows, 4];  schedule  int32 [rows];  map_start  int64 [rows + 1]   as of radial_rings
//      squared    int32 [n_map]      squared distance to the object's edge, 0 outside
//      field      int32 [cells]      of row k * cells + n that of cell n
//      of         int32 [B, H, W]    number of the centre that a pixel belongs to; 0: none, and it is in no ring
//      way        float64 [B, H, W]  from the centre
//      centre     int32 [B, maximum, 2] y, x by number
//      rings      n, the overflow not counted;  reach  r in pixels, or 0
// Out  ring       uint8 [n_map]      8 ring + wedge, or NO_RING
extern "C" __global__ void __launch_bounds__(128, 8) radial_centre_rings(
    const int32_t* __restrict__ box, const int32_t* __restrict__ schedule, const int64_t* __restrict__ map_start,
    const int32_t* __restrict__ squared, const int32_t* __restrict__ field, const int32_t* __restrict__ of,
    const double* __restrict__ way, const int32_t* __restrict__ centre, int32_t rows, int32_t cells, int32_t maximum, int32_t height,
    int32_t width, int32_t rings, int32_t reach, uint8_t* __restrict__ ring)
{
    for (int turn = int(blockIdx.x); turn < rows; turn += int(gridDim.x)) {
        const int i = schedule[turn], y0 = box[4 * i], x0 = box[4 * i + 1], h = box[4 * i + 2] - y0, w = box[4 * i + 3] - x0;
        const int pitch = (w + CHUNK - 1) / CHUNK * CHUNK, b = field[i % cells];
        const int64_t plane = int64_t(b) * height * width;
        JG_FOR(k, h * pitch) {
            const int y = k / pitch, x = k % pitch, deep = x < w ? squared[map_start[i] + k] : 0;
            const int64_t at = plane + int64_t(y0 + y) * width + x0 + x;
            int code = NO_RING;
            const int number = deep > 0 ? of[at] : 0;
            if (number > 0) {
                const double d = way[at], t = reach ? d / reach : d / (d + sqrt(double(deep)) + 0.001);
                const int dy = y0 + y - centre[2 * (int64_t(b) * maximum + number)], dx = x0 + x - centre[2 * (int64_t(b) * maximum + number) + 1];
                const int high = dy < 0 ? -dy : dy, wide = dx < 0 ? -dx : dx;
                const double place = t * rings;
                code = WEDGES * (place >= rings ? rings : int(place)) + (dy > 0) + 2 * (dx > 0) + 4 * (high > wide);
            }
            ring[map_start[i] + k] = uint8_t(code);
        }
    }
}
JG_REGISTER(radial_centre_rings)
