"""A whole plate through the command: fields, cells and megabytes a second, seconds of processor a field, and a peer.

    python -m benchmarks.throughput --images ../shared/data/fields --plate BR00117010 \\
        --illumination ../shared/data/cellprofiler/flatfield --peer cp_measure

Every run is a process of its own, accounted for by the operating system. Seconds a field are marginal: those of the whole
plate less those of one well, over the fields between them, so that start-up is a figure of its own. The peer measures
the same fields in the same run, in the virtual environment that benchmarks/peers/setup makes for it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, Usage, run_command, spread, write_json
from benchmarks.peers import PEERS, run_peer
from benchmarks.stages import stages
from jumpgpu.config import load_config
from jumpgpu.opened import open_plate
from jumpgpu.plate import find_plate

DONE = (0, 3)  # with and without quarantined sites


def extract(options: argparse.Namespace, folder: str, workers: int, wells: Sequence[str] = ()) -> Usage:
    command = [sys.executable, "-m", "jumpgpu.extract", "--plate", options.plate, "--images", options.images]
    command += ["--illumination", options.illumination, "--output", folder, "--device", options.device, "--overwrite"]
    command += ["--workers", str(workers), *(["--wells", *wells] if wells else [])]
    return run_command(command, DONE)


def figures_of(options: argparse.Namespace) -> dict[str, Any]:
    """Repeated runs of the whole plate and of one well, on one core and on `--workers`, and what they say."""
    plate = find_plate(options.plate, options.images, load_config("cpjump1").plate)
    sites = plate.select(None, None)
    first = sites[0].well
    more = sum(s.well != first for s in sites)
    if not more:
        raise ValueError(f"{options.plate} has one well; a throughput needs two or more")
    megabytes = sum(Path(image).stat().st_size for s in sites for image in s.images.values()) / 1e6
    whole, one, parallel, cells = [], [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.repeats + 1):
            runs = [
                extract(options, folder, 1),
                extract(options, folder, options.workers),
                extract(options, folder, 1, [first]),
            ]
            if i == 0:
                continue  # the warm-up: files into the page cache, compiled kernels into the device's
            for run, kept in zip(runs, (whole, parallel, one), strict=True):
                kept.append(run)
        extract(options, folder, options.workers)
        stored = open_plate(Path(folder) / options.plate)
        cells = sum(stored.record(w)["cells"] for w in stored.wells)
    a_field = spread([(a.cpu_s - b.cpu_s) / more for a, b in zip(whole, one, strict=True)])
    wall = spread([(a.wall_s - b.wall_s) / more for a, b in zip(whole, one, strict=True)])
    wall_parallel = spread([r.wall_s for r in parallel])
    wall_serial = spread([r.wall_s for r in whole])
    per_well = len(sites) - more
    return {
        "plate": options.plate,
        "device": options.device,
        "fields": len(sites),
        "cells": cells,
        "megabytes": megabytes,
        "cpu_s_a_field": a_field,
        "wall_s_a_field_one_worker": wall,
        "start_up_s": spread([b.wall_s - per_well * wall.median for b in one]),
        "whole_s_one_worker": wall_serial,
        "whole_s": wall_parallel,
        "workers": options.workers,
        "speed_up": wall_serial.median / wall_parallel.median,
        "fields_a_s": len(sites) / wall_parallel.median,
        "cells_a_s": cells / wall_parallel.median,
        "megabytes_a_s": megabytes / wall_parallel.median,
        "peak_memory_mb": max(r.peak_bytes for r in parallel) / 1e6,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument(
        "--illumination", default="../shared/data/cellprofiler/flatfield", help="folder, estimate, none, ..."
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", default="none", choices=("none", *PEERS))
    parser.add_argument("--json", type=Path, default=RESULTS / "throughput.json")
    options = parser.parse_args(argv)
    figures = figures_of(options)
    figures["stages"] = stages(options.images, options.plate, options.illumination, options.device, 6, options.repeats)
    if options.peer != "none":
        figures["peer"] = run_peer(options.peer, options.images, options.plate, options.illumination)
        figures["peer"]["ratio"] = figures["peer"]["cpu_s_a_field"] / figures["cpu_s_a_field"].median
    write_json(options.json, figures)
    shown = {k: str(v) if not isinstance(v, (int, float, str)) else v for k, v in figures.items() if k != "stages"}
    print(json.dumps(shown, indent=1))
    total = figures["stages"]["total_ms"]
    for stage, ms in sorted(figures["stages"]["stages_ms"].items(), key=lambda item: -item[1]):
        print(f"  {stage:18s} {ms:7.1f} ms  {ms / total:5.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
