// lzw.cu: TIFF's LZW (compression 5), strips to bytes.
//
//   codes of 9 to 12 bits, highest bit first; 256 clears the table, 257 ends. Code c > 257 stands for the string of the
//   (c - 258)th code since the clear and the first byte of the one after it. Codes widen at entries 511, 1023 and 2047.
//
//   lzw_strips    a strip from its first code to its last: for a CPU, whose cores have other strips to decode
// and for a GPU, in four launches, a strip cut at its clear codes into segments that are decoded side by side:
//   lzw_segments  where the segments begin and how many codes they have: a block looks at 1024 codes at once for the next clear,
//                 since the place of a segment's k-th code is known from k. Encoders clear when their table is full, so the
//                 segments of a strip have one length: where the first ends the next are guessed, all at once, and lzw_lengths
//                 looks whether a clear lies within one
//   lzw_lengths   how many bytes each segment stands for, and each of its 128 runs of codes
//   lzw_places    where each segment's bytes begin in its strip, and whether they are as many as the strip's
//   lzw_bytes     the bytes. A code's string is read off backwards along the codes it goes back to, without a table
//
// A strip that is not decoded to exactly its length is left with status 1 and its output in any state, within its bounds: one
// that does not begin with a clear, ends early, overshoots, has a code that is not in the table yet or a full table. Such are
// another decoder's to read or to refuse (tiff.py asks imagecodecs).
//
// Source   TIFF 6.0, section 13; codes as libtiff writes them
// Oracle   imagecodecs on real files and on drawn bytes (tests/images/test_lzw.py)
// Launch   lzw_strips: a strip per block, one thread at work; 32 KB of shared memory. lzw_segments, lzw_places: a strip per block.
//          lzw_lengths, lzw_bytes: a block per segment, of as many as there is room for; those past the strip's number return. 8 and 12 KB.
// Order    each byte is written by one thread; lengths are integers.
#include "jg/jg.cuh"

namespace jg {
constexpr int LZW_ENTRIES = 4096, CLEAR = 256, END = 257, FIRST = 258;
constexpr int AT_ONCE = 4;                             // codes of 12 bits in one word of bits_at
constexpr uint64_t ONE_LONGER = 1ull << 56;            // an entry: its length above 7 bytes of string, the first the lowest
constexpr uint64_t SEVEN = 7 * ONE_LONGER, LONG = 8 * ONE_LONGER;   // a long one: where it stands in the output, then length << 32

struct LzwTable { uint64_t entry[LZW_ENTRIES]; };

struct LzwStrip {
    const uint8_t* __restrict__ data;                  // the strip's codes
    int64_t bits;
    uint8_t* __restrict__ out;                         // its bytes
    int64_t size;

    JG_FN uint64_t bits_at(const uint8_t* data, int64_t bit) {   // 57 bits or more from there, highest first; bit + 64 lies within
        const uint8_t* p = data + (bit >> 3);
#if defined(JG_SERIAL)
        uint64_t word;
        memcpy(&word, p, 8);
        word = __builtin_bswap64(word);
#else
        uint64_t word = 0;
        for (int k = 0; k < 8; ++k) word = word << 8 | p[k];
#endif
        return word << (bit & 7);
    }
    JG_FN void put_eight(uint8_t* to, uint64_t bytes) {
#if defined(JG_SERIAL)
        memcpy(to, &bytes, 8);
#else
        for (int k = 0; k < 8; ++k) to[k] = uint8_t(bytes >> (8 * k));
#endif
    }
    JG_FN int64_t length_of(uint64_t entry) {
        return entry < LONG ? int64_t(entry >> 56) : int64_t((entry & (ONE_LONGER - 1)) >> 32);
    }

    // The whole strip; whether its codes gave exactly `size` bytes.
    __device__ bool decode(LzwTable& table) const {
        uint64_t* const entry = table.entry;           // 0 .. 257 are there
        int64_t bit = 0, at = 0;
        uint64_t before = 0;                           // the entry of the last code; 0 after a clear
        int next = FIRST, width = 9;
        for (bool begun = false;; begun = true) {
            // As many codes as are sure to have this width, to lie 8 bytes inside the strip and to leave 8 bytes of room.
            int64_t n = smaller(smaller(int64_t((1 << width) - 1 - next), (size - at) / 8), (bits - bit - 64) / width);
            if (before != 0) {
                const uint8_t* const from = data;      // locals: a byte that is written might be a member
                uint8_t* to = out + at;
                uint64_t last = before;
                int64_t b = bit;
                int e = next;
                for (const int w = width; n >= AT_ONCE; n -= AT_ONCE) {
                    uint64_t word = bits_at(from, b);
                    int k = 0;
                    for (; k < AT_ONCE; ++k) {
                        if (last >= SEVEN) break;
                        const uint64_t code = word >> (64 - w);
                        if (code >= uint64_t(e)) break;
                        const uint64_t now = entry[code];
                        if (now >= LONG) break;        // CLEAR and END too
                        entry[e] = (last + ONE_LONGER) | (now & 255) << (int(last >> 56) * 8);
                        put_eight(to, now);
                        to += now >> 56;
                        word <<= w;
                        b += w;
                        ++e;
                        last = now;
                    }
                    if (k < AT_ONCE) break;
                }
                at = to - out; bit = b; next = e; before = last;
            }
            // Then one with every check: the end, a clear, a long string, the very entry that it makes, a wider code.
            if (at == size) return true;
            if (next + 1 == 1 << width && width < 12) ++width;
            if (bit + width > bits) return false;
            uint32_t code = 0;
            for (int k = 0; k < width; ++k) code = code << 1 | (data[(bit + k) >> 3] >> (7 - ((bit + k) & 7)) & 1);
            bit += width;
            if (!begun && code != CLEAR) return false;
            if (code == CLEAR) { before = 0; next = FIRST; width = 9; continue; }
            if (code == END) return false;
            if (before == 0) {
                if (code > 255) return false;
                out[at++] = uint8_t(code);
                before = entry[code];
                continue;
            }
            if (code > uint32_t(next) || next >= LZW_ENTRIES) return false;
            const int64_t longer = length_of(before) + 1, from = at - (longer - 1);
            if (longer > 7) entry[next] = LONG | uint64_t(longer) << 32 | uint64_t(from);
            else entry[next] = (before + ONE_LONGER) | uint64_t(out[from]) << (8 * (longer - 1));
            const uint64_t now = entry[code];
            const int64_t length = length_of(now);
            if (length > size - at) return false;
            if (now >= LONG) {                         // its last byte may be the first of those written here
                const uint8_t* const string = out + (now & 0xffffffffu);
                copy_ahead(out + at, string, length - 1);
                out[at + length - 1] = string[length - 1];
            } else {
                for (int k = 0; k < int(length); ++k) out[at + k] = uint8_t(now >> (8 * k));
            }
            if (longer <= 7) entry[next] = (before + ONE_LONGER) | uint64_t(out[at]) << (8 * (longer - 1));
            at += length;
            ++next;
            before = now;
        }
    }
    JG_FN void copy_ahead(uint8_t* to, const uint8_t* from, int64_t n) {    // from + n <= to
#if defined(JG_SERIAL)
        memcpy(to, from, size_t(n));
#else
        for (int64_t k = 0; k < n; ++k) to[k] = from[k];
#endif
    }
};
}  // namespace jg

// In   data    uint8  [D]      what the strips lie in
//      strips  int64  [S, 4]   of each: its first byte in data, its bytes there, its first byte in out, its bytes there
// Out  out     uint8  [...]
//      status  int32  [S]      0, or 1: not decoded
extern "C" __global__ void __launch_bounds__(128) lzw_strips(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, uint8_t* __restrict__ out, int32_t* __restrict__ status)
{
    JG_SHARED(jg::LzwTable, table);
    JG_FOR(c, 258) table.entry[c] = c < 256 ? jg::ONE_LONGER | uint64_t(c) : jg::LONG;
    __syncthreads();
    JG_ONCE {
        const int64_t* const strip = strips + 4 * int64_t(blockIdx.x);
        const jg::LzwStrip s{data + strip[0], 8 * strip[1], out + strip[2], strip[3]};
        status[blockIdx.x] = s.decode(table) ? 0 : 1;
    }
}
JG_REGISTER(lzw_strips)

namespace jg {
constexpr int MAX_CODES = LZW_ENTRIES - FIRST + 1;    // of a segment: the first makes no entry
constexpr int RUNS = 128;                              // of a segment's codes, each a thread's

JG_FN int width_of(int k) { return k < 254 ? 9 : k < 766 ? 10 : k < 1790 ? 11 : 12; }    // of a segment's k-th code
JG_FN int64_t place_of(int k) {                        // bits of the codes before it
    return k < 254 ? 9 * k : k < 766 ? 10 * k - 254 : k < 1790 ? 11 * k - 1020 : 12 * k - 2810;
}
// Bits bit .. bit + width of bytes, highest first; up to 2 bytes more are read.
JG_FN int bits_from(const uint8_t* data, int bit, int width) {
    const uint8_t* const at = data + (bit >> 3);
    const uint32_t word = uint32_t(at[0]) << 16 | uint32_t(at[1]) << 8 | at[2];
    return int(word >> (24 - (bit & 7) - width) & ((1u << width) - 1));
}
JG_FN int code_from(const uint8_t* data, int64_t bits, int64_t bit, int width) {         // END where the strip is at its end
    return bit + width > bits ? END : bits_from(data + (bit >> 3), int(bit & 7), width);
}

// The first k of 0 .. n-1 for which f(k) holds, in every thread; n where there is none. Ends with a barrier.
template <class F> JG_FN int first_where(int n, int& first, F f) {
    constexpr int AT_ONCE = 1024;
    for (int k0 = 0; k0 < n; k0 += AT_ONCE) {
        JG_ONCE first = n;
        __syncthreads();
        int mine = n;
        JG_FOR_OWN(k, k0, smaller(k0 + AT_ONCE, n)) if (f(k)) mine = smaller(mine, k);
        gather_min(&first, mine);
        __syncthreads();
        const int here = first;
        __syncthreads();
        if (here < n) return here;
    }
    return n;
}

// f(k, code) of the n codes of a segment, which lie within their strip; a width at a time.
template <class F> JG_FN void each_code(const uint8_t* data, int64_t start, int n, F f) {
    const uint8_t* const from = data + (start >> 3);
    JG_UNROLL for (int width = 9; width <= 12; ++width) {
        const int k0 = width == 9 ? 0 : (1 << (width - 1)) - FIRST, k1 = width == 12 ? n : smaller(n, (1 << width) - FIRST);
        const int bit = int(start & 7) + int(place_of(k0)) - width * k0;
        JG_FOR_OWN(k, k0, k1) f(k, bits_from(from, bit + width * k, width));
    }
}

struct LzwCodes { uint16_t code[MAX_CODES]; };
}  // namespace jg

// In   data    uint8  [D]       2 bytes longer than the last strip's end
//      strips  int64  [S, 4]
//      capacity    int64  [S + 1]   the first of each strip's segments, of the G there is room for
// Out  start   int64  [G]       the first bit, from the strip's beginning, of each segment; those past the last are undefined
//      codes   int32  [G]       its codes, clear and end not counted
//      result   int32  [S]       segments; more than there is room for where there are more, 0 where the strip begins with no clear
extern "C" __global__ void __launch_bounds__(128) lzw_segments(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, const int64_t* __restrict__ capacity,
    int64_t* __restrict__ start, int32_t* __restrict__ codes, int32_t* __restrict__ result)
{
    JG_SHARED(int, first);
    const int64_t* const strip = strips + 4 * int64_t(blockIdx.x);
    const uint8_t* const from = data + strip[0];
    const int64_t bits = 8 * strip[1], base = capacity[blockIdx.x];
    const int maximum = int(capacity[blockIdx.x + 1] - base);
    if (jg::code_from(from, bits, 0, 9) != jg::CLEAR) {
        JG_ONCE result[blockIdx.x] = 0;
        return;
    }
    int64_t bit = 9;
    int n = 0;
    for (;;) {                                         // the same in every thread
        // One too many, where neither clear nor end comes: a full table.
        const int end = jg::first_where(jg::MAX_CODES + 1, first, [&](int k) {
            const int code = jg::code_from(from, bits, bit + jg::place_of(k), jg::width_of(k));
            return code == jg::CLEAR || code == jg::END;
        });
        if (n >= maximum) { ++n; break; }
        JG_ONCE { start[base + n] = bit; codes[base + n] = end; }
        ++n;
        const int width = jg::width_of(end), step = int(jg::place_of(end)) + width;
        if (end > jg::MAX_CODES || jg::code_from(from, bits, bit + step - width, width) != jg::CLEAR) break;
        bit += step;
        const int more = jg::first_where(maximum - n, first, [&](int j) {
            return jg::code_from(from, bits, bit + int64_t(j + 1) * step - width, width) != jg::CLEAR;
        });
        JG_FOR(j, more) { start[base + n + j] = bit + int64_t(j) * step; codes[base + n + j] = end; }
        n += more;
        bit += int64_t(more) * step;
    }
    JG_ONCE result[blockIdx.x] = n;
}
JG_REGISTER(lzw_segments)

// In   data, strips, capacity, start, codes, result   as above
//      strip_of  int32  [G]        the strip of each segment
// Out  bytes     int32  [G]        each segment's; -1 for one with a code that cannot stand where it does; undefined past the last
//      runs      int32  [G, 128]   bytes of the segment's codes up to the end of each of its runs
extern "C" __global__ void __launch_bounds__(128) lzw_lengths(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, const int64_t* __restrict__ capacity,
    const int32_t* __restrict__ strip_of, const int64_t* __restrict__ start, const int32_t* __restrict__ codes,
    const int32_t* __restrict__ result, int32_t* __restrict__ bytes, int32_t* __restrict__ runs)
{
    constexpr int GROUP = 16;
    struct Shared { int32_t run[jg::RUNS], group[jg::RUNS / GROUP], wrong; };
    JG_SHARED(jg::LzwCodes, s);
    JG_SHARED(Shared, t);
    const int64_t segment = blockIdx.x;
    const int strip = strip_of[segment];
    if (segment - capacity[strip] >= result[strip]) return;
    const int n = codes[segment];
    if (n > jg::MAX_CODES) {
        JG_ONCE bytes[segment] = -1;
        return;
    }
    JG_ONCE t.wrong = 0;
    __syncthreads();
    const int64_t* const of = strips + 4 * int64_t(strip);
    int wrong = 0;
    jg::each_code(data + of[0], start[segment], n, [&](int k, int code) {
        s.code[k] = uint16_t(code);
        wrong |= unsigned(code - jg::CLEAR) < 2u || code >= (k == 0 ? jg::CLEAR : jg::FIRST + k);
    });
    jg::gather_max(&t.wrong, wrong);
    __syncthreads();
    if (t.wrong) {
        JG_ONCE bytes[segment] = -1;
        return;
    }
    const int run = (n + jg::RUNS - 1) / jg::RUNS;
    JG_FOR(p, jg::RUNS) {
        int sum = 0, k = jg::smaller(n, (p + 1) * run) - 1, c = k < 0 ? 0 : s.code[k];
        for (; k >= p * run; ++sum) {                  // a byte per step: one along the code's, or its first and on to the code before
            const bool more = c >= jg::FIRST;
            c = s.code[more ? c - jg::FIRST : jg::larger(k - 1, 0)];
            k -= !more;
        }
        t.run[p] = sum;
    }
    __syncthreads();
    JG_FOR(g, jg::RUNS / GROUP) {
        int sum = 0;
        for (int p = g * GROUP; p < (g + 1) * GROUP; ++p) sum += t.run[p];
        t.group[g] = sum;
    }
    __syncthreads();
    JG_FOR(p, jg::RUNS) {
        int sum = 0;
        for (int g = 0; g < p / GROUP; ++g) sum += t.group[g];
        for (int q = p / GROUP * GROUP; q <= p; ++q) sum += t.run[q];
        runs[segment * jg::RUNS + p] = sum;
        if (p == jg::RUNS - 1) bytes[segment] = sum;
    }
}
JG_REGISTER(lzw_lengths)

// In   strips, capacity, result, bytes   as above
// Out  place   int64  [G]   where each segment's bytes begin in its strip
//      status  int64  [S]   0, or 1: not to be decoded
extern "C" __global__ void __launch_bounds__(128) lzw_places(
    const int64_t* __restrict__ strips, const int64_t* __restrict__ capacity, const int32_t* __restrict__ result,
    const int32_t* __restrict__ bytes, int64_t* __restrict__ place, int64_t* __restrict__ status)
{
    struct Shared { int64_t run[jg::RUNS]; int wrong; };
    JG_SHARED(Shared, s);
    const int64_t base = capacity[blockIdx.x];
    const int n = result[blockIdx.x];
    if (n < 1 || n > int(capacity[blockIdx.x + 1] - base)) {
        JG_ONCE status[blockIdx.x] = 1;
        return;
    }
    JG_ONCE s.wrong = 0;
    __syncthreads();
    const int run = (n + jg::RUNS - 1) / jg::RUNS;
    int wrong = 0;
    JG_FOR(p, jg::RUNS) {
        int64_t sum = 0;
        for (int k = p * run; k < jg::smaller(n, (p + 1) * run); ++k) {
            wrong |= bytes[base + k] < 0;
            sum += bytes[base + k];
        }
        s.run[p] = sum;
    }
    jg::gather_max(&s.wrong, wrong);
    __syncthreads();
    JG_FOR(p, jg::RUNS) {
        int64_t at = 0;
        for (int q = 0; q < p; ++q) at += s.run[q];
        for (int k = p * run; k < jg::smaller(n, (p + 1) * run); ++k) {
            place[base + k] = at;
            at += bytes[base + k];
        }
        if (p == jg::RUNS - 1) status[blockIdx.x] = s.wrong || at != strips[4 * int64_t(blockIdx.x) + 3];
    }
}
JG_REGISTER(lzw_places)

// In   data, strips, capacity, strip_of, start, codes, result, runs, place   as above
//      status  int64  [S]   strips with another status than 0 are left alone
// Out  out     uint8  [...]
extern "C" __global__ void __launch_bounds__(128) lzw_bytes(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, const int64_t* __restrict__ capacity,
    const int32_t* __restrict__ strip_of, const int64_t* __restrict__ start, const int32_t* __restrict__ codes,
    const int32_t* __restrict__ result, const int32_t* __restrict__ runs, const int64_t* __restrict__ place,
    const int64_t* __restrict__ status, uint8_t* __restrict__ out)
{
    struct Shared { jg::LzwCodes codes; uint8_t first[jg::MAX_CODES]; };
    JG_SHARED(Shared, s);
    const int64_t segment = blockIdx.x;
    const int strip = strip_of[segment];
    if (segment - capacity[strip] >= result[strip] || status[strip] != 0) return;
    const int n = codes[segment];
    const int64_t* const of = strips + 4 * int64_t(strip);
    jg::each_code(data + of[0], start[segment], n, [&](int k, int code) { s.codes.code[k] = uint16_t(code); });
    __syncthreads();
    const uint16_t* const codes_of = s.codes.code;
    JG_FOR(k, n) {                                     // a code goes back to an earlier one, so this ends
        int c = codes_of[k];
        while (c >= jg::FIRST) c = codes_of[c - jg::FIRST];
        s.first[k] = uint8_t(c);
    }
    __syncthreads();
    const int run = (n + jg::RUNS - 1) / jg::RUNS;
    uint8_t* const to = out + of[2] + place[segment];
    JG_FOR(p, jg::RUNS) {                              // a byte per step, from the run's last to its first
        uint8_t* back = to + runs[segment * jg::RUNS + p];
        int k = jg::smaller(n, (p + 1) * run) - 1, c = k < 0 ? 0 : codes_of[k];
        while (k >= p * run) {
            const bool more = c >= jg::FIRST;          // the last byte of a string is the first of the code after it
            const int e = more ? c - jg::FIRST : jg::larger(k - 1, 0);
            *--back = uint8_t(more ? s.first[e + 1] : c);
            c = codes_of[e];
            k -= !more;
        }
    }
}
JG_REGISTER(lzw_bytes)
