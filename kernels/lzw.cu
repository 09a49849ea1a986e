// lzw.cu: TIFF's LZW (compression 5), strips to bytes.
//
//   codes of 9 to 12 bits, highest bit first; 256 clears the table, 257 ends. Code c > 257 stands for the string of the
//   (c - 258)th code since the clear and the first byte of the one after it. Codes widen at entries 511, 1023 and 2047.
//
//   lzw_strips    a strip from its first code to its last: for a CPU, which foresees little else
//
// A strip that is not decoded to exactly its length is left with status 1 and its output in any state, within its bounds: one
// that does not begin with a clear, ends early, overshoots, has a code that is not in the table yet or a full table. Such are
// another decoder's to read or to refuse (fields.py asks imagecodecs).
//
// Source   TIFF 6.0, section 13; codes as libtiff writes them
// Oracle   imagecodecs on real files and on drawn bytes (tests/test_lzw_imagecodecs.py)
// Launch   lzw_strips: a strip a block, one thread at work; 32 KB of shared memory.
// Order    each byte is written by one thread.
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
