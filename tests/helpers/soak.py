"""A process that lives long: the same call again and again, with its memory, descriptors and threads written down.

    python -m tests.helpers.soak extract 200 FOLDER

prints the slopes per call after a fifth of them, in MB, descriptors and threads.
"""

import contextlib
import ctypes
import gc
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import psutil

import jumpgpu
from jumpgpu.synthetic import main as draw

CONFIG = '[features]\nfamilies = ["number", "shape", "texture", "granularity", "radial", "intensity"]\n'


def calls(folder):
    """What is called, by name."""
    plate = folder / "kept" / "SOAK.zarr"

    def extract():
        shutil.rmtree(folder / "out", ignore_errors=True)
        given = {"config": folder / "soak.toml", "device": "cpu", "threads": 1, "quiet": True}
        jumpgpu.extract("SOAK", folder / "images", output=folder / "out", illumination="estimate", **given)

    def open_plate():
        stored = jumpgpu.open_plate(plate)
        stored.to_pandas()
        stored.heatmap("cells")
        assert stored.verify() == []

    def export():
        for name in ("parquet", "h5ad", "csv", "sqlite"):
            jumpgpu.export(plate, folder / f"cells.{name}", overwrite=True)

    def report():
        jumpgpu.report(plate, folder / "page")

    return {f.__name__: f for f in (extract, open_plate, export, report)}


def sizes():
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # what is free and only kept by the allocator does not count
        libc.malloc_trim(0)
    process = psutil.Process()
    return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()


def prepare(folder):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        shape = "--wells 2 --sites 1 --size 160 --cells 6"
        draw(["--output", str(folder / "images"), "--plate", "SOAK", *shape.split()])
    (folder / "soak.toml").write_text(CONFIG)
    calls(folder)["extract"]()
    (folder / "out").rename(folder / "kept")


def main(name, n, folder):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(folder)
    prepare(folder)
    call, seen = calls(folder)[name], []
    for i in range(n):
        call()
        if i >= n // 5:
            seen.append(sizes())
    table = np.array(seen)
    slopes = np.polyfit(np.arange(len(table)), table, 1)[0]
    print(json.dumps({"calls": n, "first": table[0].tolist(), "last": table[-1].tolist(), "slopes": slopes.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
