"""What a batch does when the device fails under it: free first, halve, remember; stop where trying again cannot help."""

import gc
import types
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from jumpgpu.gpu.failures import DeviceLost, Failure, NotFinite, failure_of
from jumpgpu.gpu.open import open_device
from jumpgpu.run import batch as batches

SITES = [("A01", i) for i in range(1, 33)]
RAW = batches.Raw(SITES, torch.zeros(32, 1, 2, 2, dtype=torch.uint16), [(65535.0,)] * 32)


class Launches:
    """A batch's work that makes a tensor and fails `when` it is begun, goes on or ends; what of the failed is alive then."""

    def __init__(self, fails: Any, when: str = "begun"):
        self.fails, self.when = fails, when
        self.sizes: list[int] = []
        self.held: list[int] = []
        self.output: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, raw: batches.Raw, run: Any) -> Any:
        sites, pixels = raw.sites, raw.pixels
        self.sizes.append(len(sites))
        self.held.append(sum(r() is not None for r in self.output))
        assert pixels.shape[0] == len(sites) == len(raw.given.get("Cells", pixels)) == len(raw.scales)
        big = torch.empty(1000)
        self.output.append(weakref.ref(big))

        def end() -> Any:
            if told := self.fails(len(sites)):
                error = type(told)(*told.args)  # one that nobody else holds
                try:
                    raise KeyError("on the way")  # an error keeps those before it, and their frames
                except KeyError:
                    raise error from None if len(sites) % 2 else error
            return [(site, float(big.sum()) * 0) for site in sites]

        if self.when == "ends":
            return lambda: end
        if self.when == "goes on":
            return lambda: kept_of(end())
        output = end()
        return lambda: lambda: output


def kept_of(output: Any) -> Any:
    return lambda: output


def run_on(device: Any) -> Any:
    said: list[str] = []
    progress = types.SimpleNamespace(say=lambda text, *_: said.append(text))
    return types.SimpleNamespace(
        plate=types.SimpleNamespace(barcode="P"), progress=progress, device=device, said=said, ahead=[]
    )


@pytest.fixture
def run() -> Any:
    """On a device of its own, since it remembers."""
    return run_on(open_device("cpu", 1))


def larger_than(maximum: int, error: BaseException) -> Any:
    return lambda n: error if n > maximum else None


MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("when", ["begun", "goes on", "ends"])
@pytest.mark.parametrize("error", MEMORY, ids=lambda e: f"{type(e).__name__} {e}"[:40])
def test_a_failed_batch_is_freed_halved_and_remembered(run, error, when):
    launches = Launches(larger_than(8, error), when)
    gc.disable()  # nothing waits for the collector
    try:
        given = {"Cells": torch.zeros(32, 2, 2, dtype=torch.int32)}
        tables = batches.begin(replace(RAW, given=given), run, launches)()()
        assert [site for site, _ in tables] == SITES
        assert launches.sizes == [32, 16, 8, 8, 8, 8]
        assert not any(launches.held), "a failed batch's tensors are held while it is tried again"
        launches.sizes.clear()
        batches.begin(RAW.part(0, 20), run, launches)()()
        assert launches.sizes == [8, 8, 4]  # the next batch knows
    finally:
        gc.enable()
    assert run.said[0].endswith("; trying again, 16 at a time")
    assert run.said[0].startswith("P A01 site 1 and 31 more fields: ")
    assert run.device.max_fields(4) == 8
    assert run.device.max_fields(8) == 4  # of a plate with larger fields
    assert run.device.max_fields(100) == 1


def test_a_field_that_does_not_pass_alone_is_named(run):
    with pytest.raises(RuntimeError, match="P A01 site 1: CUDA out of memory"):
        batches.begin(RAW.part(0, 4), run, Launches(larger_than(0, MEMORY[0])))()()


LOST = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: an illegal instruction was encountered",
    "cudaErrorUnknown: unknown error",
]


@pytest.mark.parametrize("when", ["begun", "goes on", "ends"])
@pytest.mark.parametrize("text", LOST)
def test_a_lost_device_is_named_and_nothing_is_tried_again(run, text, when):
    launches = Launches(larger_than(0, RuntimeError(text)), when)
    with pytest.raises(DeviceLost, match=r"P A01 site 1: cpu .* failed, and this process cannot use it any more: "):
        batches.begin(RAW, run, launches)()()
    assert launches.sizes == [32]


@pytest.mark.parametrize(
    "error", [NotImplementedError("\"index_cuda\" not implemented for 'UInt16'"), RuntimeError("x: wrong")]
)
def test_what_cannot_pass_is_not_tried_again(run, error):
    launches = Launches(larger_than(0, error))
    with pytest.raises(type(error)):
        batches.begin(RAW, run, launches)()()
    assert launches.sizes == [32]
    assert failure_of(error) is Failure.OTHER


def test_the_field_of_an_impossible_number_is_found(run):
    launches = Launches(larger_than(0, NotFinite("Cells_Number_Object_Number is not finite, though it should always be")))
    with pytest.raises(RuntimeError, match="P A01 site 1: Cells_Number"):
        batches.begin(RAW.part(0, 4), run, launches)()()
    assert launches.sizes == [4, 2, 1]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.uint8, torch.int16, torch.float32])
def test_rows_of_any_dtype(run, dtype):
    values = torch.from_numpy(np.arange(24).reshape(4, 3, 2).astype(str(dtype).removeprefix("torch.")))
    np.testing.assert_array_equal(run.device.take(values, [3, 1]).numpy(), values.numpy()[[3, 1]])
    assert run.device.take(values, []).shape == (0, 3, 2)
