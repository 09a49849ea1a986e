"""The launches of a run, recorded on the stand-in for CUDA: kernels with their counts, torch's operators, host waits."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_model.counting import Array, Counted, count_launch
from tests.standin_cuda import GPU, HOST_READS, Mode, RawKernel, tensors_in

VIEWS = {"reshape", "view", "permute", "transpose", "expand", "unsqueeze", "squeeze", "contiguous", "flatten", "unflatten", "unbind", "chunk", "narrow", "select", "detach", "numel", "size", "dim", "stride", "is_contiguous", "data_ptr", "untyped_storage", "element_size", "__len__"}


@dataclass
class Recording:
    """Launches in order, torch operators (name -> [times, bytes read and written]), and waits of the host (name -> times)."""

    launches: list[Counted] = field(default_factory=list)
    operators: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(lambda: [0, 0.0]))
    waits: dict[str, int] = field(default_factory=lambda: collections.defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: collections.defaultdict(float))
    allocated: int = 0


@contextlib.contextmanager
def recorded(only: Callable[[str], bool] = lambda name: True) -> Iterator[Recording]:
    """Within it, inside `standin()`, what is launched on the device is recorded; kernels for which `only` is false uncounted."""
    into = Recording()
    call, account, move = RawKernel.__call__, Mode.account, Mode.move

    def launch(self: RawKernel, grid: Any, block: Any, args: Any) -> None:
        if only(self.name):
            start = time.process_time()
            into.launches.append(count_launch(self.name, grid[0], block[0], bits_of(args), arrays_of(self, args)))
            into.seconds[self.name] += time.process_time() - start
        call(self, grid, block, args)

    def operator(self: Mode, name: str, ours: list[Any], args: Any, kwargs: Any, result: Any) -> None:
        results = list(tensors_in(result))
        if name in HOST_READS:
            into.waits[name] += 1
        bases = {t.untyped_storage().data_ptr() for t in ours}
        made = [r for r in results if r.untyped_storage().data_ptr() not in bases]
        in_place = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name.startswith("__i")
        if name not in VIEWS and name not in HOST_READS and (made or in_place):
            entry = into.operators[name]
            entry[0] += 1
            entry[1] += sum(t.numel() * t.element_size() for t in [*ours, *made])
        account(self, name, ours, args, kwargs, result)

    def moved(self: Mode, func: Any, name: str, args: Any, kwargs: Any, to_cuda: bool) -> Any:
        source = args[0]
        result = move(self, func, name, args, kwargs, to_cuda)
        if source.device.type == "cuda" and result.device.type == "cpu":
            into.waits["to the host"] += 1
        elif source.device.type == "cpu" and result.device.type == "cuda":
            into.operators["to the device"][0] += 1
            into.operators["to the device"][1] += result.numel() * result.element_size()
        return result

    try:
        RawKernel.__call__, Mode.account, Mode.move = launch, operator, moved  # type: ignore[method-assign]
        yield into
    finally:
        RawKernel.__call__, Mode.account, Mode.move = call, account, move  # type: ignore[method-assign]


def bits_of(args: Sequence[Any]) -> list[int]:
    return [int.from_bytes(np.asarray(a).tobytes(), "little") for a in args]


def arrays_of(kernel: RawKernel, args: Sequence[Any]) -> list[Array]:
    """The allocations that a launch's pointers lead into, each once."""
    found: dict[int, Array] = {}
    for argument, constant, value in zip(kernel.arguments, kernel.constant, args, strict=True):
        if not argument.pointer or not int(value):
            continue
        held = GPU.holding(int(value))
        assert held is not None
        entry = found.setdefault(held.base, Array(held.base, held.size, False))
        entry.written |= not constant
    return [a for a in found.values() if a.size]


def plain(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
