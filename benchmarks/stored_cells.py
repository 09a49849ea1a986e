"""Stored cells without images: a plate drawn straight into a store, and reads of it. What `benchmarks.against` runs.

    PYTHONPATH=CHECKOUT python benchmarks/stored_cells.py draw OUTPUT --wells 384 --sites 9
    PYTHONPATH=CHECKOUT python benchmarks/stored_cells.py read OUTPUT

It is a script and no module of the checkout it runs in: an earlier commit has other modules, which it finds by either name.
"""

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PLATE, CELLS, READ = "BR00117010", 88, 5
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")


def module(*names: str) -> Any:
    """The first of these modules of jumpgpu that there is."""
    for name in names[:-1]:
        try:
            return importlib.import_module(f"jumpgpu.{name}")
        except ModuleNotFoundError:
            pass
    return importlib.import_module(f"jumpgpu.{names[-1]}")


def draw(output: Path, n_wells: int, n_sites: int) -> dict[str, float]:
    """A plate of wells that differ a little, 88 cells a site, all 3515 columns; how long writing took, and its bytes."""
    layouts, writers = module("store.layout", "layout"), module("store.writer", "store")
    families = module("features.families", "features")
    config = module("settings.config", "config").load_config("cpjump1")
    columns = families.columns(module("settings.names", "names").COMPARTMENTS, CHANNELS, config.features)
    names = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)][:n_wells]
    wells = {name: list(range(1, n_sites + 1)) for name in names}
    layout = layouts.Layout(PLATE, columns, CHANNELS, 0.6)
    rng = np.random.default_rng(0)
    cells = np.exp(rng.normal(size=(CELLS, len(columns))).astype(np.float32))
    cpu = 0.0
    with writers.PlateWriter(output, layout, {"config": {}}, wells, True) as store:
        for well in names:
            own = np.exp(0.1 * rng.normal(size=len(columns)).astype(np.float32))
            for site in wells[well]:
                values = np.roll(cells, site, axis=1) * own
                start = time.process_time()
                store.append(layouts.SiteTable(well, site, np.arange(1, CELLS + 1, dtype=np.int32), values))
                cpu += time.process_time() - start
    stored = sum(file.stat().st_size for file in (output / f"{PLATE}.zarr").rglob("*") if file.is_file())
    return {
        "ms per field": 1000 * cpu / (n_wells * n_sites),
        "bytes": stored,
        "bytes unpacked": 4 * CELLS * n_wells * n_sites * len(columns),
    }


def read(output: Path) -> dict[str, float]:
    """CPU seconds of opening the plate and reading five far columns of all its wells; the least of three."""
    reader = module("store.reader", "opened")
    taken = []
    for _ in range(3):
        start = time.process_time()
        plate = reader.open_plate(output / f"{PLATE}.zarr")
        table = plate.to_pandas(columns=plate.columns[:: len(plate.columns) // READ][:READ])
        taken.append(time.process_time() - start)
        assert table.shape[1] == READ + 4
    return {"five columns, s": min(taken)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("draw", "read"))
    parser.add_argument("output", type=Path)
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--sites", type=int, default=9)
    options = parser.parse_args(argv)
    figures = draw(options.output, options.wells, options.sites) if options.what == "draw" else read(options.output)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
