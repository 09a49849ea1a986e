// image_quality.cu: sums over whole images and over the cells of a grid, for quality control.
//
//   quality_rows     each image row's sum, and its smallest and largest pixel
//   quality_spread   each image row's sum of (I - mean)^2, and how many of its pixels are the image's smallest and largest
//   quality_grid     mean, and sum of (I - mean)^2, of every cell of a grid laid over the image: m x n cells, pixel (y, x) in
//                    cell (y * m / height, x * n / width)
//
// Source   CellProfiler MeasureImageQuality: calculate_focus_scores, calculate_saturation, run_intensity_measurement
// Oracle   CellProfiler's module by hand (tests/helpers/oracles/image_quality.py), NumPy, centrosome (tests/features/test_image_quality.py)
// Launch   one block an image row, or a grid cell, of one field and channel; any block size; 1 KB of shared memory.
// Order    jg::block_sum along a row, rows added in order by the caller; counts are integers.
#include "jg/jg.cuh"

namespace {
// Pixels are not negative, so their bits are in their order.
JG_FN int bits_of(float value) {
    union { float value; int bits; } u = {value};
    return u.bits;
}
struct Extremes { int least, most; };
struct Row {
    jg::SumScratch<1> scratch;
    jg::CountScratch<2> counts;
    Extremes extremes;
};
}  // namespace

// In   pixels      float32 [planes, H, W]   corrected intensity, 0..1; a plane is a field's channel
// Out  sums        float64 [planes, H]
//      extremes    int32   [planes, H, 2]   bits of the row's smallest and largest pixel
extern "C" __global__ void __launch_bounds__(128, 8) quality_rows(
    const float* __restrict__ pixels, int32_t width, double* __restrict__ sums, int32_t* __restrict__ extremes)
{
    JG_SHARED(Row, s);
    const float* __restrict__ row = pixels + int64_t(blockIdx.x) * width;
    JG_ONCE s.extremes = {bits_of(row[0]), bits_of(row[0])};
    __syncthreads();
    int least = bits_of(row[0]), most = least;
    JG_FOR(x, width) {
        const int bits = bits_of(row[x]);
        least = jg::least(least, bits);
        most = jg::most(most, bits);
    }
    jg::gather_least(&s.extremes.least, least);
    jg::gather_most(&s.extremes.most, most);
    const jg::Vec<1> sum = jg::block_sum<1>(width, s.scratch, [&](int x) { return jg::Vec<1>{{double(row[x])}}; });
    JG_ONCE {
        sums[blockIdx.x] = sum.v[0];
        extremes[2 * int64_t(blockIdx.x)] = s.extremes.least;
        extremes[2 * int64_t(blockIdx.x) + 1] = s.extremes.most;
    }
}
JG_REGISTER(quality_rows)

// In   mean        float64 [planes]         of the whole image
//      extremes    int32   [planes, 2]      bits of the image's smallest and largest pixel
// Out  squares     float64 [planes, H]      sum of (I - mean)^2
//      counts      int64   [planes, H, 2]   pixels equal to the smallest, to the largest
extern "C" __global__ void __launch_bounds__(128, 8) quality_spread(
    const float* __restrict__ pixels, const double* __restrict__ mean, const int32_t* __restrict__ extremes, int32_t height,
    int32_t width, double* __restrict__ squares, int64_t* __restrict__ counts)
{
    JG_SHARED(Row, s);
    const float* __restrict__ row = pixels + int64_t(blockIdx.x) * width;
    const int plane = int(blockIdx.x) / height, least = extremes[2 * plane], most = extremes[2 * plane + 1];
    const double centre = mean[plane];
    jg::Counts<2> mine = {{0, 0}};
    JG_FOR(x, width) {
        const int bits = bits_of(row[x]);
        mine.v[0] += bits == least;
        mine.v[1] += bits == most;
    }
    const jg::Counts<2> equal = jg::block_count<2>(mine, s.counts);
    const jg::Vec<1> sum = jg::block_sum<1>(width, s.scratch, [&](int x) {
        const double d = double(row[x]) - centre;
        return jg::Vec<1>{{d * d}};
    });
    JG_ONCE {
        squares[blockIdx.x] = sum.v[0];
        counts[2 * int64_t(blockIdx.x)] = int64_t(equal.v[0]);
        counts[2 * int64_t(blockIdx.x) + 1] = int64_t(equal.v[1]);
    }
}
JG_REGISTER(quality_spread)

// Out  cells       float64 [planes, m * n, 2]   mean and sum of (I - mean)^2 of each grid cell
extern "C" __global__ void __launch_bounds__(128, 8) quality_grid(
    const float* __restrict__ pixels, int32_t height, int32_t width, int32_t m, int32_t n, double* __restrict__ cells)
{
    JG_SHARED(jg::SumScratch<1>, scratch);
    const int cell = int(blockIdx.x) % (m * n), i = cell / n, j = cell % n;
    const float* __restrict__ image = pixels + int64_t(int(blockIdx.x) / (m * n)) * height * width;
    const int y0 = (i * height + m - 1) / m, y1 = ((i + 1) * height + m - 1) / m;      // the first row whose y * m / height is i
    const int x0 = (j * width + n - 1) / n, x1 = ((j + 1) * width + n - 1) / n, across = x1 - x0, pixels_in = (y1 - y0) * across;
    const jg::Vec<1> sum = jg::block_sum<1>(pixels_in, scratch, [&](int k) {
        return jg::Vec<1>{{double(image[int64_t(y0 + k / across) * width + x0 + k % across])}};
    });
    const double centre = sum.v[0] / pixels_in;
    const jg::Vec<1> square = jg::block_sum<1>(pixels_in, scratch, [&](int k) {
        const double d = double(image[int64_t(y0 + k / across) * width + x0 + k % across]) - centre;
        return jg::Vec<1>{{d * d}};
    });
    JG_ONCE {
        cells[2 * int64_t(blockIdx.x)] = centre;
        cells[2 * int64_t(blockIdx.x) + 1] = square.v[0];
    }
}
JG_REGISTER(quality_grid)
