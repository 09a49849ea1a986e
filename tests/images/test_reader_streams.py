"""The CUDA branch of reading, against a stand-in for torch's streams that copies as late as CUDA may.

The stand-in shows that no buffer is filled again before its copy has ended, that the caller's stream waits for each copy,
and that every call made is one torch has. It says nothing about speed, and nothing here has run on a GPU.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import Device
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from tests.helpers.image_plates import NUMBERS, image_name, noise, write_plate

CUDA = torch.device("cuda", 0)


class Stream:
    """Work in order, done when somebody waits on the host."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.queue: list[Callable[[], None]] = []
        self.waits: list[Any] = []

    def run(self, n: int) -> None:
        while self.queue and n > 0:
            self.queue.pop(0)()
            n -= 1

    def wait_event(self, event: "Event") -> None:
        self.waits.append(event)


class Event:
    def record(self, stream: Stream) -> None:
        self.stream, self.left = stream, len(stream.queue)
        stream.queue.append(lambda: None)

    def synchronize(self) -> None:
        self.stream.run(10**6)


class Runtime:
    """What `reader.py` uses of torch.cuda, and the copies under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.caller = Stream()
        self.active = self.caller
        self.streams: list[Stream] = []
        self.recorded: list[tuple[int, Stream]] = []
        self.pinned: list[int] = []
        real_empty, real_to, real_copy = torch.empty, torch.Tensor.to, torch.Tensor.copy_

        def make_stream(device: torch.device | None = None) -> Stream:
            assert device == CUDA
            self.streams.append(Stream(device))
            return self.streams[-1]

        def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
            tensor = real_empty(*shape, **options)
            if pin_memory:
                self.pinned.append(tensor.data_ptr())
            return tensor

        def to(tensor: torch.Tensor, device: Any, *, non_blocking: bool = False, **options: Any) -> torch.Tensor:
            if device != CUDA:
                return real_to(tensor, device, non_blocking=non_blocking, **options)
            assert non_blocking
            assert not tensor.numel() or any(p <= tensor.data_ptr() for p in self.pinned), (
                "an asynchronous copy wants pinned memory"
            )
            assert self.active in self.streams, "copied on the caller's stream"
            result = torch.zeros_like(tensor)
            self.active.queue.append(lambda: real_copy(result, tensor))
            return result

        def copy(tensor: torch.Tensor, source: torch.Tensor, *, non_blocking: bool = False) -> torch.Tensor:
            if not non_blocking:
                return real_copy(tensor, source)
            assert self.active in self.streams, "copied on the caller's stream"
            self.active.queue.append(lambda: real_copy(tensor, source))
            return tensor

        runtime = self

        class use:  # stands in for the context manager torch.cuda.stream
            def __init__(self, stream: Stream):
                self.stream = stream

            def __enter__(self) -> None:
                self.before, runtime.active = runtime.active, self.stream

            def __exit__(self, *error: object) -> None:
                runtime.active = self.before

        monkeypatch.setattr(torch, "empty", empty)
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.Tensor, "copy_", copy)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, s: self.recorded.append((t.data_ptr(), s)))
        monkeypatch.setattr(
            torch,
            "cuda",
            SimpleNamespace(Stream=make_stream, Event=Event, stream=use, current_stream=lambda device: self.caller),
        )


class Queue(Device):
    """A device whose launches are put into the active stream's queue; its tensors are the host's."""

    name = "cuda"
    asynchronous = True

    def __init__(self, runtime: Runtime) -> None:
        self.torch, self.runtime, self.cpu = CUDA, runtime, CpuDevice(1)

    def launch(self, kernel: str, grid: int, *, block: int = 128, **values: Any) -> None:
        assert self.runtime.active in self.runtime.streams, "launched on the caller's stream"
        self.runtime.active.queue.append(lambda: self.cpu.launch(kernel, grid, block=block, **values))

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def zeros(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def tensor(self, array: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.as_tensor(array, dtype=dtype).clone()


@pytest.mark.parametrize(("batch", "ahead"), [(1, 0), (2, 0), (2, 1), (3, 2)])
def test_no_buffer_is_filled_while_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, ahead: int
) -> None:
    images = write_plate(tmp_path, wells=("A01", "A02", "B01"), sites=(1, 2, 3))
    (images / image_name("A02", 2, 1)).unlink()
    plate = find_plate("BR00000001", tmp_path)
    runtime = Runtime(monkeypatch)
    batches = list(read_fields(plate, batch=batch, ahead=ahead, workers=2, device=Queue(runtime)))
    assert len(runtime.pinned) == ahead + 1 + len(batches)  # and each batch's results
    (stream,) = runtime.streams
    assert len(runtime.caller.waits) == len(runtime.recorded) == len(batches)
    assert all(s is runtime.caller for _, s in runtime.recorded)
    stream.run(10**6)  # the device gets round to what is left
    assert [s for b in batches for s in b.sites] == [
        (w, s) for w in ("A01", "A02", "B01") for s in (1, 2, 3) if (w, s) != ("A02", 2)
    ]
    for fields in batches:
        for (well, site), pixels in zip(fields.sites, fields.pixels.numpy(), strict=True):
            for channel, image in zip(plate.channels, pixels, strict=True):
                np.testing.assert_array_equal(image, noise(well, site, NUMBERS[channel]))


def test_without_the_wait_the_stand_in_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: events that do not wait. The pixels come out wrong."""
    write_plate(tmp_path, wells=("A01", "A02", "B01"), sites=(1, 2, 3))
    plate = find_plate("BR00000001", tmp_path)
    runtime = Runtime(monkeypatch)
    monkeypatch.setattr(Event, "synchronize", lambda self: None)
    batches = list(read_fields(plate, batch=1, ahead=1, workers=0, device=Queue(runtime)))
    runtime.streams[0].run(10**6)
    expected = noise("A01", 1, NUMBERS["DNA"])
    assert (batches[0].pixels[0, 0].numpy() != expected).any()


def test_every_call_is_one_that_torch_has() -> None:
    assert "device" in inspect.signature(torch.cuda.Stream.__new__).parameters
    assert list(inspect.signature(torch.cuda.Stream.wait_event).parameters) == ["self", "event"]
    assert "stream" in inspect.signature(torch.cuda.Event.record).parameters
    assert "device" in inspect.signature(torch.cuda.current_stream).parameters
    assert callable(torch.cuda.stream)
    assert callable(torch.cuda.Event.synchronize)
    assert callable(torch.Tensor.record_stream)
