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
from jumpgpu.gpu.cuda import CudaDevice
from tests.simulators.standin_cuda import GPU, HOST_READS, Mode, RawKernel, tensors_in

WAITING = {
    "nonzero",
    "unique",
    "unique_consecutive",
    "masked_select",
    "argwhere",
    "repeat_interleave",
}  # size known on the device only
MADE_OF_HOST_DATA = {"tensor", "as_tensor", "from_numpy"}  # torch copies ordinary memory to a GPU and waits for the copy


@dataclass
class Recording:
    """Launches in order, torch operators (name -> [times, bytes read and written]), waits of the host (name -> times)."""

    launches: list[Counted] = field(default_factory=list)
    operators: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(lambda: [0, 0.0]))
    waits: dict[str, int] = field(default_factory=lambda: collections.defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: collections.defaultdict(float))


@contextlib.contextmanager
def recorded(only: Callable[[str], bool] = lambda name: True) -> Iterator[Recording]:
    """Within it, inside `standin()`, what is launched is recorded; kernels for which `only` is false are not counted."""
    into = Recording()
    call, account, move = RawKernel.__call__, Mode.account, Mode.move

    def launch(self: RawKernel, grid: Any, block: Any, args: Any) -> None:
        if only(self.name):
            start = time.process_time()
            into.launches.append(count_launch(self.name, grid[0], block[0], bits_of(args), arrays_of(self, args)))
            into.seconds[self.name] += time.process_time() - start
        call(self, grid, block, args)

    def operator(self: Mode, name: str, ours: list[Any], args: Any, kwargs: Any, result: Any, index: int) -> None:
        if name in HOST_READS or name in WAITING or picks_by_mask(name, args):
            into.waits[name] += 1
        elif name in MADE_OF_HOST_DATA or indexed_by_host_data(name, args):
            into.waits[f"{name} of the host's"] += 1
        moved = bytes_of_operator(name, ours, args, result)
        if name not in HOST_READS and moved:
            into.operators[name][0] += 1
            into.operators[name][1] += moved
        account(self, name, ours, args, kwargs, result, index)

    def moved(self: Mode, func: Any, name: str, args: Any, kwargs: Any, to_cuda: bool, index: int) -> Any:
        source, non_blocking = args[0], kwargs.get("non_blocking")
        result = move(self, func, name, args, kwargs, to_cuda, index)
        if source.device.type == "cuda" and result.device.type == "cpu":
            into.waits["to the host"] += 1
        elif source.device.type == "cpu" and result.device.type == "cuda":
            if not (non_blocking and source.untyped_storage().data_ptr() in GPU.pinned):
                into.waits["to the device"] += 1
            into.operators["to the device"][0] += 1
            into.operators["to the device"][1] += result.numel() * result.element_size()
        return result

    fetch = CudaDevice.fetch

    def fetched(self: CudaDevice, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
        wait = fetch(self, tensor)

        def waited() -> np.ndarray:
            into.waits["fetch"] += 1
            return wait()

        return waited

    try:
        CudaDevice.fetch = fetched  # type: ignore[method-assign]
        RawKernel.__call__, Mode.account, Mode.move = launch, operator, moved  # type: ignore[method-assign]
        yield into
    finally:
        CudaDevice.fetch = fetch  # type: ignore[method-assign]
        RawKernel.__call__, Mode.account, Mode.move = call, account, move  # type: ignore[method-assign]


def bits_of(args: Sequence[Any]) -> list[int]:
    return [int.from_bytes(np.asarray(a).tobytes(), "little") for a in args]


def arrays_of(kernel: RawKernel, args: Sequence[Any]) -> list[Array]:
    """The allocations that a launch's pointers lead into, each once."""
    result: dict[int, Array] = {}
    for argument, constant, value in zip(kernel.arguments, kernel.constant, args, strict=True):
        if not argument.pointer or not int(value):
            continue
        held = GPU.holding(int(value))
        assert held is not None
        entry = result.setdefault(held.base, Array(held.base, held.size, False))
        entry.written |= not constant
    return [a for a in result.values() if a.size]


def size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def picks_by_mask(name: str, args: Sequence[Any]) -> bool:
    """Indexing by a mask: how many there are is known on the device only."""
    picks = name in ("__getitem__", "__setitem__") and any(t.dtype == torch.bool for t in tensors_in([args[1]]))
    return picks or (name == "where" and len(args) == 1)


def indexed_by_host_data(name: str, args: Sequence[Any]) -> bool:
    """Indexing by a list, an array or a tensor of the host's: it is copied to the device first, and waited for."""
    if name not in ("__getitem__", "__setitem__"):
        return False
    picks = args[1] if isinstance(args[1], tuple) else (args[1],)
    of_host = any(isinstance(t, torch.Tensor) and t.device.type == "cpu" and t.dim() for t in picks)
    values = name == "__setitem__" and any(t.device.type == "cpu" for t in tensors_in([args[2]]))
    return of_host or values or any(isinstance(p, list | np.ndarray) for p in picks)


def bytes_of_operator(name: str, ours: Sequence[torch.Tensor], args: Sequence[Any], result: Any) -> int:
    """Bytes that an operator reads and writes; 0 for one that only makes a view. Of an indexed tensor, what is picked."""
    if "sort" in name:  # a radix sort: once a byte of the keys, keys and 64-bit places are read and written
        return ours[0].element_size() * ours[0].numel() * 2 * (ours[0].element_size() + 8)
    bases = {t.untyped_storage().data_ptr() for t in ours}
    output = [r for r in tensors_in(result) if r.untyped_storage().data_ptr() not in bases]
    in_place = (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name != "__index__")
    if name == "__setitem__":
        indices = list(tensors_in([args[1]]))
        values = sum(size(t) for t in tensors_in([args[2]]))
        if indices:
            return sum(size(t) for t in indices) + max(2 * values, indices[0].numel() * args[0].element_size())
        with torch._C.DisableTorchFunctionSubclass():
            return values + size(args[0][args[1]])
    if not output and not in_place:
        return 0
    if name in ("__getitem__", "index_select", "gather", "take"):
        return 2 * sum(map(size, output)) + sum(size(t) for t in ours[1:])
    if name in ("index_add_", "scatter_", "scatter_add_", "index_put_"):
        return 2 * sum(size(t) for t in ours[1:])
    return sum(size(t) for t in [*ours, *output])
