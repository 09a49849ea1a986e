"""Made-up plates for the tests, stored and as images, drawn by plate, well and site, so that any run makes the same bits."""

import zlib
from pathlib import Path

import numpy as np
import tifffile

from jumpgpu.settings.names import feature_name, well_position
from jumpgpu.store.layout import Input, Layout, SiteTable
from jumpgpu.store.writer import PlateWriter

CHANNELS = ("DNA", "ER")
COLUMNS = [
    feature_name(compartment, family, *parts)
    for compartment in ("Cells", "Cytoplasm", "Nuclei")
    for family, *parts in (
        ("AreaShape", "Area"),
        ("Correlation", "Manders", "DNA", "ER"),
        ("Granularity", "3", "ER"),
        ("Neighbors", "NumberOfNeighbors", "Adjacent"),
        ("Texture", "Variance", "DNA", "5", "03", "256"),
    )
]
SETTINGS = {"config": {"features": {"scales": [3, 5]}}, "device": "cpu", "kernels": "abc"}


def draw_site(well: str, site: int, labels: bool = False, overview: bool = False) -> SiteTable:
    """A site's made-up table: 3 to 9 cells, the first with a NaN and an infinite value."""
    rng = np.random.default_rng([zlib.crc32(well.encode()), site])
    n = int(rng.integers(3, 10))
    values = rng.normal(size=(n, len(COLUMNS)))
    values[0, 1], values[0, 2] = np.nan, np.inf
    image = rng.integers(0, n + 1, size=(3, 24, 32), dtype=np.int32)
    return SiteTable(
        well,
        site,
        numbers=np.arange(1, n + 1, dtype=np.int32),
        values=values,
        inputs=tuple(Input(c, f"{well}_{site}_{c}.tiff", 1000 + site) for c in CHANNELS),
        labels=dict(zip(("Cells", "Cytoplasm", "Nuclei"), image, strict=True)) if labels else {},
        overview=rng.integers(0, 65535, size=(2, 3, 4), dtype=np.uint16) if overview else None,
    )


def write_plate(
    output: Path,
    wells: dict[str, list[int]],
    *,
    plate: str = "BR00117010",
    settings: dict[str, object] | None = None,
    overwrite: bool = False,
    images: bool = False,
) -> list[str]:
    """Run over the wells of a plate that are missing; the wells that were made."""
    layout = Layout(plate, COLUMNS, CHANNELS, pixel_size_um=0.6)
    with PlateWriter(output, layout, settings or SETTINGS, wells, overwrite=overwrite) as writer:
        missing = writer.missing_wells()
        for well in missing:
            for site in wells[well]:
                writer.append(draw_site(well, site, labels=images, overview=images))
    return missing


def contents(plate: Path) -> dict[str, bytes]:
    """Every file under a folder, by relative path."""
    return {p.relative_to(plate).as_posix(): p.read_bytes() for p in sorted(plate.rglob("*")) if p.is_file()}


def write_images(
    root: Path, plate: str = "DEMO", wells: tuple[str, ...] = ("A01", "B02"), sites: tuple[int, ...] = (1, 2)
) -> Path:
    """A small plate on disk: 56 x 64 fields under `root/images`, label images of four cells per field under `root/masks`."""
    folder, masks = root / "images" / f"{plate}__2026-01-01-Measurement1" / "Images", root / "masks"
    folder.mkdir(parents=True)
    masks.mkdir(exist_ok=True)
    for well in wells:
        row, column = well_position(well)
        for site in sites:
            rng = np.random.default_rng([zlib.crc32(f"{plate}{well}".encode()), site])
            for channel in range(1, 6):
                pixels = rng.integers(200, 4000, size=(56, 64), dtype=np.uint16)
                name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
                tifffile.imwrite(folder / name, pixels, compression="lzw")
            cells = np.zeros((56, 64), np.uint16)
            for n in range(4):
                y, x = 2 + 24 * (n // 2), 2 + 32 * (n % 2)
                cells[y : y + 18, x : x + 24 + site] = n + 1
            nuclei = np.zeros_like(cells)
            nuclei[6:-6] = np.where(np.arange(64) % 32 < 16, cells, 0)[6:-6]
            cytoplasm = np.where(nuclei > 0, 0, cells)
            for name, image in (("Cells", cells), ("Nuclei", nuclei), ("Cytoplasm", cytoplasm)):
                tifffile.imwrite(masks / f"{well}_s{site}_{name}.tiff", image)
    return folder
