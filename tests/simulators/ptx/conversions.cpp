// conversions.cpp: PTX's cvt between every pair of types. Names: cvt[.rni|.rzi|.rmi|.rpi].<to>.<from>
#include <math.h>

#include <limits>

#include "machine.h"

namespace ptx {
namespace {
enum Rounding { NONE, NEAREST, ZERO, DOWN, UP };
template <class T> T whole(T v, Rounding r) {
    return r == NEAREST ? T(rint(v)) : r == ZERO ? T(trunc(v)) : r == DOWN ? T(floor(v)) : r == UP ? T(ceil(v)) : v;
}
template <class To, class From, Rounding R> To convert(From v, bool saturate) {
    constexpr bool to_float = To(0.5) != To(0), from_float = From(0.5) != From(0);
    if constexpr (from_float && !to_float) {             // clamped to the range; NaN is 0
        const double x = double(whole(v, R));
        if (x != x) return To(0);
        if (x >= double(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
        if (x <= double(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
        return To(x);
    } else if constexpr (from_float) {
        const To x = To(whole(v, R));
        return saturate ? (x != x || x < To(0) ? To(0) : x > To(1) ? To(1) : x) : x;
    } else if constexpr (to_float) {
        return To(v);
    } else {
        if (saturate) {
            const __int128 x = v, lo = std::numeric_limits<To>::min(), hi = std::numeric_limits<To>::max();
            return To(x < lo ? lo : x > hi ? hi : x);
        }
        return To(v);
    }
}
template <class To, class From, Rounding R> void run(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    const uint64_t* a = m.read(w, i.source[0]);
    uint64_t* d = m.write(w, i.destination[0]);
    each(lanes, [&](int l) { d[l] = bits(flush(convert<To, From, R>(flush(value<From>(a[l]), i), i.flags & SATURATE), i)) & i.mask; });
}
using Table = std::vector<std::pair<std::string, Operation>>;
template <class To, class From> void pair(Table& t, const std::string& names) {
    t.push_back({"cvt." + names, run<To, From, NONE>});
    if (From(0.5) != From(0)) {
        t.push_back({"cvt.rni." + names, run<To, From, NEAREST>});
        t.push_back({"cvt.rzi." + names, run<To, From, ZERO>});
        t.push_back({"cvt.rmi." + names, run<To, From, DOWN>});
        t.push_back({"cvt.rpi." + names, run<To, From, UP>});
    }
}
template <class To> void from(Table& t, const std::string& to) {
    pair<To, int8_t>(t, to + ".s8"); pair<To, uint8_t>(t, to + ".u8"); pair<To, int16_t>(t, to + ".s16"); pair<To, uint16_t>(t, to + ".u16");
    pair<To, int32_t>(t, to + ".s32"); pair<To, uint32_t>(t, to + ".u32"); pair<To, int64_t>(t, to + ".s64");
    pair<To, uint64_t>(t, to + ".u64"); pair<To, float>(t, to + ".f32"); pair<To, double>(t, to + ".f64");
}
}  // namespace

const Table& conversions() {
    static const Table* const all = [] {
        Table* t = new Table;
        from<int8_t>(*t, "s8"); from<uint8_t>(*t, "u8"); from<int16_t>(*t, "s16"); from<uint16_t>(*t, "u16"); from<int32_t>(*t, "s32");
        from<uint32_t>(*t, "u32"); from<int64_t>(*t, "s64"); from<uint64_t>(*t, "u64"); from<float>(*t, "f32"); from<double>(*t, "f64");
        return t;
    }();
    return *all;
}
}  // namespace ptx
