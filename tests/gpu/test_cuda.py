"""The CUDA branch, executed line by line against a stand-in for CuPy and torch's streams; nothing here ran on a GPU."""

import sys
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import jumpgpu
from benchmarks.gpu_model.recording import recorded
from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu import cuda
from jumpgpu.gpu.device import BLOCK, MAX_FIELDS, Device, blocks
from jumpgpu.gpu.kernel_source import kernel_sources
from jumpgpu.gpu.open import open_device
from jumpgpu.images import ring_buffer as rings
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import FeatureSettings, SegmentationSettings, load_config
from jumpgpu.store.reader import open_plate
from tests.helpers.image_plates import image_name, write_plate
from tests.helpers.plates import write_images
from tests.images.test_decode import without_clear
from tests.images.test_reader import missing
from tests.simulators.standin_cuda import GPU, standin
from tests.simulators.ways import HostDevice, assert_equal_bits
from tests.ways.test_levels import measure


def logs(device: Device, out: torch.Tensor, **change: object) -> None:
    device.launch("texture_logs", blocks(5), **{"entries": 5, "logs": out, **change})


@pytest.mark.parametrize(("version", "cuda_stream"), [(13, False), (13, True), (14, False), (14, True)])
def test_a_launch_goes_to_torchs_current_stream(version, cuda_stream):
    """With CuPy 13 and 14, with torch before and since 2.10."""
    with standin(version, cuda_stream=cuda_stream) as gpu:
        device = open_device("cuda")
        out = device.zeros(5, dtype=torch.int64)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            logs(device, out)
        torch.cuda.current_stream().wait_stream(stream)
        out.record_stream(stream)
        assert gpu.launches == ["texture_logs"] * 2  # the first when the device was opened
        assert device.tensor(out) is out
        uploaded = device.tensor([3, 5], torch.int32)
        assert uploaded.cpu().tolist() == [3, 5]
        assert out.cpu()[3] > 0


def test_every_family_measures_as_on_the_cpu():
    want = measure(HostDevice("serial"))
    with standin():
        device = open_device("auto")
        assert device.description == "cuda:0 (stand-in)"
        got = measure(device)
        assert got.device == torch.device("cuda", 0)
        device.synchronize()
        assert_equal_bits(got.cpu(), want, "stand-in")


def test_segmentation_as_on_the_cpu():
    pixels = torch.rand(2, 2, 61, 83, generator=torch.Generator().manual_seed(1)) * 0.1
    y, x = torch.meshgrid(torch.arange(61.0), torch.arange(83.0), indexing="ij")
    for b, cy, cx in ((0, 20, 25), (0, 40, 60), (1, 30, 40)):
        pixels[b] += 0.8 * torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 50)
    channels = ("DNA", SegmentationSettings().cells.channel)
    want = segment(pixels, channels, SegmentationSettings(), HostDevice("serial"))
    with standin():
        device = open_device("cuda:0")
        got = segment(device.tensor(pixels), channels, SegmentationSettings(), device)
        assert_equal_bits({k: v.cpu() for k, v in got.labels.items()}, want.labels, "stand-in")


def test_fields_are_copied_from_pinned_memory_on_a_stream_of_their_own(tmp_path: Path):
    images = write_plate(tmp_path, wells=("A02", "B03"), sites=(1, 2, 7))
    missing(images / image_name("A02", 2, 1))
    without_clear(images / image_name("B03", 1, 4))  # asked of the host, which refuses it
    plate = find_plate("BR00000001", tmp_path)
    want = [b.pixels.clone() for b in read_fields(plate, batch=2)]
    with standin() as gpu:
        device = open_device("cuda")
        got = []
        for batch in read_fields(plate, batch=2, ahead=1, workers=0, device=device):
            assert batch.pixels.device == device.torch
            got.append(batch.pixels.to(torch.int32).cpu())
        assert gpu.pins
        assert len(gpu.streams) == 2
        assert len(got) == len(want)
        for ours, theirs in zip(got, want, strict=True):
            assert torch.equal(ours, theirs.to(torch.int32))


# ---- the stand-in itself notices what it is there for


def unordered_launch() -> None:
    device = open_device("cuda")
    out = device.zeros(5, dtype=torch.int64)
    with torch.cuda.stream(torch.cuda.Stream()):
        logs(device, out)


def unordered_operator() -> None:
    x = open_device("cuda").zeros(5, dtype=torch.int64)
    with torch.cuda.stream(torch.cuda.Stream()):
        x + 1


def host_pointer() -> None:
    logs(open_device("cuda"), torch.zeros(5, dtype=torch.int64))


def large_block() -> None:
    device = open_device("cuda")
    device.launch("gather_values", 1, block=1024, **gathered(device))


def gathered(device: Device) -> dict[str, object]:
    arguments = kernel_sources()["gather_values"][1]
    return {a.name: device.zeros(256, dtype=a.dtype) if a.pointer else 1 for a in arguments}


def pinned_too_early() -> None:
    buffer = torch.zeros(5, pin_memory=True)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        copy = buffer.to("cuda", non_blocking=True)
    buffer += 1
    stream.synchronize()
    assert copy is not None


def dies_in_use() -> None:
    x = open_device("cuda").zeros(5, dtype=torch.float32)
    other = torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        y = x + 1
    del x
    torch.cuda.synchronize()
    assert y is not None


def mixed() -> None:
    open_device("cuda").zeros(5, dtype=torch.float32) + torch.zeros(5)


def unsigned_index() -> None:
    open_device("cuda").zeros(3, 2, dtype=torch.uint16)[[0, 2]]


def unsigned_stack() -> None:
    x = open_device("cuda").zeros(3, 2, dtype=torch.uint16)
    torch.stack([x[0], x[2]])


def unsigned_mask() -> None:
    x = open_device("cuda").zeros(3, dtype=torch.uint32)
    x[x == 0]


def unsigned_sum() -> None:
    x = open_device("cuda").zeros(3, dtype=torch.uint16)
    x + x


def of_cpus_only() -> None:
    torch.histogram(open_device("cuda").zeros(3, dtype=torch.float32), 2)


def places_written_twice() -> None:
    device = open_device("cuda")
    out, at = device.zeros(3, dtype=torch.float32), device.tensor([1, 1])
    out[at] = device.tensor([1.0, 2.0])


def two_devices() -> None:
    open_device("cuda:0").zeros(3, dtype=torch.float32) + open_device("cuda:1").zeros(3, dtype=torch.float32)


def stream_of_another_device() -> None:
    x = open_device("cuda:1").zeros(3, dtype=torch.float32)
    x.allocation.touch(torch.cuda.current_stream(), False, "a launch")


def too_large() -> None:
    open_device("cuda").zeros(1 << 30, dtype=torch.float64)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (unordered_launch, AssertionError, "texture_logs: touches what stream .* has not finished with"),
        (unordered_operator, AssertionError, "touches what stream"),
        (host_pointer, ValueError, "logs is on cpu, the launch on cuda:0"),
        (large_block, AssertionError, "is bound to 128 threads"),
        (pinned_too_early, AssertionError, "changed before the copy"),
        (dies_in_use, AssertionError, "record_stream was not called"),
        (mixed, RuntimeError, "same device"),
        (unsigned_index, NotImplementedError, "\"index_cuda\" not implemented for 'UInt16'"),
        (unsigned_stack, NotImplementedError, "\"stack_cuda\" not implemented for 'UInt16'"),
        (unsigned_mask, NotImplementedError, "\"index_cuda\" not implemented for 'UInt32'"),
        (unsigned_sum, NotImplementedError, "\"add_cuda\" not implemented for 'UInt16'"),
        (of_cpus_only, NotImplementedError, "aten::histogram"),
        (places_written_twice, AssertionError, "a place is written twice"),
        (two_devices, RuntimeError, "found cuda:0 and cuda:1"),
        (stream_of_another_device, AssertionError, "a stream of cuda:0 touches a tensor of cuda:1"),
        (too_large, torch.OutOfMemoryError, "Tried to allocate 8589934592 bytes"),
    ],
)
def test_the_stand_in_notices(wrong: Callable[[], None], error: type[Exception], message: str):
    with pytest.raises(error, match=message), standin(devices=2, memory=1 << 32):
        wrong()


VALUES = torch.from_numpy(np.random.default_rng(1).random((3, 1001)))
OTHER_BITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cumsum": lambda x: x.cumsum(1),
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean(1),
    "std": lambda x: x.std(1),
    "prod": lambda x: (x + 0.5).prod(1),
    "by a number": lambda x: x / 1166400,
    "by a number in place": lambda x: x.clone().div_(3),
    "exp": lambda x: x.exp(),
    "log": lambda x: torch.log(x),
    "a power": lambda x: x**1.7,
    "fused": lambda x: torch.addcmul(x, x, x, value=0.3),
    "alpha": lambda x: torch.add(x, x, alpha=0.3),
    "index_add_": lambda x: torch.zeros_like(x[0]).index_add_(0, (x[0] * 0).long(), x[1]),
    "ties": lambda x: torch.sort((x * 5).long()).indices,
}
SAME_BITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole numbers": lambda x: (x * 9).round().cumsum(1),
    "integers": lambda x: (x * 9).long().sum(1),
    "tensors": lambda x: x / x.flip(1),
    "a square": lambda x: x**2,
    "a root": lambda x: x.sqrt(),
    "sorted values": lambda x: torch.sort(x).values,
    "a stable sort": lambda x: torch.sort((x * 5).long(), stable=True).indices,
    "extremes": lambda x: torch.stack([x.amax(1), x.amin(1)]),
    "counts": lambda x: (
        torch.zeros(4).to(x.device).index_add_(0, (x[0] * 4).long(), torch.ones_like(x[0], dtype=torch.float32))
    ),
}


@pytest.mark.parametrize("name", [*OTHER_BITS, *SAME_BITS])
def test_operators_have_cudas_bits(name: str):
    """Close to the CPU's where torch on CUDA is close to it, equal where it is equal."""
    work = {**OTHER_BITS, **SAME_BITS}[name]
    want = work(VALUES)
    with standin():
        got = work(open_device("cuda").tensor(VALUES)).cpu()
    assert torch.equal(got, want) is (name in SAME_BITS)
    if name != "ties":
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_the_second_device():
    """Nothing is left to the device that is current."""
    want = measure(HostDevice("serial"))
    with standin(devices=2) as gpu:
        device = open_device("cuda:1")
        got = measure(device)
        assert got.device == torch.device("cuda", 1)
        device.synchronize()
        assert_equal_bits(torch.from_numpy(device.fetch(got)()), want, "cuda:1")
        assert gpu.used[0] == 0


def test_bad_use_of_the_cuda_device():
    with standin():
        device = open_device("cuda")
        with pytest.raises(ValueError, match="unknown kernel 'nothing'"):
            device.launch("nothing", 1)
        with pytest.raises(ValueError, match="does not fit"):
            logs(device, device.zeros(5, dtype=torch.int64), entries=2**70)
        logs_out = device.zeros(5, dtype=torch.int64)
        device.launch("texture_logs", 0, block=BLOCK, entries=5, logs=logs_out)
        assert GPU.launches == ["texture_logs"]  # when it was opened
        with pytest.raises(RuntimeError, match="'cuda:1' was asked for; there are 1 CUDA devices"):
            open_device("cuda:1")


def test_without_cupy_the_extra_is_named(monkeypatch):
    with standin(), monkeypatch.context() as patch:  # undone before the stand-in is, or it would be put back for good
        patch.setitem(sys.modules, "cupy", None)
        with pytest.raises(RuntimeError, match=r"pip install 'jumpgpu\[cuda\]'"):
            open_device("cuda")


@pytest.mark.parametrize(
    ("nvrtc", "driver", "fits"), [((12, 0), 12040, True), ((12, 9), 13000, True), ((13, 0), 12090, False)]
)
def test_a_compiler_that_is_newer_than_the_driver_is_named(monkeypatch, nvrtc, driver, fits):
    with standin() as gpu:
        monkeypatch.setattr(gpu, "nvrtc", nvrtc)
        monkeypatch.setattr(gpu, "driver", driver)
        if fits:
            versions = open_device("cuda").versions()
            assert versions["nvrtc"] == f"{nvrtc[0]}.{nvrtc[1]}"
            assert versions["driver"] == f"{driver // 1000}.{driver % 1000 // 10}"
        else:
            with pytest.raises(
                RuntimeError, match=r"CuPy has NVRTC 13.0, the driver runs CUDA 12.9 at most: install jumpgpu\[cuda12\]"
            ):
                open_device("cuda")
            assert not gpu.launches


def test_a_device_that_cannot_run_a_kernel_is_not_opened(monkeypatch):
    with standin(), monkeypatch.context() as patch:
        patch.setattr(cuda.CudaDevice, "_kernel", lambda *_: (_ for _ in ()).throw(OSError("no kernel image is available")))
        with pytest.raises(RuntimeError, match="cannot run a kernel: no kernel image is available; `jumpgpu doctor`"):
            open_device("cuda")
    with standin(), monkeypatch.context() as patch:
        patch.setattr(cuda.CudaDevice, "launch", lambda self, *_, **values: values["logs"].fill_(1))
        with pytest.raises(RuntimeError, match="gives other numbers than the CPU"):
            open_device("cuda")


def test_all_kernels_are_compiled_at_once_and_said(monkeypatch):
    monkeypatch.setattr(cuda, "SAY_EVERY_S", -1.0)
    said: list[str] = []
    files = {path for path, _ in kernel_sources().values()}
    with standin() as gpu:
        device = open_device("cuda")
        monkeypatch.setattr(cuda, "full_source", lambda path: "")  # nothing to compile here
        assert device.compile(said.append) > 0
        assert gpu.compiled == len(files) - 1 == len(said)  # one was compiled to open it
        assert said[-1] == f"compiling the kernels for this GPU, once: {len(files) - 1} of {len(files) - 1} files"
        assert device.compile() < 1
        assert gpu.compiled == len(files) - 1


def test_a_table_is_fetched_without_a_wait():
    with standin() as gpu:
        device = open_device("cuda")
        table = device.tensor(torch.arange(6, dtype=torch.float64).view(2, 3))
        with recorded(lambda kernel: False) as recording:
            fetched = device.fetch(table)
            del table  # its memory may be taken by what is launched next on the stream, which comes after the copy
            later = device.zeros(2, 3, dtype=torch.float64)
        assert not recording.waits
        np.testing.assert_array_equal(fetched(), np.arange(6.0).reshape(2, 3))
        assert later.shape == (2, 3)
        assert not gpu.faults


def test_a_batch_on_a_gpu_is_what_half_of_its_free_memory_holds():
    field = 5 * 1080 * 1080
    with standin():  # 10 GiB free
        device = open_device("cuda")
        batch, lanes = device.plan(10_000, field)
        assert device.scratch_bytes == (10 << 30) // 8
        assert batch == ((10 << 30) - device.scratch_bytes) // 2 // (field * cuda.CUDA_BYTES_PER_VALUE) == 7
        assert lanes == 1
        assert device.plan(10_000, field // 100) == (MAX_FIELDS, 1)
        assert device.plan(3, field) == (3, 1)
        assert device.plan(3, 1 << 40) == (1, 1)
        assert device.plan(10_000, field, batch=5) == (5, 1)


def giant_cell(device: Device) -> torch.Tensor:
    """Families that have scratch for each block, of 49 small cells and one of 400 x 400 pixels."""
    cells = torch.zeros(2, 400, 400, dtype=torch.int32)
    cells[0] = 1
    for i in range(49):
        y, x = 50 * (i // 7) + 5, 50 * (i % 7) + 5
        cells[1, y : y + 20, x : x + 20] = i + 1
    nuclei = torch.where((torch.arange(400) % 50 < 15)[None, None, :], cells, 0)
    labels = {"Cells": cells, "Nuclei": nuclei, "Cytoplasm": torch.where(nuclei > 0, 0, cells)}
    pixels = torch.rand(2, 1, 400, 400, generator=torch.Generator().manual_seed(6))
    settings = FeatureSettings(families=("shape", "radial", "neighbors", "number"))
    given = {name: device.tensor(image) for name, image in labels.items()}
    return measure_batch(make_batch(("DNA",), device.tensor(pixels), given, {}, device), settings, device)


def test_a_cell_as_large_as_a_field_does_not_multiply_the_scratch():
    """Scratch is a box for each block: 150 rows, one of them of 400 x 400 pixels, took 300 MB for radial_sums alone."""
    want = giant_cell(HostDevice("serial"))
    with standin(memory=80 << 20) as gpu:
        device = open_device("cuda")
        assert device.scratch_bytes == 10 << 20
        assert_equal_bits(giant_cell(device).cpu(), want, "little memory")
        assert gpu.peak[0] < 80 << 20


@pytest.mark.parametrize(
    ("tasks", "each", "want"), [(1000, 1 << 20, 10), (5, 1 << 20, 5), (1000, 1 << 30, 1), (0, 1 << 20, 0), (1000, 1, 64)]
)
def test_blocks_with_scratch_are_bound_by_memory(tasks, each, want):
    with standin(memory=80 << 20):
        assert open_device("cuda").scratch_blocks(tasks, each, per_core=1, maximum=64) == want


# ---- the whole program


@pytest.fixture
def plate(tmp_path, monkeypatch):
    """A plate of 4 sites with label images, and what `jumpgpu.extract` is given of it."""
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    families = ("number", "intensity", "texture")
    config = replace(load_config("jump-production"), features=FeatureSettings(families=families, image_quality=True))
    return {"images": "images", "illumination": "none", "config": config, "quiet": True}


def assert_same_numbers(gpu: Path, cpu: Path) -> None:
    """Equal cells, numbers and image quality of two stores."""
    ours, theirs = open_plate(gpu / "DEMO.zarr"), open_plate(cpu / "DEMO.zarr")
    assert ours.wells == theirs.wells == ["A01", "B02"]
    pd.testing.assert_frame_equal(ours.to_pandas(), theirs.to_pandas(), check_exact=True)
    pd.testing.assert_frame_equal(ours.image_quality(), theirs.image_quality(), check_exact=True)
    assert ours.quarantine.to_dict() == theirs.quarantine.to_dict()


@pytest.mark.parametrize("bad", [None, "A01_s2_Cells.tiff", "A01_s1_Nuclei.tiff"])
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_plate_with_masks(plate, tmp_path, bad, name):
    """A broken label image costs its site: what is left of the batch's uint16 pixels is taken without indexing them."""
    if bad:
        (tmp_path / "masks" / bad).write_bytes(b"no TIFF")
    plate["masks"] = "masks"
    jumpgpu.extract("DEMO", device="cpu", output="cpu", **plate)
    with standin(devices=2):
        jumpgpu.extract("DEMO", device=name, output="gpu", **plate)
    assert_same_numbers(Path("gpu"), Path("cpu"))
    assert len(open_plate(Path("gpu/DEMO.zarr")).quarantine) == bool(bad)


def test_a_plate_on_little_memory(plate, tmp_path, capsys):
    """A batch that does not fit is freed, halved, and the next is no larger than what passed."""
    plate.update(masks="masks", batch=4, quiet=False)
    jumpgpu.extract("DEMO", device="cpu", output="cpu", **plate)
    capsys.readouterr()
    with standin() as gpu:
        jumpgpu.extract("DEMO", device="cuda", output="gpu", **plate)
        maximum = gpu.peak[0]
    assert "trying again" not in capsys.readouterr().err
    with standin(memory=int(maximum * 0.6)):
        jumpgpu.extract("DEMO", device="cuda", output="gpu", overwrite=True, **plate)
    err = capsys.readouterr().err
    assert "DEMO A01 site 1 and 3 more fields: CUDA out of memory" in err
    assert "trying again, 2 at a time" in err
    assert_same_numbers(Path("gpu"), Path("cpu"))


# ---- no line of the CUDA branch is first run by a user


def lines_of(code: types.CodeType) -> set[int]:
    """Lines of a function and of those within it, its own first line apart."""
    own = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
    return own.union(*[lines_of(c) for c in code.co_consts if isinstance(c, types.CodeType)])


def test_every_line_of_the_cuda_branch_runs(tmp_path: Path, capsys, monkeypatch):
    functions = [f for f in vars(cuda.CudaDevice).values() if isinstance(f, types.FunctionType)]
    functions += [f for f in vars(rings.CudaRing).values() if isinstance(f, types.FunctionType)]
    wanted = {(f.__code__.co_filename, line) for f in functions for line in lines_of(f.__code__)}
    files = {name for name, _ in wanted}
    seen: set[tuple[str, int]] = set()

    def trace(frame: types.FrameType, event: str, _: object) -> object:
        if frame.f_code.co_filename not in files:
            return None
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)
    try:
        for version in (13, 14):
            test_a_launch_goes_to_torchs_current_stream(version, False)
        test_bad_use_of_the_cuda_device()
        test_a_batch_on_a_gpu_is_what_half_of_its_free_memory_holds()
        test_a_table_is_fetched_without_a_wait()
        test_fields_are_copied_from_pinned_memory_on_a_stream_of_their_own(tmp_path)
        with standin():
            open_device("cuda").synchronize()
            open_device("cuda").give_back(5)
            assert open_device("cuda").function("texture_logs") is not None
        test_without_cupy_the_extra_is_named(monkeypatch)
        with monkeypatch.context() as patch:
            test_a_compiler_that_is_newer_than_the_driver_is_named(patch, (13, 0), 12090, False)
        with monkeypatch.context() as patch:
            test_all_kernels_are_compiled_at_once_and_said(patch)
        list(read_fields(find_plate("BR00000001", tmp_path), batch=2))  # the ring on the CPU
    finally:
        sys.settrace(before)
        threading.settrace(None)
    missed = sorted(wanted - seen)
    with capsys.disabled():
        print(f"\nCUDA branch against the stand-in: {len(wanted) - len(missed)} of {len(wanted)} lines ran")
    assert not missed
