"""The CUDA branch, executed line by line against a stand-in for CuPy and torch's streams; nothing here ran on a GPU."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_model.recording import recorded
from jumpgpu.gpu import cuda
from jumpgpu.gpu.device import BLOCK, MOST_FIELDS, Device, blocks
from jumpgpu.gpu.kernel_source import kernel_sources
from jumpgpu.gpu.open import open_device
from jumpgpu.images import ring_buffer as rings
from jumpgpu.images.plate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import SegmentationSettings
from tests.helpers.image_plates import image_name, write_plate
from tests.images.test_decode import without_clear
from tests.images.test_reader import missing
from tests.simulators.standin_cuda import GPU, standin
from tests.simulators.ways import HostDevice, assert_equal_bits
from tests.ways.test_levels import measure


def logs(device: Device, out: torch.Tensor, **change: object) -> None:
    device.launch("texture_logs", blocks(5), **{"entries": 5, "logs": out, **change})


@pytest.mark.parametrize("version", [13, 14])
def test_a_launch_goes_to_torchs_current_stream(version):
    with standin(version) as gpu:
        device = open_device("cuda")
        out = device.zeros(5, dtype=torch.int64)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            logs(device, out)
        torch.cuda.current_stream().wait_stream(stream)
        out.record_stream(stream)
        assert gpu.launches == ["texture_logs"]
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
    ],
)
def test_the_stand_in_notices(wrong: Callable[[], None], error: type[Exception], message: str):
    with pytest.raises(error, match=message), standin():
        wrong()


def test_bad_use_of_the_cuda_device():
    with standin():
        device = open_device("cuda")
        with pytest.raises(ValueError, match="unknown kernel 'nothing'"):
            device.launch("nothing", 1)
        with pytest.raises(ValueError, match="does not fit"):
            logs(device, device.zeros(5, dtype=torch.int64), entries=2**70)
        logs_out = device.zeros(5, dtype=torch.int64)
        device.launch("texture_logs", 0, block=BLOCK, entries=5, logs=logs_out)
        assert not GPU.launches
        with pytest.raises(RuntimeError, match="'cuda:1' was asked for; there are 1 CUDA devices"):
            open_device("cuda:1")


def test_without_cupy_the_extra_is_named(monkeypatch):
    with standin(), monkeypatch.context() as patch:  # undone before the stand-in is, or it would be put back for good
        patch.setitem(sys.modules, "cupy", None)
        with pytest.raises(RuntimeError, match=r"pip install 'jumpgpu\[cuda\]'"):
            open_device("cuda")


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
        assert batch == (10 << 30) // 2 // (field * cuda.CUDA_BYTES_A_VALUE) >= 8
        assert lanes == 1
        assert device.plan(10_000, field // 100) == (MOST_FIELDS, 1)
        assert device.plan(3, field) == (3, 1)
        assert device.plan(3, 1 << 40) == (1, 1)
        assert device.plan(10_000, field, batch=5) == (5, 1)


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
    try:
        for version in (13, 14):
            test_a_launch_goes_to_torchs_current_stream(version)
        test_bad_use_of_the_cuda_device()
        test_a_batch_on_a_gpu_is_what_half_of_its_free_memory_holds()
        test_a_table_is_fetched_without_a_wait()
        test_fields_are_copied_from_pinned_memory_on_a_stream_of_their_own(tmp_path)
        with standin():
            open_device("cuda").synchronize()
        test_without_cupy_the_extra_is_named(monkeypatch)
        list(read_fields(find_plate("BR00000001", tmp_path), batch=2))  # the ring on the CPU
    finally:
        sys.settrace(before)
    missed = sorted(wanted - seen)
    with capsys.disabled():
        print(f"\nCUDA branch against the stand-in: {len(wanted) - len(missed)} of {len(wanted)} lines ran")
    assert not missed
