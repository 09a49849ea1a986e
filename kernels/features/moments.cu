// moments.cu: the "advanced" shape measures: spatial, central and normalised moments, Hu's invariants, the inertia tensor.
//
//   Spatial moments M_ij = sum y^i x^j from the upper left corner of the object's box; central mu_ij about the centroid;
//   normalised nu_ij = mu_ij / n^((i + j) / 2 + 1), nan below order 2; the tensor is [[mu_02, -mu_11], [-mu_11, mu_20]] / n.
//   Everything of an empty object is nan.
//
// Source   scikit-image's regionprops, as CellProfiler 4.2.8 MeasureObjectSizeShape takes them.
// Oracle   scikit-image (tests/features/test_area_shape.py)
// Launch   a thread per object row, any block size; no shared memory.
// Order    one thread per row: moments about another point are sums in ascending powers of row, then column.
#include "jg/one_item_per_thread.cuh"

constexpr int POWERS = 10;      // of the sums that outline.cu gives
constexpr int ORDER = 4;        // powers 0..3 here; spatial and central moments have those of the row up to 2

struct Moment { enum Measure {
    SpatialMoment, CentralMoment = SpatialMoment + 3 * ORDER, NormalizedMoment = CentralMoment + 3 * ORDER,
    HuMoment = NormalizedMoment + ORDER * ORDER, InertiaTensor = HuMoment + 7, InertiaTensorEigenvalues = InertiaTensor + 4,
    COUNT = InertiaTensorEigenvalues + 2
}; };

JG_FN double binomial(int n, int k) { return n < 2 || k == 0 || k == n ? 1 : n; }     // n is at most 3

// The moment i, j about a point that lies y, x away from that of `m`.
JG_FN double moved(const double* __restrict__ m, double y, double x, int i, int j) {
    double total = 0;
    for (int a = 0; a <= i; ++a)
        for (int b = 0; b <= j; ++b) {
            double weight = binomial(i, a) * binomial(j, b);
            for (int k = a; k < i; ++k) weight = weight * -y;
            for (int k = b; k < j; ++k) weight = weight * -x;
            total = total + weight * m[a * POWERS + b];
        }
    return total;
}

// In   box      int32   [R, 4]
//      moments  float64 [R, POWERS, POWERS]     about the floored middle of the box (outline.cu)
// Out  result    float64 [R, Moment::COUNT]
extern "C" __global__ void __launch_bounds__(128, 4) measure_moments(
    const int32_t* __restrict__ box, const double* __restrict__ moments, int32_t rows, double* __restrict__ result)
{
    JG_FOR_FEW(row, rows) {
        const double* __restrict__ m = moments + row * POWERS * POWERS;
        const int32_t* __restrict__ at = box + row * 4;
        double* __restrict__ out = result + row * Moment::COUNT;
        const double n = m[0], nan = n * 0.0 / 0.0;
        for (int k = 0; k < Moment::COUNT; ++k) out[k] = nan;
        if (n == 0) continue;
        const double corner_y = at[0] - ((at[0] + at[2]) >> 1), corner_x = at[1] - ((at[1] + at[3]) >> 1);
        const double mean_y = m[POWERS] / n, mean_x = m[1] / n;
        double mu[ORDER][ORDER], nu[ORDER][ORDER];
        for (int i = 0; i < ORDER; ++i)
            for (int j = 0; j < ORDER; ++j) {
                mu[i][j] = moved(m, mean_y, mean_x, i, j);
                double scale = 1;
                for (int k = 0; k <= (i + j) / 2; ++k) scale = scale * n;
                nu[i][j] = i + j < 2 ? nan : mu[i][j] / ((i + j) % 2 ? scale * sqrt(n) : scale);
                out[Moment::NormalizedMoment + i * ORDER + j] = nu[i][j];
                if (i == ORDER - 1) continue;
                out[Moment::SpatialMoment + i * ORDER + j] = moved(m, corner_y, corner_x, i, j);
                out[Moment::CentralMoment + i * ORDER + j] = mu[i][j];
            }
        const double sum = nu[2][0] + nu[0][2], difference = nu[2][0] - nu[0][2];
        const double a = nu[3][0] + nu[1][2], b = nu[2][1] + nu[0][3], c = nu[3][0] - 3 * nu[1][2], d = 3 * nu[2][1] - nu[0][3];
        double* __restrict__ hu = out + Moment::HuMoment;
        *hu = sum;
        hu[1] = difference * difference + 4 * nu[1][1] * nu[1][1];
        hu[2] = c * c + d * d;
        hu[3] = a * a + b * b;
        hu[4] = c * a * (a * a - 3 * b * b) + d * b * (3 * a * a - b * b);
        hu[5] = difference * (a * a - b * b) + 4 * nu[1][1] * a * b;
        hu[6] = d * a * (a * a - 3 * b * b) - c * b * (3 * a * a - b * b);
        const double xx = mu[0][2] / n, yy = mu[2][0] / n, xy = mu[1][1] / n;
        const double half = (xx + yy) / 2, apart = sqrt((xx - yy) * (xx - yy) + 4 * xy * xy) / 2, major = half + apart;
        double* __restrict__ tensor = out + Moment::InertiaTensor;
        *tensor = xx;
        tensor[1] = tensor[2] = -xy;
        tensor[3] = yy;
        out[Moment::InertiaTensorEigenvalues] = major;
        out[Moment::InertiaTensorEigenvalues + 1] = major > 0 ? jg::larger((xx * yy - xy * xy) / major, 0.0) : 0.0;
    }
}
JG_REGISTER(measure_moments)
