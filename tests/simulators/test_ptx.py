"""The PTX machine on kernels small enough to count, and to judge, by hand."""

import re

import numpy as np
import pytest
import torch

from tests.simulators.ptx.launch import Kernel, Run

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
TYPES = ("pred %p<20>", "b16 %h<20>", "b32 %r<60>", "b64 %q<60>", "f32 %f<20>", "f64 %d<20>")


def kernel(body: str, shared: int = 0) -> Kernel:
    """A kernel of two pointers and a number: %q1 and %q2 the pointers, %r1 the number, %r2 tid, %r3 ctaid."""
    space = f".shared .align 16 .b8 s[{shared}];" if shared else ""
    text = f"""{HEADER}
    .visible .entry k(.param .u64 a, .param .u64 b, .param .u32 n) {{
        {" ".join(f".reg .{t};" for t in TYPES)}
        {space}
        ld.param.u64 %q1, [a]; ld.param.u64 %q2, [b]; ld.param.u32 %r1, [n];
        mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x;
        {body}
        ret;
    }}"""
    return Kernel(text, "k")


def run(body: str, *, threads: int = 32, grid: int = 1, shared: int = 0, a=None, b=None, n: int = 0, **more) -> Run:
    arrays = [torch.zeros(4096, dtype=torch.int32).numpy() if x is None else x for x in (a, b)]  # torch aligns to 64 bytes
    pointers = [x.ctypes.data for x in arrays]
    return kernel(body, shared).run(grid, threads, [*pointers, n], arrays, **more)


def result(body: str, **more) -> set[str]:
    """The kinds of the findings."""
    return {f.what.split(" (")[0] for f in run(body, **more).findings}


# ---- counts


@pytest.mark.parametrize(
    ("stride", "kind", "lanes", "sectors"),
    [
        (4, "u32", 32, 4),  # 128 consecutive bytes
        (0, "u32", 32, 1),  # one word
        (32, "u32", 32, 32),  # a sector each
        (8, "u32", 32, 8),
        (8, "u64", 32, 8),
        (16, "v4.u32", 32, 16),  # one request, not four
        (4, "u32", 8, 1),  # a part of a warp
        (1, "u8", 32, 1),
    ],
)
def test_sectors_of_a_global_load(stride, kind, lanes, sectors):
    to = "{%r10, %r11, %r12, %r13}" if "v4" in kind else "%q10" if "64" in kind else "%r10"
    body = f"""setp.lt.u32 %p1, %r2, {lanes};
        mul.wide.u32 %q3, %r2, {stride}; add.s64 %q4, %q1, %q3;
        @%p1 ld.global.{kind} {to}, [%q4];"""
    output = run(body, threads=64 if lanes == 32 else 32)
    assert not output.findings
    warps = 1
    assert output.total("requests", "ld", "global") == warps
    assert output.total("sectors", "ld", "global") == sectors


@pytest.mark.parametrize(
    ("stride", "kind", "lanes", "cycles"),
    [
        (4, "u32", 32, 1),
        (0, "u32", 32, 1),  # a broadcast
        (8, "u32", 32, 2),
        (128, "u32", 32, 32),  # all in one bank
        (132, "u32", 32, 1),  # an odd pitch
        (4, "u32", 5, 1),  # the partial row is counted
        (128, "u32", 5, 5),
        (8, "u64", 32, 2),  # half warps
        (16, "v4.u32", 32, 4),  # quarter warps
    ],
)
def test_bank_cycles_of_a_shared_store(stride, kind, lanes, cycles):
    value = "{%r1, %r1, %r1, %r1}" if "v4" in kind else "%q1" if "64" in kind else "%r1"
    body = f"""setp.lt.u32 %p1, %r2, {lanes};
        mul.lo.u32 %r4, %r2, {stride}; mov.u32 %r5, s; add.u32 %r6, %r5, %r4;
        @%p1 st.shared.{kind} [%r6], {value};"""
    output = run(body, shared=8192)
    assert output.total("requests", "st", "shared") == 1
    assert output.total("cycles", "st", "shared") == cycles


@pytest.mark.parametrize(("mask", "depth", "cycles"), [(0, 32, 1), (31, 1, 1), (3, 8, 1), (1, 16, 1)])
def test_atomics_are_counted_by_bank_and_by_address(mask, depth, cycles):
    clear = "mul.lo.u32 %r7, %r2, 4; add.u32 %r8, %r5, %r7; st.shared.u32 [%r8], 0; bar.sync 0;"
    body = f"""mov.u32 %r5, s; {clear}
        and.b32 %r4, %r2, {mask}; shl.b32 %r4, %r4, 2; add.u32 %r6, %r5, %r4;
        atom.shared.add.u32 %r9, [%r6], 1;"""
    output = run(body, shared=128)
    assert not output.findings
    assert output.total("requests", "atom", "shared") == 1
    assert output.total("depth", "atom", "shared") == depth
    assert output.total("cycles", "atom", "shared") == cycles


def test_depth_is_of_a_warp_not_of_the_block():
    body = "mov.u32 %r5, s; setp.eq.u32 %p1, %r2, 0; @%p1 st.shared.u32 [%r5], 0; bar.sync 0; red.shared.add.u32 [%r5], 1;"
    output = run(body, shared=4, threads=128)
    assert output.total("requests", "red", "shared") == 4
    assert output.total("depth", "red", "shared") == 4 * 32


def test_warps_and_lanes_of_a_branch_and_a_loop():
    body = """setp.ge.u32 %p1, %r2, 8; @%p1 bra DONE;
        mov.u32 %r4, 0;
        LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 5; @%p2 bra LOOP;
        DONE:"""
    output = run(body)
    assert output.total("warps", "add") == 5
    assert output.total("lanes", "add") == 5 * 8
    assert output.total("lanes", "bra") == 32 + 5 * 8


# ---- findings

WORD = "mov.u32 %r5, s; shl.b32 %r4, %r2, 2; add.u32 %r6, %r5, %r4;"  # %r6: this thread's word of shared memory
NEXT = "xor.b32 %r7, %r4, {}; add.u32 %r8, %r5, %r7;"  # %r8: another thread's


@pytest.mark.parametrize(
    ("between", "other", "kinds"),
    [
        ("", 4, {"racecheck"}),
        ("bar.sync 0;", 4, set()),
        ("bar.sync 0;", 128, set()),
        ("bar.warp.sync -1;", 4, set()),  # a thread of the same warp
        ("bar.warp.sync -1;", 128, {"racecheck"}),  # a thread of another
        ("shfl.sync.down.b32 %r9, %r2, 1, 31, -1;", 4, {"racecheck"}),  # an exchange orders no memory
        ("vote.sync.ballot.b32 %r9, %p1, -1;", 4, {"racecheck"}),
    ],
)
def test_races_in_shared_memory(between, other, kinds):
    body = (
        f"{WORD} setp.eq.u32 %p1, %r2, 0; st.shared.u32 [%r6], %r2; {between} {NEXT.format(other)} ld.shared.u32 %r9, [%r8];"
    )
    assert result(body, shared=256, threads=64) - {"initcheck"} == kinds


def test_a_read_and_a_later_write_race_too():
    body = f"{WORD} st.shared.u32 [%r6], 1; bar.sync 0; {NEXT.format(4)} ld.shared.u32 %r9, [%r8]; st.shared.u32 [%r6], 2;"
    assert result(body, shared=128) == {"racecheck"}
    assert result(body.replace("; st.shared.u32 [%r6], 2", "; bar.sync 0; st.shared.u32 [%r6], 2"), shared=128) == set()


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("st.global.u32 [%q1], %r3;", {"racecheck"}),
        ("red.global.add.u32 [%q1], 1;", set()),
        ("red.global.add.u32 [%q1], 1; ld.volatile.global.u32 %r9, [%q1];", set()),
        ("red.global.add.u32 [%q1], 1; ld.global.u32 %r9, [%q1];", {"racecheck"}),
        ("st.volatile.global.u32 [%q1], 7;", set()),
        ("ld.global.u32 %r9, [%q1];", set()),
        ("mul.wide.u32 %q3, %r3, 4; add.s64 %q4, %q1, %q3; st.global.u32 [%q4], 1;", set()),
        (
            "mul.wide.u32 %q3, %r3, 4; add.s64 %q4, %q1, %q3; ld.global.u32 %r9, [%q4]; st.global.u32 [%q4+4], 1;",
            {"racecheck"},
        ),
    ],
)
def test_races_between_blocks(body, kinds):
    one = f"setp.ne.u32 %p1, %r2, 0; @%p1 bra OUT; {body} OUT:"
    assert result(one, grid=6) == kinds


def test_two_lanes_of_one_store_race():
    assert result("st.global.u32 [%q1], %r2;") == {"racecheck"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            "mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; ld.global.u32 %r9, [%q4+16384];",
            "memcheck: outside every array",
        ),
        ("add.s64 %q4, %q1, 2; ld.global.u32 %r9, [%q4];", "memcheck: misaligned"),
        ("ld.shared.u32 %r9, [s+128];", "memcheck: outside shared memory"),
        ("ld.shared.u32 %r9, [s];", "initcheck"),
        (
            "setp.lt.u32 %p1, %r2, 8; @%p1 bra T; bar.sync 0; bra J; T: bar.sync 0; J:",
            "synccheck: threads wait at different",
        ),
        ("setp.lt.u32 %p1, %r2, 8; @%p1 bra OUT; bar.sync 0; OUT:", "synccheck: a thread left before a barrier"),
        ("setp.lt.u32 %p1, %r2, 8; @%p1 bra OUT; bar.warp.sync -1; OUT:", "synccheck: part of a warp is missing"),
        ("setp.lt.u32 %p1, %r2, 8; @%p1 bra T; bar.warp.sync -1; T: bar.sync 0;", "synccheck: part of a warp is missing"),
        ("LOOP: bra LOOP;", "synccheck: no end"),
    ],
)
def test_single_faults(body, kind):
    kinds = result(body, shared=128)
    assert any(k.startswith(kind) for k in kinds), kinds


def test_global_memory_that_nobody_defined():
    defined = np.zeros(16384, np.uint8)
    defined[:64] = 1
    body = "mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; {} ld.global.u32 %r9, [%q4];"
    assert result(body.format(""), defined=[defined.copy(), None]) == {"initcheck"}
    assert result(body.format("st.global.u32 [%q4], 1;"), defined=[defined.copy(), None]) == set()


def test_blocks_are_interleaved_at_global_atomics():
    out = np.zeros(4096, np.uint32)
    body = """setp.ne.u32 %p1, %r2, 0; @%p1 bra OUT; mov.u32 %r10, 0; mul.wide.u32 %q5, %r3, 64; add.s64 %q6, %q2, %q5;
        LOOP: atom.global.add.u32 %r9, [%q1], 1; mul.wide.u32 %q7, %r10, 4; add.s64 %q8, %q6, %q7; st.global.u32 [%q8], %r9;
        add.u32 %r10, %r10, 1; setp.lt.u32 %p2, %r10, 16; @%p2 bra LOOP; OUT:"""
    output = run(body, grid=6, b=out)
    assert not output.findings
    tickets = out[: 6 * 16].reshape(6, 16)
    assert sorted(tickets.ravel().tolist()) == list(range(96))
    assert (np.diff(tickets.astype(int), axis=1) > 1).any(), "every block had its tickets in a row"


def test_exchanges_of_a_whole_warp():
    body = """shfl.sync.bfly.b32 %r9, %r2, 1, 31, -1;
        mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; st.global.u32 [%q4], %r9;
        vote.sync.ballot.b32 %r10, %p1, -1; activemask.b32 %r11; st.global.u32 [%q4+128], %r11;"""
    a = np.zeros(4096, np.uint32)
    body = "setp.lt.u32 %p1, %r2, 3; " + body
    assert not run(body, a=a).findings
    np.testing.assert_array_equal(a[:32], np.arange(32) ^ 1)
    assert (a[32:64] == 0xFFFFFFFF).all()


# ---- arithmetic, against the definitions in Python's integers

RNG = np.random.default_rng(5)
X, Y, Z = (
    np.concatenate([RNG.integers(0, 2**32, 28, np.uint32), np.array(e, np.uint32)]) for e in ([0, 1, 2**31, 2**32 - 1],) * 3
)
Y = np.roll(Y, 1)
SMALL = (Z % 40).astype(np.uint32)


def s32(v: int) -> int:
    return v - 2**32 if v >= 2**31 else v


def field(v: int, at: int, n: int) -> int:
    return v >> at & (1 << n) - 1 if at < 32 else 0


def selected(both: int, digits: tuple[int, ...]) -> int:
    """Bytes of a 64-bit value by the digits of prmt's selector, lowest first."""
    return sum((both >> 8 * digit & 255) << 8 * place for place, digit in enumerate(digits))


def towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else -1


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("mul.hi.u32 %r9, %r4, %r5", lambda x, y, k: x * y >> 32),
        ("mul.hi.s32 %r9, %r4, %r5", lambda x, y, k: s32(x) * s32(y) >> 32),
        ("mad.lo.s32 %r9, %r4, %r5, %r6", lambda x, y, k: x * y + k),
        ("sub.s32 %r9, %r4, %r5", lambda x, y, k: x - y),
        ("shl.b32 %r9, %r4, %r6", lambda x, y, k: x << k if k < 32 else 0),
        ("shr.u32 %r9, %r4, %r6", lambda x, y, k: x >> k),
        ("shr.s32 %r9, %r4, %r6", lambda x, y, k: s32(x) >> min(k, 31)),
        ("shf.r.wrap.b32 %r9, %r4, %r5, %r6", lambda x, y, k: (y << 32 | x) >> (k & 31)),
        ("shf.l.clamp.b32 %r9, %r4, %r5, %r6", lambda x, y, k: (y << 32 | x) << min(k, 32) >> 32),
        ("lop3.b32 %r9, %r4, %r5, %r6, 0xE8", lambda x, y, k: x & y | y & k | x & k),
        ("lop3.b32 %r9, %r4, %r5, %r6, 0x96", lambda x, y, k: x ^ y ^ k),
        ("prmt.b32 %r9, %r4, %r5, 0x4602", lambda x, y, k: selected(y << 32 | x, (2, 0, 6, 4))),
        ("bfe.u32 %r9, %r4, %r6, 7", lambda x, y, k: field(x, k, 7)),
        ("bfi.b32 %r9, %r4, %r5, %r6, 5", lambda x, y, k: y if k > 31 else (y & ~(31 << k)) | (x & 31) << k),
        ("popc.b32 %r9, %r4", lambda x, y, k: bin(x).count("1")),
        ("clz.b32 %r9, %r4", lambda x, y, k: 32 - x.bit_length()),
        ("brev.b32 %r9, %r4", lambda x, y, k: int(f"{x:032b}"[::-1], 2)),
        ("bfind.u32 %r9, %r4", lambda x, y, k: x.bit_length() - 1),
        ("bfind.shiftamt.u32 %r9, %r4", lambda x, y, k: 32 - x.bit_length() if x else -1),
        ("min.s32 %r9, %r4, %r5", lambda x, y, k: min(s32(x), s32(y))),
        ("max.u32 %r9, %r4, %r5", lambda x, y, k: max(x, y)),
        ("abs.s32 %r9, %r4", lambda x, y, k: abs(s32(x))),
        ("not.b32 %r9, %r4", lambda x, y, k: ~x),
        ("div.u32 %r9, %r4, %r5", lambda x, y, k: x // y if y else -1),
        ("rem.u32 %r9, %r4, %r6", lambda x, y, k: x % k if k else x),
        ("div.s32 %r9, %r4, %r5", lambda x, y, k: towards_zero(s32(x), s32(y))),
    ],
)  # fmt: skip
def test_integer_instructions(instruction, want):
    given = np.concatenate([X, Y, SMALL])
    out = np.zeros(32, np.uint32)
    body = f"""mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; add.s64 %q5, %q2, %q3;
        ld.global.u32 %r4, [%q4]; ld.global.u32 %r5, [%q4+128]; ld.global.u32 %r6, [%q4+256];
        {instruction}; st.global.u32 [%q5], %r9;"""
    output = run(body, a=given, b=out)
    assert not output.findings
    expected = [want(int(x), int(y), int(k)) & 0xFFFFFFFF for x, y, k in zip(X, Y, SMALL, strict=True)]
    np.testing.assert_array_equal(out, np.array(expected, np.uint32))


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("cvt.rzi.s32.f32 %r9, %f1", [0, 2, -2, 2**31 - 1, -(2**31), 0]),
        ("cvt.rni.s32.f32 %r9, %f1", [0, 2, -2, 2**31 - 1, -(2**31), 0]),
        ("cvt.rpi.s32.f32 %r9, %f1", [1, 3, -2, 2**31 - 1, -(2**31), 0]),
        ("cvt.rmi.s32.f32 %r9, %f1", [0, 2, -3, 2**31 - 1, -(2**31), 0]),
    ],
)
def test_conversions_clamp_and_nan_is_zero(instruction, want):
    given = np.array([0.5, 2.5, -2.5, 1e20, -1e20, np.nan] + [0] * 26, np.float32)
    out = np.zeros(32, np.int32)
    body = f"""mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; add.s64 %q5, %q2, %q3;
        ld.global.f32 %f1, [%q4]; {instruction}; st.global.u32 [%q5], %r9;"""
    run(body, a=given, b=out)
    np.testing.assert_array_equal(out[:6], want)


def test_ftz_flushes_and_plain_does_not():
    given = np.full(32, 1e-40, np.float32)
    out = np.zeros(64, np.float32)
    body = """mul.wide.u32 %q3, %r2, 4; add.s64 %q4, %q1, %q3; add.s64 %q5, %q2, %q3; ld.global.f32 %f1, [%q4];
        add.rn.ftz.f32 %f2, %f1, %f1; add.rn.f32 %f3, %f1, %f1; st.global.f32 [%q5], %f2; st.global.f32 [%q5+128], %f3;"""
    run(body, a=given, b=out)
    assert (out[:32] == 0).all()
    assert (out[32:] > 0).all()


@pytest.mark.parametrize(
    "instruction",
    [
        "add.f32 %f1, %f1, %f1",  # ptxas may contract it
        "ex2.approx.f32 %f1, %f1",  # its bits differ between GPUs
        "red.global.add.f32 [%q1], %f1",  # its result depends on the order
        "bar.sync 1, 64",
        "frobnicate.b32 %r1, %r1",
    ],
)
def test_what_has_no_certain_result_is_refused(instruction):
    with pytest.raises(NotImplementedError, match=re.escape(instruction)):
        kernel(f"{instruction};")
