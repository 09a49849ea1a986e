// machine.cpp: warps, branches, barriers and the order in which warps and blocks go on.
//
// A warp runs the lanes at its lowest program counter, so branches come together again. A warp goes on until it waits, ends, or
// (at random) has done an atomic; several blocks are resident at once. A wait that cannot end is a `synccheck` finding.
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>

namespace ptx {
void Machine::note(const std::string& what, const Warp& w, int lane, uint64_t address) {
    Finding& f = findings[{what, pc}];
    if (f.times++ == 0) f = {1, w.block->index, uint32_t(w.number * 32 + lane), address};
}

namespace {
struct Stop {};                                          // the launch cannot go on

void stop(Machine& m, const Warp& w, int lane, const std::string& what) {
    m.note(what, w, lane, 0);
    throw Stop();
}

// ---- exchanges within a warp; `lanes` are those that take part, all at this instruction

void shuffle(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {   // count: 0 up, 1 down, 2 bfly, 3 idx
    const uint64_t *a = m.read(w, i.source[0]), *b = m.read(w, i.source[1]), *c = m.read(w, i.source[2]);
    uint64_t values[32];
    memcpy(values, a, sizeof values);
    each(lanes, [&](int lane) {
        const int offset = int(b[lane] & 31), segment = int(c[lane] >> 8 & 31), clamp = int(c[lane] & 31);
        const int highest = (lane & segment) | (clamp & ~segment & 31), lowest = lane & segment;
        int from = i.count == 0 ? lane - offset : i.count == 1 ? lane + offset : i.count == 2 ? lane ^ offset : lowest | (offset & ~segment & 31);
        const bool inside = i.count == 0 ? from >= highest : from <= highest;
        if (!inside) from = lane;
        if (!(lanes >> from & 1)) stop(m, w, lane, "synccheck: a shuffle from a lane that is not there");
        if (i.destination[0] >= 0) m.write(w, i.destination[0])[lane] = values[from] & 0xffffffffu;
        if (i.destination[1] >= 0) m.write(w, i.destination[1])[lane] = inside;
    });
}
void vote(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {      // count: 0 ballot, 1 all, 2 any, 3 uni
    const uint64_t* a = m.read(w, i.source[0]);
    uint32_t yes = 0;
    each(lanes, [&](int l) { yes |= uint32_t((a[l] & 1) != (i.flags & NEGATE ? 1u : 0u)) << l; });
    const uint64_t result = i.count == 0 ? yes : i.count == 1 ? yes == lanes : i.count == 2 ? yes != 0 : yes == lanes || yes == 0;
    each(lanes, [&](int l) { m.write(w, i.destination[0])[l] = result; });
}
void warp_barrier(Machine&, Warp& w, const Instruction&, uint32_t) { w.turn += 1; }
void active_mask(Machine& m, Warp& w, const Instruction& i, uint32_t lanes) {
    each(lanes, [&](int l) { m.write(w, i.destination[0])[l] = lanes; });
}

uint32_t holding(const uint64_t* predicate, uint32_t lanes, bool negated) {
    uint32_t yes = 0;
    each(lanes, [&](int l) { yes |= uint32_t((predicate[l] & 1) != negated) << l; });
    return yes;
}

// ---- a warp until it waits, ends or is told to change

void run(Machine& m, Warp& w, const std::vector<Operation>& operations) {
    while (w.ready) {
        uint32_t pc = ~0u, limit = ~0u, active = 0;
        each(w.ready, [&](int l) {
            if (w.pc[l] < pc) { limit = pc; pc = w.pc[l]; active = 1u << l; }
            else if (w.pc[l] == pc) active |= 1u << l;
            else limit = std::min(limit, w.pc[l]);
        });
        auto leave = [&](uint32_t lanes, uint32_t at) { each(lanes, [&](int l) { w.pc[l] = at; }); };
        for (bool straight = true; straight;) {
            const Instruction& i = m.code[pc];
            m.pc = pc;
            m.counts[pc].warps += 1;
            m.counts[pc].lanes += uint64_t(__builtin_popcount(active));
            if (++m.budget > m.limit) stop(m, w, 0, "synccheck: no end after " + std::to_string(m.limit / 1000000) + " million warp instructions");
            const uint32_t taken = i.guard < 0 ? active : holding(m.read(w, i.guard), active, i.negated);
            switch (i.flow) {
                case PLAIN:
                    if (taken) operations[size_t(i.operation)](m, w, i, taken);
                    if (m.timing) charge(m, w, i, taken != 0);
                    ++pc;
                    break;
                case BRANCH:
                case BRANCH_TABLE:
                    if (m.timing) charge(m, w, i, taken != 0);
                    if (i.flow == BRANCH_TABLE)
                        each(taken, [&](int l) { w.pc[l] = uint32_t(m.tables[size_t(i.offset) + size_t(m.read(w, i.source[0])[l])]); });
                    else if (taken == active) { pc = uint32_t(i.offset); if (pc < limit && m.pc < pc) continue; leave(active, pc); straight = false; continue; }
                    else if (taken == 0) { ++pc; break; }
                    else leave(taken, uint32_t(i.offset));
                    leave(active & ~taken, pc + 1);
                    straight = false;
                    continue;
                case EXIT:
                    w.done |= taken;
                    w.ready &= ~taken;
                    leave(active & ~taken, pc + 1);
                    straight = false;
                    continue;
                case BARRIER:
                    if (taken != active) stop(m, w, 0, "synccheck: a barrier under a condition");
                    if (m.timing) charge(m, w, i, false);
                    w.at_barrier |= active;
                    w.ready &= ~active;
                    leave(active, pc);
                    straight = false;
                    continue;
                case WARP_WIDE: {                        // parked until all of the mask are here
                    const uint64_t* mask = i.source[5] >= 0 ? m.read(w, i.source[5]) : nullptr;
                    const int first = __builtin_ctz(active);
                    const uint32_t wanted = mask ? uint32_t(mask[first]) : active;
                    if (wanted & w.done) stop(m, w, first, "synccheck: a warp exchange with a lane that has left");
                    if (m.timing) charge(m, w, i, true);
                    if (wanted == active) { operations[size_t(i.operation)](m, w, i, active); ++pc; break; }
                    leave(active, pc);
                    w.in_warp_wide |= active;
                    w.ready &= ~active;
                    uint32_t here = 0;
                    each(w.in_warp_wide, [&](int l) { here |= uint32_t(w.pc[l] == pc) << l; });
                    if ((here & wanted) == wanted) {
                        operations[size_t(i.operation)](m, w, i, wanted);
                        w.in_warp_wide &= ~wanted;
                        w.ready |= wanted;
                        leave(wanted, pc + 1);
                    }
                    straight = false;
                    continue;
                }
            }
            if (pc >= limit || m.change) { leave(active, pc); straight = false; }
        }
        if (m.change) { m.change = false; return; }
    }
}

// Nothing of the block can run: its barrier is complete, or never will be.
void release(Machine& m, Block& b) {
    const Warp* waiting = nullptr;
    uint32_t at = 0;
    bool left = false;
    for (Warp& w : b.warps) {
        left |= w.done != 0;
        if (w.in_warp_wide) { m.pc = w.pc[__builtin_ctz(w.in_warp_wide)]; stop(m, w, __builtin_ctz(w.in_warp_wide), "synccheck: part of a warp is missing"); }
        each(w.at_barrier, [&](int l) {
            if (!waiting) { waiting = &w; at = w.pc[l]; }
            m.pc = w.pc[l];
            if (w.pc[l] != at) stop(m, w, l, "synccheck: threads wait at different barriers");
        });
    }
    if (left) stop(m, *waiting, 0, "synccheck: a thread left before a barrier");
    b.epoch += 1;
    if (m.timing)
        for (int d = 0; d < DEVICES; ++d) {
            uint64_t last = 0;
            for (const Warp& w : b.warps) last = std::max(last, w.now[d]);
            for (Warp& w : b.warps) w.now[d] = last + m.timing->barrier[d];
        }
    for (Warp& w : b.warps) {
        w.ready = w.at_barrier;
        w.at_barrier = 0;
        each(w.ready, [&](int l) { w.pc[l] += 1; });
    }
}
}  // namespace

const std::vector<std::pair<std::string, Operation>>& warp_wide() {
    static const auto* const all = new std::vector<std::pair<std::string, Operation>>{
        {"shfl", shuffle}, {"vote", vote}, {"bar.warp", warp_barrier}, {"activemask", active_mask}};
    return *all;
}

namespace {
std::vector<std::pair<std::string, Operation>>& every_operation() {
    static auto* const all = [] {
        auto* t = new std::vector<std::pair<std::string, Operation>>;
        for (const auto* some : {&arithmetic(), &conversions(), &memory(), &warp_wide()}) t->insert(t->end(), some->begin(), some->end());
        return t;
    }();
    return *all;
}

// Special slots, filled for every thread of a block, in this order from `special` on: tid.x, ntid.x, ctaid.x, nctaid.x, laneid, warpid
void enter(Machine& m, Block& b, uint32_t index, uint32_t special, uint32_t grid) {
    b.index = index;
    b.epoch = 0;
    b.active = true;
    b.shared.assign(m.shared_size, 0xA5);
    if (!m.timing) {
        b.shared_watch.resize(m.shared_size / m.shared_granule + 1);
        std::fill(b.shared_watch.begin(), b.shared_watch.end(), Watched());
    } else {
        b.misses = 0;
        b.operands.assign(size_t(m.registers) * DEVICES * (m.threads / 32), 0);
    }
    b.local.assign(size_t(m.local_size) * m.threads, 0xA5);
    b.local_defined.assign(size_t(m.local_size) * m.threads, 0);
    b.warps.resize(m.threads / 32);
    b.registers.resize(size_t(m.registers) * m.threads);
    for (size_t n = 0; n < b.warps.size(); ++n) {
        Warp& w = b.warps[n] = Warp();
        w.block = &b;
        w.number = int(n);
        w.registers = b.registers.data() + n * m.registers * 32;
        w.ready = FULL;
        if (m.timing) w.operands = b.operands.data() + n * m.registers * DEVICES;
        const uint64_t values[6] = {0, m.threads, index, grid, 0, n};
        for (int k = 0; k < 6; ++k)
            for (int l = 0; l < 32; ++l) w.registers[(special + uint32_t(k)) * 32 + uint32_t(l)] = k == 0 ? n * 32 + uint64_t(l) : k == 4 ? uint64_t(l) : values[k];
    }
}

BlockTime time_of(const Block& b) {
    BlockTime t{};
    for (const Warp& w : b.warps) {
        t.warps += w.issued;
        t.longest = std::max(t.longest, w.issued);
        for (int d = 0; d < DEVICES; ++d) t.cycles[d] = std::max(t.cycles[d], w.now[d]);
    }
    return t;
}
}  // namespace
}  // namespace ptx

extern "C" {
int ptx_operation(const char* name) {
    const auto& all = ptx::every_operation();
    for (size_t k = 0; k < all.size(); ++k)
        if (all[k].first == name) return int(k);
    return -1;
}

struct ptx_launch_t {
    const ptx::Instruction* code;
    uint32_t length, registers, special, constants;
    const uint64_t* constant_values;
    const int32_t* tables;
    uint32_t n_tables, n_regions;
    const uint64_t* regions;                             // base, size, address of `defined` or 0, writable; in order of base
    uint32_t shared_size, local_size, shared_granule, global_granule;
    uint32_t grid, threads, resident;
    uint64_t seed;
    ptx::Count* counts;                                  // out: one an instruction
    const ptx::Timing* timing;                           // or null: then nothing is clocked, and everything is checked
    const uint32_t* chosen;                              // blocks to run, in this order, or null: all, in an order of the seed's
    uint32_t n_chosen, unused;
    ptx::BlockTime* times;                               // out: one a block that ran, where there is a clock
    uint64_t* touched;                                   // out: sectors read and written of each region, each once a block
    uint64_t limit;                                      // warp instructions; 0: 400 million
};

// Runs a launch; the findings as lines `what|instruction|times|block|thread|address`, in a string that the next call overwrites.
const char* ptx_launch(const ptx_launch_t* given) {
    using namespace ptx;
    static std::string report;
    std::vector<Operation> operations;
    for (const auto& [name, operation] : every_operation()) operations.push_back(operation);
    Machine m;
    m.code = given->code; m.length = given->length; m.registers = given->registers;
    m.shared_size = given->shared_size; m.local_size = given->local_size; m.threads = given->threads;
    m.shared_granule = given->shared_granule; m.global_granule = given->global_granule;
    m.random_state = (given->seed + 1) * 0x9E3779B97F4A7C15ull + 0x1234567;
    m.constants.resize(size_t(given->constants) * 32);
    for (size_t k = 0; k < m.constants.size(); ++k) m.constants[k] = given->constant_values[k / 32];
    m.tables.assign(given->tables, given->tables + given->n_tables);
    m.counts.resize(m.length);
    for (uint32_t k = 0; k < given->n_regions; ++k) {
        const uint64_t* r = given->regions + 4 * k;
        Region region{r[0], r[1], reinterpret_cast<uint8_t*>(r[2])};
        region.writable = r[3] != 0;
        if (given->timing) region.seen = static_cast<Seen*>(calloc(r[1] / 32 + 3, sizeof(Seen)));
        else region.watch = static_cast<Watched*>(calloc(r[1] / m.global_granule + 2, sizeof(Watched)));   // zero pages until touched
        m.regions.push_back(region);
    }
    m.timing = given->timing;
    if (given->limit) m.limit = given->limit;
    std::vector<uint32_t> order(given->chosen, given->chosen + given->n_chosen);
    if (!given->chosen) {
        order.resize(given->grid);
        for (uint32_t k = 0; k < given->grid; ++k) order[k] = k;
        for (uint32_t k = given->grid; k > 1; --k) std::swap(order[k - 1], order[m.random(k)]);   // nothing promises that they start in order
    }
    uint32_t started = 0;
    std::vector<std::unique_ptr<Block>> blocks;
    auto begin = [&](Block& b) {
        b.place = started;
        enter(m, b, order[started++], given->special, given->grid);
    };
    for (uint32_t k = 0; k < std::min(given->resident, uint32_t(order.size())); ++k) {
        blocks.emplace_back(new Block);
        begin(*blocks.back());
    }
    try {
        for (bool any = true; any;) {
            any = false;
            const uint32_t turn = m.random(uint32_t(blocks.size()));
            for (size_t n = 0; n < blocks.size(); ++n) {
                Block& b = *blocks[(n + turn) % blocks.size()];
                if (!b.active) continue;
                any = true;
                bool ran = false, all_done = true;
                const uint32_t first = m.random(uint32_t(b.warps.size()));
                for (size_t k = 0; k < b.warps.size(); ++k) {
                    Warp& w = b.warps[(k + first) % b.warps.size()];
                    if (w.ready) { run(m, w, operations); ran = true; }
                    all_done &= w.done == FULL;
                }
                if (all_done) {
                    b.active = false;
                    if (m.timing) given->times[b.place] = time_of(b);
                    if (started < order.size()) begin(b);
                } else if (!ran) release(m, b);
            }
        }
    } catch (const Stop&) {
    }
    for (size_t k = 0; k < m.regions.size(); ++k) {
        free(m.regions[k].watch);
        free(m.regions[k].seen);
        if (given->touched) { given->touched[2 * k] = m.regions[k].read; given->touched[2 * k + 1] = m.regions[k].written; }
    }
    std::copy(m.counts.begin(), m.counts.end(), given->counts);
    report.clear();
    for (const auto& [key, f] : m.findings)
        report += key.first + "|" + std::to_string(key.second) + "|" + std::to_string(f.times) + "|" + std::to_string(f.block) + "|" +
                  std::to_string(f.thread) + "|" + std::to_string(f.address) + "\n";
    return report.c_str();
}
}
