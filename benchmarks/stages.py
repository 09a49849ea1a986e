"""Where a field's time goes: every stage and every kernel, on one thread, in this process.

python -m benchmarks.stages --images ../shared/data/fields --plate BR00117010
"""

import argparse
import collections
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.features import families as features
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import load_config
from jumpgpu.settings.names import COMPARTMENTS
from jumpgpu.store.layout import Layout, SiteTable
from jumpgpu.store.writer import PlateWriter


class Timed:
    """Milliseconds a field by stage, and by kernel where the device is the CPU."""

    def __init__(self, device: Device):
        self.device = device
        self.stages: collections.Counter[str] = collections.Counter()
        self.kernels: collections.Counter[str] = collections.Counter()
        if isinstance(device, CpuDevice):
            launch = device.launch

            def timed_launch(kernel: str, grid: int, **values: Any) -> None:
                start = time.process_time()
                launch(kernel, grid, **values)
                self.kernels[kernel] += time.process_time() - start

            device.launch = timed_launch  # type: ignore[method-assign]

    def __call__(self, stage: str, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.device.synchronize()
        cpu = self.device.torch.type == "cpu"
        start = time.process_time() if cpu else time.perf_counter()
        result = work(*arguments, **named)
        self.device.synchronize()
        self.stages[stage] += (time.process_time() if cpu else time.perf_counter()) - start
        return result


@contextlib.contextmanager
def families_timed(timed: Timed, names: Sequence[str]) -> Iterator[None]:
    """Within it each family's `measure` is a stage of its own, taken from the stage around it."""
    modules = {name: features.family(name) for name in names}
    originals = {name: module.measure for name, module in modules.items()}

    def stage(name: str) -> Callable[..., Any]:
        def measure(*arguments: Any) -> Any:
            before = timed.stages[name]
            result = timed(name, originals[name], *arguments)
            timed.stages["order of columns"] -= timed.stages[name] - before
            return result

        return measure

    try:
        for name, module in modules.items():
            module.measure = stage(name)  # type: ignore[attr-defined]
        yield
    finally:
        for name, module in modules.items():
            module.measure = originals[name]  # type: ignore[attr-defined]


def stages(images: str, plate_name: str, illumination: str, device_name: str, batch: int, repeats: int) -> dict[str, Any]:
    """Milliseconds a field of each stage and kernel: of the repeat with the least total, after one warm-up."""
    torch.set_num_threads(1)
    config = load_config("cpjump1")
    best: Timed | None = None
    n_fields = n_cells = 0
    for _ in range(repeats + 1):
        device = open_device(device_name, 1 if device_name == "cpu" else None)
        timed = Timed(device)
        plate = find_plate(plate_name, images, config.plate)
        with tempfile.TemporaryDirectory() as folder:
            functions = open_illumination(
                plate, illumination, device=device, settings=config.illumination, folder=Path(folder), batch=batch, workers=1
            )
            on_device = device.tensor(functions.functions)
            columns = features.columns(COMPARTMENTS, plate.channels, config.features)
            wells: dict[str, list[int]] = {}
            for site in plate.select(None, None):
                wells.setdefault(site.well, []).append(site.site)
            layout = Layout(plate.barcode, columns, plate.channels, plate.pixel_um)
            batches = read_fields(plate, batch=batch, workers=0, device=device)
            n_fields = n_cells = 0
            with PlateWriter(Path(folder), layout, {}, wells, True) as store:
                while (fields := timed("decode", next, batches, None)) is not None:
                    pixels = timed("correct", correct, fields.pixels, on_device, device=device)
                    result = timed("segment", segment, pixels, plate.channels, config.segmentation, device)
                    objects = timed("objects", make_batch, plate.channels, pixels, result.labels, result.unfiltered, device)
                    with families_timed(timed, features.chosen(config.features)):
                        table = timed("order of columns", features.measure_batch, objects, config.features, device)
                    values = table.cpu().numpy()
                    start, number = objects.objects.field_start.tolist(), objects.objects.number.cpu().numpy()
                    for b, (well, site) in enumerate(fields.sites):
                        rows = slice(start[b], start[b + 1])
                        timed("store", store.append, SiteTable(well, site, number[rows], values[rows]))
                    n_fields += len(fields.sites)
                    n_cells += objects.objects.n
        if best is None or sum(timed.stages.values()) < sum(best.stages.values()):
            best = timed
    assert best is not None
    scale = 1000 / max(1, n_fields)
    return {
        "fields": n_fields,
        "cells": n_cells,
        "device": device_name,
        "stages_ms": {k: v * scale for k, v in best.stages.items()},
        "total_ms": sum(best.stages.values()) * scale,
        "kernels_ms": {k: v * scale for k, v in best.kernels.most_common()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument("--illumination", default="../shared/data/cellprofiler/flatfield")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "stages.json")
    options = parser.parse_args(argv)
    figures = stages(options.images, options.plate, options.illumination, options.device, options.batch, options.repeats)
    write_json(options.json, figures)
    print(f"{figures['fields']} fields, {figures['cells']} cells, {figures['total_ms']:.0f} ms per field")
    for stage, ms in sorted(figures["stages_ms"].items(), key=lambda item: -item[1]):
        print(f"  {stage:14s} {ms:7.1f} ms  {ms / figures['total_ms']:5.1%}")
    for kernel, ms in list(figures["kernels_ms"].items())[:20]:
        print(f"    {kernel:24s} {ms:7.2f} ms")


if __name__ == "__main__":
    main()
