"""Memory of a run of any length: resident bytes against fields done, of a plate that repeats the images of another.

    python -m benchmarks.memory --images ../shared/data/fields --plate BR00117010 --sites 768 \\
        --illumination ../shared/data/cellprofiler/flatfield

The repeated plate is made of hard links, two sites per well. The command runs as a process of its own; what it holds is read
from the operating system four times per second, and the fields done are those of the wells that its store has.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, write_json
from jumpgpu.images.locate import find_plate
from jumpgpu.settings.config import load_config

SITES_PER_WELL = 2
POINTS = 24  # of the curve that is kept


def repeat_plate(images: str, plate: str, sites: int, folder: Path, sites_a_well: int = SITES_PER_WELL) -> int:
    """A plate of so many sites under `folder`, with the images of another in turn; the number of its wells."""
    result = find_plate(plate, images, load_config("cpjump1").plate).sites
    place = folder / f"{plate}__2020-11-08T18_18_00-Measurement1" / "Images"
    place.mkdir(parents=True)
    for k in range(sites):
        well, site = divmod(k, sites_a_well)
        for file in result[k % len(result)].files:
            if file:
                rest = re.sub(r"^r\d+c\d+f\d+", "", Path(file).name)
                target = place / f"r{well // 24 + 1:02d}c{well % 24 + 1:02d}f{site + 1:02d}{rest}"
                try:
                    os.link(file, target)
                except OSError:  # another file system
                    shutil.copy(file, target)
    return -(-sites // sites_a_well)


def watch(command: Sequence[str], store: Path) -> list[dict[str, float]]:
    """Run a command to its end: seconds, fields in `store`, resident and highest resident MB, four times per second."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    started, samples = time.perf_counter(), []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            now, maximum = (int(re.search(rf"{k}:\s+(\d+)", status)[1]) / 1024 for k in ("VmRSS", "VmHWM"))  # type: ignore[index]
        except (OSError, TypeError):  # it ends just now
            break
        wells = sum(1 for _ in store.glob("*/*/zarr.json"))
        samples.append(
            {"s": time.perf_counter() - started, "fields": SITES_PER_WELL * wells, "resident_mb": now, "peak_mb": maximum}
        )
        time.sleep(0.25)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return samples


def curve(images: str, plate: str, illumination: str, sites: int, threads: int, device: str = "cpu") -> dict[str, Any]:
    """The peak of a run of so many fields, the peak when a quarter of them was done, and some points between."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeat_plate(images, plate, sites, folder / "images")
        command = [sys.executable, "-m", "jumpgpu.extract", "--plate", plate, "--images", str(folder / "images"), "--quiet"]
        command += ["--illumination", illumination, "--output", name, "--device", device, "--threads", str(threads)]
        samples = watch(command, folder / f"{plate}.zarr")
    quarter = [s["peak_mb"] for s in samples if s["fields"] <= sites / 4]
    kept = samples[:: max(1, len(samples) // POINTS)]
    return {
        "fields": sites,
        "threads": threads,
        "device": device,
        "peak_mb": samples[-1]["peak_mb"],
        "peak_after_a_quarter_mb": quarter[-1],
        "seconds": samples[-1]["s"],
        "points": [{k: round(v, 1) for k, v in s.items()} for s in kept],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument("--illumination", default="../shared/data/cellprofiler/flatfield")
    parser.add_argument("--sites", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args(arguments)
    result = curve(options.images, options.plate, options.illumination, options.sites, options.threads, options.device)
    write_json(options.json, result)
    print(
        f"{result['fields']} fields in {result['seconds']:.0f} s: peak {result['peak_mb']:.0f} MB, after a quarter of them "
        f"{result['peak_after_a_quarter_mb']:.0f} MB"
    )
    for point in result["points"]:
        print("  {s:7.1f} s  {fields:5.0f} fields  {resident_mb:6.0f} MB".format(**point))


if __name__ == "__main__":
    main()
