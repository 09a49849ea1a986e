"""A whole plate through the command: fields, cells and megabytes a second, seconds of processor a field, and peers.

    python -m benchmarks.throughput --images ../shared/data/fields --plate BR00117010 \\
        --illumination ../shared/data/cellprofiler/flatfield --peer cp_measure --peer openhcs

The images are repeated, in turn, to a plate of `--fields` fields. Every run is a process of its own, accounted for by the
operating system; one on one thread is confined to one core. Seconds a field are marginal: those of the whole plate less
those of one well, over the fields between them, so that start-up is a figure of its own. Peers measure
the same fields in the same run, each in the virtual environment that benchmarks/peers/setup makes for it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, Spread, Usage, machine, run_command, spread, write_json
from benchmarks.memory import repeat_plate
from benchmarks.peers import PEERS, run_peer
from benchmarks.stages import stages
from jumpgpu.images.locate import find_plate
from jumpgpu.settings.config import load_config
from jumpgpu.store.reader import open_plate

DONE = (0, 3)  # with and without quarantined sites


def extract(options: argparse.Namespace, images: str, folder: str, threads: int, wells: Sequence[str] = ()) -> Usage:
    command = [sys.executable, "-m", "jumpgpu.extract", "--plate", options.plate, "--images", images]
    command += [
        "--illumination",
        options.illumination,
        "--output",
        folder,
        "--device",
        options.device,
        "--overwrite",
        "--quiet",
    ]
    command += ["--threads", str(threads), *(["--wells", *wells] if wells else [])]
    return run_command(command, DONE, cores=threads if options.device == "cpu" else None)


def figures_of(options: argparse.Namespace) -> dict[str, Any]:
    """Repeated runs of the whole plate and of one well, on one core and on `--threads`, and what they say."""
    with tempfile.TemporaryDirectory() as folder:
        images = options.images
        if options.fields:
            images = str(Path(folder) / "images")
            repeat_plate(options.images, options.plate, options.fields, Path(images))
        sites = find_plate(options.plate, images, load_config("cpjump1").plate).select(None, None)
        first = sites[0].well
        more = sum(s.well != first for s in sites)
        if not more:
            raise ValueError(f"{options.plate} has one well; a throughput needs two or more")
        megabytes = sum(Path(image).stat().st_size for s in sites for image in s.files if image) / 1e6
        cases = {
            "one": (1, (first,)),
            "whole": (1, ()),
            "one_parallel": (options.threads, (first,)),
            "parallel": (options.threads, ()),  # the last, which leaves the whole plate
        }
        runs: dict[str, list[Usage]] = {name: [] for name in cases}
        for i in range(options.repeats + 1):
            for name, (threads, wells) in cases.items():
                if i == 0 and not wells:
                    continue  # the first round warms up: files into the page cache, compiled kernels into the device's
                used = extract(options, images, folder, threads, wells)
                if i:
                    runs[name].append(used)
        stored = open_plate(Path(folder) / options.plate)
        cells = sum(stored.record(w)["cells"] for w in stored.wells)

    def marginal(many: str, few: str, figure: str) -> Spread:
        pairs = zip(runs[many], runs[few], strict=True)
        return spread([(getattr(a, figure) - getattr(b, figure)) / more for a, b in pairs])

    wall, wall_parallel = marginal("whole", "one", "wall_s"), marginal("parallel", "one_parallel", "wall_s")
    per_well = len(sites) - more
    whole, parallel = (spread([r.wall_s for r in runs[name]]) for name in ("whole", "parallel"))
    return {
        "plate": options.plate,
        "device": options.device,
        "fields": len(sites),
        "cells": cells,
        "megabytes": megabytes,
        "cpu_s_a_field": marginal("whole", "one", "cpu_s"),
        "cpu_s_a_field_parallel": marginal("parallel", "one_parallel", "cpu_s"),
        "wall_s_a_field_one_thread": wall,
        "wall_s_a_field": wall_parallel,
        "start_up_s": spread([b.wall_s - per_well * wall.median for b in runs["one"]]),
        "whole_s_one_thread": whole,
        "whole_s": parallel,
        "threads": options.threads,
        "speed_up": wall.median / wall_parallel.median,
        "speed_up_with_start_up": whole.median / parallel.median,
        "fields_a_s": 1 / wall_parallel.median,
        "cells_a_s": cells / len(sites) / wall_parallel.median,
        "megabytes_a_s": megabytes / len(sites) / wall_parallel.median,
        "peak_memory_mb": max(r.peak_bytes for r in runs["parallel"]) / 1e6,
    }


STAGES = {  # a stage that measures -> what peers call it, beside its own name
    "shape": ("sizeshape", "zernike", "feret"),
    "correlation": ("pearson", "manders_fold", "rwc"),
    "granularity": (),
    "intensity": (),
    "neighbors": (),
    "radial": ("radial_distribution",),
    "texture": (),
}
CELLPROFILER_S = 54.3  # CPU seconds a field of CellProfiler 4.2.8, start-up included; a reference figure, not of this run
OPENHCS_S = 19.4  # of OpenHCS 0.8.6, likewise


def peer_seconds(peer: dict[str, Any], stage: str) -> float:
    """The peer's seconds per field for what our stage measures; 0 where it has no such thing."""
    return sum(peer["modules"].get(m, 0.0) for m in (stage, *STAGES[stage])) if stage in STAGES else 0.0


def beside(options: argparse.Namespace, stages_ms: dict[str, float]) -> list[dict[str, Any]]:
    """Every chosen peer's figures, of its median run, with the ratio over the stages that both have."""
    peers = []
    for name in options.peer:
        runs = [
            run_peer(name, options.images, options.plate, options.illumination, options.peer_fields)
            for _ in range(options.peer_runs)
        ]
        runs.sort(key=lambda run: run["cpu_s_a_field"])
        peer = runs[(len(runs) - 1) // 2]
        ours = sum(ms for stage, ms in stages_ms.items() if peer_seconds(peer, stage))
        peer["ratio"] = 1000 * peer["cpu_s_a_field"] / ours
        peer["cpu_s_a_field"] = spread([run["cpu_s_a_field"] for run in runs])
        peers.append(peer)
    return peers


NOTE = "*Generated by `python -m benchmarks.throughput --peer ... --page docs/throughput.md`; do not edit.*"


def page(figures: dict[str, Any], on: dict[str, Any]) -> str:
    """docs/throughput.md."""
    stages_ms, total = figures["stages"]["stages_ms"], figures["stages"]["total_ms"]
    cpu, threads, peers = figures["cpu_s_a_field"], figures["threads"], figures.get("peers", [])
    lines = [
        "# Throughput",
        "",
        f"{on['processor']}, {on['cores']} cores, {on['memory_bytes'] / 2**30:.0f} GiB, Python {on['python']}, torch "
        f"{on['packages']['torch']}; no GPU. Commit {on['commit'][:10]}. {figures['fields']} fields of five channels, "
        f"{figures['cells']} cells, all 3515 columns, raw TIFF to zarr, illumination functions given. Seconds per "
        "field are marginal, without start-up.",
        "",
        "| figure | value |",
        "|---|---|",
        f"| CPU seconds per field, one thread | {cpu} |",
        f"| the same, {threads} threads | {figures['cpu_s_a_field_parallel']} |",
        f"| CellProfiler 4.2.8's 54.3 s (a reference, not of this run) over the first | {CELLPROFILER_S / cpu.median:.0f} |",
        f"| OpenHCS 0.8.6's 19.4 s (likewise) over the first | {OPENHCS_S / cpu.median:.0f} |",
        f"| wall-clock seconds per field, one core | {figures['wall_s_a_field_one_thread']} |",
        f"| the same, {threads} threads | {figures['wall_s_a_field']} |",
        f"| speed-up by {threads} threads, start-up left out | {figures['speed_up']:.2f} |",
        f"| speed-up by {threads} threads, start-up included | {figures['speed_up_with_start_up']:.2f} |",
        f"| start-up, s | {figures['start_up_s']} |",
        f"| whole plate, s, one core | {figures['whole_s_one_thread']} |",
        f"| whole plate, s, {threads} threads | {figures['whole_s']} |",
        f"| fields per second, {threads} threads | {figures['fields_a_s']:.2f} |",
        f"| cells per second | {figures['cells_a_s']:.0f} |",
        f"| megabytes of images per second | {figures['megabytes_a_s']:.1f} |",
        f"| peak memory, MB, {threads} threads | {figures['peak_memory_mb']:.0f} |",
        "",
        "## Where a field's time goes",
        "",
        "One thread, the repeat with the least total; milliseconds per field.",
        "",
        "| stage | ms | share |" + "".join(f" {p['tool']}, ms | ratio |" for p in peers),
        "|---|---|---|" + "---|---|" * len(peers),
    ]
    for stage, ms in sorted(stages_ms.items(), key=lambda item: -item[1]):
        beside = [f" {1000 * t:.0f} | {1000 * t / ms:.0f} |" if (t := peer_seconds(p, stage)) else " | |" for p in peers]
        lines.append(f"| {stage} | {ms:.1f} | {ms / total:.1%} |" + "".join(beside))
    sums = "".join(f" {1000 * p['cpu_s_a_field'].median:.0f} | {p['ratio']:.0f} |" for p in peers)
    lines += [f"| all | {total:.0f} | |" + sums, ""]
    if peers:
        fields, runs = peers[0]["fields"], peers[0]["cpu_s_a_field"].runs
        lines += [
            f"Each peer measured {fields} of the fields on the same masks, {runs} times in the same run (medians); it "
            "segments nothing and reads nothing here. The last line's ratio is over our stages that the peer has too. "
            "Versions: " + ", ".join(f"{p['tool']} {p['version']}" for p in peers) + ".",
        ]
        lines += [
            f"{p['tool']} took {p['cold_s']:.0f} s for the first field of a process, with compiling or reading what was "
            "compiled; that is left out."
            for p in peers
            if "cold_s" in p
        ]
        if any(p["tool"] == "Nyxus" for p in peers):
            lines += ["Nyxus's groups stand beside ours by subject only: its features are not CellProfiler's."]
    lines += [
        "",
        "Order statistics, which Intensity and Correlation share, are in `correlation`; outlines are in `shape`.",
        "",
    ]
    lines += ["## Kernels", "", "| kernel | ms per field |", "|---|---|"]
    lines += [f"| {k} | {ms:.2f} |" for k, ms in list(figures["stages"]["kernels_ms"].items())[:25]]
    return "\n".join([*lines, "", NOTE]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument(
        "--illumination", default="../shared/data/cellprofiler/flatfield", help="folder, estimate, none, ..."
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--fields", type=int, default=48, help="images repeated to so many fields, without their index; 0: as they are"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="append", choices=("none", *PEERS), help="may be given several times")
    parser.add_argument("--peer-fields", type=int, default=1, help="fields that a peer measures (default: %(default)s)")
    parser.add_argument("--peer-runs", type=int, default=3, help="runs of each peer (default: %(default)s)")
    parser.add_argument("--page", type=Path, help="write the figures as Markdown too")
    parser.add_argument("--json", type=Path, default=RESULTS / "throughput.json")
    options = parser.parse_args(argv)
    figures = figures_of(options)
    figures["stages"] = stages(options.images, options.plate, options.illumination, options.device, 6, options.repeats)
    options.peer = [p for p in options.peer or () if p != "none"]
    figures["peers"] = beside(options, figures["stages"]["stages_ms"])
    write_json(options.json, figures)
    if options.page:
        options.page.write_text(page(figures, machine()))
    shown = {
        k: str(v) if not isinstance(v, (int, float, str)) else v for k, v in figures.items() if k not in ("stages", "peers")
    }
    print(json.dumps(shown, indent=1))
    total = figures["stages"]["total_ms"]
    for stage, ms in sorted(figures["stages"]["stages_ms"].items(), key=lambda item: -item[1]):
        print(f"  {stage:18s} {ms:7.1f} ms  {ms / total:5.1%}")
    for peer in figures["peers"]:
        print(f"  {peer['tool']} {peer['version']}: {peer['cpu_s_a_field']} s a field, {peer['ratio']:.0f} times our stages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
