"""Tables as people and pandas write them: packed, separated otherwise, found by name, without folders; and samplesheets."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jumpgpu.images.indexes.load_data import read_load_data
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import CHANNELS
from tests.helpers.image_plates import NUMBERS, image_name, load_data_csv, noise, write_plate

BARCODE = "BR00000001"
WRITERS = {
    ".csv": lambda frame: frame.to_csv(index=False).encode(),
    ".csv.gz": lambda frame: gzip.compress(frame.to_csv(index=False).encode()),
    ".tsv": lambda frame: frame.to_csv(index=False, sep="\t").encode(),
    ".tsv.gz": lambda frame: gzip.compress(frame.to_csv(index=False, sep="\t").encode()),
    ".parquet": lambda frame: parquet(frame),
    "; .csv": lambda frame: frame.to_csv(index=False, sep=";").encode(),
    "tab .csv": lambda frame: frame.to_csv(index=False, sep="\t").encode(),
    "windows .csv": lambda frame: frame.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig"),
}


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def frame_of(folder: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(load_data_csv(folder)))


def sheet_of(folder: str) -> pd.DataFrame:
    """A samplesheet as nf-core/cellpainting's assets/samplesheet.csv has its columns."""
    rows = [
        (c, f"{folder}/{image_name(well, site, NUMBERS[c])}", "source_4", "Batch1", BARCODE, well, site, 1, site, 1, 1)
        for well in ("A01", "B03")
        for site in (1, 2, 5)
        for c in NUMBERS
    ]
    names = ["channel", "path", "source", "batch", "plate", "well", "site", "col", "field_id", "plane_id", "row"]
    return pd.DataFrame(rows, columns=names)


def check(plate) -> None:  # type: ignore[no-untyped-def]
    """The pixels of all sites are those that their names say."""
    fields = list(read_fields(plate, batch=6))
    assert fields[0].sites == tuple((w, s) for w in ("A01", "B03") for s in (1, 2, 5))
    expected = [[noise(w, s, NUMBERS[c]) for c in CHANNELS] for w, s in fields[0].sites]
    np.testing.assert_array_equal(fields[0].pixels.numpy(), expected)


@pytest.mark.parametrize("kind", ["load_data", "samplesheet"])
@pytest.mark.parametrize("form", WRITERS)
def test_forms_of_a_table(tmp_path: Path, form: str, kind: str) -> None:
    images = write_plate(tmp_path / "data")
    frame = frame_of(str(images)) if kind == "load_data" else sheet_of(str(images))
    table = tmp_path / "data" / f"any name{form.rpartition(' ')[2]}"
    table.write_bytes(WRITERS[form](frame))
    plate = find_plate(BARCODE, table)
    assert plate.channel_source == table.name
    check(plate)


@pytest.mark.parametrize("place", ["Images", "beside the barcode's folder", "a folder of the barcode"])
@pytest.mark.parametrize(
    "name",
    ["load_data.csv", "load_data.parquet", "load_data.csv.gz", "load_data_with_illum.csv", "load_data_with_illum.parquet"],
)
def test_tables_found_in_a_folder(tmp_path: Path, name: str, place: str) -> None:
    images = write_plate(tmp_path)
    form = name[name.index(".") :]
    folder = {
        "Images": images,
        "beside the barcode's folder": tmp_path,
        "a folder of the barcode": tmp_path / "x" / BARCODE,
    }[place]
    if place == "a folder of the barcode":
        images = images.parent.rename(tmp_path / "x.tmp").rename(tmp_path / BARCODE) / "Images"
        folder = images
    (folder / name).write_bytes(WRITERS[form](frame_of(str(images))))
    plate = find_plate(BARCODE, tmp_path)
    assert plate.channel_source == name
    check(plate)


def test_numbers_as_pandas_writes_them_and_blanks(tmp_path: Path) -> None:
    images = write_plate(tmp_path, barcode="12345")
    frame = frame_of(str(images))
    frame["Metadata_Plate"] = 12345.0
    frame["Metadata_Site"] = frame["Metadata_Site"].astype(float)
    frame.to_csv(tmp_path / "load_data.csv", index=False)
    assert "12345.0,A01,1.0" in (tmp_path / "load_data.csv").read_text()
    check(find_plate("12345", tmp_path / "load_data.csv"))
    text = (
        frame_of(str(images))
        .assign(Metadata_Plate=" 12345 ", Metadata_Well=lambda f: f["Metadata_Well"] + " ")
        .to_csv(index=False)
    )
    (tmp_path / "load_data.csv").write_text(text.replace("Metadata_Plate", " Metadata_Plate "))
    check(find_plate("12345", tmp_path / "load_data.csv"))
    (tmp_path / "load_data.csv").write_text(text.replace(",1,", ",1.5,", 1))
    with pytest.raises(ValueError, match=r"line 2: Metadata_Site must be a whole number, got '1.5'"):
        find_plate("12345", tmp_path / "load_data.csv")


@pytest.mark.parametrize(
    "where", ["beside the table", "in the plate's folder", "in a folder of the name", "with a backslash"]
)
def test_file_names_without_path_names(tmp_path: Path, where: str) -> None:
    images = write_plate(tmp_path)
    frame = frame_of("x")
    frame = frame[[c for c in frame if not c.startswith("PathName_")]]
    table = (images if where == "beside the table" else tmp_path) / "load_data.csv"
    if where in ("in a folder of the name", "with a backslash"):
        start = "/".join(images.relative_to(tmp_path).parts) + "/"
        for c in NUMBERS:
            frame[f"FileName_Orig{c}"] = (start if where != "with a backslash" else start.replace("/", "\\")) + frame[
                f"FileName_Orig{c}"
            ]
    frame.to_csv(table, index=False)
    check(find_plate(BARCODE, table if where == "beside the table" else tmp_path))


@pytest.mark.parametrize("start", ["file://", "file:", "FILE://localhost", ""])
def test_file_urls(tmp_path: Path, start: str) -> None:
    images = write_plate(tmp_path / "with space").absolute()
    folder = str(images).replace(" ", "%20") if start else str(images)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", *(f"URL_Orig{c}" for c in NUMBERS)]
    rows = [
        [BARCODE, w, str(s), *(f"{start}{folder}/{image_name(w, s, n)}" for n in NUMBERS.values())]
        for w in ("A01", "B03")
        for s in (1, 2, 5)
    ]
    table = tmp_path / "load_data.csv"
    table.write_text("\n".join(",".join(row) for row in [header, *rows]))
    check(find_plate(BARCODE, table))
    table.write_text(load_data_csv(f"{start}{folder}"))
    check(find_plate(BARCODE, table))


def test_relative_urls_have_a_folder_part(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    table = tmp_path / "load_data.csv"
    sheet = sheet_of("/".join(images.relative_to(tmp_path).parts))
    sheet.to_csv(table, index=False)
    check(find_plate(BARCODE, table))
    sheet["path"] = "s3://bucket/" + sheet["path"]
    sheet.to_csv(table, index=False)
    check(find_plate(BARCODE, table, PlateSettings(remap={"s3://bucket": str(tmp_path)})))
    with pytest.raises(ValueError, match=r"outside the images root .*\[plate.remap\]"):
        find_plate(BARCODE, table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(plate="BR9"), "no row with plate BR00000001; it has BR9"),
        (lambda f: f.assign(well="Q99"), r"line 2: well 'Q99'"),
        (lambda f: f.assign(site="x"), "line 2: site must be a whole number"),
        (lambda f: pd.concat([f, f]), "A01 site 1 has a second Mito image; give one plane per site"),
        (lambda f: f[f["channel"] != "DNA"], "no DNA channel"),
        (lambda f: f.assign(path="../../etc/passwd"), "goes upwards|outside"),
        (lambda f: f[:0], "no row with plate .*it has no rows"),
        (lambda f: f.drop(columns="site"), "samplesheet.csv: no column site; a samplesheet has channel, path, plate"),
        (lambda f: f.drop(columns=["well", "row"]), "no column well; .*or row and col for the well"),
        (lambda f: f.drop(columns="well").assign(row=99), "line 2: row 99 and col 1 are no well"),
        (lambda f: f.drop(columns="well").assign(col="x"), "line 2: col must be a whole number"),
    ],
)
def test_samplesheet_errors(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "samplesheet.csv"
    change(sheet_of(".")).to_csv(table, index=False)
    with pytest.raises(ValueError, match=message):
        find_plate(BARCODE, table)


@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_wells_of_a_samplesheet_by_row_and_column(tmp_path: Path, letters: bool, suffix: str) -> None:
    images = write_plate(tmp_path / "data")
    frame = sheet_of(str(images))
    places = {"A01": ("A", 1), "B03": ("B", 3)} if letters else {"A01": (1, 1), "B03": (2, 3)}
    frame["row"], frame["col"] = zip(*frame["well"].map(places), strict=True)
    table = tmp_path / "data" / f"samplesheet{suffix}"
    table.write_bytes(WRITERS[suffix](frame.drop(columns="well")))
    check(find_plate(BARCODE, table))


def test_an_image_that_a_samplesheet_lacks_costs_its_site(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    sheet_of(str(images)).drop(index=3).to_csv(tmp_path / "samplesheet.csv", index=False)  # A01 site 1 ER
    plate = find_plate(BARCODE, tmp_path)
    assert plate.channel_source == "samplesheet.csv"
    (batch,) = read_fields(plate, batch=6)
    assert [(p.well, p.site, p.channel, p.reason) for p in batch.quarantined] == [
        ("A01", 1, "ER", "no ER image is listed in samplesheet.csv")
    ]


def test_packed_tables_are_bounded_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jumpgpu.images.indexes import table_rows

    table = tmp_path / "load_data.csv.gz"
    whole = gzip.compress(load_data_csv(".").encode())
    for data in (b"no gzip", whole[:60], whole[:30] + b"\0" * 50):
        table.write_bytes(data)
        with pytest.raises(ValueError, match="not packed by gzip, or cut short"):
            read_load_data(table, BARCODE)
    monkeypatch.setattr(table_rows, "MAX_BYTES", 100_000)
    table.write_bytes(gzip.compress(load_data_csv(".").encode() + b"\n" * 10_000_000))
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_load_data(table, BARCODE)


@pytest.mark.parametrize("name", ["x.txt", "image.tiff", "plate.xlsx"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{name} is a file, and no table of images .*give --images the folder"):
        find_plate(BARCODE, tmp_path / name)


def with_prefix(frame: pd.DataFrame) -> pd.DataFrame:
    """As CellProfiler's LoadData has its columns."""
    return frame.rename(columns=lambda c: f"Image_{c}" if c.startswith(("FileName", "PathName")) else c)


WRITTEN = {
    "a pandas index": lambda frame: frame.to_csv(),
    "Excel's sep= line": lambda frame: "sep=;\r\n" + frame.to_csv(index=False, sep=";", lineterminator="\r\n"),
    "a separator at each line's end": lambda frame: "".join(f"{line},\n" for line in frame.to_csv(index=False).splitlines()),
    "every cell quoted": lambda frame: frame.to_csv(index=False, quoting=1),
    "columns in another order": lambda frame: frame[sorted(frame.columns, reverse=True)].to_csv(index=False),
    "empty lines": lambda frame: frame.to_csv(index=False) + "\n\n" + "," * (len(frame.columns) - 1) + "\n",
    "wells without zeros": lambda frame: frame.replace({"A01": "a1", "B03": "b3"}).to_csv(index=False),
    "LoadData's Image_ before names": lambda frame: with_prefix(frame).to_csv(index=False),
    "LoadData's names, packed": lambda frame: parquet(with_prefix(frame)),
    "categories": lambda frame: parquet(frame.astype("category")),
    "pandas' own types": lambda frame: parquet(frame.convert_dtypes()),
}


@pytest.mark.parametrize("kind", ["load_data", "samplesheet"])
@pytest.mark.parametrize("written", WRITTEN)
def test_tables_as_programs_write_them(tmp_path: Path, written: str, kind: str) -> None:
    images = write_plate(tmp_path / "data set")
    frame = frame_of(str(images)) if kind == "load_data" else sheet_of(str(images))
    data = WRITTEN[written](frame)
    table = tmp_path / "data set" / f"t.{'csv' if isinstance(data, str) else 'parquet'}"
    table.write_bytes(data.encode() if isinstance(data, str) else data)
    check(find_plate(BARCODE, table))


@pytest.mark.parametrize(
    "form",
    [
        lambda path, root: f"file://{path}".replace(" ", "%20"),
        lambda path, root: f"file://localhost{path}".replace(" ", "%20"),
        lambda path, root: f"file:{path}".replace(" ", "%20"),
        lambda path, root: str(path.relative_to(root)),
        lambda path, root: f"./{path.relative_to(root)}",
        lambda path, root: str(path.relative_to(root)).replace("/", "\\"),
        lambda path, root: f"D:\\microscope\\{path.relative_to(root)}".replace("/", "\\"),
    ],
)
def test_paths_as_people_write_them(tmp_path: Path, form) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "data set"
    images = write_plate(root)
    frame = sheet_of(str(images))
    frame["path"] = [form(Path(p), root) for p in frame["path"]]
    (root / "sheet.csv").write_text(frame.to_csv(index=False))
    check(find_plate(BARCODE, root / "sheet.csv"))
    (images.parent / "samplesheet.csv").write_text(frame.to_csv(index=False))  # found; paths from the images root on
    (root / "sheet.csv").unlink()
    check(find_plate(BARCODE, root))
    urls = frame_of(str(images))[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]]
    for channel, number in NUMBERS.items():
        rows = zip(urls["Metadata_Well"], urls["Metadata_Site"], strict=True)
        urls[f"URL_Orig{channel}"] = [form(images / image_name(w, s, number), root) for w, s in rows]
    (root / "urls.csv").write_text(urls.to_csv(index=False))
    check(find_plate(BARCODE, root / "urls.csv"))


def test_cells_beyond_the_columns_are_refused(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    lines = frame_of(str(images)).to_csv().splitlines()  # with an index
    lines[2] += ",more"
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 3: more cells than the 13 columns"):
        find_plate(BARCODE, tmp_path / "t.csv")
