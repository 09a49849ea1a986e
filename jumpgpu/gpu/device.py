"""The device: where kernels run, and what is asked of the hardware. `open.open_device` gives one.

A kernel is launched by name with named arguments; their order and types are read from the kernel's own signature in its
`.cu` file, so there is one place to change.
"""

import abc
import contextlib
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import dtype as DType

from .list_capacity import Capacity

BLOCK = 128  # threads per block: the lanes of jg::block_sum
MAX_FIELDS = 32  # a batch
ITEMS = 4096  # items per block in JG_FOR_ITEMS (jg::ITEMS)
CONSTANTS = 256  # tables that a device keeps; a batch has 40
KEPT = 8  # results of a function that `kept_by_device` keeps
FEW = 128  # items of a block of JG_FOR_FEW (one_item_per_thread.cuh)


class Device(abc.ABC):
    """Where kernels run. `launch` is the whole interface; tensors live on `self.torch`."""

    name: str
    torch: torch.device
    description: str
    asynchronous = False  # whether a launch returns before it has run
    capacity: Capacity | None = None  # for lists whose length only the device knows; None where asking it costs nothing
    massively_parallel = True  # thousands of blocks run at once: an algorithm of more work and more blocks is the faster one
    library_sort = False  # torch sorts on it faster than a kernel of ours

    @abc.abstractmethod
    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        """Run a kernel over `grid` blocks of `block` threads, its arguments by name; a grid of 0 does nothing.

        Tensors must be contiguous, of the dtype the kernel declares, on this device; numbers must fit their parameters:
        TypeError or ValueError otherwise, before anything runs. Asynchronous on CUDA, on torch's current stream: a tensor
        made on another stream needs `record_stream` there, as with any torch operation.
        """

    def empty(self, *shape: int, dtype: DType) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.torch)

    def zeros(self, *shape: int, dtype: DType) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.torch)

    def tensor(self, array: Any, dtype: DType | None = None) -> Tensor:
        """A NumPy array, list or tensor as a contiguous tensor on this device."""
        return torch.as_tensor(array, dtype=dtype).to(self.torch).contiguous()

    def constant(self, values: np.ndarray | tuple[Any, ...], dtype: DType | None = None) -> Tensor:
        """A table that does not change, on this device: made once, and kept with the device.

        A tuple is known by its values, an array by being the same object, as a function with a cache gives it; nothing may
        write to it or to the tensor.
        """
        kept: dict[Any, tuple[Any, Tensor]] = vars(self).setdefault("_constants", {})
        key = values if isinstance(values, tuple) else id(values), dtype
        known = kept.get(key)
        if known is None:
            known = kept[key] = values, self.tensor(values, dtype)  # with the array, whose number nothing else has then
            with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread may do the same
                while len(kept) > CONSTANTS:
                    del kept[next(iter(kept))]
        return known[1]

    def fetch(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Begin to copy a tensor to the host; what is returned waits until it is there, and has it."""
        return tensor.numpy

    def compile(self, say: Callable[[str], None] = lambda text: None) -> float:
        """Make every kernel ready, where that takes time; seconds taken."""
        return 0.0

    def versions(self) -> dict[str, str]:
        """Versions of what compiles and runs its kernels while the program runs, by name; none where they come compiled."""
        return {}

    @property
    def core(self) -> "Device":
        """Where one thread alone does its work soonest: this device, or beside one of slow threads the host."""
        return self

    def synchronize(self) -> None:  # noqa: B027 (nothing to wait for where a launch has run when it returns)
        """Wait until everything launched has run."""

    def plan(self, fields: int, values: int, batch: int | None = None) -> tuple[int, int]:
        """Fields a batch, and batches at a time, for a run of `fields` with so many values (channels x pixels) each.

        Chosen from the memory that is free, on a device that knows it; `batch` is taken where it is given.
        """
        return batch or 1, 1

    _max_values: int | None = None  # of a batch, since one of more did not pass

    def max_fields(self, values: int) -> int:
        """Fields of so many values each that a batch may have after what has failed here."""
        return sys.maxsize if self._max_values is None else max(1, self._max_values // max(1, values))

    def give_back(self, values: int) -> None:
        """After memory gave out: free what is kept for later, and let no later batch have more values than these."""
        gc.collect()
        self._max_values = values if self._max_values is None else min(values, self._max_values)

    def take(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        """Rows of a tensor of any dtype. torch on CUDA gathers no unsigned integers but bytes: bits are gathered."""
        signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
        bits = tensor.view(signed.get(tensor.dtype, tensor.dtype))
        return bits.index_select(0, self.tensor(list(rows), torch.int64)).view(tensor.dtype)

    scratch_bytes = 1 << 30  # that a launch may take for its blocks' scratch; `plan` leaves them out of a batch

    def scratch_blocks(self, tasks: int, bytes_per_block: int, *, per_core: int, maximum: int) -> int:
        """Blocks of a launch that shares `tasks` out among blocks with scratch memory of their own.

        `per_core` times the cores on a CPU, and `maximum` where thousands of blocks run at once; never more than `tasks`,
        nor than `scratch_bytes` have memory for, but one. No number depends on it.
        """
        return self._limited(min(tasks, maximum), bytes_per_block)

    def _limited(self, blocks: int, bytes_per_block: int) -> int:
        return max(min(blocks, 1), min(blocks, self.scratch_bytes // max(1, bytes_per_block)))

    def rows_per_block(self, height: int, rows: int) -> int:
        """Rows of a plane that one block takes: `rows`, but on a CPU the plane's share of a core."""
        return rows

    @contextlib.contextmanager
    def divided(self, parts: int) -> Iterator[None]:
        """Within it, `parts` threads compute at the same time; a launch or operation of each uses a share of the device."""
        yield


def on_a_core(work: Callable[..., Any]) -> Callable[..., Any]:
    """For work that is one thread's, each step waiting for the one before: it is given its arguments, and gives its tensors,
    on the device that it is called with, and is done on that device's `core`. On a GPU such work is predicted at seconds."""

    @functools.wraps(work)
    def run(*arguments: Any, **more: Any) -> Any:
        device = next(a for a in arguments if isinstance(a, Device))
        if device.core is device:
            return work(*arguments, **more)
        host = [device.core if a is device else a.cpu() if isinstance(a, Tensor) else a for a in arguments]
        result = work(*host, **more)
        if isinstance(result, tuple):
            return tuple(map(device.tensor, result))
        return device.tensor(result) if isinstance(result, Tensor) else result

    return run


def kept_by_device(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep what a function of (..., device) made on the device itself, with which it ends: of the last 8 arguments.

    A cache of the function's own would keep every device that there ever was.
    """

    @functools.wraps(make)
    def kept(*arguments: Any) -> Tensor:
        *key, device = arguments
        cache: dict[Any, Tensor] = vars(device).setdefault("_kept", {}).setdefault(make, {})
        result = cache.get(tuple(key))
        if result is None:
            result = cache[tuple(key)] = make(*arguments)
            with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread may do the same
                while len(cache) > KEPT:
                    del cache[next(iter(cache))]
        return result

    return kept


def few_blocks(n: int) -> int:
    """Blocks of a JG_FOR_FEW kernel over n items."""
    return -(-n // FEW)


def blocks(n: int) -> int:
    """Blocks of a JG_FOR_ITEMS kernel over n items."""
    return -(-n // ITEMS)
