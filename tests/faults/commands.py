"""The commands that the sweep of faults runs, and their inputs: two wells of 160 x 160 pixels, two plates of profiles."""

from dataclasses import dataclass
from pathlib import Path

CONFIG = '[features]\nfamilies = ["number", "location"]\n'
PIPELINE = "cpjump1_illumination_load_data.cppipe"
TRUTH = "in/images/truth/DEMO"


@dataclass(frozen=True)
class Command:
    """A command with its arguments.

    later : whether it begins with what the commands before it made, its own outputs among it
    status : how it ends undisturbed
    """

    module: str
    arguments: str
    later: bool = True
    status: int = 0


def extract(more: str, later: bool = False) -> Command:
    return Command("extract", f"--plate DEMO --images in/images --config in/small.toml {HERE} {more}", later)


def score(more: str) -> Command:
    return Command("score", f"{more} {PROFILES} --output out")


def export(more: str) -> Command:
    return Command("export", f"out/DEMO.zarr --overwrite --format {more}")


HERE = "--device cpu --threads 1 --quiet"
PROFILES = "--plate in/P1.parquet --plate in/P2.parquet"
CROPS = "--images in/images --crop 32 --illumination estimate --device cpu"
COMMANDS: dict[str, Command] = {
    "extract": extract("--illumination estimate --save-labels --save-overview --output out"),
    "extract again": extract("--illumination estimate --save-labels --save-overview --output out --overwrite", True),
    "extract masks": extract(f"--illumination {TRUTH} --masks {TRUTH} --output out/masks"),
    "extract dry-run": extract(
        "--illumination estimate --output out --save-labels --save-overview --overwrite --dry-run", True
    ),
    "segment": Command(
        "segment",
        f"--plate DEMO --images in/images --config in/small.toml {HERE} --illumination {TRUTH} --outlines "
        "--output out/labels",
        later=False,
    ),
    "profile": Command("profile", f"{PROFILES} --output out --overwrite"),
    "profile cells": Command(
        "profile", "--plate DEMO --output out --platemap in/platemap.txt --standard-errors 5 --anndata --overwrite"
    ),
    "profile dry-run": Command("profile", f"{PROFILES} --output out --overwrite --dry-run"),
    "score replicating": score("replicating --null-wells 2 --draws 50"),
    "score matching": score("matching --label pair --draws 50 --no-figures"),
    "score map": score("map --null-size 20 --no-figures"),
    "score embed": score("embed"),
    "benchmark": Command(
        "benchmark", f"{PROFILES} --output out --task replicating --null-wells 2 --draws 50 --draws 50 --only classical"
    ),
    "tables": Command("tables", "--metadata in/metadata --output out/tables"),
    "report": Command("report", "out/DEMO.zarr --metadata in/images/metadata --images in/images"),
    "report multiqc": Command("report", "out/DEMO.zarr --multiqc out/plates_mqc.json"),
    "export parquet": export("parquet"),
    "export h5ad": export("h5ad"),
    "export csv": export("csv"),
    "export sqlite": export("sqlite"),
    "export cellprofiler": export("cellprofiler"),
    "export profiles": export("csv --level profile --output out/tables"),
    "export crops-zarr": export(f"crops-zarr {CROPS}"),
    "export webdataset": export(f"webdataset {CROPS}"),
    "export h5sc": export(f"h5sc {CROPS}"),
    "compare": Command("compare", "out/DEMO.zarr out/DEMO_cellprofiler --output out"),
    "verify": Command("verify", "out/DEMO.zarr"),
    "check-plate": Command(
        "check_plate",
        "--plate DEMO --images in/images --config in/small.toml --threads 1 --metadata in/images/metadata "
        "--json out/check.json",
    ),
    "config": Command("config", "in/small.toml"),
    "columns": Command("columns", "--config in/small.toml"),
    "import-cppipe": Command("import_cppipe", "in/a.cppipe --output out/a.toml --overwrite"),
    "synthetic": Command("synthetic", "--output out/drawn --wells 1 --sites 1 --size 64 --cells 2 --threads 1"),
    "doctor": Command("doctor", "--output out --no-speed"),
}


def write_inputs(folder: Path) -> None:
    """Settings, a plate map, treatments, two plates' tables of wells and a small pipeline; the images are there."""
    import numpy as np
    import pandas as pd

    (folder / "metadata" / "external").mkdir(parents=True)
    (folder / "small.toml").write_text(CONFIG)
    wells = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 5)]
    for n, plate in enumerate(("P1", "P2")):
        values = np.random.default_rng(n).normal(size=(16, 4))
        table = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": wells})
        table["Metadata_broad_sample"] = ["", "", *(f"S{i // 2}" for i in range(14))]
        table["Metadata_pair"] = ["", "", *(f"G{i // 4}" for i in range(14))]
        table["Metadata_control_type"] = ["negcon"] * 4 + [""] * 12
        for i, column in enumerate(("Cells_AreaShape_Area", "Nuclei_AreaShape_Area", "Cells_Texture_A", "Nuclei_Texture_B")):
            table[column] = values[:, i]
        table.to_parquet(folder / f"{plate}.parquet")
    (folder / "platemap.txt").write_text("well_position\tbroad_sample\tcontrol_type\nA01\t\tnegcon\nA02\t\tnegcon\n")
    (folder / "metadata" / "external" / "x_compound_metadata.tsv").write_text(
        "broad_sample\tpert_iname\ttarget_list\nS1\ta\tT1|T2\nS2\tb\tT1\n"
    )
    (folder / "a.cppipe").write_bytes((Path(__file__).parents[1] / "cellprofiler/pipelines" / PIPELINE).read_bytes())
