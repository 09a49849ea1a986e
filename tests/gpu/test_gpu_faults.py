"""What goes wrong on a GPU, on a GPU (`-m gpu`) and on the stand-in: memory, a giant cell, broken files, an interruption."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import jumpgpu
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.store.reader import open_plate
from tests.conftest import CHECKOUT
from tests.gpu.test_cuda import assert_same_numbers, giant_cell, plate  # noqa: F401 (a fixture)
from tests.simulators.standin_cuda import standin
from tests.simulators.ways import HostDevice, assert_equal_bits


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device called 'cuda': the stand-in, or a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device is visible")
    with standin() if request.param == "stand-in" else contextlib.nullcontext():
        yield request.param


def test_a_giant_cell(gpu):
    def work(device: Device) -> torch.Tensor:
        return giant_cell(device)

    assert_equal_bits(work(open_device("cuda")).cpu(), work(HostDevice("serial")), gpu)


@pytest.mark.parametrize("bad", ["A01_s2_Cells.tiff", "A01_s1_Nuclei.tiff"])
def test_a_broken_label_image(gpu, plate, tmp_path, bad):  # noqa: F811
    (tmp_path / "masks" / bad).write_bytes(b"no TIFF")
    for name, output in (("cpu", "cpu"), ("cuda", "gpu")):
        jumpgpu.extract("DEMO", device=name, output=output, masks="masks", **plate)
    assert_same_numbers(Path("gpu"), Path("cpu"))
    assert len(open_plate(Path("gpu/DEMO.zarr")).quarantine) == 1


@pytest.mark.parametrize("size", [0, 200, 3000])
def test_a_broken_image(gpu, plate, tmp_path, size):  # noqa: F811
    """Cut short: before, within and after its tags."""
    image = next((tmp_path / "images").rglob("r01c01f02p01-ch3*.tiff"))
    image.write_bytes(image.read_bytes()[:size])
    for name, output in (("cpu", "cpu"), ("cuda", "gpu")):
        jumpgpu.extract("DEMO", device=name, output=output, masks="masks", **plate)
    assert_same_numbers(Path("gpu"), Path("cpu"))
    assert len(open_plate(Path("gpu/DEMO.zarr")).quarantine) == 1


@pytest.mark.gpu
def test_out_of_memory(plate, capsys):  # noqa: F811
    """A GPU whose memory somebody else has: the batch is freed and halved, and the run goes on."""
    plate.update(masks="masks", batch=4, quiet=False)
    jumpgpu.extract("DEMO", device="cpu", output="cpu", **plate)
    jumpgpu.extract("DEMO", device="cuda", output="gpu", **plate)  # kernels are loaded
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    jumpgpu.extract("DEMO", device="cuda", output="gpu", overwrite=True, **plate)
    maximum, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    capsys.readouterr()
    torch.cuda.set_per_process_memory_fraction(0.6 * maximum / total)
    try:
        jumpgpu.extract("DEMO", device="cuda", output="gpu", overwrite=True, **plate)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "trying again" in capsys.readouterr().err
    assert_same_numbers(Path("gpu"), Path("cpu"))


@pytest.mark.gpu
def test_an_interruption(plate, tmp_path):  # noqa: F811
    """Ended cleanly, status 75, within seconds; run again it goes on."""
    arguments = ["--plate", "DEMO", "--images", "images", "--illumination", "none", "--masks", "masks", "--device", "cuda"]
    command = [sys.executable, "-m", "jumpgpu.extract", *arguments, "--output", "gpu", "--batch", "1"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "illumination none" in line:
            break
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait(timeout=60) in (0, 75)
    assert time.monotonic() - start < 30
    assert subprocess.run(command, env=environment, timeout=300).returncode == 0
    assert open_plate(tmp_path / "gpu/DEMO.zarr").wells == ["A01", "B02"]
