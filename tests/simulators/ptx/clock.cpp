// clock.cpp: a warp's instructions against a clock, for several GPUs at once.
//
// A warp issues in order, an instruction when its operands are ready; the result is ready a latency later. Nothing else holds it up:
// no other warp, no full queue. So the clock of a block's last warp is the block's critical path, and the smallest time it can take
// alone on its SM. A lane's path is its warp's: branches that part are walked one after the other, as they are counted.
// A global load takes the latency of the farthest of its sectors: L1 if this block touched the sector among its last
// `l1_sectors`, L2 if it touched it before or the array fits L2, else DRAM.
#include <algorithm>

#include "machine.h"

namespace ptx {
namespace {
Region* holder(Machine& m, uint64_t address) {
    auto after = std::upper_bound(m.regions.begin(), m.regions.end(), address, [](uint64_t a, const Region& r) { return a < r.base; });
    if (after == m.regions.begin()) return nullptr;
    Region& r = *(after - 1);
    return address < r.base + r.size + 31 ? &r : nullptr;
}
}  // namespace

// One request's distinct sectors: into the books of their arrays, and how long the warp waits for them.
void look_up(Machine& m, Warp& w, const Instruction& i, const uint64_t* sectors, int n, bool writes, bool atomic, int passes) {
    const Timing& t = *m.timing;
    const uint32_t mine = w.block->place + 1;
    int farthest = i.space == SHARED_SPACE || i.space == LOCAL_SPACE ? int(IN_SHARED) : int(L1);
    uint64_t size = 0;
    Region* r = nullptr;
    for (int k = 0; k < n; ++k) {
        const uint64_t address = sectors[k] * 32;
        if (!r || address < r->base || address >= r->base + r->size) r = holder(m, std::max(address, r ? address : address + 31));
        if (!r || !r->seen) continue;
        Seen& s = r->seen[sectors[k] - r->base / 32];
        const bool before = s.block == mine;
        if (!writes || atomic) {
            const int level = atomic || i.flags & STRONG ? int(L2) : !before ? int(DRAM) : w.block->misses - s.number < t.l1_sectors ? int(L1) : int(L2);
            if (level == DRAM) size = std::max(size, r->size);
            farthest = std::max(farthest, level);
            if (!before) r->read += 1;
            if (level != L1) s.number = uint32_t(w.block->misses++);
            s.block = mine;
        }
        if (writes || atomic) {
            if (s.writer != mine) r->written += 1;
            s.writer = mine;
            if (!before) { s.block = mine; s.number = uint32_t(w.block->misses - t.l1_sectors); }   // in L2, not in L1
        }
    }
    for (int d = 0; d < DEVICES; ++d) {
        const int level = farthest == DRAM && size <= t.l2_bytes[d] ? int(L2) : farthest;
        m.wait[d] = t.latency[level][d] + uint64_t(std::max(passes - 1, 0));
    }
}

void charge(Machine& m, Warp& w, const Instruction& i, bool taken) {
    const Cost& c = m.timing->costs[m.pc];
    uint64_t start[DEVICES] = {};
    auto after = [&](int32_t slot) {
        if (slot >= 0 && uint32_t(slot) < m.registers)
            for (int d = 0; d < DEVICES; ++d) start[d] = std::max(start[d], w.operands[size_t(slot) * DEVICES + size_t(d)]);
    };
    for (int k = 0; k < 6; ++k)
        if (c.uses >> k & 1) after(i.source[k]);
    after(i.guard);
    const bool free = c.issue[0] == 0;                   // a move that the compiler makes away with passes its operand's time on
    for (int d = 0; d < DEVICES; ++d) {
        if (!free) {
            start[d] = std::max(start[d], w.now[d]);
            w.now[d] = start[d] + c.issue[d];
        }
        const uint64_t ready = start[d] + (free ? 0 : c.latency[d] + m.wait[d]);
        if (taken)
            for (int32_t slot : i.destination)
                if (slot >= 0) w.operands[size_t(slot) * DEVICES + size_t(d)] = ready;
        if (taken && i.flow != PLAIN && i.flow != WARP_WIDE) w.now[d] = std::max(w.now[d], start[d] + c.latency[d]);   // a branch
        m.wait[d] = 0;
    }
    w.issued += !free;
}
}  // namespace ptx
