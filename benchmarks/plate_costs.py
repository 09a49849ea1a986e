"""What larger fields cost, and what check-plate costs on a full plate.

    python -m benchmarks.plate_costs fields --size 1080 2160 --threads 1 2
    python -m benchmarks.plate_costs check --wells 384 --sites 9

Fields are drawn, with cells in proportion to their area. `fields` runs jumpgpu extract (cpjump1, no illumination) as a
process of its own on two and on six fields: CPU seconds per field are a quarter of the difference, memory is of the larger.
`check` runs jumpgpu check-plate on a plate whose sampled images are drawn; every other file, of which it asks the size, is
sparse and about as long. What counting the cells of the first site of every well adds (--sister, --metadata) is apart.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.machine import spread
from jumpgpu.checks.images import SITES, sample
from jumpgpu.checks.layout import count_wells
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.images.locate import find_plate
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import CHANNELS, well_name, well_position

NUMBERS = PlateSettings().numbers
FEW, MANY = 2, 6  # fields of the two runs


def images_of(folder: Path) -> Path:
    place = folder / "P1" / "Images"
    place.mkdir(parents=True)
    return place


def file_of(place: Path, well: str, site: int, channel: str) -> Path:
    row, column = well_position(well)
    return place / f"r{row:02d}c{column:02d}f{site:02d}p01-ch{NUMBERS[channel]}sk1fk1fl1.tiff"


def draw(place: Path, well: str, site: int, size: int) -> None:
    """A field's five images; another one for every well and site."""
    rng, shape = np.random.default_rng([*well_position(well), site]), (size, size)
    drawn = draw_field(rng, shape, 100 * size**2 / 1080**2, Effects(), make_tiles(rng, shape), falloff(shape)).images
    for channel, image in zip(CHANNELS, drawn, strict=True):
        path = file_of(place, well, site, channel)
        path.unlink(missing_ok=True)
        tifffile.imwrite(path, image, compression="lzw", photometric="minisblack")


def cost_of(command: Sequence[str], statuses: Sequence[int] = (0,)) -> tuple[float, float, float]:
    """CPU seconds, peak MB and seconds of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in statuses:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, time.perf_counter() - started


def fields(size: int, threads: int, repeats: int) -> str:
    """A line on fields of a size."""
    cpu: list[float] = []
    peak = 0.0
    with tempfile.TemporaryDirectory() as name:
        place = images_of(Path(name))
        for site in range(1, MANY + 1):
            draw(place, "A01", site, size)
        command = [sys.executable, "-m", "jumpgpu.extract", "P1", "--images", name, "--illumination", "none", "--quiet"]
        command += ["--device", "cpu", "--threads", str(threads), "--batch", "2", "--sites"]
        for k in range(repeats):
            taken = {}
            for n in (FEW, MANY):
                sites = [str(s) for s in range(1, n + 1)]
                taken[n], peak, _ = cost_of([*command, *sites, "--output", f"{name}/out{k}_{n}"])
            cpu.append((taken[MANY] - taken[FEW]) / (MANY - FEW))
    middle = spread(cpu)
    return (
        f"{size} x {size}, {threads} threads: {middle.median:.2f} CPU seconds per field ({middle.minimum:.2f} to "
        f"{middle.maximum:.2f} of {repeats}), peak {peak:.0f} MB"
    )


def check(n_wells: int, n_sites: int, size: int) -> list[str]:
    """Lines on check-plate."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        place = images_of(Path(name))
        wells = [well_name(k // 24 + 1, k % 24 + 1) for k in range(n_wells)]
        for well in wells:
            for site in range(1, n_sites + 1):
                for channel in CHANNELS:
                    with open(file_of(place, well, site, channel), "wb") as file:
                        file.truncate(int(rng.integers(1_200_000, 1_800_000)))
        plate = find_plate("P1", name)
        sampled = sample(plate)[0]
        for well in sampled:
            for site in range(1, SITES + 1):
                draw(place, well, site, size)
        command = [sys.executable, "-m", "jumpgpu.check_plate", "P1", "--images", name, "--threads", "1"]
        cpu, peak, seconds = cost_of(command, (0, 3))
        n_files, n_images = len(plate.sites) * len(CHANNELS), len(sampled) * SITES * len(CHANNELS)
        for well in wells:
            if well not in sampled:
                path = file_of(place, well, 1, "DNA")
                path.unlink()
                os.link(file_of(place, sampled[0], 1, "DNA"), path)
        started = time.process_time()
        counted = count_wells(plate, "DNA", workers=0)
        counting = time.process_time() - started
    return [
        f"check-plate, {n_files} files, {n_images} sampled images of {size} x {size}: {cpu:.1f} CPU seconds, "
        f"{seconds:.1f} s, peak {peak:.0f} MB",
        f"cells of {len(counted)} wells counted (--sister, --metadata): {counting:.1f} CPU seconds more",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("what", choices=("fields", "check"))
    options.add_argument("--size", type=int, nargs="+", default=[1080])
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--wells", type=int, default=384)
    options.add_argument("--sites", type=int, default=9)
    given = options.parse_args(arguments)
    if given.what == "check":
        print("\n".join(check(given.wells, given.sites, given.size[0])))
    else:
        for size in given.size:
            for threads in given.threads:
                print(fields(size, threads, given.repeats), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
