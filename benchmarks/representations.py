"""Representations on drawn plates: several drawings, the whole way from images to the table, and its mean over drawings.

    python -m benchmarks.representations [--drawings 3] [--plates 4] [--wells 96] [--folder DIR] [--json FILE]

Each drawing has a plate map, cells and noise of its own; the treatments' effects are those of `jumpgpu synthetic`, fixed
before any model ran. Beside the classical features two banks of fixed random convolutions are measured, one masked by the
cell. The commands are those of docs/embeddings.md. Intervals are of the mean over drawings, by Student's t. With --folder
what is there already is not made again.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.machine import machine, write_json
from jumpgpu.benchmark import main as benchmark
from jumpgpu.extract import main as extract
from jumpgpu.profile import main as profile
from jumpgpu.synthetic import main as synthetic

MODEL = """
[[features.embedding.models]]
name = "{name}"
model = "random_convolutions"
channels = ["DNA", "ER", "RNA", "AGP", "Mito"]
crop = 64
normalize = "plate"
{more}
"""
CONFIG = MODEL.format(name="bank", more="") + MODEL.format(name="masked", more='mask = "Cells"')
KEYS = ["representation", "task", "measure"]


def run(command: object, *arguments: object) -> None:
    """A command as a user types it, quietly; RuntimeError where it does not end well."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        status = command([str(a) for a in arguments])  # type: ignore[operator]
    if status != 0:
        raise RuntimeError(f"{arguments}: status {status}\n{heard.getvalue()[-2000:]}")


def drawing(folder: Path, seed: int, plates: int, wells: int, null_wells: str) -> pd.DataFrame:
    """The benchmark's table of one drawing."""
    names = [f"D{i + 1}" for i in range(plates)]
    (folder / "my.toml").write_text(CONFIG)
    output = folder / "out"
    for name in names:
        if not (output / f"{name}.zarr").exists() or not (folder / f"{name}.done").exists():
            images = folder / "images"
            settings = ("--wells", wells, "--sites", 1, "--size", 540, "--cells", 30, "--seed", seed)
            run(synthetic, "--output", images, "--plate", name, *settings)
            given = ("--images", images, "--output", output, "--config", folder / "my.toml")
            run(extract, name, *given, "--illumination", "estimate")
            (folder / f"{name}.done").touch()
            print(f"drawing {seed}, plate {name}", file=sys.stderr, flush=True)
    metadata = folder / "images" / "metadata"
    with (metadata / "platemaps" / "barcode_platemap.csv").open("w") as file:
        file.write("Assay_Plate_Barcode,Plate_Map_Name\n" + "".join(f"{n},SYNTHETIC_compound_platemap\n" for n in names))
    run(profile, *names, "--output", output, "--metadata", metadata, "--overwrite", "--quiet")
    given = ("--output", output, "--label", "gene", "--null-wells", null_wells)
    run(benchmark, *names, *given, "--no-figures")
    table = pd.DataFrame(json.loads((output / "scores" / "benchmark.json").read_text())["rows"])
    return table.assign(drawing=seed)


def over_drawings(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean over drawings of each representation and measure, with its 95 % interval by Student's t, and the controls'."""
    together = pd.concat(tables, ignore_index=True)
    rows = []
    for key, group in together.groupby(KEYS, sort=False):
        values = group["value"].to_numpy(float)
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        row = dict(zip(KEYS, key, strict=True)) | {"value": values.mean(), "low": values.mean() - half}
        row |= {"high": values.mean() + half, "drawings": len(values), "least": values.min(), "most": values.max()}
        rows.append(row | {"controls_percent": group["controls_percent"].astype(float).mean()})
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", type=int, default=3)
    parser.add_argument("--plates", type=int, default=4)
    parser.add_argument("--wells", type=int, default=96)
    parser.add_argument("--null-wells", default="4", help="wells a set of the null, as jumpgpu benchmark takes it")
    parser.add_argument("--folder", type=Path, help="where plates are kept from run to run")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        tables = []
        for seed in range(args.drawings):
            (root / str(seed)).mkdir(parents=True, exist_ok=True)
            tables.append(drawing(root / str(seed), seed, args.plates, args.wells, args.null_wells))
    table = over_drawings(tables)
    for (task, measure), rows in table.groupby(["task", "measure"], sort=False):
        print(f"{task}: {measure}, mean of {args.drawings} drawings [95 %], least to most; controls of one position")
        for r in rows.sort_values("value", ascending=False).to_dict("records"):
            print(
                f"  {r['representation']:28s} {r['value']:7.3f} [{r['low']:.3f}, {r['high']:.3f}]  {r['least']:.3f} to "
                f"{r['most']:.3f}  {r['controls_percent']:.1f}"
            )
    if args.json:
        write_json(
            args.json,
            {
                "machine": machine(),
                "arguments": vars(args) | {"folder": None, "json": None},
                "rows": table.to_dict("records"),
            },
        )
    value = table.set_index(KEYS)["value"]
    below = value["cell count", "map", "mean mAP"] < value["classical", "map", "mean mAP"]
    return 0 if below else 1


if __name__ == "__main__":
    raise SystemExit(main())
