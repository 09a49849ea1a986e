// background.cu: a smooth background from the minima of blocks, subtracted.
//
//   background = G m / G 1, where m holds at every pixel the minimum of its block and G is a Gaussian truncated at 4 sigma with
//   zeros beyond the border. G is separable and m is constant on blocks, so background = Ay b Ax' with b the minima [rows of
//   blocks, columns of blocks] and Ay, Ax the Gaussian summed over each block and divided by its total: a few weights a row.
//   corrected = clip(pixels - background, 0, 1), in doubles as CellProfiler's.
//
// Source   CellProfiler CorrectIlluminationCalculate ('Background', each image, Gaussian filter), CorrectIlluminationApply.
// Oracle   SciPy and centrosome on drawn fields (tests/test_background_scipy.py); CellProfiler's thresholds on the real fields
// Launch   block_minimum: a block a block of pixels; subtract_background: a block a piece of a row, 20 KB of shared memory.
// Order    a pixel's terms are added block by block, left to right; rows of blocks first.
#include "jg.cuh"

namespace {
constexpr int PIECE = 2048;            // pixels of a row a block does (segmentation: PIECE)
constexpr int MOST = 512;              // columns of blocks at most

union Bits { float value; int32_t bits; };                // the order of non-negative floats is that of their bits

struct Piece { double sum[PIECE]; double column[MOST]; };
}  // namespace

// In   pixels    float32 [B, C, H, W]   0..1
//      y_start   int32   [rows + 1]      first pixel row of each row of blocks;  x_start alike
// Out  minima    float32 [B, rows, columns]
extern "C" __global__ void __launch_bounds__(128, 8) block_minimum(
    const float* __restrict__ pixels, int32_t channels, int32_t channel, int32_t height, int32_t width,
    const int32_t* __restrict__ y_start, const int32_t* __restrict__ x_start, int32_t rows, int32_t columns,
    float* __restrict__ minima)
{
    JG_SHARED(int, lowest);
    const int column = int(blockIdx.x) % columns, row = int(blockIdx.x) / columns % rows;
    const int64_t field = int(blockIdx.x) / (columns * rows);
    const float* __restrict__ in = pixels + (field * channels + channel) * height * width;
    JG_ONCE lowest = 0x7fffffff;
    __syncthreads();
    int mine = 0x7fffffff;
    JG_FOR_YX(y, x, y_start[row], y_start[row + 1], x_start[column], x_start[column + 1]) {
        const Bits v = {in[int64_t(y) * width + x]};
        mine = jg::least(mine, v.bits);
    }
    jg::gather_least(&lowest, mine);
    __syncthreads();
    JG_ONCE {
        Bits v;
        v.bits = lowest;
        minima[blockIdx.x] = v.value;
    }
}
JG_REGISTER(block_minimum)

// In   pixels     float32 [B, C, H, W]
//      minima     float32 [B, rows, columns]
//      weight_y   float64 [H, rows]      weight of each row of blocks at a pixel row; sums to 1
//      weight_x   float64 [columns, W]   weight of each column of blocks at a pixel column
//      reach      int32   [columns, 2]   half-open range of pixel columns that a column of blocks reaches
// Out  corrected  float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) subtract_background(
    const float* __restrict__ pixels, const float* __restrict__ minima, const double* __restrict__ weight_y,
    const double* __restrict__ weight_x, const int32_t* __restrict__ reach, int32_t channels, int32_t channel,
    int32_t height, int32_t width, int32_t rows, int32_t columns, double* __restrict__ corrected)
{
    JG_SHARED(Piece, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE;
    const int x1 = jg::least(width, x0 + PIECE), y = int(blockIdx.x) / pieces % height;
    const int64_t field = int(blockIdx.x) / pieces / height;
    const double* __restrict__ wy = weight_y + int64_t(y) * rows;
    const float* __restrict__ block = minima + field * rows * columns;
    JG_FOR(k, columns) {
        double sum = 0;
        for (int r = 0; r < rows; ++r)
            if (wy[r] != 0) sum += wy[r] * double(block[r * columns + k]);
        s.column[k] = sum;
    }
    JG_FOR_OWN(x, x0, x1) s.sum[x - x0] = 0;
    __syncthreads();
    double* __restrict__ sum = s.sum;
    for (int k = 0; k < columns; ++k) {
        const double value = s.column[k];
        const double* __restrict__ wx = weight_x + int64_t(k) * width;
        JG_FOR_OWN(x, jg::most(x0, reach[2 * k]), jg::least(x1, reach[2 * k + 1])) sum[x - x0] += value * wx[x];
    }
    const float* __restrict__ in = pixels + ((field * channels + channel) * height + y) * width;
    double* __restrict__ out = corrected + (field * height + y) * width;
    JG_FOR_OWN(x, x0, x1) {
        const double v = double(in[x]) - sum[x - x0];
        out[x] = jg::least(jg::most(v, 0.0), 1.0);
    }
}
JG_REGISTER(subtract_background)
