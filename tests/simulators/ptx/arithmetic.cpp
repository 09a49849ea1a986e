// arithmetic.cpp: what PTX's arithmetic, logic and comparisons do to the lanes of a warp.
#include <math.h>

#include "machine.h"

namespace ptx {
namespace {
#define LANES [](Machine & m, Warp & w, const Instruction& i, uint32_t lanes)
template <class T, class F> void unary(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, F f) {
    const uint64_t* a = m.read(w, i.source[0]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = bits(flush(f(flush(value<T>(a[l]), i)), i)) & i.mask; });
}
template <class T, class F> void binary(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, F f) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = bits(flush(f(flush(value<T>(a[l]), i), flush(value<T>(b[l]), i)), i)) & i.mask; });
}
template <class T, class F> void ternary(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, F f) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) {
        d[l] = bits(flush(f(flush(value<T>(a[l]), i), flush(value<T>(b[l]), i), flush(value<T>(c[l]), i)), i)) & i.mask;
    });
}
template <class T> struct Wide;
template <> struct Wide<int16_t> { using type = int32_t; };
template <> struct Wide<uint16_t> { using type = uint32_t; };
template <> struct Wide<int32_t> { using type = int64_t; };
template <> struct Wide<uint32_t> { using type = uint64_t; };
template <> struct Wide<int64_t> { using type = __int128; };
template <> struct Wide<uint64_t> { using type = unsigned __int128; };
template <class T> using Unsigned = std::make_unsigned_t<T>;

template <class T> T divide(T a, T b) {                  // by 0: all ones, as GPUs do
    if (b == 0) return T(~T(0));
    if (T(-1) < T(0) && b == T(-1)) return T(-Unsigned<T>(a));
    return a / b;
}
template <class T> T left(T a, uint32_t n) { return n >= 8 * sizeof(T) ? T(0) : T(Unsigned<T>(a) << n); }
template <class T> T right(T a, uint32_t n) { return n >= 8 * sizeof(T) ? (a < 0 ? T(-1) : T(0)) : T(a >> n); }
template <class T> T field(T a, uint32_t position, uint32_t length) {    // bfe
    constexpr uint32_t B = 8 * sizeof(T);
    position &= 255; length &= 255;
    if (!length) return 0;
    const Unsigned<T> v = position < B ? Unsigned<T>(a) >> position : 0;
    const bool sign = T(-1) < T(0) && (Unsigned<T>(a) >> (position + length - 1 < B ? position + length - 1 : B - 1)) & 1;
    if (length >= B) return position < B ? T(a >> position) : T(sign ? -1 : 0);
    const Unsigned<T> keep = (Unsigned<T>(1) << length) - 1, have = position < B ? keep & (position ? Unsigned<T>(~Unsigned<T>(0)) >> position : ~Unsigned<T>(0)) : 0;
    return T((v & have) | (sign ? ~have : 0));
}
template <class T> T insert(T from, T into, uint32_t position, uint32_t length) {   // bfi
    constexpr uint32_t B = 8 * sizeof(T);
    position &= 255; length &= 255;
    if (position >= B) return into;
    const T ones = length >= B ? T(~T(0)) : T((T(1) << length) - 1), where = T(ones << position);
    return T((into & ~where) | (T(from << position) & where));
}

template <class T> void integers(std::vector<std::pair<std::string, Operation>>& t, const std::string& s) {
    using W = typename Wide<T>::type;
    t.push_back({"add." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(Unsigned<T>(a) + Unsigned<T>(b)); }); }});
    t.push_back({"sub." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(Unsigned<T>(a) - Unsigned<T>(b)); }); }});
    t.push_back({"mul.lo." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(W(a) * W(b)); }); }});
    t.push_back({"mul.hi." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(W(a) * W(b) >> (8 * sizeof(T))); }); }});
    t.push_back({"mad.lo." + s, LANES { ternary<T>(m, w, i, lanes, [](T a, T b, T c) { return T(Unsigned<T>(W(a) * W(b)) + Unsigned<T>(c)); }); }});
    t.push_back({"mad.hi." + s, LANES { ternary<T>(m, w, i, lanes, [](T a, T b, T c) { return T(Unsigned<T>(W(a) * W(b) >> (8 * sizeof(T))) + Unsigned<T>(c)); }); }});
    t.push_back({"div." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return divide(a, b); }); }});
    t.push_back({"rem." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(Unsigned<T>(a) - Unsigned<T>(divide(a, b)) * Unsigned<T>(b)); }); }});
    t.push_back({"min." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a < b ? a : b; }); }});
    t.push_back({"max." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a > b ? a : b; }); }});
    t.push_back({"abs." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return a < 0 ? T(-Unsigned<T>(a)) : a; }); }});
    t.push_back({"neg." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(-Unsigned<T>(a)); }); }});
    t.push_back({"shr." + s, LANES {
        const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]);
        uint64_t* d = m.write(w, i.destination[0]);
        each(lanes, [&](int l) { d[l] = bits(right(value<T>(a[l]), uint32_t(b[l]))) & i.mask; });
    }});
    t.push_back({"bfe." + s, LANES {
        const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
        uint64_t* d = m.write(w, i.destination[0]);
        each(lanes, [&](int l) { d[l] = bits(field(value<T>(a[l]), uint32_t(b[l]), uint32_t(c[l]))) & i.mask; });
    }});
    if constexpr (sizeof(T) < 8) {
        t.push_back({"mul.wide." + s, LANES {
            const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]);
            uint64_t* d = m.write(w, i.destination[0]);
            each(lanes, [&](int l) { d[l] = bits(W(W(value<T>(a[l])) * W(value<T>(b[l])))) & i.mask; });
        }});
        t.push_back({"mad.wide." + s, LANES {
            const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
            uint64_t* d = m.write(w, i.destination[0]);
            each(lanes, [&](int l) { d[l] = (bits(W(W(value<T>(a[l])) * W(value<T>(b[l])))) + c[l]) & i.mask; });
        }});
    }
}
template <class T> void bitwise(std::vector<std::pair<std::string, Operation>>& t, const std::string& s) {
    t.push_back({"and." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(a & b); }); }});
    t.push_back({"or." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(a | b); }); }});
    t.push_back({"xor." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(a ^ b); }); }});
    t.push_back({"not." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(~a); }); }});
    t.push_back({"shl." + s, LANES {
        const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]);
        uint64_t* d = m.write(w, i.destination[0]);
        each(lanes, [&](int l) { d[l] = bits(left(value<T>(a[l]), uint32_t(b[l]))) & i.mask; });
    }});
    t.push_back({"brev." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { T r = 0; for (unsigned k = 0; k < 8 * sizeof(T); ++k) r = T(r << 1 | (a >> k & 1)); return r; }); }});
    t.push_back({"popc." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(__builtin_popcountll(a)); }); }});
    t.push_back({"clz." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(a ? __builtin_clzll(a) - (64 - int(8 * sizeof(T))) : 8 * sizeof(T)); }); }});
    t.push_back({"bfi." + s, LANES {
        const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]), *e = m.read(w, i.source[3]);
        uint64_t* d = m.write(w, i.destination[0]);
        each(lanes, [&](int l) { d[l] = bits(insert(T(a[l]), T(b[l]), uint32_t(c[l]), uint32_t(e[l]))) & i.mask; });
    }});
}
template <class T> void floats(std::vector<std::pair<std::string, Operation>>& t, const std::string& s) {
    t.push_back({"add.rn." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a + b; }); }});
    t.push_back({"sub.rn." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a - b; }); }});
    t.push_back({"mul.rn." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a * b; }); }});
    t.push_back({"div.rn." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a / b; }); }});
    t.push_back({"fma.rn." + s, LANES { ternary<T>(m, w, i, lanes, [](T a, T b, T c) { return T(sizeof(T) == 8 ? fma(a, b, c) : fmaf(a, b, c)); }); }});
    t.push_back({"sqrt.rn." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(sizeof(T) == 8 ? sqrt(a) : sqrtf(a)); }); }});
    t.push_back({"rcp.rn." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(1) / a; }); }});
    t.push_back({"min." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a != a ? b : b != b ? a : a < b ? a : b < a ? b : (signbit(a) ? a : b); }); }});
    t.push_back({"max." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return a != a ? b : b != b ? a : a > b ? a : b > a ? b : (signbit(a) ? b : a); }); }});
    t.push_back({"abs." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return T(fabs(a)); }); }});
    t.push_back({"neg." + s, LANES { unary<T>(m, w, i, lanes, [](T a) { return -a; }); }});
    t.push_back({"copysign." + s, LANES { binary<T>(m, w, i, lanes, [](T a, T b) { return T(copysign(b, a)); }); }});
}

// setp: destination[0] and, if there, destination[1] its opposite; source[2] a predicate to combine with, source[3] how (0 and, 1 or, 2 xor).
template <class T, class F> void compare(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, F f) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = i.source[2] >= 0 ? m.read(w, i.source[2]) : nullptr;
    each(lanes, [&](int l) {
        bool yes = f(flush(value<T>(a[l]), i), flush(value<T>(b[l]), i)), no = !yes;
        if (c) {
            const bool with = (c[l] & 1) != (i.flags & NEGATE ? 1u : 0u);
            yes = i.source[3] == 0 ? yes && with : i.source[3] == 1 ? yes || with : yes != with;
            no = i.source[3] == 0 ? no && with : i.source[3] == 1 ? no || with : no != with;
        }
        if (i.destination[0] >= 0) m.write(w, i.destination[0])[l] = yes;
        if (i.destination[1] >= 0) m.write(w, i.destination[1])[l] = no;
    });
}
template <class T> void comparisons(std::vector<std::pair<std::string, Operation>>& t, const std::string& s) {
    t.push_back({"setp.eq." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a == b; }); }});
    t.push_back({"setp.ne." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a == a && b == b && a != b; }); }});
    t.push_back({"setp.lt." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a < b; }); }});
    t.push_back({"setp.le." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a <= b; }); }});
    t.push_back({"setp.gt." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a > b; }); }});
    t.push_back({"setp.ge." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a >= b; }); }});
    if (T(0.5) != T(0)) {                                // unordered: true where one is NaN
        t.push_back({"setp.equ." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a != a || b != b || a == b; }); }});
        t.push_back({"setp.neu." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return !(a == b); }); }});
        t.push_back({"setp.ltu." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return !(a >= b); }); }});
        t.push_back({"setp.leu." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return !(a > b); }); }});
        t.push_back({"setp.gtu." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return !(a <= b); }); }});
        t.push_back({"setp.geu." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return !(a < b); }); }});
        t.push_back({"setp.num." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a == a && b == b; }); }});
        t.push_back({"setp.nan." + s, LANES { compare<T>(m, w, i, lanes, [](T a, T b) { return a != a || b != b; }); }});
    }
}

void lop3(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]), *e = m.read(w, i.source[3]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) {
        uint64_t r = 0;
        for (int k = 0; k < 8; ++k)
            if (e[l] >> k & 1) r |= (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
        d[l] = r & 0xffffffffu;
    });
}
template <bool RIGHT, bool WRAP> void funnel(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) {
        const uint64_t both = (b[l] & 0xffffffffu) << 32 | (a[l] & 0xffffffffu);
        const uint32_t n = WRAP ? uint32_t(c[l]) & 31 : uint32_t(c[l]) < 32 ? uint32_t(c[l]) : 32;
        d[l] = (RIGHT ? both >> n : both << n >> 32) & 0xffffffffu;
    });
}
void prmt(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) {
        const uint64_t both = (b[l] & 0xffffffffu) << 32 | (a[l] & 0xffffffffu);
        uint64_t r = 0;
        for (int k = 0; k < 4; ++k) {
            const uint32_t pick = uint32_t(c[l]) >> (4 * k) & 15, byte = both >> (8 * (pick & 7)) & 255;
            r |= uint64_t(pick & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * k);
        }
        d[l] = r;
    });
}
template <class T, bool SHIFT> void bfind(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t* a = m.read(w, i.source[0]);
    uint64_t* d = m.write(w, i.destination[0]);
    constexpr int B = 8 * sizeof(T);
    each(lanes, [&](int l) {
        const T v = value<T>(a[l]);
        const uint64_t u = Unsigned<T>(v < 0 ? ~v : v);
        const int top = u ? 63 - __builtin_clzll(u) : -1;
        d[l] = top < 0 ? 0xffffffffu : uint32_t(SHIFT ? B - 1 - top : top);
    });
}
void mov(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t* a = m.read(w, i.source[0]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = a[l] & i.mask; });
}
void selp(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = ((c[l] & 1) != (i.flags & NEGATE ? 1u : 0u) ? a[l] : b[l]) & i.mask; });
}
void pack(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {   // mov.b64 d, {a, b, ..}: `size` bytes each
    each(lanes, [&](int l) {
        uint64_t r = 0;
        for (int k = 0; k < i.count; ++k) r |= (m.read(w, i.source[k])[l] & ((1ull << (8 * i.size)) - 1)) << (8 * i.size * k);
        m.write(w, i.destination[0])[l] = r;
    });
}
void unpack(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t* a = m.read(w, i.source[0]);
    each(lanes, [&](int l) {
        const uint64_t v = a[l];
        for (int k = 0; k < i.count; ++k)
            if (i.destination[k] >= 0) m.write(w, i.destination[k])[l] = v >> (8 * i.size * k) & ((1ull << (8 * i.size)) - 1);
    });
}
void cvta(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {   // offset: what to add on the way (modulo 2^64)
    const uint64_t* a = m.read(w, i.source[0]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = a[l] + uint64_t(i.offset); });
}
void nothing(Machine&, Warp&, const Instruction&, uint32_t) {}
}  // namespace

const std::vector<std::pair<std::string, Operation>>& arithmetic() {
    static const auto* const all = [] {
        auto* t = new std::vector<std::pair<std::string, Operation>>;
        integers<int16_t>(*t, "s16"); integers<uint16_t>(*t, "u16"); integers<int32_t>(*t, "s32");
        integers<uint32_t>(*t, "u32"); integers<int64_t>(*t, "s64"); integers<uint64_t>(*t, "u64");
        bitwise<uint16_t>(*t, "b16"); bitwise<uint32_t>(*t, "b32"); bitwise<uint64_t>(*t, "b64");
        floats<float>(*t, "f32"); floats<double>(*t, "f64");
        comparisons<int16_t>(*t, "s16"); comparisons<uint16_t>(*t, "u16"); comparisons<int32_t>(*t, "s32");
        comparisons<uint32_t>(*t, "u32"); comparisons<int64_t>(*t, "s64"); comparisons<uint64_t>(*t, "u64");
        comparisons<float>(*t, "f32"); comparisons<double>(*t, "f64");
        t->push_back({"and.pred", LANES { binary<uint8_t>(m, w, i, lanes, [](uint8_t a, uint8_t b) { return uint8_t(a & b & 1); }); }});
        t->push_back({"or.pred", LANES { binary<uint8_t>(m, w, i, lanes, [](uint8_t a, uint8_t b) { return uint8_t((a | b) & 1); }); }});
        t->push_back({"xor.pred", LANES { binary<uint8_t>(m, w, i, lanes, [](uint8_t a, uint8_t b) { return uint8_t((a ^ b) & 1); }); }});
        t->push_back({"not.pred", LANES { unary<uint8_t>(m, w, i, lanes, [](uint8_t a) { return uint8_t(~a & 1); }); }});
        t->push_back({"lop3.b32", lop3});
        t->push_back({"shf.r.wrap.b32", funnel<true, true>}); t->push_back({"shf.r.clamp.b32", funnel<true, false>});
        t->push_back({"shf.l.wrap.b32", funnel<false, true>}); t->push_back({"shf.l.clamp.b32", funnel<false, false>});
        t->push_back({"prmt.b32", prmt});
        t->push_back({"bfind.u32", bfind<uint32_t, false>}); t->push_back({"bfind.shiftamt.u32", bfind<uint32_t, true>});
        t->push_back({"bfind.s32", bfind<int32_t, false>}); t->push_back({"bfind.shiftamt.s32", bfind<int32_t, true>});
        t->push_back({"bfind.u64", bfind<uint64_t, false>}); t->push_back({"bfind.shiftamt.u64", bfind<uint64_t, true>});
        t->push_back({"mov", mov}); t->push_back({"selp", selp}); t->push_back({"pack", pack}); t->push_back({"unpack", unpack});
        t->push_back({"cvta", cvta}); t->push_back({"nothing", nothing});
        return t;
    }();
    return *all;
}
}  // namespace ptx
