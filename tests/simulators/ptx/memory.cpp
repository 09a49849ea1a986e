// memory.cpp: loads, stores and atomics, and the watch on them.
//
//   memcheck   a global access lies inside one array and is aligned; a shared or local one inside its space
//   racecheck  two threads touch a granule, one writes, not both atomically, and no barrier lies between: __syncthreads for
//              threads of a block, __syncwarp for those of a warp too, nothing for threads of different blocks.
//              A strong (volatile) access may meet atomics and strong writes, not plain writes.
//   initcheck  shared or local memory read before it was written, and global bytes that are not defined
// A granule is as small as the kernel's smallest access in that space.
#include <string.h>

#include <algorithm>

#include "machine.h"

namespace ptx {
namespace {
enum Kind { READ, WRITE, ATOMIC };

bool same(const Mark& k, uint32_t block, int thread) { return k.block == block && k.who == thread; }
bool before(const Mark& k, const Warp& w, uint32_t block, int thread) {   // ordered before what w's thread does now
    if (k.block != block) return false;
    if (k.who == thread || k.epoch != w.block->epoch) return true;
    const int warp = k.who >= 0 ? k.who / 32 : k.who < -1 ? -2 - k.who : -1;
    return warp == w.number && k.turn < w.turn;
}
void merge(Mark& k, const Warp& w, uint32_t block, int thread) {
    if (k.block == 0 || before(k, w, block, thread)) { k = {block, w.block->epoch, thread, w.turn}; return; }
    if (k.block != block) { k = {MANY, 0, -1, 0}; return; }
    const int warp = k.who >= 0 ? k.who / 32 : k.who < -1 ? -2 - k.who : -1;
    k = {block, w.block->epoch, warp == w.number ? -2 - warp : -1, w.turn};
}

// `own`: marks of other blocks are of an earlier use of the memory (shared memory), and count as none.
void watch(Machine& m, Warp& w, Watched* at, uint64_t n, int lane, uint64_t address, Kind kind, bool strong, bool own, const char* space) {
    const uint32_t block = w.block->index + 1;
    const int thread = w.number * 32 + lane;
    for (uint64_t g = 0; g < n; ++g) {
        Watched& k = at[g];
        if (own) {
            if (k.written.block != block) k.written = {};
            if (k.read.block != block) k.read = {};
        }
        const bool mild = kind == ATOMIC || strong;      // may meet atomics
        if (k.written.block && !same(k.written, block, thread) && !before(k.written, w, block, thread) && !(mild && k.atomic))
            m.note(std::string("racecheck (") + space + ")", w, lane, address);
        if (kind != READ && k.read.block && !same(k.read, block, thread) && !before(k.read, w, block, thread) && !(mild && k.strong))
            m.note(std::string("racecheck (") + space + ")", w, lane, address);
        if (kind == READ) {
            const bool fresh = k.read.block == 0 || before(k.read, w, block, thread);
            if (strong && !fresh && !k.strong) continue;  // a plain reader is the one to remember
            merge(k.read, w, block, thread);
            k.strong = strong;
        } else {
            if (mild) merge(k.written, w, block, thread);
            else k.written = {block, w.block->epoch, thread, w.turn};
            k.atomic = mild;
        }
    }
}

// Where an access goes; null (and a finding) where it may not go.
uint8_t* place(Machine& m, Warp& w, const Instruction& i, int lane, uint64_t address, uint64_t size, Kind kind) {
    const bool strong = i.flags & STRONG;
    Block& b = *w.block;
    int space = i.space;
    if (space == GENERIC) {
        space = address >= LOCAL ? LOCAL_SPACE : address >= SHARED ? SHARED_SPACE : GLOBAL;
        address -= space == LOCAL_SPACE ? LOCAL : space == SHARED_SPACE ? SHARED : 0;
    } else if (space == SHARED_SPACE) {
        address = uint32_t(address);                     // 32 bits, with what is added to its register: that may be below 0
    }
    if (address % size) { m.note("memcheck: misaligned", w, lane, address); return nullptr; }
    if (space == SHARED_SPACE) {
        if (address + size > m.shared_size) { m.note("memcheck: outside shared memory", w, lane, address); return nullptr; }
        if (m.timing) return b.shared.data() + address;
        Watched* at = b.shared_watch.data() + address / m.shared_granule;
        const uint64_t n = std::max<uint64_t>(1, size / m.shared_granule);
        if (kind != WRITE)
            for (uint64_t g = 0; g < n; ++g)
                if (at[g].written.block != b.index + 1) { m.note("initcheck (shared)", w, lane, address); break; }
        watch(m, w, at, n, lane, address, kind, strong, true, "shared");
        return b.shared.data() + address;
    }
    if (space == LOCAL_SPACE) {
        if (address + size > m.local_size) { m.note("memcheck: outside local memory", w, lane, address); return nullptr; }
        const uint64_t at = uint64_t(w.number * 32 + lane) * m.local_size + address;
        if (kind == WRITE) memset(&b.local_defined[at], 1, size);
        else if (memchr(&b.local_defined[at], 0, size)) m.note("initcheck (local)", w, lane, address);
        return b.local.data() + at;
    }
    auto after = std::upper_bound(m.regions.begin(), m.regions.end(), address, [](uint64_t a, const Region& r) { return a < r.base; });
    if (after == m.regions.begin() || address + size > (after - 1)->base + (after - 1)->size) {
        m.note("memcheck: outside every array", w, lane, address);
        return nullptr;
    }
    Region& r = *(after - 1);
    const uint64_t offset = address - r.base;
    if (kind != READ && !r.writable) { m.note("memcheck: writes a constant", w, lane, address); return nullptr; }
    if (m.timing) return reinterpret_cast<uint8_t*>(address);
    if (r.defined) {
        if (kind != WRITE && memchr(r.defined + offset, 0, size)) m.note("initcheck (global)", w, lane, address);
        if (kind != READ) memset(r.defined + offset, 1, size);
    }
    watch(m, w, r.watch + offset / m.global_granule, std::max<uint64_t>(1, size / m.global_granule), lane, address, kind, strong, false, "global");
    return reinterpret_cast<uint8_t*>(address);
}

// One request: global, the 32-byte sectors it touches; shared, the cycles that 32 banks of 4 bytes need for its distinct words
// (accesses of 8 and 16 bytes go by half and quarter warps), and for atomics the most lanes on one address.
void tally(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, const uint64_t* addresses, Kind kind) {
    const bool atomic = kind == ATOMIC;
    int passes = 0, sectors = 0;
    Count& c = m.counts[m.pc];
    const uint64_t size = uint64_t(i.size) * i.count;
    c.requests += 1;
    uint64_t list[32 * 2];
    int n = 0;
    if (i.space == GLOBAL) {
        each(lanes, [&](int l) {
            for (uint64_t s = addresses[l] / 32; s <= (addresses[l] + size - 1) / 32; ++s) list[n++] = s;
        });
        std::sort(list, list + n);
        sectors = int(std::unique(list, list + n) - list);
        c.sectors += uint64_t(sectors);
        passes = (sectors + 3) / 4;
    } else if (i.space == SHARED_SPACE) {
        const int group = size <= 4 ? 32 : size == 8 ? 16 : 8;
        for (int first = 0; first < 32; first += group) {
            uint64_t words[32];
            n = 0;
            for (int l = first; l < first + group; ++l)
                if (lanes >> l & 1)
                    for (uint64_t b = 0; b < size; b += 4) words[n++] = (addresses[l] + b) / 4;
            std::sort(words, words + n);
            n = int(std::unique(words, words + n) - words);
            int banks[32] = {}, maximum = 0;
            for (int k = 0; k < n; ++k) maximum = std::max(maximum, ++banks[words[k] % 32]);
            c.cycles += uint64_t(maximum);
            passes += maximum;
        }
    }
    uint64_t depth = 0;
    const uint64_t* touched = list;
    uint64_t kept[32 * 2];
    if (m.timing && atomic) { std::copy(list, list + sectors, kept); touched = kept; }
    if (atomic) {
        n = 0;
        each(lanes, [&](int l) { list[n++] = addresses[l]; });
        std::sort(list, list + n);
        int maximum = 0, run = 0;
        for (int k = 0; k < n; ++k) maximum = std::max(maximum, run = k && list[k] == list[k - 1] ? run + 1 : 1);
        depth = uint64_t(maximum);
        c.depth += depth;
    }
    if (m.timing) look_up(m, w, i, touched, sectors, kind == WRITE, atomic, std::max(passes, int(depth)));
}

void addresses_of(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, uint64_t* addresses) {
    const uint64_t* a = m.read(w, i.source[0]);
    each(lanes, [&](int l) { addresses[l] = a[l] + uint64_t(i.offset); });
}

// ld: `count` values of `size` bytes; SATURATE marks a signed type, extended to the destination's width.
void load(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    uint64_t at[32];
    addresses_of(m, w, i, lanes, at);
    tally(m, w, i, lanes, at, READ);
    each(lanes, [&](int l) {
        const uint64_t whole = uint64_t(i.size) * i.count;
        const uint8_t* p = place(m, w, i, l, at[l], whole, READ);
        for (int k = 0; k < i.count; ++k) {
            uint64_t v = 0;
            if (p) memcpy(&v, p + k * i.size, size_t(i.size));
            if (i.flags & SATURATE) v = uint64_t(int64_t(v << (64 - 8 * i.size)) >> (64 - 8 * i.size));
            if (i.destination[k] >= 0) m.write(w, i.destination[k])[l] = v & i.mask;
        }
    });
    if (i.flags & STRONG && m.random(4) == 0) m.change = true;
}
void store(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    uint64_t at[32];
    addresses_of(m, w, i, lanes, at);
    tally(m, w, i, lanes, at, WRITE);
    each(lanes, [&](int l) {
        uint8_t* p = place(m, w, i, l, at[l], uint64_t(i.size) * i.count, WRITE);
        for (int k = 0; k < i.count && p; ++k) memcpy(p + k * i.size, &m.read(w, i.source[1 + k])[l], size_t(i.size));
    });
}

template <class T, class F> void atomic(Machine& m, Warp& w, const Instruction& i, uint32_t lanes, F f) {
    uint64_t at[32];
    addresses_of(m, w, i, lanes, at);
    tally(m, w, i, lanes, at, ATOMIC);
    const uint32_t start = m.random(32);                 // nothing promises an order of the lanes
    for (uint32_t k = 0; k < 32; ++k) {
        const int l = int((k + start) % 32);
        if (!(lanes >> l & 1)) continue;
        uint8_t* p = place(m, w, i, l, at[l], sizeof(T), ATOMIC);
        if (!p) continue;
        T old;
        memcpy(&old, p, sizeof old);
        const T now = f(old, T(m.read(w, i.source[1])[l]), i.source[2] >= 0 ? T(m.read(w, i.source[2])[l]) : T(0));
        memcpy(p, &now, sizeof now);
        if (i.destination[0] >= 0) m.write(w, i.destination[0])[l] = bits(old) & i.mask;
    }
    if (m.random(i.space == SHARED_SPACE ? 16 : 4) == 0) m.change = true;
}
using Table = std::vector<std::pair<std::string, Operation>>;
template <class T> void atomics(Table& t, const std::string& s) {
#define LANES [](Machine & m, Warp & w, const Instruction& i, uint32_t lanes)
    t.push_back({"atom.add." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return T(o + v); }); }});
    t.push_back({"atom.min." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return v < o ? v : o; }); }});
    t.push_back({"atom.max." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return v > o ? v : o; }); }});
    t.push_back({"atom.and." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return T(o & v); }); }});
    t.push_back({"atom.or." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return T(o | v); }); }});
    t.push_back({"atom.xor." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return T(o ^ v); }); }});
    t.push_back({"atom.exch." + s, LANES { atomic<T>(m, w, i, lanes, [](T, T v, T) { return v; }); }});
    t.push_back({"atom.cas." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T with) { return o == v ? with : o; }); }});
    t.push_back({"atom.inc." + s, LANES { atomic<T>(m, w, i, lanes, [](T o, T v, T) { return o >= v ? T(0) : T(o + 1); }); }});
}
}  // namespace

const Table& memory() {
    static const Table* const all = [] {
        Table* t = new Table;
        t->push_back({"ld", load});
        t->push_back({"st", store});
        atomics<uint32_t>(*t, "u32"); atomics<int32_t>(*t, "s32"); atomics<uint64_t>(*t, "u64"); atomics<int64_t>(*t, "s64");
        atomics<uint32_t>(*t, "b32"); atomics<uint64_t>(*t, "b64");
        return t;
    }();
    return *all;
}
}  // namespace ptx
