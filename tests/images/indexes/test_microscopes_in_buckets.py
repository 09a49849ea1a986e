"""Plates of other microscopes in a bucket: what is read there is what is read in a folder, by the same rules."""

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jumpgpu.images.locate import find_source
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.storage import buckets
from tests.helpers.image_plates import NUMBERS, index_xml, write_plate
from tests.images.indexes.test_microscopes import FIRST, PATTERN, SITES, STAINS, htd, put, write_cellvoyager

KNOWN, NUMBERED = PlateSettings(stains=STAINS), PlateSettings(numbers=FIRST)
WAVES, HARMONY = "x_{well}_s{site}_w{n}.tif", "r{row:02d}c{column:02d}f{site:02d}p01-ch{n}t01.tiff"


def imagexpress(root: Path, inner: str = "") -> None:
    for well, site in SITES:
        for wave in range(1, 6):
            put(root / inner / f"9987_{well}_s{site}_w{wave}.TIF", well, site, wave)
            (root / inner / f"9987_{well}_s{site}_w{wave}_thumb.tif").write_bytes(b"small")
    (root / inner / "9987.HTD").write_text(htd())


def named(root: Path, template: str) -> None:
    for well, site in SITES:
        for n in range(1, 6):
            put(
                root / template.format(row=ord(well[0]) - 64, column=int(well[1:]), well=well, site=site, n=n), well, site, n
            )


def times(root: Path) -> None:
    for t in (1, 2):
        for wave in range(1, 6):
            put(root / "P1_Plate_12" / f"TimePoint_{t}" / "ZStep_1" / f"P1_B02_s1_w{wave}.TIF", "B02", t, wave)
    (root / "P1_Plate_12" / "TimePoint_1" / "P1.HTD").write_text(htd(times=2))


def sheet(root: Path) -> None:
    write_plate(root / "P1", "x", ("B02", "B03"), (1, 2))
    (root / "P1" / "x__2020-11-08T18_18_00-Measurement1" / "Images").rename(root / "P1" / "images")
    lines = ["site,well,plate,path,channel,batch,source"]
    for well, site in SITES:
        for channel, n in NUMBERS.items():
            name = f"r{ord(well[0]) - 64:02d}c{int(well[1:]):02d}f{site:02d}p01-ch{n}sk1fk1fl1.tiff"
            lines.append(f"{site},{well},P1,images/{name},{channel},b,s")
    (root / "P1" / "samplesheet.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


WRITERS: dict[str, tuple[Callable[[Path], object], PlateSettings, str]] = {  # what writes it, settings, URL's end
    "ImageXpress": (lambda root: imagexpress(root / "P1_Plate_3434"), KNOWN, ""),
    "ImageXpress in TimePoint_1": (lambda root: imagexpress(root / "P1", "TimePoint_1"), KNOWN, ""),
    "ImageXpress, of two times": (times, dataclasses.replace(KNOWN, time=2), ""),
    "CellVoyager": (lambda root: write_cellvoyager(root / "P1"), KNOWN, ""),
    "CellVoyager, a folder deeper": (lambda root: write_cellvoyager(root / "P1_20230918_135839" / "P1"), KNOWN, ""),
    "CellVoyager, another folder's name": (lambda root: write_cellvoyager(root / "export 7"), KNOWN, "/export 7"),
    "Columbus names": (lambda root: named(root / "P1", "{row:03d}{column:03d}-{site}-001001{n:03d}.tif"), NUMBERED, ""),
    "Harmony 5.2": (lambda root: named(root / "P1/images", HARMONY), NUMBERED, ""),
    "pattern": (lambda root: named(root / "P1", WAVES), PlateSettings(pattern=PATTERN, numbers=FIRST), ""),
    "assign": (
        lambda root: named(root / "P1", WAVES),
        PlateSettings(pattern=PATTERN, assign={c: rf"_w{n}\." for c, n in FIRST.items()}),
        "",
    ),
    "a samplesheet, packed": (sheet, PlateSettings(), ""),
    "an umlaut": (lambda root: named(root / "Pl\u00e4tte #1", WAVES), NUMBERED, ""),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every one of them in a folder of its own."""
    root = tmp_path_factory.mktemp("written")
    for k, (write, _, _) in enumerate(WRITERS.values()):
        write(root / str(k))
    return root


def fill(server, root: Path) -> None:  # type: ignore[no-untyped-def]
    """The same in the bucket, where another test has emptied it or none has filled it yet."""
    if server.holds == str(root):
        return
    server.empty()
    server.make("plates")
    server.upload(root, "plates", "all")
    server.holds = str(root)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_bucket_is_read_as_a_folder_is(kind, written, server, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    fill(server, written)
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    k = list(WRITERS).index(kind)
    _, settings, end = WRITERS[kind]
    barcode = "Pl\u00e4tte #1" if "umlaut" in kind else "P1"
    here = find_source(barcode, f"{written}/{k}{end}", settings)
    there = find_source(barcode, f"s3://plates/all/{k}{end}", settings)
    assert (there.barcode, there.channel_line, there.pixel_um, there.size) == (
        here.barcode,
        here.channel_line,
        here.pixel_um,
        here.size,
    )
    assert there.warnings == here.warnings
    expected = [[here.images.relative(f) for f in site.files if f] for site in here.sites]
    assert [[there.images.relative(f) for f in site.files if f] for site in there.sites] == expected
    ((ours,), (theirs,)) = (list(read_fields(plate, batch=8, workers=2)) for plate in (here, there))
    assert ours.sites == theirs.sites
    assert not theirs.quarantined
    np.testing.assert_array_equal(ours.pixels.numpy(), theirs.pixels.numpy())


@pytest.mark.parametrize("folder", ["", "images", "no column"])
def test_a_table_is_given_by_its_url(server, tmp_path, monkeypatch, folder: str) -> None:  # type: ignore[no-untyped-def]
    """Folders are written from the table on, or not at all: files lie beside it, or in the plate's folder of images."""
    sheet(tmp_path)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", *(f"FileName_{c}" for c in NUMBERS)]
    rows = [header + [f"PathName_{c}" for c in NUMBERS] * (folder != "no column")]
    for well, site in SITES:
        names = [f"r02c{int(well[1:]):02d}f{site:02d}p01-ch{n}sk1fk1fl1.tiff" for n in NUMBERS.values()]
        rows.append(["P1", well, str(site), *names] + [folder] * 5 * (folder != "no column"))
    table = tmp_path / "P1" / "mine.tsv"
    table.write_text("\n".join("\t".join(row) for row in rows))
    server.empty()
    server.make("plates")
    server.upload(tmp_path, "plates", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    here, there = find_source("P1", table, PlateSettings()), find_source("P1", "s3://plates/x/P1/mine.tsv", PlateSettings())
    assert there.channel_source == "mine.tsv"
    ((ours,), (theirs,)) = (list(read_fields(plate, batch=8, workers=2)) for plate in (here, there))
    assert len(ours.sites) == len(theirs.sites) == 4
    np.testing.assert_array_equal(ours.pixels.numpy(), theirs.pixels.numpy())


def test_a_hostile_index_in_a_bucket_is_refused(server, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    server.empty()
    server.make("plates")
    for name, data in (
        ("MeasurementData.mlf", b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"),
        ("P1.HTD", b"x" * (1 << 20) + b"y"),
        ("ImageIndex.ColumbusIDX.xml", index_xml().replace("<URL>", "<URL>../").encode()),
    ):
        server.put("plates", f"{name}/P1/{name}", data)
        server.put("plates", f"{name}/P1/P1_B02_s1_w1.tif", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    with pytest.raises(ValueError, match=r"MeasurementData.mlf: a DTD, entity or external reference is refused"):
        find_source("P1", "s3://plates/MeasurementData.mlf", KNOWN)
    with pytest.raises(ValueError, match=r"P1.HTD: 1048577 bytes, more than an index may have"):
        find_source("P1", "s3://plates/P1.HTD", KNOWN)
    with pytest.raises(ValueError, match=r"which is not a file name; refused"):
        find_source("P1", "s3://plates/ImageIndex.ColumbusIDX.xml", KNOWN)
