// jg_math.cuh: elementary functions with the same bits on every machine, from + - * / and sqrt alone (no contraction).
//
// A libm's exp, log, atan2, sin and cos differ in their last bit from machine to machine and from CUDA's; these do not.
// Each is within 2.5 ulp of the true value over the stated range (tests/gpu/test_math.py).
#pragma once
#include "jg/jg.cuh"

namespace jg {

constexpr double PI = 3.14159265358979323846;
constexpr double LN2_HI = 6.93147180369123816490e-01, LN2_LO = 1.90821492927058770002e-10;   // their sum is ln 2 to 86 bits

// e^x for x in [-700, 700].
JG_FN double exp_same(double x) {
    const double k = rint(x * 1.4426950408889634074);
    const double r = (x - k * LN2_HI) - k * LN2_LO;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;  p = p * r + 1.0 / 39916800.0;  p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;     p = p * r + 1.0 / 40320.0;     p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;        p = p * r + 1.0 / 120.0;       p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;          p = p * r + 0.5;
    p = 1.0 + (r + r * r * p);
    union { uint64_t bits; double value; } scale = {uint64_t(int64_t(k) + 1023) << 52};
    return p * scale.value;
}

// Natural logarithm of a positive normal x: x = 2^k m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m-1)/(m+1)).
JG_FN double log_same(double x) {
    union { double value; uint64_t bits; } u = {x};
    int k = int(u.bits >> 52) - 1023;
    u.bits = (u.bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
    double m = u.value;
    if (m > 1.41421356237309514547) { m *= 0.5; k += 1; }
    const double f = m - 1.0, s = f / (2.0 + f), z = s * s;
    double p = 2.0 / 23.0;
    p = p * z + 2.0 / 21.0;  p = p * z + 2.0 / 19.0;  p = p * z + 2.0 / 17.0;  p = p * z + 2.0 / 15.0;
    p = p * z + 2.0 / 13.0;  p = p * z + 2.0 / 11.0;  p = p * z + 2.0 / 9.0;   p = p * z + 2.0 / 7.0;
    p = p * z + 2.0 / 5.0;   p = p * z + 2.0 / 3.0;
    // log(1 + f) = f - f^2/2 + s (f^2/2 + z p): the leading terms keep the digits that 2 s would round away.
    const double half = 0.5 * f * f;
    return k * LN2_HI - ((half - (s * (half + z * p) + k * LN2_LO)) - f);
}

// atan of x in [0, 1], by two reductions to |t| <= tan(pi / 16).
JG_FN double atan_unit(double x) {
    double base = 0.0;
    if (x > 0.66817863791929891999) { base = 0.78539816339744830962; x = (x - 1.0) / (1.0 + x); }              // pi/4
    else if (x > 0.19891236737965800691) { base = 0.39269908169872415481; x = (x - 0.41421356237309504880) / (1.0 + x * 0.41421356237309504880); }
    const double z = x * x;
    double p = -1.0 / 23.0;
    p = p * z + 1.0 / 21.0;  p = p * z - 1.0 / 19.0;  p = p * z + 1.0 / 17.0;  p = p * z - 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;  p = p * z - 1.0 / 11.0;  p = p * z + 1.0 / 9.0;   p = p * z - 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;   p = p * z - 1.0 / 3.0;
    return base + (x + x * z * p);
}

// The angle of (x, y) in (-pi, pi], as C's atan2 for finite arguments (signed zeros count as +0).
JG_FN double atan2_same(double y, double x) {
    const double ax = x < 0 ? -x : x, ay = y < 0 ? -y : y;
    if (ax == 0 && ay == 0) return 0.0;
    double a = ay <= ax ? atan_unit(ay / ax) : 1.57079632679489661923 - atan_unit(ax / ay);
    if (x < 0) a = PI - a;
    return y < 0 ? -a : a;
}

// The unevaluated sum of two doubles: 106 bits of a number.
struct Twofold { double hi, lo; };
JG_FN Twofold sum_exactly(double a, double b) {
    const double s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}
JG_FN Twofold product_exactly(double a, double b) {
    const double p = a * b, sa = 134217729.0 * a, sb = 134217729.0 * b;              // 2^27 + 1 parts a factor's bits in two
    const double ah = sa - (sa - a), al = a - ah, bh = sb - (sb - b), bl = b - bh;
    return {p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
}
JG_FN Twofold minus(Twofold a, Twofold b) {
    const Twofold s = sum_exactly(a.hi, -b.hi);
    return sum_exactly(s.hi, s.lo + (a.lo - b.lo));
}
JG_FN Twofold times(Twofold a, Twofold b) {
    const Twofold p = product_exactly(a.hi, b.hi);
    return sum_exactly(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}
JG_FN Twofold over(Twofold a, double b) {
    const double q = a.hi / b;
    const Twofold p = product_exactly(q, b);
    return sum_exactly(q, ((a.hi - p.hi) - p.lo + a.lo) / b);
}

// The double nearest to the angle whose cosine is c, which is in [-1, 1]; 14 units in 10^10 of the next one at worst.
JG_FN double acos_nearest(double c) {
    const double sine = sqrt((1 - c) * (1 + c)), near = atan2_same(sine, c);
    if (sine == 0) return near;
    // A step of Newton's from there, with 1 - cos from its series at a sixteenth of the angle, doubled four times.
    const Twofold z = product_exactly(near / 16, near / 16);
    Twofold t = {1, 0};
    for (int k = 11; k > 0; --k) t = minus({1, 0}, over(times(z, t), (2 * k + 1) * (2 * k + 2)));
    Twofold w = times(z, t);
    w = {w.hi / 2, w.lo / 2};
    for (int k = 0; k < 4; ++k) {
        w = times(w, minus({2, 0}, w));
        w = {2 * w.hi, 2 * w.lo};
    }
    const Twofold off = minus(sum_exactly(1, -c), w);
    return near + (off.hi + off.lo) / sine;
}

// sin and cos of x, |x| below 1e5.
JG_FN void sincos_same(double x, double* sine, double* cosine) {
    const double k = rint(x * 0.63661977236758134308);
    const double r = ((x - k * 1.57079632673412561417e+00) - k * 6.07710050630396597660e-11) - k * 2.02226624879595063154e-21;
    const double z = r * r;
    double s = 1.0 / 121645100408832000.0, c = 1.0 / 6402373705728000.0;             // 1/19!, 1/18! and downward
    s = 1.0 / 355687428096000.0 - z * s;  c = 1.0 / 20922789888000.0 - z * c;
    s = 1.0 / 1307674368000.0 - z * s;    c = 1.0 / 87178291200.0 - z * c;
    s = 1.0 / 6227020800.0 - z * s;       c = 1.0 / 479001600.0 - z * c;
    s = 1.0 / 39916800.0 - z * s;         c = 1.0 / 3628800.0 - z * c;
    s = 1.0 / 362880.0 - z * s;           c = 1.0 / 40320.0 - z * c;
    s = 1.0 / 5040.0 - z * s;             c = 1.0 / 720.0 - z * c;
    s = 1.0 / 120.0 - z * s;              c = 1.0 / 24.0 - z * c;
    s = 1.0 / 6.0 - z * s;                c = 0.5 - z * c;
    s = r - r * z * s;                    c = 1.0 - z * c;
    const int q = int(int64_t(k) & 3);
    *sine = q == 0 ? s : q == 1 ? c : q == 2 ? -s : -c;
    *cosine = q == 0 ? c : q == 1 ? -s : q == 2 ? -c : s;
}

}  // namespace jg
