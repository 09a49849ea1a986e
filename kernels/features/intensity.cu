// intensity.cu: intensity of an object in a channel: sums, spread, edge, order statistics, and where its mass and maximum are.
//
//   integrated = sum v    mean = integrated / n    std = sqrt(sum (v - mean)^2 / n)    over the n pixels of the object
//   the same, smallest and largest, over its edge pixels (a 4-neighbour in the image has another label); displacement = distance
//   of the centre of intensity from the centre of the object; quartiles and median at position n q of the sorted values,
//   counted from 0 and interpolated, or the last value where that has no successor; MAD = the same with q = 1/2 of the
//   sorted |v - median|.
//   n = 0 (an empty cytoplasm): sums 0, all else nan. No edge pixel (the object fills the image): likewise.
//
// Source   CellProfiler 4.2.8 MeasureObjectIntensity. Of several maxima it takes whichever an unstable sort puts last; the
//          first in raster order is taken here.
// Oracle   cp_measure, SciPy (tests/features/test_intensity.py); CellProfiler's own output on the real fields
// Launch   sum_intensity, count_brightest: one block per object row and channel. finish_intensity: a thread per object row and channel.
// Order    jg::block_sum; smallest, largest and the first maximum are integers.
//
// Spread is taken about a pixel of the object, sum (v - a)^2 - (sum (v - a))^2 / n: one pass, no digits lost, exactly 0
// where the object is constant.
#include "jg/one_item_per_thread.cuh"
#include "features/order_statistics.cuh"

// Of sum_intensity: over the object, and over its edge pixels; SPREAD is about a pixel.
struct Sum { enum Measure {
    TOTAL, TOTAL_X, TOTAL_Y, SPREAD, EDGE_TOTAL, EDGE_SPREAD, EDGE_MIN, EDGE_MAX, MAXIMUM_AT, COUNT
}; };
struct Intensity { enum Measure {
    IntegratedIntensity, MeanIntensity, StdIntensity, MinIntensity, MaxIntensity, IntegratedIntensityEdge,
    MeanIntensityEdge, StdIntensityEdge, MinIntensityEdge, MaxIntensityEdge, MassDisplacement, LowerQuartileIntensity,
    MedianIntensity, MADIntensity, UpperQuartileIntensity, COUNT
}; };
struct Location { enum Measure { CenterMassIntensity = Intensity::COUNT, MaxIntensity = CenterMassIntensity + 2, COUNT = MaxIntensity + 2 }; };   // X, Y each

// In   pixels      float32 [B, C, H, W]
//      values      float32 [C, P]
//      pixel       int32   [P]
//      start, stop int64   [R]
//      schedule    int32   [R]
//      field       int32   [N]
//      edge        int32   [K, P]       edge pixels of a row from its first listed pixel on (outline.cu)
//      counts      int32   [R, 5]       the last: how many
//      quantiles   float64 [R, C, 6]    order_statistics.cuh
// Out  sums        float64 [R, C, Sum::COUNT]
extern "C" __global__ void __launch_bounds__(128, 8) sum_intensity(
    const float* __restrict__ pixels, const float* __restrict__ values, const int32_t* __restrict__ pixel,
    const int64_t* __restrict__ start, const int64_t* __restrict__ stop, const int32_t* __restrict__ schedule,
    const int32_t* __restrict__ field, const int32_t* __restrict__ edge, const int32_t* __restrict__ counts,
    const double* __restrict__ quantiles, int32_t cells, int32_t channels,
    int32_t height, int32_t width, int64_t n_pixels, double* __restrict__ sums)
{
    JG_SHARED(jg::SumScratch<4>, scratch);
    JG_SHARED(jg::SumScratch<2>, edge_scratch);
    JG_SHARED(int, min_edge);
    JG_SHARED(int, max_edge);
    JG_SHARED(int, first_max);
    const int row = schedule[int(blockIdx.x) / channels], c = int(blockIdx.x) % channels, cell = row % cells;
    const int n = int(stop[row] - start[row]), n_edge = counts[row * 5 + 4];
    const float* __restrict__ value = values + c * n_pixels + start[row];
    const int32_t* __restrict__ at = pixel + start[row];
    const float* __restrict__ plane = pixels + (int64_t(field[cell]) * channels + c) * height * width;
    const int32_t* __restrict__ rim = edge + row / cells * n_pixels + start[row];
    JG_ONCE {
        min_edge = 0x7fffffff;
        max_edge = -0x7fffffff - 1;
        first_max = 0x7fffffff;
    }
    // The edge's values lie far apart in the image: asked for now, added up after the object's.
    for (int i = 0; i < n_edge; ++i) jg::fetch_ahead(plane + (rim[i] >> 16) * width + (rim[i] & 0xffff), 1);
    const double about = n ? value[0] : 0;
    const jg::Vec<4> whole = jg::block_sum<4>(n, scratch, [&](int i) {
        const double v = value[i], d = v - about;
        return jg::Vec<4>{{v, v * (at[i] & 0xffff), v * (at[i] >> 16), d * d}};
    });
    const double rim_about = n_edge ? plane[(rim[0] >> 16) * width + (rim[0] & 0xffff)] : 0;
    int low = 0x7fffffff, high = -0x7fffffff - 1, first = 0x7fffffff;
    const jg::Vec<2> border = jg::block_sum<2>(n_edge, edge_scratch, [&](int i) {      // each i is asked for once
        const float value = plane[(rim[i] >> 16) * width + (rim[i] & 0xffff)];
        const int bits = jg::bits_of(value), key = bits ^ (bits >> 31 & 0x7fffffff);   // grows with the value
        low = jg::smaller(low, key);
        high = jg::larger(high, key);
        const double v = value, d = v - rim_about;
        return jg::Vec<2>{{v, d * d}};
    });
    const float maximum = float(quantiles[(int64_t(row) * channels + c) * QUANTILES + MAX]);
    JG_FOR(i, n) {
        const int miss = value[i] == maximum ? 0 : 0x7fffffff;
        first = jg::smaller(first, at[i] | miss);
    }
    jg::gather_min(&min_edge, low);
    jg::gather_max(&max_edge, high);
    jg::gather_min(&first_max, first);
    __syncthreads();
    JG_ONCE {
        double* out = sums + (int64_t(row) * channels + c) * Sum::COUNT;
        out[Sum::TOTAL] = whole.v[0];
        out[Sum::TOTAL_X] = whole.v[1];
        out[Sum::TOTAL_Y] = whole.v[2];
        const double off = whole.v[0] - n * about, rim_off = border.v[0] - n_edge * rim_about;
        out[Sum::SPREAD] = whole.v[3] - off * off / jg::larger(n, 1);
        out[Sum::EDGE_TOTAL] = border.v[0];
        out[Sum::EDGE_SPREAD] = border.v[1] - rim_off * rim_off / jg::larger(n_edge, 1);
        out[Sum::EDGE_MIN] = jg::float_of(min_edge ^ (min_edge >> 31 & 0x7fffffff));
        out[Sum::EDGE_MAX] = jg::float_of(max_edge ^ (max_edge >> 31 & 0x7fffffff));
        out[Sum::MAXIMUM_AT] = first_max;
    }
}
JG_REGISTER(sum_intensity)

// In   sums, quantiles, counts  as above
//      area     float64 [R, 3]        pixels, sum x, sum y
// Out  result    float64 [R, C, Location::COUNT]
extern "C" __global__ void __launch_bounds__(128, 8) finish_intensity(
    const double* __restrict__ sums, const double* __restrict__ quantiles, const int32_t* __restrict__ counts, const double* __restrict__ area, int32_t rows, int32_t channels,
    double* __restrict__ result)
{
    JG_FOR_FEW(i, int64_t(rows) * channels) {
        const int row = int(i / channels), n = int(area[row * 3]), n_edge = counts[row * 5 + 4];
        const double* __restrict__ sum = sums + i * Sum::COUNT;
        const double* __restrict__ of = quantiles + i * QUANTILES;
        double* __restrict__ out = result + i * Location::COUNT;
        const double nan = (n ? sum[Sum::TOTAL] : 0) * 0.0 / 0.0;
        out[Intensity::IntegratedIntensity] = sum[Sum::TOTAL];
        for (int m = 1; m < Location::COUNT; ++m) out[m] = nan;
        out[Intensity::IntegratedIntensityEdge] = sum[Sum::EDGE_TOTAL];
        if (n && !n_edge) {                                // it fills its field
            out[Intensity::MeanIntensityEdge] = out[Intensity::StdIntensityEdge] = 0;
            out[Intensity::MinIntensityEdge] = out[Intensity::MaxIntensityEdge] = 0;
        } else if (n_edge) {
            out[Intensity::MeanIntensityEdge] = sum[Sum::EDGE_TOTAL] / n_edge;
            out[Intensity::StdIntensityEdge] = sqrt(jg::larger(sum[Sum::EDGE_SPREAD], 0.0) / n_edge);
            out[Intensity::MinIntensityEdge] = sum[Sum::EDGE_MIN];
            out[Intensity::MaxIntensityEdge] = sum[Sum::EDGE_MAX];
        }
        if (n == 0) continue;
        const double centre_x = sum[Sum::TOTAL_X] / sum[Sum::TOTAL], centre_y = sum[Sum::TOTAL_Y] / sum[Sum::TOTAL];
        const double dx = area[row * 3 + 1] / n - centre_x, dy = area[row * 3 + 2] / n - centre_y;
        out[Intensity::MeanIntensity] = sum[Sum::TOTAL] / n;
        out[Intensity::StdIntensity] = sqrt(jg::larger(sum[Sum::SPREAD], 0.0) / n);
        out[Intensity::MinIntensity] = of[MIN];
        out[Intensity::MaxIntensity] = of[MAX];
        out[Intensity::MassDisplacement] = sqrt(dx * dx + dy * dy);
        out[Intensity::LowerQuartileIntensity] = of[LOWER];
        out[Intensity::MedianIntensity] = of[MEDIAN];
        out[Intensity::MADIntensity] = of[MAD];
        out[Intensity::UpperQuartileIntensity] = of[UPPER];
        out[Location::CenterMassIntensity] = centre_x;
        out[Location::CenterMassIntensity + 1] = centre_y;
        out[Location::MaxIntensity] = int(sum[Sum::MAXIMUM_AT]) & 0xffff;
        out[Location::MaxIntensity + 1] = int(sum[Sum::MAXIMUM_AT]) >> 16;
    }
}
JG_REGISTER(finish_intensity)

// In   values, start, stop, schedule, quantiles   of sum_intensity
// Out  brightest   int32 [R, C]   how many pixels of a row have its largest value
extern "C" __global__ void __launch_bounds__(128, 8) count_brightest(
    const float* __restrict__ values, const int64_t* __restrict__ start, const int64_t* __restrict__ stop,
    const int32_t* __restrict__ schedule, const double* __restrict__ quantiles, int32_t channels, int64_t n_pixels,
    int32_t* __restrict__ brightest)
{
    JG_SHARED(jg::CountScratch<1>, scratch);
    const int row = schedule[int(blockIdx.x) / channels], c = int(blockIdx.x) % channels;
    const float* __restrict__ value = values + c * n_pixels + start[row];
    const float maximum = float(quantiles[(int64_t(row) * channels + c) * QUANTILES + MAX]);
    uint32_t mine = 0;
    JG_FOR(i, int(stop[row] - start[row])) mine += value[i] == maximum;
    const uint64_t total = jg::block_count<1>(jg::Counts<1>{{mine}}, scratch).v[0];
    JG_ONCE brightest[int64_t(row) * channels + c] = int32_t(total);
}
JG_REGISTER(count_brightest)
