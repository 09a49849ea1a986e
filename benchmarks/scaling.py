"""How cost grows: with cells a field, fields a plate, channels, and threads; drawn as figures.

    python -m benchmarks.scaling [--full]

Fields are drawn (jumpgpu.synthetic), so that only one thing changes at a time. Seconds are of the processor, of the whole
stage sequence in this process on one thread, except for the threads, which are of the wall clock. The exponent is the slope
of log seconds against log size: 1 is linear. A fixed cost a field makes it smaller.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import RESULTS, seconds, write_json
from jumpgpu import features
from jumpgpu.config import Config
from jumpgpu.device import open_device
from jumpgpu.extract import extract
from jumpgpu.names import CHANNELS
from jumpgpu.objects import make_scene
from jumpgpu.segmentation import segment
from jumpgpu.synthetic import SyntheticSettings, draw_plate

CELLS = (20, 50, 100, 200, 400, 800)
FIELDS, ALL_FIELDS = (6, 12, 24, 48), (6, 24, 96, 384)


def drawn(folder: Path, **settings: Any) -> str:
    """A drawn plate's images folder."""
    draw_plate(folder, "SCALE", dataclasses.replace(SyntheticSettings(sites=1), **settings))
    return str(folder)


def corrected(images: str) -> torch.Tensor:
    """The first field of a drawn plate, float32 [1, C, H, W]."""
    from jumpgpu.fields import read_fields
    from jumpgpu.plate import find_plate

    batch = next(read_fields(find_plate("SCALE", images, Config().plate), batch=1, workers=0))
    return batch.pixels.to(torch.float32) / 65535


def one_field(pixels: torch.Tensor, channels: Sequence[str], workers: int) -> Callable[[], int]:
    """Segment and measure one field, all families; gives its number of cells."""
    config, device = Config(), open_device("cpu", workers)

    def work() -> int:
        found = segment(pixels, CHANNELS, config.segmentation, device)
        scene = make_scene(CHANNELS, pixels, found.labels, found.unfiltered, device)
        if tuple(channels) != CHANNELS:
            take = [CHANNELS[i % len(CHANNELS)] for i in range(len(channels))]
            some = pixels[:, [CHANNELS.index(c) for c in take]].contiguous()
            scene = make_scene(tuple(channels), some, found.labels, found.unfiltered, device)
        features.measure_scene(scene, config.features, device)
        return scene.objects.n

    return work


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost against log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def by_cells(repeats: int) -> dict[str, Any]:
    rows = []
    for n in CELLS:
        with tempfile.TemporaryDirectory() as folder:
            pixels = corrected(drawn(Path(folder), wells=1, cells=float(n)))
        work = one_field(pixels, CHANNELS, 1)
        rows.append({"asked": n, "cells": work(), "cpu_s": seconds(work, repeats).median})
    return {"rows": rows, "exponent": exponent([r["cells"] for r in rows], [r["cpu_s"] for r in rows])}


def by_channels(repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pixels = corrected(drawn(Path(folder), wells=1))
    rows = []
    for n in range(1, 9):
        names = CHANNELS if n == len(CHANNELS) else tuple(f"Channel{i}" for i in range(n))
        rows.append({"channels": n, "cpu_s": seconds(one_field(pixels, names, 1), repeats).median})
    return {"rows": rows, "exponent": exponent([r["channels"] for r in rows], [r["cpu_s"] for r in rows])}


def by_fields(sizes: Sequence[int]) -> dict[str, Any]:
    """Whole plates from TIFF to zarr, small fields; peak memory is this process's."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            images = drawn(Path(folder) / "images", wells=n, height=540, width=540, cells=25.0)
            start = time.process_time()
            extract("SCALE", images, output=Path(folder), illumination="none", threads=1, quiet=True)
            rows.append({"fields": n, "cpu_s": time.process_time() - start})
    return {"rows": rows, "exponent": exponent([r["fields"] for r in rows], [r["cpu_s"] for r in rows])}


def by_threads(repeats: int, most: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pixels = corrected(drawn(Path(folder), wells=1)).repeat(4, 1, 1, 1)
    rows = []
    for n in range(1, most + 1):
        torch.set_num_threads(n)
        rows.append({"threads": n, "wall_s": seconds(one_field(pixels, CHANNELS, n), repeats, cpu=False).median})
    torch.set_num_threads(1)
    return {"rows": rows, "speed_up": rows[0]["wall_s"] / rows[-1]["wall_s"]}


def draw(figures: dict[str, Any], path: Path) -> None:
    """The four growths as one figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    for axis, (name, size) in zip(axes, (("cells",) * 2, ("fields",) * 2, ("channels",) * 2, ("threads",) * 2), strict=True):
        rows = figures[name]["rows"]
        cost = "wall_s" if name == "threads" else "cpu_s"
        axis.plot([r[size] for r in rows], [r[cost] for r in rows], "o-", color="#26828e")
        axis.set(xlabel=size, ylabel="seconds of the wall clock" if name == "threads" else "seconds of processor")
        axis.set_ylim(bottom=0)
        said = f"{figures[name]['speed_up']:.2f} times" if name == "threads" else f"exponent {figures[name]['exponent']:.2f}"
        axis.set_title(f"{name}: {said}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="plates to 384 fields (half an hour)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS / "scaling.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    figures = {
        "cells": by_cells(options.repeats),
        "fields": by_fields(ALL_FIELDS if options.full else FIELDS),
        "channels": by_channels(options.repeats),
        "threads": by_threads(options.repeats, options.threads),
    }
    write_json(options.json, figures)
    draw(figures, options.json.with_suffix(".png"))
    for name, found in figures.items():
        print(name, *(" ".join(f"{k} {v:.4g}" for k, v in row.items()) for row in found["rows"]), sep="\n  ")
        print(f"  exponent {found['exponent']:.2f}" if "exponent" in found else f"  speed-up {found['speed_up']:.2f}")


if __name__ == "__main__":
    main()
