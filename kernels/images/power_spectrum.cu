// power_spectrum.cu: the slope of an image's power spectrum, for quality control.
//
//   fourier_table   cosines and sines of the n-th parts of a circle
//   power_columns   Fourier transform of every column, its lowest frequencies
//   power_rows      of those along the rows: the power of each pair of frequencies
//   power_slope     the power in rings of one radius; the slope of its logarithm against that of the radius
//
// The rings are centrosome's: frequency k counts as k where it is not negative, as -k - 1 where it is; ring r has the pairs
// with (r - 1)^2 <= y^2 + x^2 < r^2, and the slope is that of rings 2 .. `rings`, which reach frequencies of -rings .. rings - 1.
//
// Source   CellProfiler MeasureImageQuality.calculate_power_spectrum; centrosome.radial_power_spectrum
// Oracle   CellProfiler's module by hand (tests/helpers/oracles/image_quality.py), SciPy's FFT (tests/features/test_image_quality.py)
// Launch   power_columns, power_rows: any grid, each block has scratch of its own and takes tiles in turn; power_slope: a block an
//          image; any block size; 1 KB of shared memory.
// Order    The factors of n are taken in one order (radix_of), and each sum has its own; two columns, 8 apart, are the real and the
//          imaginary part of a line.
#include "jg/jg_math.cuh"

namespace {
constexpr int APART = 8;                                 // columns that share a line
// A number of each of the lines that are transformed side by side: all by one thread, or one a lane. No number depends on it.
#if defined(JG_SERIAL)
#pragma GCC diagnostic ignored "-Wpsabi"                 // all of it is inlined
constexpr int LINES = 8;
typedef double Number __attribute__((vector_size(LINES * sizeof(double))));
JG_FN Number number(const double* at) {
    Number v;
    memcpy(&v, at, sizeof v);
    return v;
}
JG_FN void put(double* at, Number v) { memcpy(at, &v, sizeof v); }
#else
constexpr int LINES = 32;
typedef double Number;
JG_FN Number number(const double* at) { return at[jg::lane()]; }
JG_FN void put(double* at, Number v) { at[jg::lane()] = v; }
#endif

JG_FN int radix_of(int n) {
    if (n % 4 == 0) return 4;
    if (n % 2 == 0) return 2;
    for (int p = 3; p * p <= n; p += 2)
        if (n % p == 0) return p;
    return n;
}

// Lines of complex numbers, [n][LINES] each: the real parts, then the imaginary.
struct Lines {
    double *re, *im;
};
JG_FN Lines lines_at(double* scratch, int n, int k) {
    double* at = scratch + int64_t(2 * k) * n * LINES;
    return {at, at + int64_t(n) * LINES};
}
struct Complex {
    Number re, im;
};
JG_FN Complex number(const Lines& x, int64_t i) { return {number(x.re + i * LINES), number(x.im + i * LINES)}; }
JG_FN void put(const Lines& y, int64_t i, Number re, Number im) {
    put(y.re + i * LINES, re);
    put(y.im + i * LINES, im);
}

// One pass of Stockham's algorithm over n numbers: for j < m and q < s, p of them, s * m apart, are transformed, turned and come
// to lie s apart.
struct Pass {
    int n, p, m, s;
    const double* __restrict__ table;                    // fourier_table
    Lines x, y;

    __device__ __forceinline__ Complex in(int j, int q, int i) const { return number(x, q + s * (j + m * i)); }
    // Number k of the result, turned.
    __device__ __forceinline__ void out(int j, int q, int k, Number re, Number im) const {
        const double c = table[2 * (j * k * s)], t = table[2 * (j * k * s) + 1];
        put(y, q + s * (p * j + k), re * c + im * t, im * c - re * t);
    }
};
// act(j, q) for every one, by whole warps.
template <class F> JG_FN void each_butterfly(const Pass& pass, F act) {
#if defined(JG_SERIAL)
    for (int j = 0; j < pass.m; ++j)
        for (int q = 0; q < pass.s; ++q) act(j, q);
#else
    for (int i = jg::warp_id(); i < pass.m * pass.s; i += jg::warps()) act(i / pass.s, i % pass.s);
#endif
}

JG_FN void pass_2(const Pass& pass) {
    each_butterfly(pass, [&](int j, int q) {
        const Complex a = pass.in(j, q, 0), b = pass.in(j, q, 1);
        pass.out(j, q, 0, a.re + b.re, a.im + b.im);
        pass.out(j, q, 1, a.re - b.re, a.im - b.im);
    });
}

JG_FN void pass_4(const Pass& pass) {
    each_butterfly(pass, [&](int j, int q) {
        const Complex x0 = pass.in(j, q, 0), x1 = pass.in(j, q, 1), x2 = pass.in(j, q, 2), x3 = pass.in(j, q, 3);
        const Complex a = {x0.re + x2.re, x0.im + x2.im}, b = {x0.re - x2.re, x0.im - x2.im};
        const Complex c = {x1.re + x3.re, x1.im + x3.im}, d = {x1.re - x3.re, x1.im - x3.im};
        pass.out(j, q, 0, a.re + c.re, a.im + c.im);
        pass.out(j, q, 1, b.re + d.im, b.im - d.re);
        pass.out(j, q, 2, a.re - c.re, a.im - c.im);
        pass.out(j, q, 3, b.re - d.im, b.im + d.re);
    });
}

// Of an odd prime: numbers k and p - k of the result come of the same sums. P is p where that is known, else 0.
template <int P> JG_FN void pass_odd(const Pass& pass) {
    const int p = P ? P : pass.p, step = pass.n / p;
    each_butterfly(pass, [&](int j, int q) {
        constexpr int HALF = P / 2;
        Complex sum[HALF + 1], difference[HALF + 1];     // of numbers i and p - i
        const Complex first = pass.in(j, q, 0);
        auto pair = [&](int i, Complex* plus, Complex* minus) {
            const Complex u = pass.in(j, q, i), v = pass.in(j, q, p - i);
            *plus = {u.re + v.re, u.im + v.im};
            *minus = {u.re - v.re, u.im - v.im};
        };
        for (int i = 1; i <= HALF; ++i) pair(i, &sum[i], &difference[i]);
        Number re = first.re, im = first.im;
        for (int i = 1; i <= p / 2; ++i) {
            Complex plus, minus;
            if (P) plus = sum[i <= HALF ? i : 0];
            else pair(i, &plus, &minus);
            re += plus.re;
            im += plus.im;
        }
        pass.out(j, q, 0, re, im);
        for (int k = 1; k <= p / 2; ++k) {
            Number cr = first.re, ci = first.im, sr = first.re * 0.0, si = first.re * 0.0;
            for (int i = 1; i <= p / 2; ++i) {
                const int turn = int(int64_t(i) * k % p);
                const double c = pass.table[2 * (turn * step)], s = pass.table[2 * (turn * step) + 1];
                Complex plus, minus;
                if (P) {
                    plus = sum[i <= HALF ? i : 0];
                    minus = difference[i <= HALF ? i : 0];
                } else {
                    pair(i, &plus, &minus);
                }
                cr += c * plus.re;
                ci += c * plus.im;
                sr += s * minus.re;
                si += s * minus.im;
            }
            pass.out(j, q, k, cr + si, ci - sr);
            pass.out(j, q, p - k, cr - si, ci + sr);
        }
    });
}

// The transform of the lines in half 0 of the scratch; where it lies. Ends with a barrier.
JG_FN Lines transformed(int n, const double* __restrict__ table, double* scratch) {
    int half = 0;
    for (int rest = n, s = 1; rest > 1; half ^= 1) {
        const int p = radix_of(rest);
        const Pass pass = {n, p, rest / p, s, table, lines_at(scratch, n, half), lines_at(scratch, n, half ^ 1)};
        if (p == 4) pass_4(pass);
        else if (p == 2) pass_2(pass);
        else if (p == 3) pass_odd<3>(pass);
        else if (p == 5) pass_odd<5>(pass);
        else pass_odd<0>(pass);
        __syncthreads();
        rest /= p;
        s *= p;
    }
    return lines_at(scratch, n, half);
}
}  // namespace

// Out  table   float64 [n, 2]   cosine and sine of 2 pi k / n
extern "C" __global__ void __launch_bounds__(128, 8) fourier_table(int32_t n, double* __restrict__ table)
{
    JG_FOR_ITEMS(k, n) {
        double s, c;
        jg::sincos_same(2.0 * jg::PI * double(k) / n, &s, &c);
        table[2 * k] = c;
        table[2 * k + 1] = s;
    }
}
JG_REGISTER(fourier_table)

// In   pixels   float32 [planes, H, W]
//      means    float64 [planes, 2]             of the image, first: what is subtracted
//      table    float64 [H, 2]                  fourier_table
// Out  low      float64 [planes, rings + 1, 2, W]   frequencies 0 .. rings of each column, real and imaginary
// Scr  scratch  float64 [blocks, 4, longest, 32]    longest of H and W
extern "C" __global__ void __launch_bounds__(128, 4) power_columns(
    const float* __restrict__ pixels, const double* __restrict__ means, const double* __restrict__ table, int32_t planes,
    int32_t height, int32_t width, int32_t longest, int32_t rings, double* __restrict__ low, double* scratch)
{
    const int groups = (width + 2 * APART - 1) / (2 * APART), tiles = (groups * APART + LINES - 1) / LINES;
    double* mine = scratch + int64_t(blockIdx.x) * 4 * longest * 32;
    for (int64_t tile = blockIdx.x; tile < int64_t(planes) * tiles; tile += gridDim.x) {
        const int plane = int(tile / tiles), line0 = int(tile % tiles) * LINES;
        const float* __restrict__ image = pixels + int64_t(plane) * height * width;
        const double mean = means[2 * int64_t(plane)];
        const Lines x = lines_at(mine, height, 0);
        auto column = [&](int line) { return line / APART * 2 * APART + line % APART; };
        const bool whole = LINES == APART && column(line0) + 2 * APART <= width;
        JG_FOR_YX(y, t, 0, whole ? 0 : height, 0, LINES) {
            const int a = column(line0 + t), b = a + APART;
            x.re[y * LINES + t] = a < width ? double(image[int64_t(y) * width + a]) - mean : 0.0;
            x.im[y * LINES + t] = b < width ? double(image[int64_t(y) * width + b]) - mean : 0.0;
        }
        JG_FOR_YX(y, t, 0, whole ? height : 0, 0, LINES) {
            const float* __restrict__ from = image + int64_t(y) * width + column(line0);
            x.re[y * LINES + t] = double(from[t]) - mean;
            x.im[y * LINES + t] = double(from[APART + t]) - mean;
        }
        __syncthreads();
        const Lines z = transformed(height, table, mine);
        JG_FOR_YX(k, t, 0, rings + 1, 0, LINES) {
            const int a = column(line0 + t), b = a + APART, mirror = k ? height - k : 0;
            const double pr = z.re[k * LINES + t], pi = z.im[k * LINES + t];
            const double nr = z.re[mirror * LINES + t], ni = z.im[mirror * LINES + t];
            double* __restrict__ re = low + (int64_t(plane) * (rings + 1) + k) * 2 * width;
            double* __restrict__ im = re + width;
            if (a < width) re[a] = (pr + nr) / 2, im[a] = (pi - ni) / 2;
            if (b < width) re[b] = (pi + ni) / 2, im[b] = (nr - pr) / 2;
        }
        __syncthreads();
    }
}
JG_REGISTER(power_columns)

// In   low      as above
//      table    float64 [W, 2]
// Out  power    float64 [planes, rings + 1, 2 rings + 1]   of y = 0 .. rings, x = -rings .. rings
extern "C" __global__ void __launch_bounds__(128, 4) power_rows(
    const double* __restrict__ low, const double* __restrict__ table, int32_t planes, int32_t width, int32_t longest, int32_t rings,
    double* __restrict__ power, double* scratch)
{
    const int64_t rows = int64_t(planes) * (rings + 1), tiles = (rows + LINES - 1) / LINES;
    const int across = 2 * rings + 1;
    double* mine = scratch + int64_t(blockIdx.x) * 4 * longest * 32;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int here = int(jg::smaller(int64_t(LINES), rows - tile * LINES));
        const Lines x = lines_at(mine, width, 0);
        JG_FOR_YX(t, i, 0, LINES, 0, width) {
            const double* __restrict__ from = low + (tile * LINES + jg::smaller(t, here - 1)) * 2 * width;
            x.re[int64_t(i) * LINES + t] = from[i];
            x.im[int64_t(i) * LINES + t] = from[width + i];
        }
        __syncthreads();
        const Lines z = transformed(width, table, mine);
        JG_FOR_YX(t, i, 0, here, 0, across) {
            const int64_t k = i < rings ? width - rings + i : i - rings;
            const double re = z.re[k * LINES + t], im = z.im[k * LINES + t];
            power[(tile * LINES + t) * across + i] = re * re + im * im;
        }
        __syncthreads();
    }
}
JG_REGISTER(power_rows)

// In   power     as above
//      means     float64 [planes, 2]         second: whether the image has a spectrum
//      column    the table's
// Out  table     float64 [planes, columns]   0 where fewer than two rings have power
// Scr  ring      float64 [planes, 2, rings + 1]
extern "C" __global__ void __launch_bounds__(128, 8) power_slope(
    const double* __restrict__ power, const double* __restrict__ means, int32_t rings, int32_t column, int32_t columns,
    double* ring, double* __restrict__ table)
{
    JG_SHARED(jg::SumScratch<3>, sums);
    const int across = 2 * rings + 1;
    const double* __restrict__ own = power + int64_t(blockIdx.x) * (rings + 1) * across + rings;   // where x is 0
    double* radius = ring + int64_t(blockIdx.x) * 2 * (rings + 1);
    double* total = radius + rings + 1;
    JG_FOR(r, rings + 1) {
        if (r < 2) continue;
        double sum = 0;
        int outer = r, inner = r - 1;                    // the smallest x outside of ring r, and of ring r - 1
        for (int y = 0; y < r; ++y) {
            while (outer > 0 && (outer - 1) * (outer - 1) + y * y >= r * r) --outer;
            while (inner > 0 && (inner - 1) * (inner - 1) + y * y >= (r - 1) * (r - 1)) --inner;
            const double* __restrict__ plus = own + int64_t(y) * across;         // frequency y, and y + 1 for -y - 1
            const double* __restrict__ minus = plus + across;
            for (int x = inner; x < outer; ++x) sum += (plus[x] + plus[-x - 1]) + (minus[-x] + minus[x + 1]);
        }
        total[r] = sum > 0 ? jg::log_same(sum) : 0.0;
        radius[r] = sum > 0 ? jg::log_same(double(r)) : -1.0;
    }
    __syncthreads();
    const jg::Vec<3> sum = jg::block_sum<3>(rings - 1, sums, [&](int i) {
        const bool seen = radius[i + 2] > 0;
        return jg::Vec<3>{{seen ? 1.0 : 0.0, seen ? radius[i + 2] : 0.0, seen ? total[i + 2] : 0.0}};
    });
    const double n = jg::larger(sum.v[0], 1.0), middle = sum.v[1] / n, height = sum.v[2] / n;
    const jg::Vec<3> product = jg::block_sum<3>(rings - 1, sums, [&](int i) {
        const double d = radius[i + 2] > 0 ? radius[i + 2] - middle : 0.0;
        return jg::Vec<3>{{d * d, d * (total[i + 2] - height), 0.0}};
    });
    const bool result = sum.v[0] >= 2 && means[2 * int64_t(blockIdx.x) + 1] != 0;
    JG_ONCE table[int64_t(blockIdx.x) * columns + column] = result ? product.v[1] / product.v[0] : 0.0;
}
JG_REGISTER(power_slope)
