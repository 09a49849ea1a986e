"""The GPU model: what it counts on launches whose bytes and instructions are known, its arithmetic, and its page."""

import contextlib
import dataclasses
import importlib.util
import itertools
import shutil

import numpy as np
import pytest
import torch

from benchmarks.gpu_model import compiled, counting, sass
from benchmarks.gpu_model.__main__ import main
from benchmarks.gpu_model.costs import costs
from benchmarks.gpu_model.counting import Counted, spread_out
from benchmarks.gpu_model.devices import GPUS, LAUNCH_S, Gpu
from benchmarks.gpu_model.figures import NOT_ON_A_GPU, Figures, load, outdated, predictions, save, totals
from benchmarks.gpu_model.page import BATCHES, page, reasons_of, slow_kernels, with_host
from benchmarks.gpu_model.prediction import TERMS, predict, terms_of
from benchmarks.gpu_model.recording import recorded
from benchmarks.machine import RESULTS
from jumpgpu.gpu.device import Device, blocks
from jumpgpu.gpu.kernel_source import kernel_folder, kernel_sources
from jumpgpu.gpu.open import open_device
from tests.simulators.ptx.parse import parse
from tests.simulators.standin_cuda import standin

ROOT = RESULTS.parents[1]
T4, A100, H100, _, RTX = GPUS
SAY = "run `python -m benchmarks.gpu_model` and commit what it writes"


@pytest.fixture(scope="module")
def kept() -> Figures:
    """The figures in the repository."""
    return load(RESULTS / "gpu_model.json")


# ---- counts


def correct(device: Device, fields: int, height: int) -> torch.Tensor:
    """A launch of which all is known: 2 + 4 bytes in, a float out, a pixel; everything in order."""
    n = 2 * height * 64
    pixels = device.tensor(torch.arange(fields * n, dtype=torch.int32).to(torch.uint16))
    illumination = device.tensor(torch.ones(n, dtype=torch.float32))
    out = device.zeros(fields * n, dtype=torch.float32)
    grid = fields * blocks(n)
    scales = device.tensor(torch.full((fields, 1), 65535.0))
    given = {"pixels": pixels, "illumination": illumination, "scales": scales, "n_values": n, "n_pixels": n}
    device.launch("correct", grid, **given, corrected=out)
    return out


def counted(fields: int, height: int) -> Counted:
    with standin():
        device = open_device("cuda")  # which launches per kernel to see that one runs
        with recorded() as recording:
            out = correct(device, fields, height)
            assert int(torch.count_nonzero(out.cpu())) > 0, "the launch itself ran as well"
    return recording.launches[0]


def test_bytes_of_a_launch_that_is_known():
    result = counted(3, 96)
    n = 3 * 2 * 96 * 64
    assert result.kernel == "correct"
    assert result.grid == result.blocks_run == n // 4096
    scales = 32 * result.grid  # a sector, by each block
    assert result.read == 2 * n + 4 * n + scales  # the illumination functions once a field, by different blocks
    assert result.written == 4 * n
    assert result.min_bytes == 2 * n + 4 * n // 3 + 4 * n + 4 * 3
    assert result.lanes == 32 * result.warps
    assert result.fp64 == [0.0] * len(GPUS)
    assert not result.cut


def test_some_blocks_stand_for_all(monkeypatch):
    whole = counted(6, 256)
    monkeypatch.setattr(counting, "MAX_BLOCKS", 8)
    part = counted(6, 256)
    assert (whole.blocks_run, part.blocks_run) == (48, 8)
    for name in ("warps", "lanes", "requests", "sectors", "read", "written"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=1e-9), name
    assert part.path == pytest.approx(whole.path, rel=0.02)


def test_counting_changes_nothing_that_the_launch_sees():
    """A kernel that adds to what is there: counted and run, it adds once."""

    def work(device: Device) -> torch.Tensor:
        sums = device.zeros(280, dtype=torch.int64)
        pixels = device.tensor(torch.arange(560, dtype=torch.int32).to(torch.uint16))
        device.launch("accumulate_fields", 1, pixels=pixels, fields=2, n_values=280, sums=sums)
        return sums.cpu()

    with standin():
        device = open_device("cuda")
        plain = work(device)
        with recorded() as recording:
            watched = work(device)
    assert [c.kernel for c in recording.launches] == ["accumulate_fields"]
    assert plain.tolist() == [280 + 2 * k for k in range(280)]
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)


def test_blocks_are_taken_evenly():
    assert sorted(spread_out(10)) == list(range(10))
    some = spread_out(10_000)
    assert len(some) == len(set(some)) == counting.MAX_BLOCKS
    for n in (8, 24, 48):
        assert max(np.diff(sorted([0, *some[:n], 10_000]))) < 3 * 10_000 / n


def test_waits_and_operators_are_recorded():
    with standin(), contextlib.ExitStack() as stack:
        device = open_device("cuda")  # which tries the device before it is recorded
        recording = stack.enter_context(recorded())
        values = device.tensor(torch.arange(1000, dtype=torch.float32))
        assert int((values > 5).sum()) == 994
        picked = values[values > 990]
        torch.nonzero(values)
        values[10:20].add_(1)
        picked.cpu()
    assert dict(recording.waits) == {"__int__": 1, "__getitem__": 1, "nonzero": 1, "to the host": 1}
    assert recording.operators["gt"] == [2, 2 * (4000 + 1000)]
    assert recording.operators["to the device"] == [1, 4000]


# ---- the compiler and the calculator


def test_what_an_instruction_becomes():
    table = sass.TABLE.read_text()
    assert '"ptxas"' in table
    text = """.version 8.0
    .target sm_80
    .address_size 64
    .visible .entry k(.param .u64 a) { .reg .b32 %r<9>; .reg .b64 %q<9>; .reg .f64 %d<9>;
    ld.param.u64 %q1, [a]; mul.wide.s32 %q2, %r1, 8; add.s64 %q3, %q1, %q2; add.s64 %q4, %q1, %q1;
    add.rn.f64 %d1, %d2, %d3; div.rn.f64 %d4, %d1, %d2; div.s32 %r2, %r1, 7; div.s32 %r3, %r1, %r2; st.global.f64 [%q3], %d4;
    bfi.b64 %q5, %q1, %q2, 32, 32; ret; }"""
    result = costs(parse(text, "k"))
    slots = [c.slots[1] for c in result]
    assert slots[:5] == [0, 1, 0, 2, 1]  # a parameter, IMAD.WIDE with its sum, IADD3 and IADD3.X, DADD
    assert result[4].fp64[1] == 1
    assert 6 <= result[5].fp64[1] <= 12  # Newton's steps
    assert slots[5] > 12
    assert slots[6] == 4
    assert slots[7] > 15
    assert slots[8:10] == [1, 1]


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
def test_the_table_of_instructions_is_what_ptxas_makes(monkeypatch):
    monkeypatch.setattr(sass, "ARCHITECTURES", ("sm_80",))
    some = ["add.rn.f64", "mul.wide.s32", "add.s64", "setp.lt.s32", "selp.b32", "shl.b64", "cvt.rn.f64.s32", "max.s64"]
    output = sass.table(some)["sm_80"]
    assert output["add.rn.f64"] == [1, 1]
    assert output["mul.wide.s32"] == [1, 0]
    assert output["add.s64"] == [2, 0]
    assert output["cvt.rn.f64.s32"] == [1, 1]
    assert output == {o: sass_kept(o) for o in some}


def sass_kept(opcode: str) -> list[float]:
    from benchmarks.gpu_model.costs import table

    return table()["sm_80"][opcode]


def test_the_compiler_log_is_read():
    result = compiled.read_log(
        """ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 59 registers, used 1 barriers, 8 bytes smem, 472 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 19 registers, used 0 barriers, 368 bytes cmem[0]"""
    )
    assert result == {"one": compiled.Resources(59, 16, 20, 8), "two": compiled.Resources(19, 0, 0, 0)}


@pytest.mark.parametrize(
    ("registers", "shared", "block", "want"),
    [
        (32, 0, 128, (8, 16, 16, 16, 12)),  # threads: 1024, three times 2048, 1536 an SM
        (64, 0, 128, (8, 8, 8, 8, 8)),  # registers: 65536
        (32, 40_000, 128, (1, 4, 5, 5, 2)),  # shared memory; the newer four keep 1 KiB per block
        (32, 0, 1024, (1, 2, 2, 2, 1)),
        (64, 0, 32, (16, 32, 32, 32, 24)),  # blocks per SM: 16, three times 32, 24
    ],
)
def test_occupancy_by_nvidias_calculator(registers, shared, block, want):
    needs = compiled.Resources(registers, 0, 0, shared)
    assert tuple(compiled.blocks_per_sm(g, needs, block) for g in GPUS) == want


def test_what_fits_no_sm_is_an_error():
    with pytest.raises(ValueError, match="does not run on T4"):
        compiled.blocks_per_sm(T4, compiled.Resources(255, 0, 0, 0), 1024)


# ---- predictions

PLAIN = Counted(
    kernel="k",
    grid=4000,
    block=128,
    blocks_run=48,
    cut=False,
    warps=1e6,
    lanes=32e6,
    slots=[1e6] * len(GPUS),
    fp64=[0.0] * len(GPUS),
    integer=[5e5] * len(GPUS),
    requests=1e5,
    sectors=4e5,
    shared_requests=0.0,
    shared_cycles=0.0,
    atomics=0.0,
    read=6.4e6,
    written=6.4e6,
    min_bytes=12.8e6,
    path=[3000.0] * len(GPUS),
    longest=[4000.0] * len(GPUS),
    longest_warp=300.0,
)


def test_terms_by_hand():
    result = terms_of(PLAIN, A100, 8)
    assert result["issue"] == pytest.approx(1e6 / (4 * 108 * 1.41e9))
    assert result["integer"] == pytest.approx(5e5 / (2 * 108 * 1.41e9))
    assert result["l1"] == pytest.approx(4e5 / (2 * 108 * 1.41e9))
    assert result["dram"] == pytest.approx(12.8e6 / 1555e9)
    assert result["path"] == pytest.approx(max(4000, 3000 * 4000 / (8 * 108)) / 1.41e9)
    double = dataclasses.replace(PLAIN, fp64=[2e5] * len(GPUS))
    assert terms_of(double, A100, 8)["fp64"] == pytest.approx(2e5 / (108 * 1.41e9))
    assert terms_of(double, RTX, 8)["fp64"] == pytest.approx(16 * 2e5 / (128 * 2.52e9))


def test_few_blocks_leave_most_sms_idle():
    few = dataclasses.replace(PLAIN, grid=6)
    assert terms_of(few, A100, 8)["issue"] == pytest.approx(108 / 6 * terms_of(PLAIN, A100, 8)["issue"])
    assert terms_of(few, A100, 8)["path"] == pytest.approx(4000 / 1.41e9)
    assert predict([few], A100, 8).floor == predict([PLAIN], A100, 8).floor


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_predictions_grow_with_the_work(gpu: Gpu):
    before = predict([PLAIN], gpu, 8)
    assert before.launches == 1
    assert LAUNCH_S < before.floor + LAUNCH_S <= before.minimum <= before.maximum
    assert before.bound in TERMS
    for name in ("slots", "fp64", "integer", "path", "longest"):
        more = dataclasses.replace(PLAIN, **{name: [1e7] * len(GPUS)})
        assert predict([more], gpu, 8).maximum > before.maximum, name
    for name in ("sectors", "shared_cycles", "atomics", "min_bytes"):
        more = dataclasses.replace(PLAIN, **{name: 1e9})
        assert predict([more], gpu, 8).maximum > before.maximum, name
    scales = [predict([PLAIN], gpu, 8, s) for s in (0.5, 1.0, 2.0, 4.0)]
    for small, large in itertools.pairwise(scales):
        assert small.minimum <= large.minimum
        assert small.maximum < large.maximum
        assert small.floor < large.floor
    assert predict([PLAIN, PLAIN], gpu, 8).maximum == pytest.approx(2 * before.maximum)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_a_real_launch_grows_with_its_image(gpu: Gpu):
    output = [predict([counted(2, h)], gpu, 8) for h in (64, 256)]
    assert output[0].floor < output[1].floor
    assert output[0].minimum <= output[1].minimum
    assert output[0].maximum < output[1].maximum


# ---- the page


def test_every_kernel_has_its_figures_and_its_row(kept):
    missing = set(kernel_sources()) - set(kept.launches) - set(NOT_ON_A_GPU)
    assert not missing, f"not counted: {sorted(missing)}; {SAY}"
    assert set(kept.launches) <= set(kernel_sources()), f"kernels that are gone; {SAY}"
    text = (ROOT / "docs" / "gpu_model.md").read_text()
    for kernel in kernel_sources():
        assert text.count(f"\n| {kernel} |") >= 2, f"{kernel} has no rows; {SAY}"


def test_the_page_is_what_the_figures_say(kept):
    assert page(kept) == (ROOT / "docs" / "gpu_model.md").read_text(), SAY


@pytest.mark.slow
def test_the_figures_are_of_these_kernels(kept):
    assert not outdated(kept), SAY


def test_predictions_of_the_page_are_intervals_above_their_floor(kept):
    for gpu in GPUS:
        for fields in BATCHES:
            for kernel, p in predictions(kept, gpu, fields).items():
                assert 0 < p.floor <= p.minimum <= p.maximum < 10, kernel
        small, large = (totals(kept, gpu, fields) for fields in BATCHES)
        assert large.minimum / BATCHES[1] <= small.minimum / BATCHES[0]
        assert large.floor == pytest.approx(small.floor * BATCHES[1] / BATCHES[0])


def test_each_slow_kernel_has_its_reason(kept):
    text = "\n".join(reasons_of(kept))
    assert "not yet looked into" not in text, "benchmarks/gpu_model/reasons.toml"
    for kernel in slow_kernels(kept, BATCHES[0]):
        assert kernel in text


def test_figures_are_written_and_read_back(tmp_path, kept):
    save(kept, tmp_path / "a.json", {"machine": {}})
    again = load(tmp_path / "a.json")
    assert again == load(RESULTS / "gpu_model.json")
    assert load(tmp_path / "absent.json") == Figures()


def test_the_command_counts_one_kernel_on_a_drawn_plate(tmp_path, capsys, monkeypatch):
    out = ["--json", str(tmp_path / "m.json"), "--page", str(tmp_path / "m.md")]
    assert main(["--drawn", "192", "--kernels", "correct", "label_tiles", *out]) == 0
    figures = load(tmp_path / "m.json")
    assert set(figures.launches) == {"correct", "label_tiles"}
    assert figures.batch is not None
    assert figures.batch.fields == 2
    assert "none was measured on a GPU" in (tmp_path / "m.md").read_text()
    with pytest.raises(SystemExit):
        main(["--kernels", "no_such_kernel", *out])
    assert "unknown kernel 'no_such_kernel'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--all", "--images", str(tmp_path / "absent"), *out])
    assert "is absent; give --images, or --drawn SIZE" in capsys.readouterr().err


def test_no_header_says_where_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiled.Path, "is_file", lambda self: False)
    with pytest.raises(FileNotFoundError, match="nvidia-cuda-runtime"):
        compiled.header_folder()


def test_every_architecture_of_the_compile_test_has_resources():
    result = compiled.resources(kernel_folder() / "segmentation" / "label.cu", "sm_80")
    assert result["label_tiles"].shared > 1000
    assert {g.architecture for g in GPUS} <= set(compiled.ARCHITECTURES)


def test_a_run_has_the_rate_of_the_slower_of_device_and_host():
    """4 to 2 ms per field on the device; a host of 10 ms of CPU a field, 3 of them under Python's lock."""
    assert with_host(0.004, 0.002, 2, [0.010, 0.003]) == "200 .. 200"  # two cores give 200
    assert with_host(0.004, 0.002, 16, [0.010, 0.003]) == "250 .. 333"  # the device, and what the lock gives
    assert with_host(0.02, 0.01, 2, [0.010, 0.003]) == "50 .. 100"  # the device alone
