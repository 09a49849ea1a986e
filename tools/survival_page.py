"""docs/survival.md's table: what became of every hostile file, in what time and with how much more memory.

    python -m tools.survival_page docs/survival.md

Each file is read in a fork of this process, which has read a good one before, so that memory is what the file itself cost.
"""

import contextlib
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path

from jumpgpu.images.illumination_files import parse_npy
from jumpgpu.images.label_files import read_labels
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from tests.helpers.hostile import labels, tables, tiffs, xml
from tests.helpers.image_plates import image_name, load_data_csv, write_plate

BARCODE = "BR00000001"
MARKS = "<!-- hostile files: begin -->\n", "<!-- hostile files: end -->\n"
SHOWN = 8  # of each reader, the worst


@dataclass(frozen=True)
class Case:
    reader: str
    name: str
    size: int  # bytes of the file
    became: str
    seconds: float
    megabytes: float  # beyond a good file's


def read_plate(place: Path) -> str:
    """What became of a plate: '' where all of it was read, else what was said of it."""
    try:
        batches = list(read_fields(find_plate(BARCODE, place), workers=0))
    except ValueError as error:
        return f"refused: {error}"
    return "; ".join(f"site left out: {p.reason}" for b in batches for p in b.quarantined)


def read_label(path: Path) -> str:
    try:
        read_labels(path, path.parent, labels.SIZE)
    except ValueError as error:
        return f"site left out: {error}"
    return ""


def read_function(path: Path) -> str:
    try:
        parse_npy(path.read_bytes(), labels.SIZE, "function")
    except ValueError as error:
        return f"refused: {error}"
    return ""


def large_tables() -> dict[str, bytes]:
    """Tables of tens and hundreds of MB."""
    row = load_data_csv(".").split("\n")[1]
    sites = "\n".join([tables.HEADER, *(row.replace("A01,1", f"A01,{k}") for k in range(132_000))])
    others = tables.HEADER + f"\n{row.replace(BARCODE, 'BR9')}" * 10**6
    return {"132,000 sites": sites.encode(), "10^6 rows of another plate": others.encode()}


def files(root: Path, large: bool) -> Iterator[tuple[str, str, int, Callable[[], str]]]:
    """(reader, name, bytes, what reads it), every hostile file written under `root`."""
    for k, (name, data) in enumerate(xml.corpus().items()):
        folder = root / f"xml{k}" / BARCODE
        folder.mkdir(parents=True)
        (folder / "Index.idx.xml").write_bytes(data)
        yield "Harmony index (XML)", name, len(data), lambda p=folder.parent: read_plate(p)
    for k, (name, data) in enumerate({**tables.corpus(), **(large_tables() if large else {})}.items()):
        (root / f"{k}.csv").write_bytes(data)
        yield "load_data.csv", name, len(data), lambda p=root / f"{k}.csv": read_plate(p)
    for k, (name, data) in enumerate({**tiffs.corpus(), **tiffs.bombs()}.items()):
        images = write_plate(root / f"tiff{k}", wells=("A01",), sites=(1,))
        (images / image_name("A01", 1, 5)).write_bytes(data)
        yield "field image (TIFF)", name, len(data), lambda p=root / f"tiff{k}": read_plate(p)
    mark, place = root / "mark", root / "labels"
    place.mkdir()
    given = {f"{n}.npy": d for n, d in labels.arrays(mark).items()} | {f"{n}.tiff": d for n, d in labels.images().items()}
    for k, (name, data) in enumerate(given.items()):
        path = place / f"{k}{Path(name).suffix}"
        path.write_bytes(data)
        yield "label image (TIFF, NPY)", name, len(data), lambda p=path: read_label(p)
    for k, (name, write) in enumerate(labels.zarrs(mark).items()):
        write(place / f"{k}.zarr")
        size = sum(f.stat().st_size for f in (place / f"{k}.zarr").rglob("*") if f.is_file() and not f.is_symlink())
        yield "label image (zarr)", name, size, lambda p=place / f"{k}.zarr": read_label(p)
    for k, (name, data) in enumerate(labels.arrays(mark).items()):
        if name not in ("floating point", "a file of 20 MB"):
            (root / f"{k}.npy").write_bytes(data)
            yield "illumination function (NPY)", name, len(data), lambda p=root / f"{k}.npy": read_function(p)


def measured(work: Callable[[], str]) -> tuple[str, float, float]:
    """What a read gives, its seconds, and how many MB its process grew by, in a fork."""
    here, there = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        warnings.simplefilter("ignore")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        became = work()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        there.send((became, time.perf_counter() - start, grown / 1024))
        os._exit(0)
    there.close()
    with contextlib.closing(here):
        result: tuple[str, float, float] = here.recv()
    os.waitpid(child, 0)
    return result


def cases(large: bool = True) -> list[Case]:
    """Every hostile file, read; the large ones if asked."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_plate(root / "good", wells=("A01",), sites=(1,))
        assert read_plate(root / "good") == ""
        result = [Case(reader, name, size, *measured(work)) for reader, name, size, work in files(root, large)]
        return [replace(case, became=case.became.replace(f"{root}/", "")) for case in result]


def page(result: list[Case]) -> str:
    """The table: a summary by reader, and the worst of each."""
    readers = list(dict.fromkeys(c.reader for c in result))
    lines = ["| reader | files | refused or left out | longest, s | most memory, MB |", "|---|---|---|---|---|"]
    for reader in readers:
        of = [c for c in result if c.reader == reader]
        lines.append(
            f"| {reader} | {len(of)} | {sum(bool(c.became) for c in of)} | {max(c.seconds for c in of):.2f} "
            f"| {max(c.megabytes for c in of):.0f} |"
        )
    lines += ["", "The worst of each, by time and by memory:", ""]
    lines += ["| reader | file | bytes | s | MB more | what became of it |", "|---|---|---|---|---|---|"]
    for reader in readers:
        of = [c for c in result if c.reader == reader]
        worst = {
            c.name: c
            for key in ("seconds", "megabytes")
            for c in sorted(of, key=lambda c, k=key: -getattr(c, k))[: SHOWN // 2]
        }
        for c in worst.values():
            said = " ".join(c.became.replace("|", "/").split())[:90] or "read: it decodes to the declared size"
            lines.append(f"| {reader} | {c.name} | {c.size:,} | {c.seconds:.2f} | {c.megabytes:.0f} | {said} |")
    return "\n".join(lines) + "\n"


def main(path: Path) -> None:
    text = path.read_text()
    begin, end = (text.index(mark) for mark in MARKS)
    path.write_text(text[: begin + len(MARKS[0])] + "\n" + page(cases()) + "\n" + text[end:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
