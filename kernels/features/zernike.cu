// zernike.cu: magnitudes of an object's Zernike moments on its smallest enclosing circle.
//
//   magnitude(n, m) = |sum R(r^2) (v + i u)^m| / (pi radius^2) over the object's pixels, u and v their x and y from the
//   circle's centre in radii, r^2 = u^2 + v^2, R = sum_k (-1)^k (n - k)! / (k! ((n + m)/2 - k)! ((n - m)/2 - k)!) r^(n - m - 2 k).
//   A polynomial in u and v, so a weighted sum of the object's moments. Pixels whose r^2 comes out above 1 do not count; only
//   vertices of the hull can. A circle without radius (one pixel, an empty object) gives nan.
//
// Source   centrosome 1.2 zernike, as CellProfiler 4.2.8 MeasureObjectSizeShape uses it
// Oracle   centrosome (tests/features/test_area_shape.py); CellProfiler's own output on the real fields
// Launch   one block per object row, any block size; 2 KB of shared memory.
// Order    each sum runs over its terms in a fixed order, in one thread.
#include "jg/jg.cuh"

constexpr int POWERS = 10, MAGNITUDES = 30, HULL = 6;
struct Moments { double v[POWERS][POWERS]; };
struct Parts { double v[2 * MAGNITUDES]; };

// m[p] from sums of x^p to sums of ((x - shift) / scale)^p, p < n; a step is one apart.
JG_FN void move(double* m, int step, int n, double shift, double scale) {
    for (int top = n - 1; top > 0; --top)              // (x - d)^p = (x - d) (x - d)^(p - 1), from the highest down
        for (int p = n - 1; p > n - 1 - top; --p) m[p * step] -= shift * m[(p - 1) * step];
    double power = 1;
    for (int p = 1; p < n; ++p) {
        power /= scale;
        m[p * step] *= power;
    }
}

// In   box         int32 [R, 4]
//      line_start  int64 [R + 1]
//      moments     float64 [R, 10, 10]  by power of y, then of x, about the floored middle of the box (outline.cu)
//      vertex, vertices, hull           of trace_hulls (area_shape.cu)
//      terms       float64 [10, 10, 60] weight of each moment in the real, then the imaginary part of each sum
// Out  magnitudes  float64 [R, 30]
extern "C" __global__ void __launch_bounds__(128, 8) measure_zernike(
    const int32_t* __restrict__ box, const int64_t* __restrict__ line_start, const double* __restrict__ moments,
    const int32_t* __restrict__ vertex, const int32_t* __restrict__ vertices, const double* __restrict__ hull,
    const double* __restrict__ terms, double* __restrict__ magnitudes)
{
    JG_SHARED(Moments, m);
    JG_SHARED(Parts, s);
    const int row = int(blockIdx.x);
    const double centre_y = hull[row * HULL + 2], centre_x = hull[row * HULL + 3], radius = hull[row * HULL + 4];
    const int middle_y = (box[row * 4] + box[row * 4 + 2]) >> 1, middle_x = (box[row * 4 + 1] + box[row * 4 + 3]) >> 1;
    JG_FOR_YX(q, p, 0, POWERS, 0, POWERS) m.v[q][p] = moments[int64_t(row) * POWERS * POWERS + q * POWERS + p];
    JG_FOR(i, 2 * MAGNITUDES) s.v[i] = 0;
    __syncthreads();
    JG_FOR(q, POWERS) move(m.v[q], 1, POWERS - q, centre_x - middle_x, radius);
    __syncthreads();
    JG_FOR(p, POWERS) move(&m.v[0][p], POWERS, POWERS - p, centre_y - middle_y, radius);
    __syncthreads();
    for (int i = 0; i < vertices[row]; ++i) {
        const int32_t* __restrict__ at = vertex + line_start[row] * 4 + i * 2;
        const double v = (at[0] - centre_y) / radius, u = (at[1] - centre_x) / radius;
        if (u * u + v * v > 1)
            JG_FOR(q, POWERS) {
                double term = 1;
                for (int k = 0; k < q; ++k) term *= v;
                for (int p = 0; p < POWERS - q; ++p) {
                    m.v[q][p] -= term;
                    term *= u;
                }
            }
    }
    __syncthreads();
    for (int q = 0; q < POWERS; ++q)
        for (int p = 0; p < POWERS - q; ++p) {
            const double moment = m.v[q][p];
            const double* __restrict__ weight = terms + (q * POWERS + p) * 2 * MAGNITUDES;
            JG_FOR(i, 2 * MAGNITUDES) s.v[i] += weight[i] * moment;    // a part stays with its thread
        }
    __syncthreads();
    JG_FOR(i, MAGNITUDES) {
        const double re = s.v[i], im = s.v[MAGNITUDES + i];
        magnitudes[row * MAGNITUDES + i] = sqrt(re * re + im * im) / (3.14159265358979323846 * (radius * radius));   // Zernike
    }
}
JG_REGISTER(measure_zernike)
