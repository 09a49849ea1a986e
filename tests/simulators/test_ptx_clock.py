"""The PTX machine's clock and its books of sectors, on kernels whose cycles can be added up by hand."""

import numpy as np
import pytest

from tests.simulators.ptx.clock import DEVICES, Clock
from tests.simulators.ptx.launch import Run
from tests.simulators.ptx.parse import Instruction
from tests.simulators.test_ptx import run

L1, L2, DRAM, SHARED = 30, 200, 500, 25
BARRIER = 20
ADDRESS = "mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3;"  # %q4: this thread's word of the first array


def cycles(i: Instruction) -> tuple[list[float], list[float]]:
    """Moves are free, arithmetic is there after 4 cycles, twice that on the last GPU; memory's latency is added to 0."""
    if i.opcode[0] in ("mov", "cvta") or "param" in i.opcode:
        return [0] * DEVICES, [0] * DEVICES
    if i.opcode[0] in ("ld", "st", "atom", "bar"):
        return [1] * DEVICES, [0] * DEVICES
    return [1] * DEVICES, [4] * (DEVICES - 1) + [8]


def clocked(
    body: str, *, l1_sectors: int = 512, l2_bytes: int = 0, chosen: tuple[int, ...] = (0,), limit: int = 0, **more
) -> Run:
    clock = Clock(
        cycles=cycles,
        latency=[[v] * DEVICES for v in (L1, L2, DRAM, SHARED)],
        barrier=[BARRIER] * DEVICES,
        l2_bytes=[l2_bytes] * (DEVICES - 1) + [1 << 30],
        l1_sectors=l1_sectors,
        chosen=chosen,
        limit=limit,
    )
    return run(body, clock=clock, **more)


def path(body: str, device: int = 0, **more) -> int:
    """Cycles of the block that ran, beyond those of a kernel that only returns."""
    output = clocked(body, **more)
    assert not output.findings
    return int(output.times["cycles"][0, device] - clocked("").times["cycles"][0, device])


def test_a_chain_waits_for_each_result_and_others_issue_meanwhile():
    chain = "add.u32 %r4, %r2, 1; add.u32 %r4, %r4, 1; add.u32 %r4, %r4, 1;"
    apart = "add.u32 %r4, %r2, 1; add.u32 %r5, %r2, 1; add.u32 %r6, %r2, 1;"
    assert path(apart) == 3
    assert path(chain) == 4 + 4 + 1
    assert path(chain, device=DEVICES - 1) == 8 + 8 + 1


def test_a_free_move_passes_the_time_of_its_operand_on():
    assert path("add.u32 %r4, %r2, 1; mov.u32 %r5, %r4; add.u32 %r6, %r5, 1;") == 4 + 1
    assert path("mov.u32 %r5, %r2; mov.u32 %r6, %r5;") == 0


@pytest.mark.parametrize(
    ("more", "device", "second"),
    [
        ({}, 0, L1),  # the sector was loaded before
        ({"l1_sectors": 0}, 0, L2),
        ({"l2_bytes": 1 << 30}, 0, L1),
    ],
)
def test_loads_wait_for_the_level_that_has_the_sector(more, device, second):
    twice = f"{ADDRESS} ld.global.u32 %r4, [%q4]; and.b32 %r5, %r4, 0; cvt.u64.u32 %q5, %r5; add.s64 %q6, %q4, %q5;"
    twice += " ld.global.u32 %r6, [%q6]; add.u32 %r7, %r6, 1;"
    first = L2 if more.get("l2_bytes") else DRAM
    assert path(twice, device, **more) == 4 + 4 + first + 4 + 4 + 4 + second + 1


def test_two_loads_at_once_wait_once():
    body = f"{ADDRESS} ld.global.u32 %r4, [%q4]; ld.global.u32 %r5, [%q4+4096]; add.u32 %r6, %r4, %r5;"
    assert path(body) == 4 + 4 + 1 + DRAM + 1


def test_an_array_that_fits_is_in_l2():
    body = f"{ADDRESS} ld.global.u32 %r4, [%q4]; add.u32 %r6, %r4, 1;"
    assert path(body, DEVICES - 1) == 8 + 8 + L2 + 1
    assert path(body, 0) == 4 + 4 + DRAM + 1


def test_requests_of_many_sectors_and_bank_conflicts_take_turns():
    far = "mul.wide.u32 %q3, %r2, 32; add.s64 %q4, %q1, %q3; ld.global.u32 %r4, [%q4]; add.u32 %r5, %r4, 1;"
    assert path(far) == 4 + 4 + DRAM + (32 / 4 - 1) + 1
    word = "mul.lo.u32 %r4, %r2, {}; mov.u32 %r5, s; add.u32 %r6, %r5, %r4; st.shared.u32 [%r6], 1;"
    loaded = "bar.sync 0; ld.shared.u32 %r7, [%r6]; add.u32 %r8, %r7, 1;"
    costs = [path(word.format(stride) + loaded, shared=8192) for stride in (4, 128)]
    assert costs[1] - costs[0] == 31
    assert costs[0] == 4 + 4 + 1 + BARRIER + 1 + SHARED + 1


def test_atomics_on_one_address_take_turns():
    clear = "mov.u32 %r5, s; shl.b32 %r4, %r2, 2; add.u32 %r6, %r5, %r4; st.shared.u32 [%r6], 0; bar.sync 0;"
    apart = clear + "atom.shared.add.u32 %r9, [%r6], 1; add.u32 %r8, %r9, 1;"
    together = clear + "atom.shared.add.u32 %r9, [%r5], 1; add.u32 %r8, %r9, 1;"
    assert path(together, shared=128) - path(apart, shared=128) == 31


def test_a_barrier_waits_for_the_last_warp():
    late = "add.u32 %r4, %r2, 1; add.u32 %r4, %r4, 1; add.u32 %r4, %r4, 1;"
    body = f"setp.lt.u32 %p1, %r2, 32; @%p1 bra J; {late} J: bar.sync 0;"
    output = clocked(body, threads=64)
    alone = clocked("bar.sync 0;", threads=64)
    assert output.times["cycles"][0, 0] - alone.times["cycles"][0, 0] == 4 + 1 + 4 + 4 + 1  # setp, the branch, the chain
    assert output.times["warps"][0] > output.times["longest"][0] > output.times["warps"][0] / 2


def test_sectors_are_booked_once_a_block_and_an_array():
    body = f"{ADDRESS} ld.global.u32 %r4, [%q4]; ld.global.u32 %r5, [%q4]; add.s64 %q5, %q2, %q3; st.global.u32 [%q5], %r4;"
    output = clocked(body, grid=9, threads=64, chosen=(1, 4, 7))
    assert not output.findings
    bases = [r[0] for r in output.regions]
    order = np.argsort(bases)
    assert sorted(map(tuple, output.touched.astype(int).tolist())) == [(0, 3 * 8), (3 * 8, 0)]
    assert output.touched[order].sum() == 6 * 8
    assert output.total("warps", "st") == 3 * 2  # the chosen blocks alone
    assert len(output.times) == 3


def test_a_launch_is_cut_at_its_limit():
    output = clocked("LOOP: bra LOOP;", limit=1000)
    assert [f.what[:18] for f in output.findings] == ["synccheck: no end "]
    assert output.times["warps"][0] == 0
