"""Fields per second that are read and projected, by the number of planes.

    python -m benchmarks.planes --size 1080

CPU seconds of decoding LZW TIFFs (five channels), counting and projecting, one thread; reading one plane is in the same run.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.machine import spread
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.images.locate import find_plate
from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import CHANNELS

PLANES = (1, 5, 10)
FIELDS = 4


def write_plate(folder: Path, planes: int, size: int) -> Plate:
    """A plate of one well whose planes are a drawn field, moved by a pixel each."""
    images = folder / f"P{planes}" / "Images"
    images.mkdir(parents=True)
    rng, shape = np.random.default_rng(0), (size, size)
    drawn = draw_field(rng, shape, 100 * size**2 / 1080**2, Effects(), make_tiles(rng, shape), falloff(shape)).images
    numbers = PlateSettings().numbers
    for site in range(1, FIELDS + 1):
        for plane in range(1, planes + 1):
            for channel, image in zip(CHANNELS, drawn, strict=True):
                name = f"r01c01f{site:02d}p{plane:02d}-ch{numbers[channel]}sk1fk1fl1.tiff"
                tifffile.imwrite(images / name, np.roll(image, plane, 0), compression="lzw", photometric="minisblack")
    return find_plate(f"P{planes}", folder, PlateSettings(projection="max" if planes > 1 else "none"))


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--size", type=int, default=1080)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        plates = {n: write_plate(Path(folder), n, given.size) for n in PLANES}
        seconds: dict[int, list[float]] = {n: [] for n in PLANES}
        for repeat in range(given.repeats + 1):  # the first warms up
            for n, plate in plates.items():
                started = time.process_time()
                fields = sum(len(batch.sites) for batch in read_fields(plate, batch=2, workers=0))
                if repeat:
                    seconds[n].append((time.process_time() - started) / fields)
    for n, values in seconds.items():
        middle = spread(values)
        print(f"{n} planes: {1 / middle.median:.2f} fields per CPU second ({middle.median:.4f} s a field)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
