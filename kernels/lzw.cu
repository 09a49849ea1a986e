// lzw.cu: TIFF's LZW (compression 5), strips to bytes.
//
//   codes of 9 to 12 bits, highest bit first; 256 clears the table, 257 ends. Code c > 257 stands for the string of the
//   (c - 258)th code since the clear and the first byte of the one after it. Codes widen at entries 511, 1023 and 2047.
//
//   lzw_strips    a strip from its first code to its last: for a CPU, whose cores have other strips to decode
// and for a GPU, in three launches, a strip cut at its clear codes:
//   lzw_segments  where the segments between clears begin and how many codes they have: the place of a segment's k-th code is
//                 known from k, so a block looks at 1024 codes at once for the next clear
//   lzw_lengths   how many bytes each segment stands for; the caller sums them, and sets status 1 where the sum is not the strip's
//   lzw_bytes     the bytes. A code's string is read off backwards along the codes it goes back to, without a table
//
// A strip that is not decoded to exactly its length is left with status 1 and its output in any state, within its bounds: one
// that does not begin with a clear, ends early, overshoots, has a code that is not in the table yet or a full table. Such are
// another decoder's to read or to refuse (fields.py asks imagecodecs).
//
// Source   TIFF 6.0, section 13; codes as libtiff writes them
// Oracle   imagecodecs on real files and on drawn bytes (tests/test_lzw_imagecodecs.py)
// Launch   lzw_strips: a strip a block, one thread at work; 32 KB of shared memory. lzw_segments: a strip a block. lzw_lengths,
//          lzw_bytes: a block a segment, of as many as there is room for; those past the strip's number return. 12 KB.
// Order    each byte is written by one thread; lengths are integers.
#include "jg.cuh"

namespace jg {
constexpr int LZW_ENTRIES = 4096, CLEAR = 256, END = 257, FIRST = 258;
constexpr uint64_t ONE_LONGER = 1ull << 56;            // an entry: its length above 7 bytes of string, the first the lowest
constexpr uint64_t SEVEN = 7 * ONE_LONGER, LONG = 8 * ONE_LONGER;   // a long one: where it stands in the output, then length << 32

struct LzwTable { uint64_t entry[LZW_ENTRIES]; };

struct LzwStrip {
    const uint8_t* __restrict__ data;                  // the strip's codes
    int64_t bits;
    uint8_t* __restrict__ out;                         // its bytes
    int64_t size;

    JG_FN uint32_t code_at(const uint8_t* data, int64_t bit, int width) {   // bit + 32 lies within the strip
        const uint8_t* p = data + (bit >> 3);
#if defined(JG_SERIAL)
        uint32_t word;
        memcpy(&word, p, 4);
        word = __builtin_bswap32(word);
#else
        const uint32_t word = uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
#endif
        return (word << (bit & 7)) >> (32 - width);
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
        uint64_t* const entry = table.entry;           // 0 .. 255 are there
        int64_t bit = 0, at = 0;
        uint64_t before = 0;                           // the entry of the last code; 0 after a clear
        int next = FIRST, width = 9;
        for (bool begun = false;; begun = true) {
            // As many codes as are sure to have this width, to lie 8 bytes inside the strip and to leave 8 bytes of room.
            int64_t n = least(least(int64_t((1 << width) - 1 - next), (size - at) / 8), (bits - bit - 64) / width);
            if (before != 0) {
                const uint8_t* const from = data;      // locals: a byte that is written might be a member
                uint8_t* to = out + at;
                uint64_t last = before;
                int64_t b = bit;
                int e = next;
                for (const int w = width; n > 0; --n) {
                    if (last >= SEVEN) break;
                    const uint32_t code = code_at(from, b, w);
                    if (code - CLEAR < 2u || code >= uint32_t(e)) break;
                    const uint64_t now = entry[code];
                    if (now >= LONG) break;
                    entry[e] = (last + ONE_LONGER) | (now & 255) << (int(last >> 56) * 8);
                    put_eight(to, now);
                    to += now >> 56;
                    b += w;
                    ++e;
                    last = now;
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
    JG_FOR(c, 256) table.entry[c] = jg::ONE_LONGER | uint64_t(c);
    __syncthreads();
    JG_ONCE {
        const int64_t* const strip = strips + 4 * int64_t(blockIdx.x);
        const jg::LzwStrip s{data + strip[0], 8 * strip[1], out + strip[2], strip[3]};
        status[blockIdx.x] = s.decode(table) ? 0 : 1;
    }
}
JG_REGISTER(lzw_strips)

namespace jg {
constexpr int MOST_CODES = LZW_ENTRIES - FIRST + 1;    // of a segment: the first makes no entry
constexpr int PARTS = 128;                             // runs of codes whose lengths are summed, each by one thread

JG_FN int width_of(int k) { return k < 254 ? 9 : k < 766 ? 10 : k < 1790 ? 11 : 12; }    // of a segment's k-th code
JG_FN int64_t place_of(int k) {                        // bits of the codes before it
    return k < 254 ? 9 * k : k < 766 ? 10 * k - 254 : k < 1790 ? 11 * k - 1020 : 12 * k - 2810;
}
JG_FN int code_from(const uint8_t* data, int64_t bits, int64_t bit, int width) {         // END where the strip is at its end
    if (bit + width > bits) return END;
    const int64_t byte = bit >> 3;
    uint32_t word = uint32_t(data[byte]) << 16;
    if (bit + width > 8 * (byte + 1)) word |= uint32_t(data[byte + 1]) << 8;
    if (bit + width > 8 * (byte + 2)) word |= data[byte + 2];
    return int(word >> (24 - int(bit & 7) - width) & ((1u << width) - 1));
}

struct LzwCodes { uint16_t code[MOST_CODES]; };

// A segment's codes into shared memory; false, in every thread, where one of them is not in the table yet. Ends with a barrier.
struct LzwSegment {
    static __device__ bool load(
        const uint8_t* data, int64_t bits, int64_t start, int n, LzwCodes& s, CountScratch<1>& scratch)
    {
        Counts<1> wrong = {{0}};
        JG_FOR(k, n) {
            const int code = code_from(data, bits, start + place_of(k), width_of(k));
            s.code[k] = uint16_t(code);
            wrong.v[0] += code >= (k == 0 ? 256 : FIRST + k);
        }
        return block_count(wrong, scratch).v[0] == 0;
    }
    JG_FN int length(const LzwCodes& s, int k) {       // a code goes back to an earlier one, so this ends
        int n = 1;
        for (int c = s.code[k]; c >= FIRST; c = s.code[c - FIRST]) ++n;
        return n;
    }
    JG_FN int first(const LzwCodes& s, int k) {
        int c = s.code[k];
        while (c >= FIRST) c = s.code[c - FIRST];
        return c;
    }
};
}  // namespace jg

// In   data    uint8  [D]
//      strips  int64  [S, 4]
// Out  start   int64  [S, most]   the first bit, from the strip's beginning, of each segment; the others' are undefined
//      codes   int32  [S, most]   its codes, clear and end not counted
//      found   int32  [S]         segments; most + 1 where there are more, 0 where the strip does not begin with a clear
extern "C" __global__ void __launch_bounds__(128) lzw_segments(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, int32_t most,
    int64_t* __restrict__ start, int32_t* __restrict__ codes, int32_t* __restrict__ found)
{
    constexpr int AT_ONCE = 1024;
    JG_SHARED(int, first);
    const int64_t* const strip = strips + 4 * int64_t(blockIdx.x);
    const uint8_t* const from = data + strip[0];
    const int64_t bits = 8 * strip[1], base = int64_t(blockIdx.x) * most;
    if (jg::code_from(from, bits, 0, 9) != jg::CLEAR) {
        JG_ONCE found[blockIdx.x] = 0;
        return;
    }
    int64_t bit = 9;
    int n = 0;
    for (;; ++n) {                                     // the same in every thread
        int end = jg::MOST_CODES + 1;                  // one too many, where neither clear nor end comes: a full table
        int stop = jg::END;
        for (int k0 = 0; k0 <= jg::MOST_CODES; k0 += AT_ONCE) {
            JG_ONCE first = jg::MOST_CODES + 1;
            __syncthreads();
            int mine = jg::MOST_CODES + 1;
            const int k1 = jg::least(k0 + AT_ONCE, jg::MOST_CODES + 1);
            JG_FOR_OWN(k, k0, k1) {
                const int code = jg::code_from(from, bits, bit + jg::place_of(k), jg::width_of(k));
                if (code == jg::CLEAR || code == jg::END) mine = jg::least(mine, k);
            }
            jg::gather_least(&first, mine);
            __syncthreads();
            const int here = first;
            __syncthreads();
            if (here <= jg::MOST_CODES) {
                end = here;
                stop = jg::code_from(from, bits, bit + jg::place_of(end), jg::width_of(end));
                break;
            }
        }
        if (n >= most) { ++n; break; }
        JG_ONCE { start[base + n] = bit; codes[base + n] = end; }
        if (stop != jg::CLEAR) { ++n; break; }
        bit += jg::place_of(end) + jg::width_of(end);
    }
    JG_ONCE found[blockIdx.x] = n;
}
JG_REGISTER(lzw_segments)

// In   data, strips, start, codes, found   as above
// Out  bytes   int64  [S, most]   each segment's; 0 past the last, -1 for one with a code that is not in the table yet
extern "C" __global__ void __launch_bounds__(128) lzw_lengths(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, int32_t most, const int64_t* __restrict__ start,
    const int32_t* __restrict__ codes, const int32_t* __restrict__ found, int64_t* __restrict__ bytes)
{
    JG_SHARED(jg::LzwCodes, s);
    JG_SHARED(jg::CountScratch<1>, scratch);
    const int64_t strip = int64_t(blockIdx.x) / most, segment = blockIdx.x;
    if (segment - strip * most >= found[strip]) {
        JG_ONCE bytes[segment] = 0;
        return;
    }
    const int n = codes[segment];
    const bool good = n <= jg::MOST_CODES
        && jg::LzwSegment::load(data + strips[4 * strip], 8 * strips[4 * strip + 1], start[segment], n, s, scratch);
    if (!good) {
        JG_ONCE bytes[segment] = -1;
        return;
    }
    jg::Counts<1> total = {{0}};
    JG_FOR(k, n) total.v[0] += uint64_t(jg::LzwSegment::length(s, k));
    total = jg::block_count(total, scratch);
    JG_ONCE bytes[segment] = int64_t(total.v[0]);
}
JG_REGISTER(lzw_lengths)

// In   data, strips, start, codes, found   as above
//      place   int64  [S, most]   where each segment's bytes begin in its strip
//      status  int32  [S]         strips with another status than 0 are left alone
// Out  out     uint8  [...]
extern "C" __global__ void __launch_bounds__(128) lzw_bytes(
    const uint8_t* __restrict__ data, const int64_t* __restrict__ strips, int32_t most, const int64_t* __restrict__ start,
    const int32_t* __restrict__ codes, const int32_t* __restrict__ found, const int64_t* __restrict__ place,
    const int32_t* __restrict__ status, uint8_t* __restrict__ out)
{
    JG_SHARED(jg::LzwCodes, s);
    JG_SHARED(jg::CountScratch<1>, scratch);
    struct Shared { int32_t part[jg::PARTS]; uint8_t first[jg::MOST_CODES]; };
    JG_SHARED(Shared, t);
    const int64_t strip = int64_t(blockIdx.x) / most, segment = blockIdx.x;
    if (segment - strip * most >= found[strip] || status[strip] != 0) return;
    const int n = codes[segment];
    jg::LzwSegment::load(data + strips[4 * strip], 8 * strips[4 * strip + 1], start[segment], n, s, scratch);
    const int run = (n + jg::PARTS - 1) / jg::PARTS;
    JG_FOR(k, n) t.first[k] = uint8_t(jg::LzwSegment::first(s, k));
    JG_FOR(p, jg::PARTS) {
        int sum = 0;
        for (int k = p * run; k < jg::least(n, (p + 1) * run); ++k) sum += jg::LzwSegment::length(s, k);
        t.part[p] = sum;
    }
    __syncthreads();
    JG_ONCE {
        int sum = 0;
        for (int p = 0; p < jg::PARTS; ++p) { const int mine = t.part[p]; t.part[p] = sum; sum += mine; }
    }
    __syncthreads();
    JG_FOR(p, jg::PARTS) {
        uint8_t* to = out + strips[4 * strip + 2] + place[segment] + t.part[p];
        for (int k = p * run; k < jg::least(n, (p + 1) * run); ++k) {
            to += jg::LzwSegment::length(s, k);
            uint8_t* back = to;
            int c = s.code[k];
            for (; c >= jg::FIRST; c = s.code[c - jg::FIRST]) *--back = t.first[c - jg::FIRST + 1];
            *--back = uint8_t(c);
        }
    }
}
JG_REGISTER(lzw_bytes)
