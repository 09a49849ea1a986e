"""The host's part of a run on a GPU, with a device that returns at once: reading, launching, tables, compressing, writing.

    python -m benchmarks.host --images ../shared/data/fields --plate BR00117010 --batch 8 32

The images are repeated, in turn, to a plate of `--fields` fields, which `jumpgpu.extract`'s own stages take to a store. The
device is CUDA's class without CUDA: its launches check and pack their arguments and go nowhere, torch's operators run on
fields of a few pixels (as many operators, each with hardly more than its dispatch), and what the host reads is what the CPU
measured of the real fields before. What no GPU's host is spared is done: files are read whole (LZW is not decoded, a GPU
does that), tables are put together, compressed, digested and written.

Fields per second on n cores: at most n over the CPU seconds per field, and at most 1 over those under the GIL, which are
all but those within calls that let go of it: the system's own (open, read, write, ...), copying strips and tables,
compressing, digests of 2 KB and more, torch's sorting and summing of fields. All that Python does around them counts, and
torch's other operators wholly, though they let go of it as well. What the clocks take is measured with a call that does
nothing, and left out. Both are marginal: those of the whole plate less those of one well.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import os
import shutil
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.machine import RESULTS, spread, write_json
from benchmarks.memory import repeat_plate
from jumpgpu.cli.options import options_from
from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import begin_segmentation, segment_batch
from jumpgpu.gpu.cuda import CudaDevice
from jumpgpu.gpu.kernel_source import kernel_sources
from jumpgpu.gpu.list_capacity import Capacity
from jumpgpu.gpu.open import open_device
from jumpgpu.images import ring_buffer
from jumpgpu.images.decode import COUNTS
from jumpgpu.images.illumination import correct
from jumpgpu.images.locate import find_source
from jumpgpu.images.reader import read_fields
from jumpgpu.run import batch
from jumpgpu.run.plate import extract_plate

CORES = (2, 16)
SITES = 9  # of a well, as JUMP's plates have
SMALL = 48, 64  # pixels of a field on which torch's operators run
READING = ["open", "read", "close", "stat", "lstat", "fstat", "readlink"]
WRITING = ["write", "mkdir", "rmdir", "unlink", "rename", "fsync", "fdatasync"]
RELEASING = {  # calls that let go of the lock while they work: where they are, and by what names
    "system": {"os": [*READING, *WRITING], "jumpgpu.storage.atomic": ["sync_file_system"]},
    "copy": {"jumpgpu.images.strips": ["copy_bytes"]},
    "tables": {"jumpgpu.store.arrays": ["turn", "joined"], "numpy": ["isfinite"]},
    "compress": {"numcodecs.blosc": ["compress"]},
    "digest": {"hashlib": ["sha256"]},
    "operators": {"torch": ["sort", "cumsum"]},
}
KEPT_BELOW = 2048  # bytes, of which a digest is made without letting go of the lock
CALLS = 2000  # of nothing, to know what the clocks take
CLOCKS = "clocks"


class Nowhere:
    """A stream, an event and a context of CUDA's that nobody waits for."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any):
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    def __enter__(self) -> "Nowhere":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class NoDevice(CudaDevice):
    """CUDA's device without CUDA; the host gets `known` by shape for what it fetches, `counts` where objects are counted."""

    def __init__(self, kind: str = "meta", known: dict[tuple[int, ...], np.ndarray] | None = None, batch: int = 1):
        self.torch = torch.device(kind)
        self.capacity = Capacity()
        self.known, self.batch = known or {}, batch
        self._cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(Device=Nowhere))
        self.description = "no device"
        self.launches = 0
        self.counts: np.ndarray | None = None

    def _kernel(self, kernel: str) -> Any:
        return self._count, kernel_sources()[kernel][1]

    def _count(self, *_: Any) -> None:
        self.launches += 1

    def _stream(self) -> Any:
        return Nowhere()

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.torch)  # nobody fills it: places that torch looks up must exist

    def tensor(self, array: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        result = torch.as_tensor(array, dtype=dtype)
        if result.device == self.torch and isinstance(array, torch.Tensor):
            return result.contiguous()
        return torch.empty(result.shape, dtype=result.dtype).copy_(result).to(self.torch)

    def fetch(self, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
        if self.counts is not None and is_count(tensor):
            result = np.zeros(len(tensor), np.int64)  # lists had room
            result[: len(self.counts)] = self.counts
            return lambda: result
        return lambda: self.known[tuple(tensor.shape)]

    def compile(self, say: Callable[[str], None] = lambda text: None) -> float:
        return 0.0

    def plan(self, fields: int, values: int, batch: int | None = None) -> tuple[int, int]:
        return self.batch, 1

    def synchronize(self) -> None:
        pass


def is_count(tensor: torch.Tensor) -> bool:
    """Whether a tensor is what the host reads where objects are counted."""
    return tensor.dtype == torch.int64 and tensor.dim() == 1


class Replay:
    """A batch's computing as the host sees it, and what comes of it: as many launches, the real fields' cells."""

    def __init__(self, plate: Any, options: Any, batch: int):
        device = open_device("cpu")
        fields = next(iter(read_fields(plate, batch=batch, device=device)))
        pixels = correct(fields.pixels, torch.ones(fields.pixels.shape[1:]), device=device, scales=fields.scales)
        objects = segment_batch(pixels, plate.channels, options.config.segmentation, device)
        self.table = measure_batch(objects, options.config.features, device).numpy()
        self.n_cells = objects.objects.n_cells
        y, x = torch.meshgrid(torch.arange(SMALL[0]), torch.arange(SMALL[1]), indexing="ij")
        light = sum(torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 50) for cy, cx in ((12, 15), (34, 46)))
        self.small = (0.02 + 0.8 * light).float().expand(batch, len(plate.channels), -1, -1).contiguous()
        fetch, counted = device.fetch, []

        def noting(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
            wait = fetch(tensor)
            if is_count(tensor):
                counted.append(wait().copy())
            return wait

        with mock.patch.object(device, "fetch", noting):
            segment_batch(self.small, plate.channels, options.config.segmentation, device)
        self.device = NoDevice("cpu")
        self.device.scratch_bytes = 1  # of which nothing is used
        self.device.counts = counted[-1]

    def begin(self, pixels: torch.Tensor, channels: Any, settings: Any, device: NoDevice) -> Callable[[], Any]:
        small = begin_segmentation(self.small, channels, settings, self.device)
        objects = types.SimpleNamespace(n_cells=self.n_cells)
        rest = {"objects": objects, "labels": {}, "pixels": pixels, "channels": channels}
        return lambda: types.SimpleNamespace(small=small(), **rest)

    def measure(self, objects: Any, settings: Any, device: NoDevice) -> torch.Tensor:
        measure_batch(objects.small, settings, self.device)
        return torch.empty(self.table.shape, dtype=torch.float64, device="meta")


@contextlib.contextmanager
def without_cuda(replay: Replay) -> Iterator[None]:
    """torch, the reader and the computing on a device that is not there."""
    empty, make_images = torch.empty, ring_buffer.make_images

    def unpinned(*shape: Any, pin_memory: bool = False, **more: Any) -> torch.Tensor:
        return empty(*shape, **more)

    def output(data: torch.Tensor, images: Any, shape: tuple[int, int, int, int], device: Any) -> Any:
        pixels, results = make_images(data, images, shape, device)
        result = torch.ones(results.shape, dtype=torch.int64)
        n = shape[0] * shape[1] * COUNTS
        result[:n] = torch.tensor([65435, 9000, 0, 0, 10**9, 10**12, 10**12, 10**12, 10**12]).repeat(shape[0] * shape[1])
        result[n + shape[0] * (shape[1] * (shape[1] - 1) // 2) :] = 0
        return pixels, result

    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (torch.Tensor, "record_stream", lambda self, stream: None),
            (torch, "empty", unpinned),
            (ring_buffer, "make_images", output),
            (batch, "begin_segmentation", replay.begin),
            (batch, "measure_batch", replay.measure),
            *((torch.cuda, name, Nowhere) for name in ("Stream", "Event", "stream", "current_stream")),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


class Released:
    """CPU seconds within calls that let go of Python's lock, by what they do, and those of the clocks that tell."""

    def __init__(self) -> None:
        self.calls = dict.fromkeys(RELEASING, 0)
        self.seconds = dict.fromkeys(RELEASING, 0.0)
        self.lock = threading.Lock()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def run(*arguments: Any, **more: Any) -> Any:
            if name == "digest" and (not arguments or len(arguments[0]) < KEPT_BELOW):
                return work(*arguments, **more)
            start = time.thread_time()
            try:
                return work(*arguments, **more)
            finally:
                took = time.thread_time() - start
                with self.lock:
                    self.seconds[name] += took
                    self.calls[name] += 1

        return run

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, the calls are timed."""
        with contextlib.ExitStack() as stack:
            for name, owners in RELEASING.items():
                for module, functions in owners.items():
                    owner = importlib.import_module(module)
                    for function in functions:
                        timed = self.timed(name, getattr(owner, function))
                        stack.enter_context(mock.patch.object(owner, function, timed))
            yield

    def result(self) -> dict[str, float]:
        """Seconds of each kind, and of the clocks, which a call that does nothing tells."""
        empty = Released()
        nothing, watched = time.time, empty.timed("system", time.time)
        start = time.thread_time()
        for _ in range(CALLS):
            nothing()
        bare = time.thread_time() - start
        for _ in range(CALLS):
            watched()
        around = (time.thread_time() - start - 2 * bare) / CALLS
        within = (empty.seconds["system"] - bare) / CALLS
        seconds = {name: max(0.0, self.seconds[name] - within * n) for name, n in self.calls.items()}
        return {**seconds, CLOCKS: around * sum(self.calls.values())}


def taken(plate: Any, options: Any, wells: Any, replay: Replay, batch_size: int, folder: Path) -> dict[str, float]:
    """Of one run over a plate, or some wells of it: seconds by what they are, and launches."""
    device = NoDevice("meta", {replay.table.shape: replay.table}, batch_size)
    replay.device.launches = 0
    chosen = dataclasses.replace(options, output=folder / "out", wells=wells)
    released = Released()
    with released.watching():
        wall, start = time.perf_counter(), time.process_time()
        extract_plate(plate, chosen, device)
        used, took = time.process_time() - start, time.perf_counter() - wall
    shutil.rmtree(chosen.output)
    spent = released.result()
    return {"cpu": used - spent[CLOCKS], "wall": took, "launches": device.launches + replay.device.launches, **spent}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--plate", required=True)
    parser.add_argument("--config", default="cpjump1")
    parser.add_argument("--fields", type=int, default=216)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32], help="fields a batch, one or more (default: 8 32)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "host.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeat_plate(str(options.images), options.plate, options.fields, folder / "images", SITES)
        chosen = options_from(
            {
                "images": folder / "images",
                "output": folder / "out",
                "config": options.config,
                "illumination": "none",
                "quiet": True,
            }
        )
        plate = find_source(options.plate, chosen.images_root, chosen.config.plate, None)
        results = {str(n): measured(plate, chosen, n, options.repeats, folder) for n in options.batch}
    figures = {
        "plate": options.plate,
        "config": options.config,
        "fields": options.fields,
        "sites_a_well": SITES,
        "batches": results,
        "cores_here": len(os.sched_getaffinity(0)),
    }
    write_json(options.json, figures)
    for n, result in results.items():
        seconds, locked = result["cpu_s_per_field"], result["gil_s_per_field"]
        rates = ", ".join(f"{rate:.0f} on {cores} cores" for cores, rate in result["fields_a_second"].items())
        print(
            f"batches of {n}: {1e3 * seconds.median:.1f} ms of CPU a field, {1e3 * locked.median:.2f} "
            f"({1e3 * locked.minimum:.2f} to {1e3 * locked.maximum:.2f}) of it under Python's lock: {rates} (fields/s)"
        )
    return 0


def measured(plate: Any, options: Any, n_fields: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Figures of a plate in batches of so many fields; the first batch's cells are those of all."""
    replay = Replay(plate, options, n_fields)
    sites = plate.select(None, None)
    more = sum(site.well != sites[0].well for site in sites)
    runs: list[dict[str, float]] = []
    with without_cuda(replay):
        for repeat in range(repeats + 1):
            whole, one = (taken(plate, options, w, replay, n_fields, folder) for w in (None, [sites[0].well]))
            if repeat:  # the first warms up
                runs.append({k: (whole[k] - one[k]) / more for k in whole})
    seconds = spread([r["cpu"] for r in runs])
    locked = spread([r["cpu"] - sum(r[k] for k in RELEASING) for r in runs])
    return {
        "launches_a_batch": runs[-1]["launches"] * n_fields,
        "cpu_s_per_field": seconds,
        "gil_s_per_field": locked,
        "wall_s_per_field": spread([r["wall"] for r in runs]),
        "released_s_per_field": {k: spread([r[k] for r in runs]).median for k in RELEASING},
        "clocks_s_per_field": spread([r[CLOCKS] for r in runs]).median,
        "fields_a_second": {str(n): min(n / seconds.median, 1 / locked.median) for n in CORES},
    }


if __name__ == "__main__":
    sys.exit(main())
