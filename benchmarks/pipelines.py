"""Public pipelines beside CellProfiler, both run on the same real field now: labels, columns, and CPU by module.

    benchmarks/peers/setup cellprofiler
    python -m benchmarks.pipelines ../shared/data/pipelines --fields M02 HT29   all pipelines of a folder, or some by name
    python -m benchmarks.pipelines ../shared/data/pipeline_references           runs that have a mapping.json
    python -m tools.pipelines page ../shared/data/pipelines                     the table of docs/cellprofiler.md

Prints of each: the importer's verdict, whether CellProfiler's run agrees (as `tools.pipelines references` means it), and the
ratio of CPU seconds, CellProfiler's over ours. "both" counts those that are equal by the verdict and agree when run.

Images go by the pipelines' names (`OrigDNA`, `CorrER` ...); what the plate does not have is another well's ER image, so that
nothing correlates by design. Fields are wells of the U2OS plate (N09 sparse, M02 crowded), or CellProfiler's examples of
HT29 and of fly cells (Kc167), 8 bits; these have three channels, and what they lack is one of them, turned. Functions that a
pipeline loads are the plate's flat fields. Both sides begin with the same
float32 pixels in memory; ours is the faster of two runs after a first, in one thread; modules that only load, save or draw
are left out. What several modules share (an object batch, sorted pixels) is counted where it is first asked for.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import torch

from benchmarks.machine import RESULTS, run_command, write_json
from benchmarks.peers import ENVIRONMENTS, HERE
from jumpgpu.cellprofiler.findings import Translated
from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import steps as kinds
from jumpgpu.steps import run as runner
from jumpgpu.steps.state import State
from tools.pipelines import Compared, as_listed, compare, compare_images

NUMBERS = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}  # channels of the plate's files
WORDS = {
    "DNA": "dna hoechst dapi blue nuclei",
    "ER": "er gfp bodipy gasdermin",
    "RNA": "rna nucleoli green cellbody syto",
    "AGP": "agp actin pm red rfp",
    "Mito": "mito mitochondria cy5 ph3",
}
EXAMPLES = {  # images of DNA and two more
    "HT29": ("ExampleHuman", [f"AS_09125_050116030001_D03f00d{k}.tif" for k in range(3)]),
    "Kc167": ("ExampleFly", [f"01_POS002_{k}.TIF" for k in "DFR"]),
}
OF_EXAMPLE = {
    "DNA": (0, None),
    "AGP": (1, None),
    "RNA": (2, None),
    "Mito": (1, 0),
    "ER": (2, 0),
    "": (0, 1),
}  # and which axis is turned
CHANNEL_OF = {word: channel for channel, words in WORDS.items() for word in words.split()}


@dataclass(frozen=True)
class Given:
    """What a pipeline's images are: name -> float32 or uint16 [H, W], and what counts are over (None: stored as it is)."""

    images: dict[str, tuple[np.ndarray, float | None]]
    channels: dict[str, str]


@dataclass
class Module:
    """CPU seconds of one module, and CellProfiler's error, where it ended with one."""

    number: int
    module: str
    cellprofiler_s: float
    ours_s: float
    error: str = ""

    @property
    def ratio(self) -> float:
        return self.cellprofiler_s / self.ours_s if self.ours_s else 0.0


@dataclass
class Run:
    """One pipeline on one field."""

    name: str
    well: str
    verdict: dict[str, str]
    modules: list[Module] = field(default_factory=list)
    compared: Compared | None = None
    error: str = ""

    @property
    def both(self) -> bool:
        return self.agrees and self.verdict["labels"] == self.verdict["columns"] == "equal"

    @property
    def agrees(self) -> bool:
        return self.compared is not None and self.compared.complete and not self.error

    @property
    def ratio(self) -> float:
        ours = sum(m.ours_s for m in self.modules)
        return sum(m.cellprofiler_s for m in self.modules) / ours if ours else 0.0


def plane(shared: Path, well: str, channel: str) -> np.ndarray:
    """One image of the plate, uint16 [H, W]."""
    folder = next((shared / "data/fields").iterdir()) / "Images"
    name = f"r{ord(well[0]) - 64:02d}c{int(well[1:]):02d}f05p01-ch{NUMBERS[channel]}sk1fk1fl1.tiff"
    return np.asarray(imagecodecs.tiff_decode((folder / name).read_bytes()))


def plane_of_example(shared: Path, name: str, channel: str, turns: int = 0) -> np.ndarray:
    """uint8 [H, W]; an image that the example lacks is another one, turned."""
    folder, files = EXAMPLES[name]
    which, axis = OF_EXAMPLE[channel]
    image = imagecodecs.tiff_decode((shared / "data/examples" / folder / "images" / files[which]).read_bytes())
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"{name} {channel} is no grey image of 8 bits")
    return np.ascontiguousarray(np.roll(image if axis is None else np.flip(image, axis), 97 * turns, 0))


def flat_field(shared: Path, channel: str, size: tuple[int, ...] = (1080, 1080)) -> np.ndarray:
    with np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz", allow_pickle=False) as archive:
        return np.asarray(archive["illum"], np.float32)[: size[0], : size[1]]


def images_by_name(imported: Translated, shared: Path, field: str) -> Given:
    """Every image that the pipeline loads, by the word in its name."""
    images: dict[str, tuple[np.ndarray, float | None]] = {}
    others = [w for w in ("M02", "A21", "N09", "D08") if w != field]
    size = plane_of_example(shared, field, "DNA").shape if field in EXAMPLES else (1080, 1080)
    for step in loads(imported):
        word = re.sub("^(orig|corrected|corr|raw|pre|crop|rescaled|illum)_?", "", step.image.lower())
        channel = CHANNEL_OF.get(re.sub("[^a-z0-9]", "", word), "")
        if step.function:
            images[step.image] = flat_field(shared, channel or "ER", size), None
        elif field in EXAMPLES:
            images[step.image] = plane_of_example(shared, field, channel, 0 if channel else len(images)), 255.0
        elif channel:
            images[step.image] = plane(shared, field, channel), 65535.0
        else:
            images[step.image] = plane(shared, others[len(images) % len(others)], "ER"), 65535.0
    return Given(images, {s.image: s.channel for s in loads(imported)})


def images_of_reference(imported: Translated, folder: Path, shared: Path) -> Given:
    """As a reference's mapping.json says."""
    mapping = json.loads((folder / "mapping.json").read_text())
    images: dict[str, tuple[np.ndarray, float | None]] = {}
    for step in loads(imported):
        if step.function:
            entry = mapping["illumination"][step.image]
            with np.load(shared / "data" / entry["file"], allow_pickle=False) as archive:
                function = archive["illum"].astype(np.float32) * np.float32(entry.get("times", 1))
            images[step.image] = function, None
        else:
            file = shared / "data" / mapping["field"] / mapping["images"][step.image]["file"]
            images[step.image] = np.asarray(imagecodecs.tiff_decode(file.read_bytes())), 65535.0
    return Given(images, {s.image: s.channel for s in loads(imported)})


def loads(imported: Translated) -> list[kinds.Load]:
    return [s for s in imported.steps if isinstance(s, kinds.Load)]


def run_cellprofiler(job: dict[str, Any], images: Mapping[str, tuple[np.ndarray, float | None]], folder: Path) -> list[dict]:
    """A job of benchmarks/peers/cellprofiler_run.py in `folder`: a line a module. FileNotFoundError without CellProfiler."""
    python = ENVIRONMENTS / "cellprofiler" / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError("no environment for cellprofiler; run benchmarks/peers/setup cellprofiler")
    entries = {}
    for i, (name, (pixels, divisor)) in enumerate(images.items()):
        np.save(folder / f"{i}.npy", pixels)
        entries[name] = {"file": str(folder / f"{i}.npy"), "divisor": divisor}
    (folder / "job.json").write_text(json.dumps({**job, "images": entries, "output": str(folder)}))
    if not (folder / "run.json").is_file():
        run_command([python, "-I", HERE / "cellprofiler_run.py", folder / "job.json"], OMP_NUM_THREADS="1")
    result: list[dict] = json.loads((folder / "run.json").read_text())["modules"]
    return result


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """CPU seconds by a step's module, while it lasts."""
    seconds: dict[str, float] = {}
    before = dict(runner.HANDLERS)

    def watched(handler: Callable[[State, Any, Device], None]) -> Callable[[State, Any, Device], None]:
        def work(state: State, step: kinds.Step, device: Device) -> None:
            start = time.process_time()
            try:
                handler(state, step, device)
            finally:
                seconds[step.module] = seconds.get(step.module, 0.0) + time.process_time() - start

        return work

    try:
        runner.HANDLERS.update({kind: watched(handler) for kind, handler in before.items()})
        yield seconds
    finally:
        runner.HANDLERS.update(before)


def run_ours(steps: list[kinds.Step], given: Given, device: Device, runs: int = 3) -> tuple[State, dict[str, float]]:
    """The last run's state, and the seconds of the fastest after the first."""
    pixels, functions, scales = {}, {}, {}
    for name, (image, divisor) in given.images.items():
        if divisor:
            scaled = image.astype(np.float32) / np.float32(divisor)
            pixels[given.channels[name]] = torch.from_numpy(scaled[None])
            scales[given.channels[name]] = divisor
        else:
            functions[given.channels[name]] = torch.from_numpy(image)
    taken = []
    for _ in range(runs):
        with timed() as seconds:
            state = runner.run_steps(steps, pixels, functions, device, scales, skip=False)
        taken.append(seconds)
    return state, min(taken[1:] or taken, key=lambda s: sum(s.values()))


def number_of(module: str) -> int:
    found = re.search(r"module (\d+)", module)
    return int(found[1]) if found else 0


def run_pipeline(path: Path, well: str, shared: Path, device: Device, keep: Path | None = None) -> Run:
    """`keep`: where CellProfiler's outcome is kept, and is taken from where it is there."""
    imported = translate([read_pipeline(path)])
    mapped = (path.parent / "mapping.json").is_file()
    name = path.parent.name if mapped else path.stem
    result = Run(name if mapped else path.name, well, imported.verdict)
    given = images_of_reference(imported, path.parent, shared) if mapped else images_by_name(imported, shared, well)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep / f"{name}_{well}"
        folder.mkdir(parents=True, exist_ok=True)
        theirs = run_cellprofiler({"pipeline": str(path.resolve())}, given.images, folder)
        tables = {p.stem.removeprefix("table_"): table_of(p) for p in folder.glob("table_*.npz")}
        steps = [as_listed(s, {n: set(t.columns) for n, t in tables.items()}) for s in imported.steps]
        try:
            state, ours = run_ours(steps, given, device)
        except (ValueError, KeyError) as error:
            result.error = f"{type(error).__name__}: {error}"
            return result
        result.modules = by_module(theirs, ours)
        result.compared = compared(name, imported, state, folder, tables)
    return result


def table_of(path: Path) -> pd.DataFrame:
    """Columns of which CellProfiler has fewer rows, those of objects that are gone left out, end with nan."""
    with np.load(path, allow_pickle=False) as archive:
        return pd.DataFrame({n: pd.Series(archive[n]) for n in archive.files})


def by_module(theirs: list[dict], ours: Mapping[str, float]) -> list[Module]:
    """Modules that both did something in, and those of CellProfiler that ended with an error."""
    seconds: dict[int, float] = {}
    for name, value in ours.items():
        seconds[number_of(name)] = seconds.get(number_of(name), 0.0) + value
    return [
        Module(m["number"], m["module"], m["cpu_s"], seconds[m["number"]], m["error"])
        for m in theirs
        if m["number"] in seconds and not m["error"] and not m["idle"]
    ] + [Module(m["number"], m["module"], 0.0, 0.0, m["error"]) for m in theirs if m["error"]]


def compared(name: str, imported: Translated, state: State, folder: Path, tables: Mapping[str, pd.DataFrame]) -> Compared:
    result = Compared(name, imported.verdict)
    for path in sorted(folder.glob("labels_*.npy")):
        objects = path.stem.removeprefix("labels_")
        theirs = np.load(path, allow_pickle=False)
        if objects not in state.objects:
            result.labels[objects] = theirs.size
            continue
        ours = state.objects[objects].labels[0].cpu().numpy()
        result.counts[objects] = int(ours.max()), int(theirs.max())
        result.labels[objects] = int((ours != theirs).sum()) if ours.shape == theirs.shape else theirs.size
        if not result.labels[objects]:
            compare(result, state, objects, tables[objects])
    compare_images(result, state, tables["Image"])
    return result


def print_run(run: Run, lines: int) -> None:
    c = run.compared
    verdict = "/".join(run.verdict[k] for k in ("labels", "columns"))
    if c is None:
        print(f"{run.name} {run.well}: verdict {verdict}; {run.error}", flush=True)
        return
    wrong = {n: p for n, p in c.labels.items() if p}
    print(
        f"{run.name} {run.well}: verdict {verdict}; CellProfiler {'agrees' if run.agrees else 'differs'}: "
        f"labels {wrong or 'equal'} {c.counts}, {c.agree} of {c.columns} columns, {c.left_out} values of choice, "
        f"image table {c.image_agree} of {c.image_columns}; CPU {sum(m.cellprofiler_s for m in run.modules):.1f} s against "
        f"{sum(m.ours_s for m in run.modules):.2f} s: 1/{run.ratio:.0f}",
        flush=True,
    )
    for m in sorted(run.modules, key=lambda m: m.ratio):
        text = m.error or f"{m.cellprofiler_s:.3f} s against {m.ours_s:.4f} s: 1/{m.ratio:.0f}"
        print(f"    {m.module} ({m.number}): {text}")
    for what in c.absent[:lines]:
        print(f"    absent: {what}")
    for column, text in [*c.differ.items(), *c.image_differ.items()][:lines]:
        print(f"    differs: {column}: {text}")


def kept(run: Run) -> dict[str, Any]:
    """What the JSON file has of a run."""
    result = asdict(replace(run, compared=None, modules=[])) | {
        "agrees": run.agrees,
        "both": run.both,
        "ratio": round(run.ratio, 1),
    }
    result["cpu_s"] = [round(sum(m.cellprofiler_s for m in run.modules), 2), round(sum(m.ours_s for m in run.modules), 3)]
    result["errors"] = [f"{m.module} ({m.number}): {m.error}" for m in run.modules if m.error]
    if (c := run.compared) is not None:
        result |= {"labels": c.labels, "counts": c.counts, "columns": [c.agree, c.columns], "choice": c.left_out}
        result |= {"images": [c.image_agree, c.image_columns], "absent": c.absent[:20], "differ": c.differ}
        result["image_differ"] = c.image_differ
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="parts of names; default: all")
    parser.add_argument("--fields", nargs="+", default=["M02"], help="wells, HT29, Kc167; of references their own")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--keep", type=Path, help="keep CellProfiler's outcomes here, and take those that are here")
    parser.add_argument("--maximum", type=int, default=6, help="columns to list of each")
    parser.add_argument("--json", type=Path, default=RESULTS / "pipelines.json", help="where runs are added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = open_device("cpu", 1)
    references = sorted(args.folder.glob("*/pipeline.cppipe"))
    paths = references or sorted(p for p in args.folder.iterdir() if p.suffix in (".cppipe", ".cpproj"))
    runs: dict[str, Any] = json.loads(args.json.read_text())["runs"] if args.json.is_file() else {}
    for path in paths:
        if args.names and not any(n in str(path.relative_to(args.folder)) for n in args.names):
            continue
        for well in ["D14"] if references else args.fields:
            run = run_pipeline(path, well, args.shared, device, args.keep)
            print_run(run, args.maximum)
            runs[f"{run.name} {well}"] = kept(run)
            write_json(args.json, {"runs": runs})
    count = [sum(bool(r[k]) for r in runs.values()) for k in ("agrees", "both")]
    print(f"{len(runs)} runs: {count[0]} agree, {count[1]} are equal by the verdict too (both)")


if __name__ == "__main__":
    main()
