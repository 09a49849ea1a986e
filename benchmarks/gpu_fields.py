"""Whole fields on a CUDA GPU: the CPU's bits, and each kernel's time beside its prediction.

    python -m benchmarks.gpu_fields --images DIR --plate NAME --config cpjump1 --json FILE

Reads, segments and measures a batch of fields on the CPU and on the GPU, which decodes the images itself, and compares raw
and corrected pixels, what is said of the images, labels and every feature bit for bit. Then times each kernel of the batch
by CUDA events, the median of three runs after a warm-up, beside what
benchmarks/results/gpu_model.json predicts for this GPU, where it is one of those. A launch that finds the GPU idle has the
host's 20 us in its time, which matters to short ones. Exit status 0: equal; 1: not.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.features import families as features
from jumpgpu.features.image_quality import measure_images
from jumpgpu.features.objects import segment_batch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import FieldBatch, read_fields
from jumpgpu.settings.config import Config, load_config

MODEL = RESULTS / "gpu_model.json"
RUNS = 3


@dataclasses.dataclass(frozen=True)
class Computed:
    """What a batch came to: raw and corrected pixels, labels by compartment, the feature table."""

    raw: torch.Tensor
    pixels: torch.Tensor
    labels: dict[str, torch.Tensor]
    table: torch.Tensor
    quality: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        raw = self.raw.view(torch.int16)  # torch compares no uint16 on a GPU
        return {
            "raw pixels": raw,
            "pixels": self.pixels,
            **{f"labels of {c}": t for c, t in self.labels.items()},
            "features": self.table,
            **({} if self.quality is None else {"image quality": self.quality}),
        }


def compute(raw: torch.Tensor, functions: torch.Tensor, plate: Plate, config: Config, device: Device) -> Computed:
    """One batch, as jumpgpu.extract computes it."""
    pixels = correct(raw, device.tensor(functions), device=device)
    batch = segment_batch(pixels, plate.channels, config.segmentation, device)
    table = features.measure_batch(batch, config.features, device)
    measured = measure_images(pixels, plate.channels, device) if config.features.image_quality else None
    return Computed(raw, pixels, batch.labels, table, measured)


def first_batch(plate: Plate, n: int, device: Device) -> FieldBatch:
    """The plate's first fields, read for a device; their pixels are the caller's."""
    with contextlib.closing(read_fields(plate, batch=n, device=device)) as batches:
        batch = next(batches)
        return dataclasses.replace(batch, pixels=batch.pixels.clone())


def said(batch: FieldBatch) -> str:
    """All but the pixels."""
    return repr(dataclasses.replace(batch, pixels=torch.empty(0)))


def differences(ours: Computed, theirs: Computed) -> dict[str, str]:
    """Tensors whose bits differ, with where; any NaN equals any NaN."""
    result = {}
    for name, b in theirs.tensors().items():
        a, b = ours.tensors()[name].cpu(), b.cpu()
        if a.shape != b.shape or a.dtype != b.dtype:
            result[name] = f"{tuple(a.shape)} {a.dtype} against {tuple(b.shape)} {b.dtype}"
            continue
        same = a == b
        if a.dtype.is_floating_point:
            bits = torch.int64 if a.dtype == torch.float64 else torch.int32
            same = (a.contiguous().view(bits) == b.contiguous().view(bits)) | (a.isnan() & b.isnan())
        if not bool(same.all()):
            first = tuple(torch.nonzero(~same)[0].tolist())
            result[name] = (
                f"{int((~same).sum())} of {same.numel()}, first at {first}: {a[first].item()!r}, CPU {b[first].item()!r}"
            )
    return result


@contextlib.contextmanager
def kernels_timed(device: Device) -> Iterator[dict[str, list[tuple[Any, Any]]]]:
    """Within it each launch has an event before and after it: by kernel, in order."""
    events: dict[str, list[tuple[Any, Any]]] = collections.defaultdict(list)
    launch = device.launch

    def timed(kernel: str, grid: int, **values: Any) -> None:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        launch(kernel, grid, **values)
        after.record()
        events[kernel].append((before, after))

    device.launch = timed  # type: ignore[method-assign]
    try:
        yield events
    finally:
        del device.launch


def kernel_seconds(work: Any, device: Device) -> dict[str, float]:
    """Seconds of all launches of each kernel in `work`: the median of RUNS runs after a warm-up."""
    work()
    taken: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(RUNS):
        with kernels_timed(device) as events:
            work()
            device.synchronize()
        for kernel, pairs in events.items():
            taken[kernel].append(sum(a.elapsed_time(b) for a, b in pairs) / 1e3)
    return {kernel: statistics.median(values) for kernel, values in taken.items()}


def predicted(gpu: str, model: Path) -> dict[str, list[float]]:
    """Least, most and floor of each kernel, seconds per field, of the model's GPU whose name is in this one's; or none."""
    if not model.exists():
        return {}
    by_gpu = json.loads(model.read_text()).get("predicted", {})
    words = [gpu, *gpu.replace("-", " ").split()]
    name = next((n for n in by_gpu if n.split()[-1] in words), None)
    return by_gpu[name] if name else {}


def beside(measured: dict[str, float], fields: int, gpu: str, model: Path) -> list[dict[str, Any]]:
    """A row per kernel, slowest first: milliseconds a field measured, and predicted where there is a prediction."""
    known = predicted(gpu, model)
    rows = []
    for kernel, seconds in sorted(measured.items(), key=lambda e: -e[1]):
        row: dict[str, Any] = {"kernel": kernel, "measured_ms": 1e3 * seconds / fields}
        if kernel in known:
            minimum, maximum, floor = (1e3 * v for v in known[kernel])
            inside = minimum <= row["measured_ms"] <= maximum
            row |= {
                "least_ms": minimum,
                "most_ms": maximum,
                "floor_ms": floor,
                "inside": inside,
                "floors": row["measured_ms"] / floor,
            }
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_fields", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--plate", required=True)
    parser.add_argument("--illumination", default="flatfield")
    parser.add_argument("--config", default="cpjump1", help="a preset (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--once", action="store_true", help="compare, and take no times")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    config = load_config(options.config)
    plate = find_plate(options.plate, options.images, config.plate)
    cpu, cuda = open_device("cpu"), open_device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        functions = open_illumination(
            plate, options.illumination, device=cpu, settings=config.illumination, folder=Path(folder), batch=options.batch
        ).functions
    read = first_batch(plate, options.batch, cpu)
    fields = read.pixels.shape[0]
    want = compute(read.pixels, functions, plate, config, cpu)

    def on_gpu() -> tuple[FieldBatch, Computed]:
        batch = first_batch(plate, options.batch, cuda)
        return batch, compute(batch.pixels, functions, plate, config, cuda)

    batch, output = on_gpu()
    result = differences(output, want)
    if said(batch) != said(read):
        result["what is said of the images"] = f"{said(batch)}, CPU {said(read)}"
    seconds = {} if options.once else kernel_seconds(on_gpu, cuda)
    gpu = torch.cuda.get_device_name(cuda.torch)
    model = json.loads(MODEL.read_text()) if MODEL.exists() else {}
    rows = beside(seconds, fields, gpu, MODEL)
    figures = {
        "plate": plate.barcode,
        "config": options.config,
        "same_fields_as_predicted": model.get("plate") == plate.barcode,
        "gpu": gpu,
        "fields": fields,
        "cells": want.table.shape[0],
        "differences": result,
        "kernels_ms": 1e3 * sum(seconds.values()) / fields,
        "kernels": rows,
    }
    write_json(options.json, figures)
    for name, what in result.items():
        print(f"{name} differ: {what}")
    with_prediction = [r for r in rows if "inside" in r]
    inside = sum(r["inside"] for r in with_prediction)
    print(
        f"{fields} fields, {figures['cells']} cells: {'DIFFERENT BITS' if result else 'equal bits'}; "
        f"{figures['kernels_ms']:.2f} ms of kernels a field; {inside} of {len(with_prediction)} kernels as predicted"
    )
    return 1 if result else 0


if __name__ == "__main__":
    sys.exit(main())
