// running_variance.cu: variances of the first 1, 2, 3 ... of a row of values, and their sums, at some places.
//
//   m_i = (v_0 + .. + v_i) / (i + 1),   out_i = sum over k = 1 .. i of (v_k - m_(k-1)) (v_k - m_k), over i
//
// Source   centrosome otsu.py (running_variance, cumulative sums); CellProfiler MeasureImageQuality
// Oracle   centrosome (tests/image_features/test_thresholds.py)
// Launch   a block for each way through the values, of which one thread works. Any block size.
// Order    the values'; their sums are float32, as NumPy adds them
#include "jg/jg.cuh"

// In   values   float32 [n]
//      places   int64 [2, count]   ascending; of the second row counted from the last value, from where it goes
// Out  result   float64 [2, count, 3]   variance, sum, sum of squares up to each place
extern "C" __global__ void __launch_bounds__(32) running_variance(
    const float* __restrict__ values, const int64_t* __restrict__ places, int64_t n, int32_t count, double* __restrict__ result)
{
    const int64_t step = blockIdx.x ? -1 : 1;
    const float* __restrict__ v = values + (blockIdx.x ? n - 1 : 0);
    const int64_t* __restrict__ place = places + int64_t(blockIdx.x) * count;
    double* __restrict__ out = result + int64_t(blockIdx.x) * count * 3;
    JG_ONCE {
        float sum = 0, squares = 0;
        double before = 0, apart = 0;
        int64_t i = 0;
        for (int k = 0; k < count; ++k) {
            for (const int64_t end = jg::smaller(n, place[k] + 1); i < end; ++i) {
                const float value = v[i * step];
                sum += value;
                squares += value * value;
                const double mean = double(sum) / double(i + 1);
                if (i) apart += (double(value) - before) * (double(value) - mean);
                before = mean;
            }
            out[3 * k] = i > 1 ? apart / double(i - 1) : 0.0;
            out[3 * k + 1] = double(sum);
            out[3 * k + 2] = double(squares);
        }
    }
}
JG_REGISTER(running_variance)
