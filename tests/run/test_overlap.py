"""The next batch's segmentation is queued when the host waits for a batch's count; the stand-in's queue shows it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import jumpgpu
from jumpgpu.gpu.cuda import CudaDevice
from jumpgpu.gpu.list_capacity import Capacity
from jumpgpu.gpu.open import open_device
from jumpgpu.run import batch as batches
from tests.gpu.test_cuda import assert_same_numbers, plate  # noqa: F401 (a fixture)
from tests.run.test_failures import MEMORY, RAW, run_on
from tests.simulators.standin_cuda import GPU, standin


def queued_at_waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, int]]:
    """Of each fetch that is waited for, its dtype and how many steps are queued behind it; the reader's stream left out."""
    result: list[tuple[torch.dtype, int]] = []
    fetch, main = CudaDevice.fetch, GPU.current()

    def watched(self: CudaDevice, tensor: torch.Tensor) -> Any:
        wait, stream = fetch(self, tensor), GPU.current()
        begun, dtype = stream.known[stream.ptr], tensor.dtype

        def waited() -> Any:
            if stream is main:
                result.append((dtype, stream.known[stream.ptr] - begun))
            return wait()

        return waited

    monkeypatch.setattr(CudaDevice, "fetch", watched)
    return result


@pytest.mark.parametrize("masks", [None, "masks"])
def test_the_queue_is_never_empty_while_the_host_waits(plate, monkeypatch, masks):  # noqa: F811
    """Four batches of a field: at the waits for counts (int64) and tables (float64) of all but the last, work is queued."""
    monkeypatch.setattr(Capacity.__init__, "__defaults__", (1.0, None))  # no batch is done again for its lists
    plate.update(batch=1, masks=masks)
    jumpgpu.extract("DEMO", device="cpu", output="cpu", **plate)
    with standin():
        waits = queued_at_waits(monkeypatch)
        jumpgpu.extract("DEMO", device="cuda", output="gpu", **plate)
    assert_same_numbers(Path("gpu"), Path("cpu"))
    for dtype in (torch.int64, torch.float64):
        behind = [n for kind, n in waits if kind is dtype][-4:]  # the device waits once when it is opened
        assert len(behind) == 4
        assert min(behind[:3]) > 10, f"{dtype}: {behind}"


def test_batches_under_way_learn_room_apart():
    whole = Capacity(0.1)
    first, second = whole.of_batch(), whole.of_batch()
    assert [first.give(torch.tensor(30), 100), second.give(torch.tensor(5), 100)] == [10, 10]
    assert not first.enough([30])
    assert second.enough([5]), "another batch's list is none of its own"
    assert whole.share == whole.of_batch().share == pytest.approx(0.375)


class Begun:
    """Work that takes memory when it is begun and more when it goes on, of a device that has only so many bytes."""

    def __init__(self, memory: int, first: int, then: int):
        self.memory, self.first, self.then = memory, first, then
        self.used = self.most = 0
        self.log: list[str] = []

    def take(self, n: int) -> "Taken":
        if self.used + n > self.memory:
            raise type(MEMORY[0])(*MEMORY[0].args)
        return Taken(self, n)

    def __call__(self, raw: batches.Raw, run: Any) -> Any:
        n, name = len(raw.sites), f"{raw.sites[0][1]}+{len(raw.sites)}"
        self.log.append(f"begin {name}")
        kept = [self.take(n * self.first)]

        def go_on() -> Any:
            objects = kept.pop()
            more = self.take(n * self.then)
            self.log.append(f"go on {name}")
            del objects, more
            return lambda: list(raw.sites)

        return go_on


class Taken:
    """Bytes of a device, given back when nobody holds them."""

    def __init__(self, of: Begun, n: int):
        self.of, self.n = of, n
        of.used += n
        of.most = max(of.most, of.used)

    def __del__(self) -> None:
        self.of.used -= self.n


def in_turn(device: Any, work: Begun, size: int, n: int) -> Any:
    """n batches as a plate's run takes them; the run."""
    run = run_on(device)
    raws = [RAW.part(k * size, (k + 1) * size) for k in range(n)]
    ahead, done = [], []
    for raw in raws:
        ahead.append(batches.begin(raw, run, work))
        if len(ahead) > 1:
            done += ahead.pop(0)()()
    done += ahead.pop()()()
    assert done == RAW.sites[: size * n]
    assert work.used == 0
    assert not run.ahead
    return run


def test_two_batches_fit():
    with standin():
        work = Begun(memory=100, first=10, then=20)
        run = in_turn(open_device("cuda"), work, 2, 3)
    assert work.log == ["begin 1+2", "begin 3+2", "go on 1+2", "begin 5+2", "go on 3+2", "go on 5+2"]
    assert work.most == 80  # two that are begun, and one's measures
    assert not run.said


def test_memory_that_gives_out_takes_back_what_was_begun_ahead():
    """60 bytes: two batches of two are begun (40), and one's measures (40) do not fit beside the other."""
    with standin():
        work = Begun(memory=60, first=10, then=20)
        run = in_turn(open_device("cuda"), work, 2, 3)
    assert work.most <= 60
    assert run.said == [f"P A01 site 1 and 1 more fields: {MEMORY[0]}; trying again, 1 at a time"]
    alone = [f"{step} {site}+1" for site in range(1, 7) for step in ("begin", "go on")]
    assert work.log == ["begin 1+2", "begin 3+2", *alone], "where one field is what fits, none is begun before its turn"


def test_a_field_that_fits_alone_passes_where_another_was_begun():
    with standin():
        work = Begun(memory=35, first=10, then=20)
        run = in_turn(open_device("cuda"), work, 1, 3)
    assert run.said == [f"P A01 site 1: {MEMORY[0]}; trying again, with nothing beside it"]
    with standin(), pytest.raises(RuntimeError, match="P A01 site 1: CUDA out of memory"):
        in_turn(open_device("cuda"), Begun(memory=25, first=10, then=20), 1, 3)
