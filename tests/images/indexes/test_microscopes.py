"""Plates of other microscopes: their indexes, modelled on public ones, their names, and the config's pattern.

Models: fmi-faim/faim-ipa, resources/CV8000 (MeasurementData.mlf, .mrf, .mes) and resources/ImageXpress_exported (9987.HTD).
"""

import time
import tomllib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jumpgpu.extract import main
from jumpgpu.images.indexes.names import RULES, rule_of
from jumpgpu.images.locate import find_plate, find_source
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import CHANNELS
from tests.helpers.image_plates import load_data_csv, noise, write_plate, write_tiff

WAVES = ("DAPI", "FITC", "Texas Red", "Cy3", "Cy5")
STAINS = {**PlateSettings().stains, "fitc": "ER", "texas red": "AGP", "cy3": "RNA", "cy5": "Mito"}
FIRST = {"DNA": 1, "ER": 2, "RNA": 4, "AGP": 3, "Mito": 5}  # the wave of each channel
BTS = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'


def put(path: Path, well: str, site: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(noise(well, site, number)))
    else:
        write_tiff(path, noise(well, site, number))


def check_pixels(plate: object, numbers: dict[str, int], sites: list[tuple[str, int]]) -> None:
    """Every channel of every site is the image that its name and well stand for."""
    seen = []
    for fields in read_fields(plate, batch=3):  # type: ignore[arg-type]
        assert not fields.quarantined
        for row, (well, site) in enumerate(fields.sites):
            seen.append((well, site))
            for c, channel in enumerate(CHANNELS):
                np.testing.assert_array_equal(fields.pixels[row, c].numpy(), noise(well, site, numbers[channel]))
    assert seen == sites


SITES = [(well, site) for well in ("B02", "B03") for site in (1, 2)]


def htd(waves: tuple[str, ...] = WAVES, z: int = 1, times: int = 1) -> str:
    """A plate description: wells B02 and B03 of 96, sites 1 and 2."""
    rows = [
        f'"WellsSelection{r}", ' + ", ".join("TRUE" if r == 2 and c in (2, 3) else "FALSE" for c in range(1, 13))
        for r in range(1, 9)
    ]
    lines = ['"HTSInfoFile", Version 1.0', '"Description", "1t-2w-2s"', '"PlateType", 2', f'"TimePoints", {times}']
    lines += [
        f'"ZSeries", {str(z > 1).upper()}',
        f'"ZSteps", {z}',
        '"ZProjection", FALSE',
        '"XWells", 12',
        '"YWells", 8',
        *rows,
    ]
    lines += ['"Sites", TRUE', '"XSites", 2', '"YSites", 1', '"SiteSelection1", TRUE, TRUE', '"Waves", TRUE']
    lines += [f'"NWavelengths", {len(waves)}', *(f'"WaveName{i}", "{w}"' for i, w in enumerate(waves, 1))]
    lines += [*(f'"WaveCollect{i}", 1' for i in range(1, len(waves) + 1)), '"EndFile"']
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize("guid", ["", "D5F8F51A-3E85-4358-AE51-A465AF87386F", "_[D5F8F51A-3E85-4358-AE51-A465AF87386F]"])
@pytest.mark.parametrize("folder", ["", "TimePoint_1", "TimePoint_1/ZStep_1"])
def test_imagexpress_with_its_description(tmp_path: Path, guid: str, folder: str) -> None:
    root = tmp_path / "9987_Plate_3434"
    for well, site in SITES:
        for wave in range(1, 6):
            put(root / folder / f"9987_{well}_s{site}_w{wave}{guid}.TIF", well, site, wave)
            (root / folder / f"9987_{well}_s{site}_w{wave}_thumb{guid}.tif").write_bytes(b"small")
    (root / folder / "9987.HTD").write_bytes(htd().encode())
    plate = find_plate("9987", tmp_path, PlateSettings(stains=STAINS))
    assert plate.channel_source == "9987.HTD"
    assert plate.channel_line.startswith("DNA=1 DAPI, ER=2 FITC, RNA=4 Cy3")
    assert plate.warnings == ()
    check_pixels(plate, FIRST, SITES)
    assert find_plate("other", root, PlateSettings(stains=STAINS)).sites == plate.sites


def test_imagexpress_says_which_sites_have_no_image(tmp_path: Path) -> None:
    for wave in range(1, 6):
        put(tmp_path / "P1" / f"P1_B02_s1_w{wave}.TIF", "B02", 1, wave)
    (tmp_path / "P1" / "P1.HTD").write_text(htd())
    plate = find_plate("P1", tmp_path, PlateSettings(stains=STAINS))
    assert plate.warnings == ("P1.HTD lists 4 sites, and 3 of them have no image: B02 site 2, B03 site 1, B03 site 2",)


def test_imagexpress_planes_and_times(tmp_path: Path) -> None:
    """ZStep_0 holds what the microscope projected itself: it is no plane of ours."""
    for t in (1, 2):
        for z in (0, 1, 2):
            for wave in range(1, 6):
                put(tmp_path / "P1" / f"TimePoint_{t}" / f"ZStep_{z}" / f"P1_B02_s1_w{wave}.TIF", "B02", t, 10 * z + wave)
    (tmp_path / "P1" / "TimePoint_1" / "P1.HTD").write_text(htd(z=2, times=2))
    with pytest.raises(ValueError, match=r"time points \[1, 2\]; set plate.time"):
        find_plate("P1", tmp_path, PlateSettings(stains=STAINS))
    plate = find_plate("P1", tmp_path, PlateSettings(stains=STAINS, time=2, projection="max"))
    assert plate.barcode == "P1_t2"
    assert plate.planes == ((1, 2),) * 5
    assert any("own projections" in note for note in plate.notes)
    (fields,) = list(read_fields(plate))
    for c, channel in enumerate(CHANNELS):
        planes = [noise("B02", 2, 10 * z + FIRST[channel]) for z in (1, 2)]
        np.testing.assert_array_equal(fields.pixels[0, c].numpy(), np.maximum(*planes))
    own = find_plate("P1", tmp_path, PlateSettings(stains=STAINS, time=1, plane=0))
    (fields,) = list(read_fields(own))
    np.testing.assert_array_equal(fields.pixels[0, 0].numpy(), noise("B02", 1, 1))


def test_imagexpress_without_description_takes_no_phenix_numbers(tmp_path: Path) -> None:
    for well, site in SITES:
        for wave in range(1, 6):
            put(tmp_path / "P1" / f"P1_{well}_s{site}_w{wave}.tif", well, site, wave)
    with pytest.raises(ValueError, match=r"(?s)no DNA channel.* in the file names .*\[plate.stains\]\n\"1\" = \"DNA\""):
        find_plate("P1", tmp_path)
    check_pixels(find_plate("P1", tmp_path, PlateSettings(numbers=FIRST)), FIRST, SITES)
    stains = {**PlateSettings().stains, **{str(n): c for c, n in FIRST.items()}}
    check_pixels(find_plate("P1", tmp_path, PlateSettings(stains=stains)), FIRST, SITES)


def test_descriptions_that_are_none(tmp_path: Path) -> None:
    put(tmp_path / "P1" / "P1_B02_s1_w1.tif", "B02", 1, 1)
    for text, message in (
        ("nothing", "no ImageXpress plate description"),
        (htd().replace('"XWells", 12', '"XWells", 1200000'), "xwells must be a number from 1 to 48"),
        (htd().replace('"NWavelengths", 5', '"NWavelengths", many'), "nwavelengths must be a number"),
        (htd(("DAPI",)).replace("NWavelengths", "NoWavelengths"), "nwavelengths must be a number"),
        (htd(("X", "Y")), "no DNA channel"),
    ):
        (tmp_path / "P1" / "P1.HTD").write_text(text)
        with pytest.raises(ValueError, match=message):
            find_plate("P1", tmp_path)
    (tmp_path / "P1" / "P1.HTD").write_text(htd(("X", "Y")))
    put(tmp_path / "P1" / "P1_B02_s1_w7.tif", "B02", 1, 1)
    with pytest.raises(ValueError, match=r"P1.HTD names no channel 7, which files"):
        find_plate("P1", tmp_path)


def measurement(records: list[str]) -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<bts:MeasurementData bts:Version="1.0" {BTS}>\n'
        + "\n".join(records)
        + "\n</bts:MeasurementData>\n"
    )


def record(well: str, site: int, channel: int, z: int = 1, t: int = 1) -> str:
    row, column = ord(well[0]) - 64, int(well[1:])
    name = f"P1_{well}_T{t:04d}F{site:03d}L01A{channel:02d}Z{z:02d}C{channel:02d}.tif"
    return (
        f'<bts:MeasurementRecord bts:Type="IMG" bts:Time="2023-09-18T13:58:44.438+02:00" bts:Column="{column}" '
        f'bts:Row="{row}" bts:TimePoint="{t}" bts:FieldIndex="{site}" bts:ZIndex="{z}" bts:TimelineIndex="1" '
        f'bts:ActionIndex="{channel}" '
        f'bts:Action="3D" bts:X="-567.1" bts:Y="402.9" bts:Z="0.0" bts:Ch="{channel}">{name}</bts:MeasurementRecord>'
    )


def detail(size: tuple[int, int] = (40, 56)) -> str:
    channels = "".join(
        f'<bts:MeasurementChannel bts:Ch="{n}" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" '
        f'bts:InputBitDepth="16" bts:HorizontalPixels="{size[1]}" bts:VerticalPixels="{size[0]}" />'
        for n in range(1, 6)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?><bts:MeasurementDetail bts:Version="1.0" bts:Title="P1" '
        f'bts:MeasurementSettingFileName="five.mes" bts:ColumnCount="12" bts:RowCount="8" {BTS}>{channels}'
        "</bts:MeasurementDetail>"
    )


def setting(
    targets: tuple[str, ...] = WAVES, filters: tuple[str, ...] = ("BP445/45", "BP525/50", "BP600/37", "BP580/30", "BP676/29")
) -> str:
    channels = "".join(
        f'<bts:Channel bts:Ch="{n}" bts:Target="{t}" bts:Acquisition="{f}" bts:Fluorophore=""><bts:LightSourceName>405nm'
        "</bts:LightSourceName></bts:Channel>"
        for n, (t, f) in enumerate(zip(targets, filters, strict=True), 1)
    )
    inner = f"<bts:ChannelList>{channels}</bts:ChannelList>"
    return f'<?xml version="1.0"?><bts:MeasurementSetting {BTS}>{inner}</bts:MeasurementSetting>'


def write_cellvoyager(folder: Path, z: int = 1) -> list[str]:
    folder.mkdir(parents=True)
    records = []
    for well, site in SITES:
        for channel in range(1, 6):
            for plane in range(1, z + 1):
                records.append(record(well, site, channel, plane))
                name = records[-1].partition(">")[2].partition("<")[0]
                put(folder / name, well, site, channel if z == 1 else 10 * plane + channel)
    (folder / "MeasurementData.mlf").write_text(measurement(records))
    (folder / "MeasurementDetail.mrf").write_text(detail())
    (folder / "five.mes").write_text(setting())
    return records


@pytest.mark.parametrize("folder", ["P1", "P1_20230918_135839/P1", "P1_20230918_135839"])
def test_cellvoyager(tmp_path: Path, folder: str) -> None:
    write_cellvoyager(tmp_path / folder)
    plate = find_plate("P1", tmp_path, PlateSettings(stains=STAINS))
    assert plate.channel_source == "MeasurementData.mlf, five.mes"
    assert plate.channel_line.startswith("DNA=C01 DAPI, ER=C02 FITC")
    assert (plate.pixel_um, plate.size) == (0.325, (40, 56))
    assert (plate.sites[0].x_um, plate.sites[0].y_um) == (-567.1, 402.9)
    check_pixels(plate, FIRST, SITES)


def test_cellvoyager_planes_and_errors_of_the_microscope(tmp_path: Path) -> None:
    records = write_cellvoyager(tmp_path / "P1", z=2)
    error = (
        '<bts:MeasurementRecord bts:Type="ERR" bts:Time="2020-01-01T11:00:00.000+01:00" bts:Column="14" bts:Row="3" '
        'bts:TimePoint="1" bts:PartialTileIndex="1" bts:X="-20.0" bts:Y="25.0">AF Error at C14 No. 0</bts:MeasurementRecord>'
    )
    (tmp_path / "P1" / "MeasurementData.mlf").write_text(measurement([*records[:-1], error]))
    plate = find_plate("P1", tmp_path, PlateSettings(stains=STAINS, projection="max", planes={"Mito": (1,)}))
    assert plate.planes == ((1, 2), (1, 2), (1, 2), (1, 2), (1,))
    assert plate.warnings == ("MeasurementData.mlf records 1 errors of the microscope, the first: AF Error at C14 No. 0",)
    for fields in read_fields(plate):
        for row, (well, site) in enumerate(fields.sites):
            both = [noise(well, site, 10 * z + FIRST["RNA"]) for z in (1, 2)]
            np.testing.assert_array_equal(fields.pixels[row, 2].numpy(), np.maximum(*both))
            np.testing.assert_array_equal(fields.pixels[row, 4].numpy(), noise(well, site, 10 + FIRST["Mito"]))


def test_cellvoyager_channels_are_called_by_target_else_filter_else_asked_for(tmp_path: Path) -> None:
    write_cellvoyager(tmp_path / "P1")
    (tmp_path / "P1" / "five.mes").write_text(setting(("x", "x", "x", "x", "x")))
    filters = dict(
        zip(("BP445/45", "BP525/50", "BP600/37", "BP580/30", "BP676/29"), ("DNA", "ER", "AGP", "RNA", "Mito"), strict=True)
    )
    stains = {**PlateSettings().stains, **{k.lower(): v for k, v in filters.items()}}
    check_pixels(find_plate("P1", tmp_path, PlateSettings(stains=stains)), FIRST, SITES)
    (tmp_path / "P1" / "five.mes").unlink()
    with pytest.raises(ValueError, match=r"(?s)no DNA channel.* in MeasurementData.mlf.*\n\"1\" = \"DNA\""):
        find_plate("P1", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a/>", "root element"),
        (f"<!DOCTYPE x [<!ENTITY e 'x'>]><bts:MeasurementData {BTS}>&e;</bts:MeasurementData>", "DTD, entity"),
        (measurement([record("B02", 1, 1)])[:-40], "not well-formed"),
        (measurement([]), "lists no image"),
        (measurement([record("B02", 1, 1).replace('Row="2"', 'Row="-2"')]), "Row must be a whole number"),
        (measurement([record("B02", 1, 1).replace("P1_B02", "../P1_B02")]), "no ER channel"),
        (measurement([record("B02", 1, n) for n in range(1, 6)] * 2), "lists channel DNA twice"),
        (measurement([record("B02", 1, n).replace(">P1_", ">../P1_") for n in range(1, 6)]), "is not a file name; refused"),
    ],
)
def test_measurements_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    write_cellvoyager(tmp_path / "P1")
    (tmp_path / "P1" / "MeasurementData.mlf").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_plate("P1", tmp_path, PlateSettings(stains=STAINS))


NAMED = [
    ("r02c03f01p01-ch1sk1fk1fl1.tiff", "Phenix"),
    ("r02c03f01p01-ch1t01.tiff", "Harmony 5.2"),
    ("001002-1-001001001.tif", "Columbus"),
    ("A000002-PC_C03_T0001F001L01A01Z01C01.tif", "CellVoyager"),
    ("experiment name_B02_s1_w1AD0ABEBC-3BA8-4199-9431-041A4D5B8C32.tif", "ImageXpress"),
    ("HTS_A01_s1_w5.tif", "ImageXpress"),
    ("9987_B02_w1.TIF", "ImageXpress"),
    ("Projection-Mix_E08_s2_w1_thumbC7F53295-5DB8-4989-9E25-DD1068A2E266.tif", None),
    ("notes.txt", None),
    ("cells.tif", None),
]


@pytest.mark.parametrize(("name", "rule"), NAMED)
def test_names_are_their_microscopes(name: str, rule: str | None) -> None:
    result = rule_of(name)
    assert (result.name if result else None) == rule
    assert sum(r.pattern.fullmatch(name) is not None for r in RULES) == (rule is not None)


@pytest.mark.parametrize(
    ("template", "numbers"),
    [
        ("r{row:02d}c{column:02d}f{site:02d}p01-ch{n}t01.tiff", {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}),
        ("{row:03d}{column:03d}-{site}-001001{n:03d}.tif", FIRST),
        ("P1_{well}_T0001F{site:03d}L01A01Z01C{n:02d}.tif", FIRST),
        ("P1_{well}_s{site}_w{n}.tif", FIRST),
        ("{well}_s{site}_w{n}.png", FIRST),  # RxRx's
        ("My_plate_1_{well}_s{site}_w1{n}.TIF", {c: 10 + n for c, n in FIRST.items()}),
        ("R{row:02d}C{column:02d}F{site:02d}P01-CH{n}T01.TIFF", FIRST),
        ("P1_{well}_T0001F{site:03d}L01A01Z01C{n:02d}.png", FIRST),
    ],
)
def test_folders_without_index(tmp_path: Path, template: str, numbers: dict[str, int]) -> None:
    """An image that is missing is called by the name that it should have."""
    for well, site in SITES:
        for n in range(1, 6):
            name = template.format(row=ord(well[0]) - 64, column=int(well[1:]), well=well, site=site, n=n)
            put(tmp_path / "P1" / name, well, site, n)
    settings = PlateSettings() if "ch{n}" in template else PlateSettings(numbers=numbers)
    plate = find_plate("P1", tmp_path, settings)
    check_pixels(plate, FIRST if "w1{n}" in template else numbers, SITES)
    lost = Path(plate.sites[2].files[1] or "")
    lost.unlink()
    again = find_plate("P1", tmp_path, settings)
    bad = [p for fields in read_fields(again) for p in fields.quarantined]
    assert [(p.well, p.site, p.channel) for p in bad] == [("B03", 1, "ER")]
    assert bad[0].file == (str(lost) if "_w" not in template else "")


def test_two_kinds_of_names_in_a_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "P1" / "r02c03f01p01-ch1sk1fk1fl1.tiff", "B03", 1, 1)
    put(tmp_path / "P1" / "001002-1-001001001.tif", "B03", 1, 1)
    with pytest.raises(ValueError, match=r"2 kinds of names, Columbus's \(001002.*Phenix's \(r02c03"):
        find_plate("P1", tmp_path)


PATTERN = r"(?P<well>[A-P]\d\d)_s(?P<site>\d+)_w(?P<channel>\w+)\."


def test_a_pattern_of_the_config(tmp_path: Path) -> None:
    words = {"DNA": "dapi", "ER": "conA", "RNA": "syto", "AGP": "wga", "Mito": "mito"}
    for well, site in SITES:
        for channel, word in words.items():
            put(tmp_path / "P1" / f"mine-{well}_s{site}_w{word}.tif", well, site, FIRST[channel])
    (tmp_path / "P1" / "overview.png").write_bytes(b"")
    plate = find_plate(
        "P1",
        tmp_path,
        PlateSettings(pattern=PATTERN, stains={**PlateSettings().stains, "mito": "Mito", "syto": "RNA", "cona": "ER"}),
    )
    check_pixels(plate, FIRST, SITES)
    assert plate.notes[0] == (
        "[plate] pattern is found in 20 of 21 image files; mine-B02_s1_wconA.tif is well B02, site 1, channel conA; "
        "not in overview.png"
    )


def test_a_pattern_is_tried_by_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for well, site in SITES:
        for n in range(1, 6):
            put(tmp_path / "P1" / f"{well}_s{site:02d}_w{n:02d}.tif", well, site, n)
    config = tmp_path / "c.toml"
    numbers = "\n".join(f"{c} = {n}" for c, n in FIRST.items())
    config.write_text(f"[plate]\npattern = '(?P<well>...)_s(?P<site>..)_w(?P<channel>..)'\n[plate.numbers]\n{numbers}\n")
    asked = ["--plate", "P1", "--images", str(tmp_path), "--config", str(config), "--dry-run"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "P1: 2 wells, 4 sites" in said
    assert "[plate] pattern is found in 20 of 20 image files; B02_s01_w01.tif is well B02, site 01, channel 01" in said
    config.write_text("[plate]\npattern = '(?P<well>..)_s(?P<site>..)_w(?P<channel>..)'\n")
    assert main(asked) == 2
    assert "02_s01_w01.tif" not in capsys.readouterr().out


def test_a_pattern_with_folders_plates_and_rows(tmp_path: Path) -> None:
    for plate in ("P1", "P2"):
        for n in range(1, 6):
            put(tmp_path / "all" / f"{plate}-r2-c3-f1-z1-t1-{n}.tif", "B03", 1, n)
    pattern = r"^(?P<plate>P\d)-r(?P<row>\d)-c(?P<column>\d)-f(?P<site>\d)-z(?P<plane>\d)-t(?P<time>\d)-(?P<channel>\d)"
    plate = find_plate("P2", tmp_path / "all", PlateSettings(pattern=pattern, numbers=FIRST))
    check_pixels(plate, FIRST, [("B03", 1)])
    assert "5 files are of plate P1" in plate.notes[0]
    with pytest.raises(FileNotFoundError, match=r"no file in .* matches .*10 files are of plate P1, P2"):
        find_plate("P3", tmp_path / "all", PlateSettings(pattern=pattern, numbers=FIRST))


def test_a_pattern_reaches_into_folders(tmp_path: Path) -> None:
    for well, site in SITES:
        for channel in CHANNELS:
            put(tmp_path / "P1" / well[0] / well[1:] / f"{channel}_{site}.tif", well, site, FIRST[channel])
    pattern = r"(?P<row>[A-P])/(?P<column>\d+)/(?P<channel>\w+)_(?P<site>\d+)"
    check_pixels(find_plate("P1", tmp_path, PlateSettings(pattern=pattern)), FIRST, SITES)
    with pytest.raises(
        FileNotFoundError, match="in 0 of 0 image files"
    ):  # without a folder in it, names alone are looked at
        find_plate("P1", tmp_path, PlateSettings(pattern=r"(?P<well>...)_(?P<channel>\w+)"))


def test_names_of_no_microscope_are_shown_with_a_pattern_to_paste(tmp_path: Path) -> None:
    put(tmp_path / "P1" / "dapi well 3.tif", "A01", 1, 1)
    with pytest.raises(FileNotFoundError) as error:
        find_plate("P1", tmp_path)
    assert "it has 1 image of other names, dapi well 3.tif first" in str(error.value)
    lines = str(error.value).partition("\n\n")[2]
    assert PlateSettings(**tomllib.loads(lines)["plate"]).pattern
    (tmp_path / "P2").mkdir()
    (tmp_path / "P2" / "A01_s1_w1.JPG").write_bytes(b"\xff\xd8")
    with pytest.raises(FileNotFoundError, match=r"A01_s1_w1.JPG is a JPEG, which is not read"):
        find_plate("P2", tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<well>", "is not a regular expression"),
        ("(?P<site>..)", "name the well by"),
        ("(?P<well>...)(?P<row>.)(?P<column>.)", "name the well by"),
        ("(?P<well>...)(?P<field>.)", "unknown group 'field'; known: plate, well"),
        ("(?P<well>...)" + "x" * 1000, "1013 characters, at most 1000"),
        ("(?P<well>(a{9999}){9999}{9999}{9999})", "regular expression|no file in"),
        (r"(?P<well>[A-P]\d\d)_s(?P<site>\w+?)_", "site must be a whole number, got '1x'"),
        (r"(?P<well>_B)", "well '_B' is not a well"),
    ],
)
def test_patterns_that_are_refused(tmp_path: Path, pattern: str, message: str) -> None:
    put(tmp_path / "P1" / "P1_B02_s1x_w1.tif", "B02", 1, 1)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_plate("P1", tmp_path, PlateSettings(pattern=pattern, numbers=FIRST))


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<well>(\w+)*)=(?P<site>\d)",
        r"(?P<well>(a|a)*)b(?P<site>\d)",
        r"(?P<well>(\w*)*(\w*)*(\w*)*)=",
        r"(?P<well>\w*\w*\w*\w*\w*\w*\w*)=",
        r"(?P<well>(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^.]$)",
        r"(?P<well>(?:(?:\w+)+)+)\1=",
    ],
)
def test_no_pattern_hangs(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "P1").mkdir()
    for k in range(40):
        (tmp_path / "P1" / f"{'a' * 200}{k:02d}.tif").write_bytes(b"")
    started = time.perf_counter()
    with pytest.raises((ValueError, FileNotFoundError), match=r"takes too long|no file in|is not a well|no DNA channel"):
        find_plate("P1", tmp_path, PlateSettings(pattern=pattern))
    assert time.perf_counter() - started < 30


def test_a_pattern_is_no_setting_of_the_numbers() -> None:
    from jumpgpu.settings.config import Config
    from jumpgpu.settings.numbers import changed_settings

    assert changed_settings(Config(plate=PlateSettings(pattern="(?P<well>...)"))) == {}
    assert changed_settings(Config(plate=PlateSettings(projection="max"))) == {"plate": {"projection": "max"}}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.floats(0, 1),
    put_in=st.binary(max_size=12),
    cut=st.integers(0, 40),
    which=st.sampled_from(["htd", "mlf", "mrf", "mes"]),
)
def test_spoilt_descriptions_end_in_words(tmp_path: Path, at: float, put_in: bytes, cut: int, which: str) -> None:
    """Bytes written into, and cut out of, any of them: a plate, or an error of a reader's own."""
    folder = tmp_path / which
    if not folder.exists():
        folder.mkdir()
        (folder / "P1_B02_s1_w1.tif").write_bytes(b"")
    whole = {
        "htd": htd(),
        "mlf": measurement([record("B02", 1, n) for n in range(1, 6)]),
        "mrf": detail(),
        "mes": setting(),
    }
    names = {"htd": "P1.HTD", "mlf": "MeasurementData.mlf", "mrf": "MeasurementDetail.mrf", "mes": "five.mes"}
    for kind, text in whole.items():
        if (kind == "htd") != (which == "htd"):
            continue
        data = text.encode()
        if kind == which:
            place = int(at * len(data))
            data = data[:place] + put_in + data[place + cut :]
        (folder / names[kind]).write_bytes(data)
    try:
        plate = find_plate("P1", folder, PlateSettings(stains=STAINS))
    except (ValueError, FileNotFoundError):
        return
    assert plate.sites


def test_a_pattern_that_is_not_used_is_said(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    table = tmp_path / "load_data.csv"
    table.write_text(load_data_csv(str(images)))
    plate = find_source("BR00000001", table, PlateSettings(pattern=PATTERN))
    assert plate.warnings[-1] == "[plate] pattern is not used: load_data.csv says which file is which"
