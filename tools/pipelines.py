"""How many public CellProfiler pipelines come out whole: by the importer's verdict, and beside CellProfiler's own runs.

    python -m tools.pipelines verdicts ../shared/data/pipelines
    python -m tools.pipelines references ../shared/data/pipeline_references [NAME ...]
    python -m tools.pipelines page ../shared/data/pipelines

The last writes the table of docs/cellprofiler.md from verdicts and from the runs that benchmarks/pipelines.py left.

A reference is a folder with `pipeline.cppipe`, `mapping.json` (which file each image and function is), CellProfiler's label
images and tables. Labels are equal where every pixel is. A column agrees when |ours - theirs| <= 1e-6 + 1e-4 |theirs| for
99.9 % of the objects, NaN equal to NaN (docs/parity.md); columns of an object set are compared only where its labels are
equal. Left out are objects where CellProfiler leaves a choice to an unstable sort: several brightest pixels of a masked
image (Location_MaxIntensity), several pixels farthest from the edge (RadialDistribution from the objects' own centres); and
those whose Orientation is 90 or 45 degrees, to which rounding gives a sign (and means over children of which one is such).
`python -m benchmarks.pipelines` runs CellProfiler itself beside ours and counts both, verdict and agreement.
"""

import argparse
import dataclasses
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from jumpgpu.cellprofiler.findings import Translated
from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import steps as kinds
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import State

ABSOLUTE, RELATIVE, SHARE = 1e-6, 1e-4, 0.999
KEYS = {"ImageNumber", "Metadata_Well", "Metadata_Site", "ObjectNumber"}


@dataclass
class Compared:
    """One reference: pixels that differ by object set, and columns that do not agree, with the worst gap."""

    name: str
    verdict: dict[str, str]
    labels: dict[str, int] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    columns: int = 0
    agree: int = 0
    absent: list[str] = field(default_factory=list)
    differ: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    image_columns: int = 0
    image_agree: int = 0
    image_differ: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return not any(self.labels.values()) and not self.absent and not self.differ


def verdicts(folder: Path) -> Counter[tuple[str, str]]:
    """Prints a line a pipeline, and what stands in its way."""
    result: Counter[tuple[str, str]] = Counter()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".cppipe", ".cpproj", ".json")):
        try:
            imported = translate([read_pipeline(path)])
        except ValueError as error:
            print(f"{path.name}: refused: {error}")
            result["refused", "missing"] += 1
            continue
        verdict = imported.verdict
        result[verdict["labels"], verdict["columns"]] += 1
        print(
            f"{path.name}: labels {verdict['labels']}, columns {verdict['columns']}, image tables {verdict['image_tables']}"
        )
        for level, text in dict.fromkeys((f.level, f.text) for f in imported.of_level("labels", "values", "columns")):
            print(f"    {level}: {text}")
    return result


def inputs(imported: Translated, mapping: dict, shared: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Pixels and functions of a reference by channel."""
    pixels, functions = {}, {}
    for step in imported.steps:
        if not isinstance(step, kinds.Load):
            continue
        if step.function:
            entry = mapping["illumination"][step.image]
            with np.load(shared / "data" / entry["file"]) as archive:
                function = archive["illum"].astype(np.float32)
            function = function * np.float32(entry.get("times", 1))
            functions[step.channel] = torch.from_numpy(function)
        else:
            file = shared / "data" / mapping["field"] / mapping["images"][step.image]["file"]
            image = imagecodecs.tiff_decode(file.read_bytes())
            pixels[step.channel] = torch.from_numpy((image.astype(np.float32) / np.float32(65535))[None])
    return pixels, functions


def run_reference(folder: Path, shared: Path, device: Device) -> tuple[Compared, State]:
    mapping = json.loads((folder / "mapping.json").read_text())
    imported = translate([read_pipeline(folder / "pipeline.cppipe")])
    tables = folder.parent / mapping["same_as"] if mapping.get("same_as") else folder
    columns = {p.stem: set(pd.read_parquet(p).columns) for p in tables.glob("*.parquet")}
    steps = [as_listed(step, columns) for step in imported.steps]
    pixels, functions = inputs(imported, mapping, shared)
    start = time.process_time()
    state = run_steps(steps, pixels, functions, device)
    result = Compared(folder.name, imported.verdict, seconds=time.process_time() - start)
    for path in sorted(folder.glob("labels_*.tiff")):
        name = path.stem.removeprefix("labels_")
        theirs = imagecodecs.tiff_decode(path.read_bytes())
        if name not in state.objects:
            result.labels[name] = theirs.size
            continue
        ours = state.objects[name].labels[0].cpu().numpy()
        result.counts[name] = int(ours.max()), int(theirs.max())
        result.labels[name] = int((ours != theirs).sum()) if ours.shape == theirs.shape else theirs.size
        if not result.labels[name]:
            compare(result, state, name, pd.read_parquet(tables / f"{name}.parquet"))
    compare_images(result, state, pd.read_parquet(tables / "Image.parquet"))
    return result, state


def compare_images(result: Compared, state: State, theirs: pd.DataFrame) -> None:
    """The image table but for names of files and what they were divided by."""
    for column in theirs.columns:
        if column.startswith(("Metadata_", "FileName_", "Scaling_", "Group_")) or column == "ImageNumber":
            continue
        result.image_columns += 1
        values = state.image_measured.get(column)
        if values is None:
            values = state.image_measured.get(swapped(column))
        b = float(theirs[column].iloc[0])
        a = math.nan if values is None else float(values[0])
        if values is not None and (
            a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= ABSOLUTE + RELATIVE * abs(b)
        ):
            result.image_agree += 1
        else:
            result.image_differ[column] = "absent" if values is None else f"{a:.9g} for {b:.9g}"


def as_listed(step: kinds.Step, columns_of: Mapping[str, set[str]]) -> kinds.Step:
    """A step with its images in the order in which CellProfiler took them, as the pairs of its columns show (of each object
    set). Of older pipelines it reads them into a set, whose order is another at each start."""
    if not isinstance(step, kinds.MeasureCorrelation) or len(step.images) < 2:
        return step
    columns = columns_of.get(step.objects[0], set())
    before = {a: sum(f"Correlation_Correlation_{a}_{b}" in columns for b in step.images) for a in step.images}
    return dataclasses.replace(step, images=tuple(sorted(step.images, key=lambda a: -before[a])))


def compare(result: Compared, state: State, name: str, theirs: pd.DataFrame) -> None:
    mine = state.measured[name]
    for column in theirs.columns:
        if column in KEYS:
            continue
        result.columns += 1
        values = mine.get(column)
        if values is None:
            values = mine.get(swapped(column))
        if values is None:
            result.absent.append(f"{name}_{column}")
            continue
        a, b = values.cpu().numpy().astype(float), theirs[column].to_numpy(float)
        if len(a) != len(b):
            result.differ[f"{name}_{column}"] = f"{len(a)} rows for {len(b)}"
            continue
        chosen = ~of_choice(state, name, column)
        result.left_out += int((~chosen).sum())
        if not chosen.any():
            result.agree += 1
            continue
        a, b, numbers = a[chosen], b[chosen], np.flatnonzero(chosen) + 1
        gap = np.where(np.isnan(a) & np.isnan(b) | (a == b), 0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        bad = gap > ABSOLUTE + RELATIVE * np.nan_to_num(np.abs(b))
        if bad.mean() > 1 - SHARE:
            worst = int(np.argmax(np.where(bad, gap, -1)))
            result.differ[f"{name}_{column}"] = (
                f"{int(bad.sum())} of {len(b)} objects, e.g. {numbers[worst]}: {a[worst]:.6g} for {b[worst]:.6g}"
            )
        else:
            result.agree += 1


def of_choice(state: State, name: str, column: str) -> np.ndarray:
    """Objects of which a column is CellProfiler's choice among equals: bool [n]."""
    image = ""
    if column.endswith("AreaShape_Orientation"):
        return upright(state, name, column)
    if column.startswith("Location_MaxIntensity_"):
        image = column.split("_", 3)[3]
        if state.images[image].valid is None:
            return np.zeros(state.objects[name].n, bool)
    elif not column.startswith("RadialDistribution_") or (name, column) in state.of_other_centres:
        return np.zeros(state.objects[name].n, bool)
    key = name, image
    known: dict[tuple[str, str], np.ndarray] = vars(state).setdefault("of_choice", {})
    if key not in known:
        known[key] = several(state, name, image)
    return known[key]


def upright(state: State, name: str, column: str) -> np.ndarray:
    """Objects whose orientation is 90 or 45 degrees one way or the other, or that of a child of theirs: bool [n]."""
    if column == "AreaShape_Orientation":
        angle = np.abs(state.measured[name][column].cpu().numpy())
        return (np.abs(angle - 90) < 1e-6) | (np.abs(angle - 45) < 1e-6)
    child = column.removeprefix("Mean_").removesuffix("_AreaShape_Orientation")
    result = np.zeros(state.objects[name].n + 1, bool)
    if child in state.objects and f"Parent_{name}" in state.measured[child]:
        parent = state.measured[child][f"Parent_{name}"].cpu().numpy().astype(int)
        result[parent[upright(state, child, "AreaShape_Orientation")]] = True
    return result[1:]


def several(state: State, name: str, image: str) -> np.ndarray:
    """Objects with several brightest pixels of an image, or (image "") several pixels farthest from the edge: bool [n]."""
    output = state.objects[name]
    labels = output.labels[0].cpu().numpy()
    values = state.images[image].pixels[0].float().cpu().numpy() if image else depth(labels)
    index = np.arange(1, output.n + 1)
    maximum = ndimage.maximum(values, labels, index)
    at_most = (values == np.concatenate([[np.inf], maximum])[labels]) & (labels > 0)
    return ndimage.sum(at_most, labels, index) > 1


def depth(labels: np.ndarray) -> np.ndarray:
    """Squared distance of each object's pixels to its edge."""
    result = np.zeros(labels.shape)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        wide = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        inside = labels[wide] == number
        result[wide][inside] = np.rint(ndimage.distance_transform_edt(inside)[inside] ** 2)
    return result


def swapped(column: str) -> str:
    """Correlation and Overlap of b and a: an older pipeline's images come in no order, and CellProfiler takes any."""
    head, _, pair = column.partition("_")
    measure, _, pair = pair.partition("_")
    first, _, second = pair.partition("_")
    return f"{head}_{measure}_{second}_{first}" if head == "Correlation" and measure in ("Correlation", "Overlap") else ""


def page(folder: Path, runs: Mapping[str, dict]) -> str:
    """A row per pipeline: the verdict, what remains, and CellProfiler's own runs by field."""
    rows = [
        "| pipeline | verdict: labels, columns | remaining lines | fields on which CellProfiler's run agrees | CPU |",
        "|---|---|---|---|---|",
    ]
    same = references(folder)
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".cppipe", ".cpproj", ".json")):
        imported = translate([read_pipeline(path)])
        remaining = dict.fromkeys(
            f"{f.level}: {f.text}" for f in imported.of_level("labels", "values", "columns", "image tables")
        )
        of = {r["well"]: r for r in runs.values() if r["name"] in (path.name, same.get(path.name)) and objects_of(r)}
        fields = [f"{well} {outcome(r)}" for well, r in of.items()]
        ratios = [f"1/{r['ratio']:.0f}" for r in of.values() if r["ratio"]]
        verdict = ", ".join(imported.verdict[k] for k in ("labels", "columns"))
        cells = (short(path), verdict, "; ".join(remaining) or "none", "; ".join(fields) or "not run", ", ".join(ratios))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def references(folder: Path) -> dict[str, str]:
    """Pipelines of which a whole run is kept: the file's name and the reference's."""
    files = {path.name: settings_of(path) for path in folder.iterdir() if path.suffix in (".cppipe", ".cpproj")}
    kept = {
        path.parent.name: settings_of(path)
        for path in sorted((folder.parent / "pipeline_references").glob("*/pipeline.cppipe"))
    }
    return {name: reference for name, of in files.items() for reference, other in kept.items() if of == other}


def settings_of(path: Path) -> list[tuple]:
    return [(m.name, m.revision, m.enabled, m.values) for m in read_pipeline(path).modules]


def short(path: Path) -> str:
    """A file's name without what the names of its folder repeat."""
    owner, _, rest = path.name.partition("__")
    parts = [p for p in rest.rpartition(".")[0].split("__") if p not in ("analysis", "JUMP_production")] or [path.stem]
    owner = owner.partition("+")[2]
    return f"{owner}: {' '.join(parts)}" if owner != "imaging-platform-pipelines" else " ".join(parts)


def objects_of(run: dict) -> int:
    """How many there are of all sets; a run without any says nothing."""
    return sum(ours for ours, _ in run.get("counts", {}).values())


def outcome(run: dict) -> str:
    """Objects, object columns, image columns; or what does not agree."""
    if run["error"]:
        return f"not run: {run['error']}"
    wrong = {name: n for name, n in run["labels"].items() if n}
    agree, columns = run["columns"]
    images, of_images = run["images"]
    text = f"{objects_of(run)} objects, {agree} of {columns}, {images} of {of_images}"
    families: dict[str, set[str]] = {}
    for column, of in {**run["differ"], **run["image_differ"]}.items():
        match = re.search(r"(AreaShape|Correlation|RadialDistribution)_[A-Za-z]+", column)
        families.setdefault(match[0] if match else column, set()).add(of.split(",")[0] if " of " in of else "the image")
    for family, places in families.items():
        text += f" ({family} of {', '.join(sorted(places)) if len(places) < 4 else 'several objects'})"
    text += "".join(f" ({error.split(':')[0]} ends with an error in CellProfiler)" for error in run["errors"])
    return text + (f", pixels of {', '.join(wrong)} differ" if wrong else "")


BEGIN, END = "<!-- runs: python -m tools.pipelines page -->", "<!-- end of runs -->"


def write_page(folder: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    runs = json.loads((root / "benchmarks/results/pipelines.json").read_text())["runs"]
    runs = {name: run for name, run in runs.items() if objects_of(run)}
    path = root / "docs/cellprofiler.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    same = {reference: name for name, reference in references(folder).items()}
    both: dict[str, bool] = {}  # a file: whether all of its runs agree
    for run in runs.values():
        name = same.get(run["name"], run["name"])
        both[name] = both.get(name, True) and bool(run["both"])
    agree, total = sum(r["agrees"] for r in runs.values()), len(runs)
    text = f"{agree} of {total} runs agree; of {len(both)} pipelines {sum(both.values())} are equal by the verdict and in "
    text += "every object column of each run."
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{page(folder, runs)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("verdicts", "references", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of references; default: all")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--maximum", type=int, default=10, help="columns to list of each")
    args = parser.parse_args()
    if args.what == "verdicts":
        result = verdicts(args.folder)
        print(
            f"complete: {result['equal', 'equal']} of {sum(result.values())}; "
            f"labels: {sum(n for (labels, _), n in result.items() if labels == 'equal')}"
        )
        return
    if args.what == "page":
        write_page(args.folder)
        return
    device, complete = open_device("cpu"), 0
    folders = sorted(p.parent for p in args.folder.glob("*/pipeline.cppipe"))
    for folder in folders:
        if args.names and folder.name not in args.names:
            continue
        try:
            result, _ = run_reference(folder, args.shared, device)
        except (ValueError, KeyError) as error:
            print(f"{folder.name}: {type(error).__name__}: {error}")
            continue
        complete += result.complete
        wrong = {n: p for n, p in result.labels.items() if p}
        print(
            f"{folder.name}: {'complete' if result.complete else 'not complete'}; labels {wrong if wrong else 'equal'} "
            f"{result.counts}; {result.agree} of {result.columns} columns, {len(result.absent)} absent, "
            f"{result.left_out} values of choice; image table {result.image_agree} of {result.image_columns}; "
            f"{result.seconds:.1f} s of CPU"
        )
        by_measure = Counter("_".join(c.split("_")[:3]) for c in result.absent)
        for column, n in list(by_measure.items())[: args.maximum]:
            print(f"    absent: {column}... ({n})")
        for column, text in [*result.differ.items(), *result.image_differ.items()][: args.maximum]:
            print(f"    differs: {column}: {text}")
    print(f"complete: {complete}")


if __name__ == "__main__":
    main()
