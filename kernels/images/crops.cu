// crops.cu: crops of a batch of fields for a network: gathered, normalised, masked, resized and stored as float32 or float16.
//
//   A crop's window has its upper left corner on a whole pixel and a side of any length, in pixels. A pixel of the window gives
//   z = (v - mean) / deviation; 0 where it is masked and not of the cell. Beyond the field it gives 0, or (not masked) the pixel that a
//   mirror in the border's pixel shows, or the border's pixel. Pixel (i, j) of the crop = sum_b wx_jb sum_a wy_ia z(first_i + a, first_j + b),
//   the weights (crops.py) of an area or of two neighbours; a weight of 0 asks for no pixel.
//   float16 is the nearest to the float32, ties to even.
//   Counts: q = floor(65535 v + 1/2), held to 0..65535; n, sum q and sum q^2 over the window's pixels that lie in the field and in the mask.
//
// Source   torch.nn.functional.interpolate (bilinear, align_corners false); area is exact for any ratio of sides.
// Oracle   a NumPy loop, bit for bit, and torch's interpolate (tests/networks/test_crops.py)
// Launch   one block per crop and channel, any block size.
// Order    weighted sums over rows from the top, then over columns from the left; counts are integers.
#include "jg/jg.cuh"

namespace {
constexpr int WINDOW = 1024;                             // crops.py: MAX_SIDE
enum Padding { PAD_ZERO, PAD_REFLECT, PAD_EDGE };        // crops.py: PADDINGS

constexpr int HELD = 4;                                  // rows of a window, normalised, that stay for the crop's next rows

struct CropLines { float held[HELD][WINDOW], line[WINDOW], row[WINDOW]; };
struct CropSource {
    const float* __restrict__ plane;
    const int32_t* __restrict__ label;
    float mean, deviation;
    int number, height, width, padding, masked;
};

JG_FN int within(int i, int n, int padding) {
    if (i >= 0 && i < n) return i;
    if (padding == PAD_EDGE || n == 1) return i < 0 ? 0 : n - 1;
    const int period = 2 * (n - 1), r = (i < 0 ? -i : i) % period;
    return r < n ? r : period - r;
}

JG_FN float crop_value(const CropSource& s, int y, int x) {
    const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
    if (!inside && (s.padding == PAD_ZERO || s.masked)) return 0;
    const int64_t p = int64_t(within(y, s.height, s.padding)) * s.width + within(x, s.width, s.padding);
    return s.masked && s.label[p] != s.number ? 0 : (s.plane[p] - s.mean) / s.deviation;
}

// Without a branch, so that a row is rounded many at a time.
JG_FN uint16_t half_of(float value) {
    const uint32_t bits = uint32_t(jg::bits_of(value)), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    const uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1)) >> 13;
    // A subnormal float16 counts units of 2^-24, which are those of a float32 from 1/2 on: the sum rounds it.
    const uint32_t subnormal = uint32_t(jg::bits_of(jg::float_of(int32_t(size)) + 0.5f)) - 0x3f000000u;
    uint32_t half = size < 0x38800000u ? subnormal : normal;
    half = size >= 0x477ff000u ? 0x7c00u : half;                    // from 65520 on
    return uint16_t(sign | (size > 0x7f800000u ? 0x7e00u : half));
}

// act(x, value) for every pixel of a window's row, by threads `start`, `start + step`, ...: each x is one thread's, whatever the row.
template <class Act> JG_FN void each_of_row(
    const CropSource& s, int y, int ox, int left, int right, int n, int start, int step, Act act)
{
    if (y < 0 || y >= s.height) {
        for (int x = start; x < n; x += step) act(x, crop_value(s, y, ox + x));
        return;
    }
    const float* __restrict__ from = s.plane + int64_t(y) * s.width + ox;
    const int32_t* __restrict__ label = s.label + int64_t(y) * s.width + ox;
    const float mean = s.mean, deviation = s.deviation;
    const int number = s.number;
    int x = start;
    for (; x < left; x += step) act(x, crop_value(s, y, ox + x));
    if (s.masked) {
        for (; x < right; x += step) act(x, label[x] == number ? (from[x] - mean) / deviation : 0.0f);
    } else {
        for (; x < right; x += step) act(x, (from[x] - mean) / deviation);
    }
    for (; x < n; x += step) act(x, crop_value(s, y, ox + x));
}

// row[j] = sum_b weight[j, b] line[first[j] + b]. TAPS: their number, where the compiler is to know it.
template <int TAPS> JG_FN void across(
    const float* __restrict__ line, const int32_t* __restrict__ first, const float* __restrict__ weight, int taps, int size,
    float* __restrict__ row)
{
    const int n = TAPS ? TAPS : taps;
    JG_FOR(j, size) {
        const float* __restrict__ w = weight + int64_t(j) * n;
        const float* __restrict__ z = line + first[j];
        float sum = 0;
        JG_UNROLL for (int b = 0; b < n; ++b) sum += w[b] * z[b];
        row[j] = sum;
    }
}
}  // namespace

// In   pixels           float32 [B, C, H, W]
//      labels           int32   [B, H, W]      any plane where not masked
//      field, number    int32   [N]            a crop's field in the batch, and its cell's label
//      origin           int32   [N, 2]         y, x of the window's first pixel
//      channel          int32   [K]            places on the C axis, in the crop's order
//      mean, deviation  float32 [N, K]
//      first            int32   [S]            the window's row (or column) that a crop's first weight is of
//      weight           float32 [S, taps]
// Out  crops            float32 [N, K, S, S], or float16 where `half`; its bytes
extern "C" __global__ void __launch_bounds__(128, 8) cut_crops(
    const float* __restrict__ pixels, const int32_t* __restrict__ labels, const int32_t* __restrict__ field,
    const int32_t* __restrict__ number, const int32_t* __restrict__ origin, const int32_t* __restrict__ channel,
    const float* __restrict__ mean, const float* __restrict__ deviation, const int32_t* __restrict__ first,
    const float* __restrict__ weight, int32_t channels, int32_t n_channels, int32_t height, int32_t width, int32_t size, int32_t window,
    int32_t taps, int32_t padding, int32_t masked, int32_t half, uint8_t* __restrict__ crops)
{
    JG_SHARED(CropLines, lines);
    const int n = int(blockIdx.x) / channels, k = int(blockIdx.x) % channels, oy = origin[2 * n], ox = origin[2 * n + 1];
    const int64_t area = int64_t(height) * width, begin = int64_t(blockIdx.x) * size * size;
    const CropSource s = {pixels + (int64_t(field[n]) * n_channels + channel[k]) * area, labels + field[n] * area,
                          mean[int(blockIdx.x)], deviation[int(blockIdx.x)], number[n], height, width, padding, masked};
    float* __restrict__ whole = reinterpret_cast<float*>(crops) + begin;
    uint16_t* __restrict__ rounded = reinterpret_cast<uint16_t*>(crops) + begin;
    // What of a window's row lies in the field is a plain loop along it.
    const int left = jg::larger(0, jg::smaller(window, -ox)), right = jg::larger(left, jg::smaller(window, width - ox));
    if (taps == 1) {
        for (int i = jg::warp_id(); i < size; i += jg::warps()) {
            const int y = oy + i, lane = jg::lane();
            if (half) each_of_row(s, y, ox, left, right, size, lane, jg::WARP, [&](int j, float z) { rounded[i * size + j] = half_of(z); });
            else each_of_row(s, y, ox, left, right, size, lane, jg::WARP, [&](int j, float z) { whole[i * size + j] = z; });
        }
        return;
    }
    int held[HELD] = {-1, -1, -1, -1};                              // which row of the window each is
    for (int i = 0; i < size; ++i) {                                // a column is one thread's, so that no barrier parts its sums
        bool begun = false;
        for (int a = 0; a < taps; ++a) {
            const float w = weight[i * taps + a];
            if (w == 0) continue;
            const int r = first[i] + a;
            float* __restrict__ z = lines.held[r % HELD];
            if (held[r % HELD] != r) {
                each_of_row(s, oy + r, ox, left, right, window, int(threadIdx.x), int(blockDim.x), [&](int x, float v) { z[x] = v; });
                held[r % HELD] = r;
            }
            if (begun) { JG_FOR(x, window) lines.line[x] += w * z[x]; }
            else { JG_FOR(x, window) lines.line[x] = w * z[x]; }
            begun = true;
        }
        __syncthreads();
        float* __restrict__ row = half ? lines.row : whole + i * size;
        if (taps == 2) across<2>(lines.line, first, weight, taps, size, row);
        else if (taps == 3) across<3>(lines.line, first, weight, taps, size, row);
        else if (taps == 4) across<4>(lines.line, first, weight, taps, size, row);
        else across<0>(lines.line, first, weight, taps, size, row);
        if (half) {
            JG_FOR(j, size) rounded[i * size + j] = half_of(row[j]);
        }
        __syncthreads();
    }
}
JG_REGISTER(cut_crops)

// Out  counts           int64   [N, K, 3]      pixels, sum q, sum q^2
extern "C" __global__ void __launch_bounds__(128, 8) count_crops(
    const float* __restrict__ pixels, const int32_t* __restrict__ labels, const int32_t* __restrict__ field,
    const int32_t* __restrict__ number, const int32_t* __restrict__ origin, const int32_t* __restrict__ channel,
    int32_t channels, int32_t n_channels, int32_t height, int32_t width, int32_t window_height, int32_t window_width, int32_t masked,
    int64_t* __restrict__ counts)
{
    JG_SHARED(jg::CountScratch<3>, scratch);
    const int n = int(blockIdx.x) / channels, k = int(blockIdx.x) % channels, oy = origin[2 * n], ox = origin[2 * n + 1];
    const int64_t area = int64_t(height) * width;
    const float* __restrict__ plane = pixels + (int64_t(field[n]) * n_channels + channel[k]) * area;
    const int32_t* __restrict__ label = labels + field[n] * area;
    const int left = jg::larger(0, ox), right = jg::smaller(width, ox + window_width), own = number[n];
    jg::Counts<3> mine = {};
    for (int y = jg::larger(0, oy) + jg::warp_id(), end = jg::smaller(height, oy + window_height); y < end; y += jg::warps()) {
        const float* __restrict__ line = plane + int64_t(y) * width;
        const int32_t* __restrict__ of = label + int64_t(y) * width;
        uint32_t pixels_of_it = 0, total = 0, low = 0, high = 0;        // of a line, of less than 2^16 pixels: no word runs over
        const auto take = [&](uint32_t in, float v) {
            const uint32_t q = in * uint32_t(jg::smaller(65535, jg::larger(0, int32_t(v * 65535.0f + 0.5f))));
            pixels_of_it += in;
            total += q;
            low += q * q & 0xffffu;
            high += q * q >> 16;
        };
        if (masked) {
            for (int x = left + jg::lane(); x < right; x += jg::WARP) take(of[x] == own, line[x]);
        } else {
            for (int x = left + jg::lane(); x < right; x += jg::WARP) take(1, line[x]);
        }
        mine.v[0] += pixels_of_it;
        mine.v[1] += total;
        mine.v[2] += (uint64_t(high) << 16) + low;
    }
    const jg::Counts<3> all = jg::block_count<3>(mine, scratch);
    JG_ONCE {
        for (int j = 0; j < 3; ++j) counts[int64_t(blockIdx.x) * 3 + j] = int64_t(all.v[j]);
    }
}
JG_REGISTER(count_crops)
