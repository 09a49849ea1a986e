"""Draw plates with known answers.

    python -m jumpgpu.synthetic --output DIR --plate DEMO1 --plate DEMO2 --wells 24 --sites 2

Writes, under the output folder, what a Phenix and a screening group would hand over, and the truth:

    <plate>__2026-01-01T00_00_00-Measurement1/Images/   r01c01f01p01-ch1sk1fk1fl1.tiff .. (LZW), Index.idx.xml (V5)
    metadata/platemaps/                                 barcode_platemap.csv, SYNTHETIC_compound_platemap.txt
    metadata/external/                                  SYNTHETIC_compound_metadata.tsv
    truth/<plate>/                                      A01_s1_Nuclei.tiff, A01_s1_Cells.tiff, cells.csv, Illum<channel>.npy

All plates share the plate map and are replicates. An image depends on seed, plate, well, site and size alone, never on what
else is drawn.
"""

import argparse
import csv
import io
import json
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path

import numpy as np
import tifffile

from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .drawing.fields import Drawn, Effects, draw_field, falloff, falloff_coefficients, make_tiles
from .gpu.machine import usable_cores
from .settings.config import PlateSettings
from .settings.names import CHANNELS, check_barcode, well_name, well_position
from .storage.atomic import whole_file, write_whole
from .storage.faults import of_file

DRAWING = 1  # counts changes of what is drawn: another number, other pixels
PIXEL_M = 5.979760809567617e-07
MEASUREMENT = "2026-01-01T00_00_00-Measurement1"
MAP = "SYNTHETIC_compound_platemap"
STAINS = {"DNA": "HOECHST 33342", "ER": "Alexa 488", "RNA": "488 long", "AGP": "Alexa 568", "Mito": "Alexa 647"}
CELLS_PER_PIXEL = 100 / 1080**2
MECHANISMS = {  # target gene -> effect at strength 1
    "MITO": Effects(mito=0.4, network=0.3),
    "RETI": Effects(er=1.8, reticulum=2.2),
    "NUCL": Effects(nucleoli=0.05, rna=0.7),
    "ACTB": Effects(fibres=4.0, agp=1.3),
    "COND": Effects(nucleus=0.78, dna=1.5, chromatin=2.0, count=0.8),
    "TOXI": Effects(count=0.35, cell=0.8, er=0.8),
    "SWEL": Effects(nucleus=1.2, cell=1.2, count=0.7, dna=0.85),
    "GOLG": Effects(golgi=0.1, membrane=1.8),
}
STRENGTHS = (1.0, 0.5)  # each mechanism's compounds; two more have none


@dataclass(frozen=True)
class SyntheticSettings:
    """What is drawn; a plate's truth folder keeps it."""

    wells: int = 24
    sites: int = 2
    height: int = 1080
    width: int = 1080
    cells: float = 100.0  # nuclei of an untreated field, on average
    seed: int = 0


@dataclass(frozen=True)
class Compound:
    """A made-up treatment."""

    sample: str  # broad_sample; empty for DMSO
    name: str
    gene: str
    strength: float
    effects: Effects


DMSO = Compound("", "DMSO", "", 0.0, Effects())


def compounds() -> list[Compound]:
    """Every treatment that is not DMSO, the strong ones first."""
    result: list[Compound] = []
    for strength in STRENGTHS:
        for gene, effects in MECHANISMS.items():
            name = f"{gene.lower()}-{round(100 * strength)}"
            result.append(Compound(f"SYN-{len(result) + 1:06d}", name, gene, strength, effects.at(strength)))
    for letter in "ab":
        result.append(Compound(f"SYN-{len(result) + 1:06d}", f"inactive-{letter}", "NONE", 0.0, Effects()))
    return result


def plate_wells(n: int) -> list[str]:
    """The first n wells of a block about 1.5 times as wide as high, by rows."""
    if not 1 <= n <= 384:
        raise ValueError(f"a synthetic plate has 1 to 384 wells, not {n}")
    columns = min(24, int(np.ceil(np.sqrt(1.5 * n))))
    rows = -(-n // columns)
    if rows > 16:
        columns, rows = 24, 16
    return [well_name(r + 1, c + 1) for r in range(rows) for c in range(columns)][:n]


def plate_map(settings: SyntheticSettings) -> dict[str, Compound]:
    """Well -> treatment: a quarter DMSO, the others in turn over the compounds, shuffled by the seed."""
    wells = plate_wells(settings.wells)
    n_dmso = max(1, len(wells) // 4)
    treatments = compounds()
    contents = [DMSO] * n_dmso + [treatments[i % len(treatments)] for i in range(len(wells) - n_dmso)]
    order = np.random.default_rng([settings.seed, 0]).permutation(len(wells))
    return {well: contents[i] for well, i in zip(wells, order, strict=True)}


def field_effects(settings: SyntheticSettings, plate: str, well: str, compound: Compound) -> Effects:
    """A well's effects: its treatment's, times the plate's and the well's own small variation in brightness and count."""
    name = zlib.crc32(plate.encode())
    row, column = well_position(well)
    keys = ("dna", "er", "rna", "agp", "mito", "count", "nucleus")
    spread = np.array([0.04] * 5 + [0.06, 0.01])
    of_plate = np.random.default_rng([settings.seed, name]).standard_normal(len(keys))
    of_well = np.random.default_rng([settings.seed, name, row, column]).standard_normal(len(keys))
    factors = np.exp(spread * (of_plate + of_well))
    values = {f.name: getattr(compound.effects, f.name) for f in dataclass_fields(Effects)}
    return Effects(**{k: float(v * factors[keys.index(k)]) if k in keys else v for k, v in values.items()})


def draw_site(
    settings: SyntheticSettings, plate: str, well: str, site: int, compound: Compound, tiles: np.ndarray, light: np.ndarray
) -> Drawn:
    """One field and its truth."""
    row, column = well_position(well)
    rng = np.random.default_rng([settings.seed, zlib.crc32(plate.encode()), row, column, site])
    effects = field_effects(settings, plate, well, compound)
    return draw_field(rng, (settings.height, settings.width), settings.cells, effects, tiles, light)


def draw_plate(output: Path, plate: str, settings: SyntheticSettings, threads: int | None = None) -> tuple[int, int]:
    """Write a plate's images, index and truth; (fields, cells).

    A plate drawn before with the same settings is left as it is; with others, FileExistsError.
    """
    check_barcode(plate)
    truth = output / "truth" / plate
    folder = output / f"{plate}__{MEASUREMENT}" / "Images"
    record = truth / "settings.json"
    wanted = {**asdict(settings), "drawing": DRAWING}
    if record.is_file():
        kept = json.loads(record.read_text(encoding="utf-8"))
        if {k: kept.get(k) for k in wanted} != wanted:
            raise FileExistsError(
                f"{folder.parent} was drawn with other settings; remove it and {truth}, or change --output"
            )
        return int(kept["n_fields"]), int(kept["n_cells"])
    folder.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    size = settings.height, settings.width
    tiles = make_tiles(np.random.default_rng([settings.seed, 1]), size)
    light = falloff(size)
    numbers = PlateSettings().numbers
    layout = plate_map(settings)
    jobs = [(well, site, compound) for well, compound in layout.items() for site in range(1, settings.sites + 1)]

    def one(job: tuple[str, int, Compound]) -> list[list[object]]:
        well, site, compound = job
        drawn = draw_site(settings, plate, well, site, compound, tiles, light)
        for channel, image in zip(CHANNELS, drawn.images, strict=True):
            write_tiff(folder / image_name(well, site, numbers[channel]), image)
        write_tiff(truth / f"{well}_s{site}_Nuclei.tiff", drawn.nuclei.astype(np.uint16))
        write_tiff(truth / f"{well}_s{site}_Cells.tiff", drawn.cells.astype(np.uint16))
        columns = [drawn.table[k] for k in drawn.table]
        return [
            [plate, well, site, compound.name, compound.strength, *(round(float(v), 3) for v in values)]
            for values in zip(*columns, strict=True)
        ]

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        tables = list(pool.map(one, jobs))
    rows = [row for table in tables for row in table]
    header = ["plate", "well", "site", "treatment", "strength", "object", "y", "x", "nucleus_area", "cell_area"]
    header += ["touches_border", *(f"signal_{c}" for c in CHANNELS)]
    write_whole(truth / "cells.csv", as_csv([header, *rows]))
    for channel, plane in zip(CHANNELS, light, strict=True):
        with whole_file(truth / f"Illum{channel}.npy") as part:
            np.save(part, plane / plane.min())
    write_whole(folder / "Index.idx.xml", "".join(index_lines(plate, settings, list(layout))))
    write_whole(record, json.dumps({**wanted, "n_fields": len(jobs), "n_cells": len(rows)}))
    return len(jobs), len(rows)


def as_csv(rows: Iterable[Sequence[object]], end: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows(rows)
    return text.getvalue()


def image_name(well: str, site: int, number: int) -> str:
    row, column = well_position(well)
    return f"r{row:02d}c{column:02d}f{site:02d}p01-ch{number}sk1fk1fl1.tiff"


def write_tiff(path: Path, image: np.ndarray) -> None:
    """An LZW TIFF of one strip, as Harmony's are."""
    with of_file(path):
        tifffile.imwrite(
            path, image, compression="lzw", photometric="minisblack", metadata=None, rowsperstrip=image.shape[0]
        )


def index_lines(plate: str, settings: SyntheticSettings, wells: Sequence[str]) -> Iterator[str]:
    """A Harmony V5 index of the plate, its flat fields those the images were drawn with."""
    numbers = PlateSettings().numbers
    height, width = settings.height, settings.width
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    yield '<EvaluationInputData Version="1" xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5">\n'
    yield f"<Plates><Plate><PlateID>{plate}</PlateID><Name>{plate}</Name><PlateRows>16</PlateRows>"
    yield "<PlateColumns>24</PlateColumns></Plate></Plates>\n<Maps><Map>\n"
    for channel, rows in falloff_coefficients().items():
        profile = (
            f"{{Background: {{Character: NonFlat, Profile: {{Coefficients: {[list(r) for r in rows]}, "
            f"Dims: [{width}, {height}], Origin: [{(width - 1) / 2}, {(height - 1) / 2}], "
            f"Scale: [{1 / width:.11g}, {1 / height:.11g}], Type: Polynomial}}, Quality: 1.0}}, "
            f"Channel: {numbers[channel]}, ChannelName: {STAINS[channel]}, Version: synthetic}}"
        )
        yield f'<Entry ChannelID="{numbers[channel]}"><FlatfieldProfile>{profile}</FlatfieldProfile></Entry>\n'
    yield "</Map></Maps>\n<Images>\n"
    for well in wells:
        row, column = well_position(well)
        for site in range(1, settings.sites + 1):
            x, y = ((site - 1) % 3 - 1) * width * PIXEL_M, ((site - 1) // 3 - 1) * height * PIXEL_M
            for channel, number in sorted(numbers.items(), key=lambda item: item[1]):
                if channel not in STAINS:
                    continue
                yield (
                    f'<Image Version="1"><id>{row:02d}{column:02d}K1F{site}P1R{number}</id><State>Ok</State>'
                    f"<URL>{image_name(well, site, number)}</URL>"
                    f"<Row>{row}</Row><Col>{column}</Col><FieldID>{site}</FieldID>"
                    f"<PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>{number}</ChannelID>"
                    f"<ChannelName>{STAINS[channel]}</ChannelName>"
                    f'<ImageResolutionX Unit="m">{PIXEL_M}</ImageResolutionX>'
                    f'<ImageResolutionY Unit="m">{PIXEL_M}</ImageResolutionY>'
                    f"<ImageSizeX>{width}</ImageSizeX><ImageSizeY>{height}</ImageSizeY><MaxIntensity>65535</MaxIntensity>"
                    f'<PositionX Unit="m">{x:.6g}</PositionX><PositionY Unit="m">{y:.6g}</PositionY></Image>\n'
                )
    yield "</Images></EvaluationInputData>\n"


def write_metadata(output: Path, plates: Sequence[str], settings: SyntheticSettings) -> None:
    """Plate map, barcode table and treatment table in CPJUMP1's layout; barcodes already in the table stay."""
    maps, external = output / "metadata" / "platemaps", output / "metadata" / "external"
    maps.mkdir(parents=True, exist_ok=True)
    external.mkdir(parents=True, exist_ok=True)
    barcodes = maps / "barcode_platemap.csv"
    known: list[str] = []
    if barcodes.is_file():
        with open(barcodes, newline="", encoding="utf-8") as file:
            known = [row["Assay_Plate_Barcode"] for row in csv.DictReader(file)]
    rows = [[p, MAP] for p in dict.fromkeys([*known, *plates])]
    write_whole(barcodes, as_csv([["Assay_Plate_Barcode", "Plate_Map_Name"], *rows], "\n"))
    lines = ["well_position\tbroad_sample\tsolvent"]
    lines += [f"{well}\t{compound.sample}\tDMSO" for well, compound in plate_map(settings).items()]
    write_whole(maps / f"{MAP}.txt", "\n".join(lines) + "\n")
    lines = ["broad_sample\tInChIKey\tpert_iname\tpubchem_cid\tgene\tpert_type\tcontrol_type\tsmiles"]
    lines += [f"{c.sample}\t\t{c.name}\t\t{c.gene}\ttrt\t\t" for c in compounds()]
    lines += ["\t\tDMSO\t\t\tcontrol\tnegcon\t"]
    write_whole(external / "SYNTHETIC_compound_metadata.tsv", "\n".join(lines) + "\n")


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "synthetic",
        "Draw Cell Painting plates with known nuclei, cells, illumination and treatment effects: images as a Phenix leaves "
        "them, a plate map, and the truth.",
        "jumpgpu synthetic --output demo/images --plate DEMO --replicates 3 --wells 24 --size 540",
    )
    add = output.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="for images, metadata and truth")
    add("--plate", action="append", metavar="BARCODE", help="repeat it for replicate plates (default: DEMO)")
    add("--replicates", type=int, default=1, metavar="N", help="draw <plate>1 .. <plate>N instead of <plate>")
    add("--wells", type=int, default=24, metavar="N", help="wells per plate, 1 to 384 (default: %(default)s)")
    add("--sites", type=int, default=2, metavar="N", help="fields per well (default: %(default)s)")
    add("--size", default="1080", metavar="N|HxW", help="pixels of a field's side (default: %(default)s)")
    add("--cells", type=float, metavar="N", help="nuclei per field, on average (default: 100 for 1080 x 1080)")
    add("--seed", type=int, default=0, metavar="N", help="seed: the same one draws the same images (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="threads (default: all processors)")
    return output


def settings_of(options: argparse.Namespace) -> tuple[list[str], SyntheticSettings]:
    """Plates and settings that a command line asks for; ValueError for a number out of range."""
    sides = options.size.lower().split("x")
    if len(sides) > 2 or not all(s.isdigit() and 64 <= int(s) <= 4320 for s in sides):
        raise ValueError(f"--size {options.size}: expected a side of 64 to 4320 pixels, or HEIGHTxWIDTH")
    height, width = int(sides[0]), int(sides[-1])
    cells = options.cells if options.cells is not None else CELLS_PER_PIXEL * height * width
    if not 1 <= options.sites <= 99 or not 1 <= options.replicates <= 99 or not 0 <= cells <= 5000 or options.seed < 0:
        raise ValueError("--sites and --replicates must be 1 to 99, --cells 0 to 5000, --seed 0 or more")
    plate_wells(options.wells)
    plates = options.plate or ["DEMO"]
    if options.replicates > 1:
        plates = [f"{plate}{n + 1}" for plate in plates for n in range(options.replicates)]
    for plate in plates:
        check_barcode(plate)
    return plates, SyntheticSettings(options.wells, options.sites, height, width, float(cells), options.seed)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 done, 2 bad use."""
    options = parser().parse_args(arguments)
    plates, settings = settings_of(options)
    print(f"{', '.join(plates)} in {options.output}: {settings}", file=sys.stderr)
    for plate in plates:
        start = time.perf_counter()
        n_fields, n_cells = draw_plate(options.output, plate, settings, options.threads)
        seconds = time.perf_counter() - start
        print(f"{plate}  {settings.wells} wells  {n_fields} fields  {n_cells} cells  {seconds:.1f} s")
    write_metadata(options.output, plates, settings)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
