"""Predict the GPU backend's speed where there is no GPU: docs/gpu_model.md and benchmarks/results/gpu_model.json.

    python -m benchmarks.gpu_model                     # counts the kernels that changed, compiles, writes page and JSON
    python -m benchmarks.gpu_model --all               # counts every kernel anew: minutes
    python -m benchmarks.gpu_model --kernels label_tiles texture_count
    python -m benchmarks.gpu_model --images DIR --plate NAME --illumination flatfield

From a checkout with the test extra. The fields are the six of a CPJUMP1 plate where they are there, drawn ones elsewhere
(--drawn), which count only for trying it out.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu_model.figures import Figures, load, outdated, save, update
from benchmarks.gpu_model.page import page
from benchmarks.gpu_model.workloads import Fields
from benchmarks.machine import RESULTS, machine
from jumpgpu.gpu.kernel_source import kernel_sources

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def drawn(folder: Path, size: int, cells: int) -> Fields:
    """A drawn plate of two fields."""
    command = [
        sys.executable,
        "-m",
        "jumpgpu.synthetic",
        "--output",
        folder,
        "--plate",
        "DRAWN",
        "--wells",
        "2",
        "--sites",
        "1",
    ]
    command += ["--size", str(size), "--cells", str(cells)]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return Fields(folder, "DRAWN", "flatfield")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_model", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, default=DATA / "fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument("--illumination", default=str(DATA / "cellprofiler" / "flatfield"))
    parser.add_argument("--drawn", type=int, metavar="SIZE", help="two drawn fields of SIZE x SIZE pixels instead")
    parser.add_argument("--all", action="store_true", help="count every kernel anew")
    parser.add_argument("--kernels", nargs="+", metavar="NAME", help="count these anew")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu_model.md")
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu_model.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if unknown := set(options.kernels or ()) - set(kernel_sources()):
        parser.error(f"unknown kernel {min(unknown)!r}")
    figures = Figures() if options.all else load(options.json)
    wanted = set(options.kernels) if options.kernels else outdated(figures)
    if wanted and not options.drawn and not options.images.is_dir():
        parser.error(f"{options.images} is absent; give --images, or --drawn SIZE")
    with tempfile.TemporaryDirectory() as folder:
        given = Fields(options.images, options.plate, options.illumination)
        if options.drawn:
            given = drawn(Path(folder), options.drawn, max(4, options.drawn**2 // 12000))
        print(f"counting {len(wanted)} kernels", file=sys.stderr)
        figures = update(figures, given, wanted)
    save(figures, options.json, {"machine": machine()})
    options.page.write_text(page(load(options.json)))  # of the rounded numbers, as anyone would write it again
    print(f"{len(figures.launches)} kernels, {options.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
