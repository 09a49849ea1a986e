// machine.h: a machine that runs PTX, a warp an instruction, and watches what it does.
//
// tests/simulators/ptx/launch.py lowers a program to `Instruction`s whose operands are slots: registers, or constants. A slot holds 32 lanes of
// 64 bits, zero-extended from the register's width.
#pragma once
#include <stdint.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace ptx {
constexpr uint64_t SHARED = 1ull << 56, LOCAL = 1ull << 57;      // generic addresses of those windows
constexpr uint32_t FULL = 0xffffffffu;
enum Space : int32_t { GLOBAL, SHARED_SPACE, LOCAL_SPACE, GENERIC };
enum Flow : int32_t { PLAIN, BRANCH, BRANCH_TABLE, EXIT, BARRIER, WARP_WIDE };
enum Flag : int32_t { FTZ = 1, STRONG = 2, WANTED = 4, SATURATE = 8, NEGATE = 16 };

struct Instruction {                                     // as launch.py packs it
    int32_t operation, flow, guard, negated;
    int32_t destination[4], source[6];
    int32_t space, size, count, flags;
    int64_t offset;                                      // of an address; of a branch, the target; of a table, its first entry
    uint64_t mask;                                       // the width of the destination
};

struct Mark {                                            // who touched a granule last
    uint32_t block = 0;                                  // 0: nobody in this launch; block + 1; MANY
    uint32_t epoch = 0;                                  // barriers that the block had passed
    int32_t who = 0;                                     // a thread; -1: several; -2 - w: several of warp w
    uint32_t turn = 0;                                   // warp barriers that its warp had passed
};
constexpr uint32_t MANY = 0xffffffffu;
struct Watched { Mark written, read; bool atomic = false, strong = false; };

struct Region {                                          // an array that the kernel was given
    uint64_t base, size;
    uint8_t* defined;                                    // a flag a byte, or null: all of it is
    Watched* watch = nullptr;
    bool writable = true;
    struct Seen* seen = nullptr;                         // where sectors are counted: an entry a 32-byte sector
    uint64_t read = 0, written = 0;                      // sectors that a block touched, each once a block, summed over blocks
};

// ---- the clock (clock.cpp): when a warp could issue its instructions if it waited for nothing but its own operands

constexpr int DEVICES = 5;                               // clocked at once
enum Level : int32_t { L1, L2, DRAM, IN_SHARED, LEVELS };
struct Cost { uint32_t issue[DEVICES], latency[DEVICES], uses; };   // cycles; `uses`: which sources are operands, a bit each
struct Seen { uint32_t block, number, writer; };         // which block (+ 1) touched a sector last, its how manyth, who wrote it
struct Timing {                                          // as launch.py packs it
    const Cost* costs;                                   // one an instruction
    uint32_t latency[LEVELS][DEVICES];
    uint32_t barrier[DEVICES];
    uint64_t l2_bytes[DEVICES];                          // an array larger than this is not in L2 when a block first reads it
    uint32_t l1_sectors, unused;                         // a block's share of L1
};
struct BlockTime { uint64_t cycles[DEVICES], warps, longest; };     // one a block: the critical path, instructions, those of its longest warp

struct Block;
struct Warp {
    Block* block = nullptr;
    int number = 0;
    uint64_t* registers = nullptr;                       // [slots][32]
    uint32_t pc[32] = {};
    uint32_t ready = 0, at_barrier = 0, in_warp_wide = 0, done = 0;   // masks of lanes
    uint32_t turn = 0;
    uint64_t now[DEVICES] = {}, issued = 0;
    uint64_t* operands = nullptr;                        // [slots][DEVICES], when each can be used
};
struct Block {
    uint32_t index = 0, epoch = 0, place = 0;            // its place in the list of blocks that run
    uint64_t misses = 0;                                 // sectors that it had to wait for
    std::vector<uint64_t> operands;
    bool active = false;
    std::vector<Warp> warps;
    std::vector<uint64_t> registers;
    std::vector<uint8_t> shared, local, local_defined;
    std::vector<Watched> shared_watch;
};

struct Count { uint64_t warps, lanes, requests, sectors, cycles, depth; };   // of one instruction; launch.py names them

struct Finding { uint64_t times; uint32_t block, thread; uint64_t address; };

struct Machine {
    const Instruction* code = nullptr;
    uint32_t length = 0;
    uint32_t registers = 0;                              // slots below are the warp's own, from here on constants
    std::vector<uint64_t> constants;                     // [slots][32]
    std::vector<int32_t> tables;
    std::vector<Region> regions;
    uint32_t shared_size = 0, local_size = 0, threads = 0;
    uint32_t shared_granule = 1, global_granule = 1;
    std::vector<Count> counts;
    std::map<std::pair<std::string, uint32_t>, Finding> findings;
    uint64_t random_state = 1, budget = 0;
    uint32_t pc = 0;                                     // of the instruction that runs
    bool change = false;                                 // let another warp go on
    const Timing* timing = nullptr;                      // count and clock, and check nothing but bounds
    uint64_t wait[DEVICES] = {};                         // what the access of this instruction takes
    uint64_t limit = 400000000;                          // warp instructions

    uint32_t random(uint32_t n) {
        random_state ^= random_state << 13; random_state ^= random_state >> 7; random_state ^= random_state << 17;
        return uint32_t((random_state >> 33) % n);
    }
    const uint64_t* read(const Warp& w, int32_t slot) const {
        return uint32_t(slot) < registers ? w.registers + size_t(slot) * 32 : constants.data() + (size_t(slot) - registers) * 32;
    }
    uint64_t* write(const Warp& w, int32_t slot) const { return w.registers + size_t(slot) * 32; }
    void note(const std::string& what, const Warp& w, int lane, uint64_t address);
};

void look_up(Machine& m, Warp& w, const Instruction& i, const uint64_t* sectors, int n, bool writes, bool atomic, int passes);
void charge(Machine& m, Warp& w, const Instruction& i, bool taken);

using Operation = void (*)(Machine&, Warp&, const Instruction&, uint32_t lanes);
const std::vector<std::pair<std::string, Operation>>& arithmetic();
const std::vector<std::pair<std::string, Operation>>& conversions();
const std::vector<std::pair<std::string, Operation>>& memory();
const std::vector<std::pair<std::string, Operation>>& warp_wide();

template <class F> inline void each(uint32_t lanes, F f) {
    if (lanes == FULL)
        for (int l = 0; l < 32; ++l) f(l);
    else
        for (; lanes; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}
template <class T> inline T value(uint64_t slot) {
    if constexpr (sizeof(T) == 8 && T(0.5) != T(0)) { union { uint64_t u; T t; } c = {slot}; return c.t; }
    else if constexpr (T(0.5) != T(0)) { union { uint32_t u; T t; } c = {uint32_t(slot)}; return c.t; }
    else return T(slot);
}
template <class T> inline uint64_t bits(T v) {
    if constexpr (sizeof(T) == 8 && T(0.5) != T(0)) { union { T t; uint64_t u; } c = {v}; return c.u; }
    else if constexpr (T(0.5) != T(0)) { union { T t; uint32_t u; } c = {v}; return c.u; }
    else if constexpr (T(-1) < T(0)) return uint64_t(int64_t(v));
    else return uint64_t(v);
}
inline float flush(float v, const Instruction& i) {      // -ftz=true: a subnormal float counts as 0
    return i.flags & FTZ && __builtin_fabsf(v) < 1.17549435e-38f ? __builtin_copysignf(0.0f, v) : v;
}
template <class T> inline T flush(T v, const Instruction&) { return v; }
}  // namespace ptx
