"""What `launch` takes and refuses, which library is loaded, and the pool of threads behind it."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from jumpgpu.gpu import cpu as devices
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import CONSTANTS, Device, blocks
from jumpgpu.gpu.kernel_source import Argument, check_scalar, full_source, kernel_sources, pack, signatures
from jumpgpu.gpu.open import open_device


def logs(device: Device, entries: object = 5, **change: object) -> torch.Tensor:
    """One small launch: the kernel of Texture that tabulates m log m."""
    values = {"entries": entries, "logs": torch.zeros(5, dtype=torch.int64), **change}
    device.launch("texture_logs", blocks(5), **values)
    return values["logs"]


def test_named_arguments_in_any_order(device):
    out = torch.zeros(5, dtype=torch.int64)
    device.launch("texture_logs", blocks(5), logs=out, entries=5)
    assert torch.equal(out, logs(device))
    assert out[2] > 0


def test_an_unknown_kernel_is_named(device):
    with pytest.raises(ValueError, match="unknown kernel 'texture_log'"):
        device.launch("texture_log", 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logs": torch.zeros(5, dtype=torch.int32)}, TypeError, r"texture_logs: logs must be torch.int64, got torch.int32"),
        ({"logs": np.zeros(5, np.int64)}, TypeError, "logs must be a torch tensor, got ndarray"),
        ({"logs": torch.zeros(10, dtype=torch.int64)[::2]}, ValueError, r"logs must be contiguous, has strides \(2,\)"),
        ({"logs": torch.zeros(5, dtype=torch.int64, device="meta")}, ValueError, "logs is on meta, the launch on cpu"),
        ({"entries": 5.0}, TypeError, "entries must be an integer, got float"),
        ({"entries": torch.tensor(5)}, TypeError, "entries must be an integer, got Tensor"),
        ({"entries": 2**70}, ValueError, r"entries = \d+ does not fit torch.int"),
        ({"entry": 3}, TypeError, "not known: entry"),
    ],
)
def test_a_wrong_argument_is_told(device, change, error, message):
    with pytest.raises(error, match=message):
        logs(device, **change)
    with pytest.raises(error, match=message):  # as CUDA's arguments
        pack("texture_logs", {"entries": 5, "logs": torch.zeros(5, dtype=torch.int64), **change}, device.torch)


def test_a_missing_argument_is_told(device):
    with pytest.raises(TypeError, match="missing logs"):
        device.launch("texture_logs", 1, entries=5)
    with pytest.raises(TypeError, match="missing entries; not known: entry"):
        pack("texture_logs", {"entry": 5, "logs": torch.zeros(5, dtype=torch.int64)}, device.torch)
    with pytest.raises(TypeError, match="missing entries; not known: entry"):
        device.launch("texture_logs", 1, entry=5, logs=torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize(("grid", "block"), [(-1, 128), (2**31, 128), (1, 0), (1, 48), (1, 2048)])
def test_a_grid_or_block_that_no_gpu_runs(device, grid, block):
    with pytest.raises(ValueError, match=r"a grid has|a block has"):
        device.launch("texture_logs", grid, block=block, entries=5, logs=torch.zeros(5, dtype=torch.int64))


def test_a_grid_of_0_checks_and_does_nothing(device):
    out = torch.full((5,), 7, dtype=torch.int64)
    device.launch("texture_logs", 0, entries=5, logs=out)
    assert (out == 7).all()
    with pytest.raises(TypeError, match="missing"):
        device.launch("texture_logs", 0, entries=5)


@pytest.mark.parametrize(
    ("dtype", "value", "want"),
    [
        (torch.int32, np.int64(7), 7),
        (torch.int32, np.uint8(255), 255),
        (torch.int32, True, 1),
        (torch.int32, np.bool_(True), 1),
        (torch.uint64, 2**64 - 1, 2**64 - 1),
        (torch.float32, 3, 3.0),
        (torch.float32, np.float64(0.5), 0.5),
        (torch.float32, float("inf"), float("inf")),
        (torch.float64, np.float32(0.25), 0.25),
    ],
)
def test_numbers_are_converted(dtype, value, want):
    got = check_scalar("k", Argument("x", dtype, False), value)
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [
        (torch.uint32, -1, ValueError),
        (torch.int8, 128, ValueError),
        (torch.float32, 1e39, ValueError),
        (torch.float64, "1", TypeError),
        (torch.int32, None, TypeError),
        (torch.int32, np.float64(2.0), TypeError),
    ],
)
def test_numbers_that_do_not_fit(dtype, value, error):
    with pytest.raises(error, match="k: x"):
        check_scalar("k", Argument("x", dtype, False), value)


def test_signatures_are_read_from_the_source():
    text = """
    // extern "C" __global__ void gone(int a)
    extern "C" __global__ void __launch_bounds__(128, 8) one(const float* __restrict__ x, int64_t n,  // a comment, with (
        double* __restrict__ out)
    """
    assert signatures(text) == {
        "one": (Argument("x", torch.float32, True), Argument("n", torch.int64, False), Argument("out", torch.float64, True))
    }


def test_a_source_for_cupy_has_its_headers_in_it_once():
    for path in {path for path, _ in kernel_sources().values()}:
        text = full_source(path)
        assert '#include "jg' not in text
        assert text.count("namespace jg {\n\n#if defined(JG_SERIAL)") == 1, path.name


def test_cuda_without_a_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device is visible; device='cpu' runs the same kernels"):
        open_device("cuda")
    assert open_device("auto").name == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu0"])
def test_an_unknown_device_is_told(name):
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda'"):
        open_device(name)


def levels() -> list[str]:
    return sorted(p.stem.removeprefix("kernels_") for p in devices.library_folder().glob("kernels_*.so"))


def test_the_best_level_is_chosen_and_the_environment_overrides(monkeypatch):
    monkeypatch.delenv("JUMPGPU_LEVEL", raising=False)
    assert devices.host_level() in levels()
    for level in levels():
        monkeypatch.setenv("JUMPGPU_LEVEL", level)
        assert devices.host_level() == level
    monkeypatch.setenv("JUMPGPU_LEVEL", "x86-64-v9")
    with pytest.raises(ValueError, match="'x86-64-v9' is not built; there is"):
        devices.host_level()


@pytest.mark.parametrize(
    ("built", "capability", "want"),
    [
        (["x86-64-v2", "x86-64-v3", "x86-64-v4"], "AVX512", "x86-64-v4"),
        (["x86-64-v2", "x86-64-v3", "x86-64-v4"], "AVX2", "x86-64-v3"),
        (["x86-64-v2", "x86-64-v3"], "DEFAULT", "x86-64-v2"),
        (["plain"], "DEFAULT", "plain"),
        (["x86-64-v4"], "AVX2", None),
        ([], "AVX2", None),
    ],
)
def test_levels_by_processor(monkeypatch, tmp_path, built, capability, want):
    for level in built:
        (tmp_path / f"kernels_{level}.so").touch()
    monkeypatch.delenv("JUMPGPU_LEVEL", raising=False)
    monkeypatch.setattr(devices, "library_folder", lambda: tmp_path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if want:
        assert devices.host_level() == want
    else:
        with pytest.raises(RuntimeError, match=r"no host library in|runs none of the built levels"):
            devices.host_level()


def test_a_processor_that_lacks_a_level_is_not_given_it():
    """The three levels give equal bits: test_levels.py; here, that each loads on this processor or is passed over."""
    best = devices.host_level()
    CpuDevice(library=devices.library_folder() / f"kernels_{best}.so").launch(
        "texture_logs", 1, entries=5, logs=torch.zeros(5, dtype=torch.int64)
    )


def test_launches_from_several_threads_at_once():
    device = CpuDevice(workers=3)
    want = logs(device)
    wrong: list[int] = []

    def work() -> None:
        for k in range(100):
            if not torch.equal(logs(device), want):
                wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, sys, torch
from jumpgpu.gpu.device import FEW
from jumpgpu.gpu.cpu import CpuDevice
device = CpuDevice(workers=3)
outs = [torch.empty(50000, dtype=torch.int64) for _ in range(3)]    # torch's own threads do not live through a fork
def run(out):
    device.launch("texture_logs", -(-50000 // FEW), entries=50000, logs=out)
    return out.numpy().tobytes()
want = run(outs[0])
child = os.fork()
if child == 0:
    os._exit(0 if run(outs[1]) == want else 1)
status = os.waitpid(child, 0)[1]
assert run(outs[2]) == want
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_pool_starts_anew_after_a_fork():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- tables that do not change


def test_a_constant_is_copied_once():
    """A tuple by its values and type, an array by being the same object; each device has its own."""
    device, table = CpuDevice(), np.arange(3)
    assert device.constant((1, 2), torch.int32) is device.constant((1, 2), torch.int32)
    assert device.constant((1, 2), torch.float64).dtype == torch.float64
    assert device.constant(table) is device.constant(table)
    assert device.constant(table.copy()).tolist() == [0, 1, 2]
    assert device.constant(table) is not CpuDevice().constant(table)
    for k in range(CONSTANTS + 5):
        assert device.constant((k,), torch.int32).tolist() == [k]
    assert len(vars(device)["_constants"]) == CONSTANTS
    assert device.constant(table).tolist() == [0, 1, 2]


def test_arguments_are_packed_in_the_kernels_own_order(device):
    out = torch.zeros(5, dtype=torch.int64)
    packed = pack("texture_logs", {"logs": out, "entries": np.int64(5)}, device.torch)
    by_name = dict(zip([a.name for a in kernel_sources()["texture_logs"][1]], packed, strict=True))
    assert by_name == {"logs": out.data_ptr(), "entries": 5}
    assert {name: type(value) for name, value in by_name.items()} == {"logs": np.uint64, "entries": np.int64}
