"""How cost grows: with cells per field, fields per plate, channels, and threads; drawn as figures.

    python -m benchmarks.scaling [--full] [--page docs/scaling.md]

Fields are drawn (jumpgpu.synthetic), so that only one thing changes at a time. Seconds are of the processor, of segmentation
and all features in this process on one thread, except for the threads, which are of the wall clock, and for the fields a
plate, which are of the whole command, start-up and peak memory included. The exponent is the slope of log seconds against
log size: 1 is linear. A fixed cost per field or a run makes it smaller.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import RESULTS, machine, run_command, seconds, write_json
from jumpgpu.features import families as features
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import Config
from jumpgpu.settings.names import CHANNELS
from jumpgpu.synthetic import SyntheticSettings, draw_plate

CELLS = (20, 50, 100, 200, 400, 800)
GROWTHS = ("cells", "fields", "channels", "threads")
LABELS = {"cells": "cells per field", "fields": "fields per plate", "channels": "channels", "threads": "threads"}
FIELDS, ALL_FIELDS = (6, 12, 24, 48), (6, 24, 96, 384)


def drawn(folder: Path, **settings: Any) -> str:
    """A drawn plate's images folder."""
    draw_plate(folder, "SCALE", dataclasses.replace(SyntheticSettings(sites=1), **settings))
    return str(folder)


def corrected(images: str) -> torch.Tensor:
    """The first field of a drawn plate, float32 [1, C, H, W]."""
    from jumpgpu.images.locate import find_plate
    from jumpgpu.images.reader import read_fields

    batch = next(read_fields(find_plate("SCALE", images, Config().plate), batch=1, workers=0))
    return batch.pixels.to(torch.float32) / 65535


def one_field(pixels: torch.Tensor, channels: Sequence[str], workers: int) -> Callable[[], int]:
    """Segment and measure one field, all families; gives its number of cells."""
    config, device = Config(), open_device("cpu", workers)

    def work() -> int:
        result = segment(pixels, CHANNELS, config.segmentation, device)
        batch = make_batch(CHANNELS, pixels, result.labels, result.unfiltered, device)
        if tuple(channels) != CHANNELS:
            take = [CHANNELS[i % len(CHANNELS)] for i in range(len(channels))]
            some = pixels[:, [CHANNELS.index(c) for c in take]].contiguous()
            batch = make_batch(tuple(channels), some, result.labels, result.unfiltered, device)
        features.measure_batch(batch, config.features, device)
        return batch.objects.n

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
    """Whole plates from TIFF to zarr by the command, one small field per well."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            images = drawn(Path(folder) / "images", wells=n, height=540, width=540, cells=25.0)
            command = [sys.executable, "-m", "jumpgpu.extract", "--plate", "SCALE", "--images", images, "--output", folder]
            used = run_command([*command, "--illumination", "none", "--threads", "1", "--quiet"])
            rows.append({"fields": n, "cpu_s": used.cpu_s, "peak_mb": used.peak_bytes / 1e6})
    return {"rows": rows, "exponent": exponent([r["fields"] for r in rows], [r["cpu_s"] for r in rows])}


def by_threads(repeats: int, maximum: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pixels = corrected(drawn(Path(folder), wells=1)).repeat(4, 1, 1, 1)
    rows = []
    for n in range(1, maximum + 1):
        torch.set_num_threads(n)
        rows.append({"threads": n, "wall_s": seconds(one_field(pixels, CHANNELS, n), repeats, cpu=False).median})
    torch.set_num_threads(1)
    return {"rows": rows, "speed_up": rows[0]["wall_s"] / rows[-1]["wall_s"]}


NOTE = "*Generated by `python -m benchmarks.scaling --full --page docs/scaling.md`; do not edit.*"


def page(figures: dict[str, Any], picture: str, on: dict[str, Any]) -> str:
    """docs/scaling.md."""
    lines = [
        "# Growth",
        "",
        f"{on['processor']}, {on['cores']} cores, {on['memory_bytes'] / 2**30:.0f} GiB; no GPU. Drawn fields: "
        "growth is measured, not speed. Cells and channels: seconds of processor for one field of 1080 x 1080 "
        "pixels, segmented and measured. Fields: the whole command on a plate of small fields (540 x 540), start-up in. "
        "Threads: seconds of the wall clock for four fields.",
        "",
        f"![Seconds against cells, fields, channels and threads, and memory against fields]({picture})",
        "",
        "| growth | sizes | cost, s | |",
        "|---|---|---|---|",
    ]
    for name in GROWTHS:
        rows, result = figures[name]["rows"], figures[name]
        cost = "wall_s" if name == "threads" else "cpu_s"
        said = f"exponent {result['exponent']:.2f}" if "exponent" in result else f"{result['speed_up']:.2f} times"
        sizes, costs = (", ".join(f"{row[key]:.3g}" for row in rows) for key in (name, cost))
        lines.append(f"| {LABELS[name]} | {sizes} | {costs} | {said} |")
    peaks = figures["fields"]["rows"]
    sizes, megabytes = (", ".join(f"{row[key]:.0f}" for row in peaks) for key in ("fields", "peak_mb"))
    lines.append(f"| peak memory by fields, MB | {sizes} | {megabytes} | |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def draw(figures: dict[str, Any], path: Path) -> None:
    """The growths and the command's peak memory as one figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 5, figsize=(18, 3.4), layout="constrained")
    for axis, name in zip(axes, GROWTHS, strict=False):
        rows = figures[name]["rows"]
        cost = "wall_s" if name == "threads" else "cpu_s"
        axis.plot([r[name] for r in rows], [r[cost] for r in rows], "o-", color="#26828e")
        axis.set(xlabel=LABELS[name], ylabel="seconds of the wall clock" if name == "threads" else "seconds of processor")
        axis.set_ylim(bottom=0)
        said = f"{figures[name]['speed_up']:.2f} times" if name == "threads" else f"exponent {figures[name]['exponent']:.2f}"
        axis.set_title(f"{name}: {said}")
    rows = figures["fields"]["rows"]
    axes[-1].plot([r["fields"] for r in rows], [r["peak_mb"] for r in rows], "o-", color="#26828e")
    axes[-1].set(xlabel=LABELS["fields"], ylabel="peak memory of the command, MB", title="memory")
    axes[-1].set_ylim(bottom=0)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="plates to 384 fields (some minutes more)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", type=Path, help="write the figures as Markdown too, with the picture in images/ beside it")
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
    picture = options.page.parent / "images" / "scaling.png" if options.page else options.json.with_suffix(".png")
    picture.parent.mkdir(exist_ok=True)
    draw(figures, picture)
    if options.page:
        options.page.write_text(page(figures, f"images/{picture.name}", machine()))
    for name, result in figures.items():
        print(name, *(" ".join(f"{k} {v:.4g}" for k, v in row.items()) for row in result["rows"]), sep="\n  ")
        print(f"  exponent {result['exponent']:.2f}" if "exponent" in result else f"  speed-up {result['speed_up']:.2f}")


if __name__ == "__main__":
    main()
