// background.cu: a smooth background from the minima of blocks, subtracted.
//
//   background = G m / G 1, where m holds at every pixel the minimum of its block and G is a Gaussian truncated at 4 sigma with
//   zeros beyond the border. G is separable and m is constant on blocks, so background = Ay b Ax' with b the minima [rows of
//   blocks, columns of blocks] and Ay, Ax the Gaussian summed over each block and divided by its total: a few weights a row.
//   corrected = clip(pixels - background, 0, 1), in doubles as CellProfiler's.
//   smoothed_background gives the background itself as CellProfiler 4.2.8 stores it: G m is rounded to float32 after each axis, as
//   SciPy rounds it, divided in doubles and rounded again. Its weights are the Gaussian's sums alone, without the division.
//
// Source   CellProfiler CorrectIlluminationCalculate ('Background', each image, Gaussian filter), CorrectIlluminationApply.
// Oracle   SciPy and centrosome on drawn fields (tests/segmentation/test_background.py); CellProfiler's thresholds on the real fields
// Launch   block_minimum: one block per row of blocks, 10 KB of shared memory; the others: a block a piece of a row, 20 KB.
// Order    a pixel's terms are added block by block, left to right; rows of blocks first.
#include "jg/jg.cuh"

namespace {
constexpr int PIECE = 2048;            // pixels of a row per block does (segmentation: PIECE)
constexpr int MAX = 512;              // columns of blocks at most

constexpr int SPAN = 32, TOGETHER = 8; // pixels that share their columns of blocks; columns of blocks in one pass

struct Lowest { int32_t pixel[PIECE], block[MAX]; };     // bits: the order of non-negative floats is that of their bits
struct Piece { double sum[PIECE]; double column[MAX + TOGETHER]; };

// s.sum[x - x0] = sum over the columns of blocks of s.column[k] * weight_x[k][x], left to right, of pixels x0 .. x1 of a row.
JG_FN void add_columns(
    Piece& s, const double* __restrict__ weight_x, const int32_t* __restrict__ reach, int width, int columns, int x0, int x1)
{
    double* __restrict__ sum = s.sum;
    for (int a = x0, first = 0, end = 0; a < x1; a += SPAN) {
        // first .. end: the columns of blocks that reach one of these pixels. A weight of 0, of one that does not, changes nothing.
        const int b = jg::smaller(x1, a + SPAN);
        while (first < columns && reach[2 * first + 1] <= a) ++first;
        while (end < columns && reach[2 * end] < b) ++end;
        JG_FOR_OWN(x, a, b) sum[x - x0] = 0;
        for (int k = first; k < end; k += TOGETHER) {
            double value[TOGETHER];
            const double* wx[TOGETHER];
            for (int j = 0; j < TOGETHER; ++j) {
                value[j] = k + j < end ? s.column[k + j] : 0;
                wx[j] = weight_x + int64_t(jg::smaller(k + j, columns - 1)) * width;
            }
            JG_FOR_OWN(x, a, b) {
                double part = sum[x - x0];
                JG_UNROLL for (int j = 0; j < TOGETHER; ++j) part += value[j] * wx[j][x];
                sum[x - x0] = part;
            }
        }
    }
}
}  // namespace

// In   pixels    float32 [B, C, H, W]   0..1
//      y_start   int32   [rows + 1]      first pixel row of each row of blocks;  x_start alike
// Out  minima    float32 [B, rows, columns]
extern "C" __global__ void __launch_bounds__(128, 8) block_minimum(
    const float* __restrict__ pixels, int32_t channels, int32_t channel, int32_t height, int32_t width,
    const int32_t* __restrict__ y_start, const int32_t* __restrict__ x_start, int32_t rows, int32_t columns,
    float* __restrict__ minima)
{
    JG_SHARED(Lowest, s);
    const int row = int(blockIdx.x) % rows, y0 = y_start[row], y1 = y_start[row + 1];
    const int64_t field = int(blockIdx.x) / rows;
    const float* __restrict__ in = pixels + (field * channels + channel) * height * width;
    int32_t* __restrict__ lowest = s.pixel;
    JG_FOR(k, columns) s.block[k] = 0x7fffffff;
    for (int x0 = 0; x0 < width; x0 += PIECE) {
        const int x1 = jg::smaller(width, x0 + PIECE);
        JG_FOR(i, x1 - x0) lowest[i] = 0x7fffffff;
        for (int y = y0; y < y1; ++y) {
            const float* __restrict__ line = in + int64_t(y) * width + x0;
            JG_FOR(i, x1 - x0) lowest[i] = jg::smaller(lowest[i], jg::bits_of(line[i]));
        }
        __syncthreads();
        JG_FOR(k, columns) {
            const int a = jg::larger(x0, x_start[k]), b = jg::smaller(x1, x_start[k + 1]);
            for (int x = a; x < b; ++x) s.block[k] = jg::smaller(s.block[k], lowest[x - x0]);
        }
        __syncthreads();
    }
    JG_FOR(k, columns) minima[int64_t(blockIdx.x) * columns + k] = jg::float_of(s.block[k]);
}
JG_REGISTER(block_minimum)

// In   pixels     float32 [B, C, H, W]
//      minima     float32 [B, rows, columns]
//      weight_y   float64 [H, rows]      weight of each row of blocks at a pixel row; sums to 1
//      weight_x   float64 [columns, W]   weight of each column of blocks at a pixel column
//      reach      int32   [columns, 2]   half-open range of pixel columns that a column of blocks reaches
// Out  corrected  float64 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 6) subtract_background(
    const float* __restrict__ pixels, const float* __restrict__ minima, const double* __restrict__ weight_y,
    const double* __restrict__ weight_x, const int32_t* __restrict__ reach, int32_t channels, int32_t channel,
    int32_t height, int32_t width, int32_t rows, int32_t columns, double* __restrict__ corrected)
{
    JG_SHARED(Piece, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE;
    const int x1 = jg::smaller(width, x0 + PIECE), y = int(blockIdx.x) / pieces % height;
    const int64_t field = int(blockIdx.x) / pieces / height;
    const double* __restrict__ wy = weight_y + int64_t(y) * rows;
    const float* __restrict__ block = minima + field * rows * columns;
    JG_FOR(k, columns + TOGETHER) s.column[k] = 0;
    for (int r = 0; r < rows; ++r) {
        const double weight = wy[r];
        if (weight != 0) JG_FOR(k, columns) s.column[k] += weight * double(block[r * columns + k]);
    }
    __syncthreads();
    add_columns(s, weight_x, reach, width, columns, x0, x1);
    const float* __restrict__ in = pixels + ((field * channels + channel) * height + y) * width;
    double* __restrict__ out = corrected + (field * height + y) * width;
    JG_FOR_OWN(x, x0, x1) {
        const double v = double(in[x]) - s.sum[x - x0];
        out[x] = jg::smaller(jg::larger(v, 0.0), 1.0);
    }
}
JG_REGISTER(subtract_background)

// In   minima    float32 [B, rows, columns]
//      weight_y  float64 [H, rows]      sum of the Gaussian over each row of blocks at a pixel row
//      weight_x  float64 [columns, W]   likewise
//      reach     int32   [columns, 2]   as above
//      edge_y    float64 [H]            all of the Gaussian that lies within the image;  edge_x  float64 [W]
// Out  background  float32 [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 6) smoothed_background(
    const float* __restrict__ minima, const double* __restrict__ weight_y, const double* __restrict__ weight_x,
    const int32_t* __restrict__ reach, const double* __restrict__ edge_y, const double* __restrict__ edge_x, double epsilon,
    int32_t height, int32_t width, int32_t rows, int32_t columns, float* __restrict__ background)
{
    JG_SHARED(Piece, s);
    const int pieces = (width + PIECE - 1) / PIECE, x0 = int(blockIdx.x) % pieces * PIECE;
    const int x1 = jg::smaller(width, x0 + PIECE), y = int(blockIdx.x) / pieces % height;
    const int64_t field = int(blockIdx.x) / pieces / height;
    const float* __restrict__ block = minima + field * rows * columns;
    JG_FOR(k, columns + TOGETHER) s.column[k] = 0;
    for (int r = 0; r < rows; ++r) {
        const double weight = weight_y[int64_t(y) * rows + r];
        if (weight != 0) JG_FOR(k, columns) s.column[k] += weight * double(block[r * columns + k]);
    }
    JG_FOR(k, columns) s.column[k] = double(float(s.column[k]));
    __syncthreads();
    float* __restrict__ out = background + (field * height + y) * width;
    add_columns(s, weight_x, reach, width, columns, x0, x1);
    JG_FOR_OWN(x, x0, x1) out[x] = float(double(float(s.sum[x - x0])) / (edge_y[y] * edge_x[x] + epsilon));
}
JG_REGISTER(smoothed_background)
