"""Index files under every name that Harmony and Columbus give them, and whose sizes and units count."""

import json
from pathlib import Path

import pytest

from jumpgpu.images.indexes.harmony import index_names
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import CHANNELS
from tests.helpers.image_plates import STAINS, index_xml, load_data_csv, write_plate

BARCODE = "BR00000001"
ROTATED = {1: "HOECHST 33342", 2: "Alexa 488", 3: "488 long", 4: "Alexa 568", 5: "Alexa 647"}  # not CPJUMP1's numbers
SPELLINGS = [
    "Index.idx.xml",
    "Index.xml",
    "Index.ref.xml",
    "index.idx.xml",
    "INDEX.XML",
    "index.Ref.xml",
    "ImageIndex.ColumbusIDX.xml",
    "imageindex.columbusidx.xml",
]
UNREAD = ["Index.flex.xml", "MyIndex.xml", "Index (1).xml", "index.idx.xml.gz", "PlateIndex.XML", "Index.idx.xml.bak"]


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_an_index_says_the_channels(tmp_path: Path, name: str, above: bool) -> None:
    images = write_plate(tmp_path)
    ((images.parent if above else images) / name).write_text(index_xml(stains=ROTATED))
    plate = find_plate(BARCODE, tmp_path)
    assert plate.channel_source == name
    assert [Path(f or "").name[13:16] for f in plate.sites[0].files] == ["ch1", "ch2", "ch3", "ch4", "ch5"]
    assert not plate.warnings


def test_folders_named_images_in_any_case(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    (images / "Index.xml").write_text(index_xml(stains=ROTATED))
    images.rename(images.with_name("images"))
    assert find_plate(BARCODE, tmp_path).channel_source == "Index.xml"


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", UNREAD)
def test_an_index_that_is_not_read_refuses_and_is_named(tmp_path: Path, name: str, above: bool) -> None:
    images = write_plate(tmp_path)
    place = images.parent if above else images
    (place / name).write_text(index_xml(stains=ROTATED))
    with pytest.raises(ValueError, match=r"an index file with an unknown name") as caught:
        find_plate(BARCODE, tmp_path)
    assert f"{BARCODE}: {place / name}" in str(caught.value)
    (tmp_path / "load_data.csv").write_text(load_data_csv(str(images)))  # says the channels itself
    assert find_plate(BARCODE, tmp_path).channel_source == "load_data.csv"


def test_what_is_no_index_is_no_matter(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    for name in ("._Index.idx.xml", "MeasurementIndex.ColumbusIDX.xml", "notes.xml", "index.txt"):
        (images / name).write_text("x")
    plate = find_plate(BARCODE, tmp_path)
    assert plate.channel_source.startswith("the config's plate.numbers")
    assert plate.warnings == (
        "no index or load_data.csv says which channel is which; [plate.numbers] of the settings is assumed: DNA = 5, "
        "ER = 4, RNA = 3, AGP = 2, Mito = 1",
    )
    assert index_names(["a.tiff", "Index.ref.xml", "index.idx.xml"]) == (["index.idx.xml", "Index.ref.xml"], [])


def test_two_indexes_must_agree(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    (images / "Index.idx.xml").write_text(index_xml(stains=ROTATED))
    (images / "Index.ref.xml").write_text(index_xml(stains=ROTATED))
    plate = find_plate(BARCODE, tmp_path)
    assert plate.channel_source == "Index.idx.xml"
    assert plate.notes == ("Index.ref.xml names the same channels as Index.idx.xml, which is read",)
    (images / "Index.ref.xml").write_text(index_xml(stains=STAINS))
    with pytest.raises(
        ValueError, match=r"Index.idx.xml says that channel 1 is 'HOECHST 33342', .*Index.ref.xml .*'Alexa 647'"
    ):
        find_plate(BARCODE, tmp_path)
    (images / "Index.ref.xml").write_text("nothing")
    assert "cannot be read" in find_plate(BARCODE, tmp_path).notes[0]


def test_a_channel_with_two_names_is_refused(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    (images / "Index.xml").write_text(index_xml().replace("HOECHST 33342", "Alexa 750", 1))
    with pytest.raises(ValueError, match="calls channel 5 both 'Alexa 750' and 'HOECHST 33342'"):
        find_plate(BARCODE, tmp_path, PlateSettings(stains={**PlateSettings().stains, "alexa 750": "DNA"}))


def columbus(page: int) -> str:
    """An index as Columbus writes it: another namespace, a page of the file in each URL."""
    text = index_xml(stains=ROTATED, namespace="http://www.perkinelmer.com/Columbus")
    return text.replace("<URL>", f"<URL BufferNo='{page}'>")


def test_columbus_files_of_one_image_each(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    index = images / "ImageIndex.ColumbusIDX.xml"
    index.write_text(columbus(0))
    plate = find_plate(BARCODE, tmp_path)
    assert len(plate.sites) == 6
    assert "#" not in "".join(str(f) for site in plate.sites for f in site.files)
    index.write_text(columbus(2))
    bad = [p for fields in read_fields(find_plate(BARCODE, tmp_path)) for p in fields.quarantined]
    assert len(bad) == 30
    assert {p.reason.partition(": ")[2] for p in bad} == {"1 pages, and page 3 is wanted"}


def changed(tag: str, value: str, channel: int | None = None, unit: str | None = None) -> str:
    """An index with one leaf of a channel's images, or of all, changed."""
    parts = index_xml(stains={6: "Brightfield", **STAINS}).split("</Image>")
    for i, part in enumerate(parts):
        if channel is None or f"<ChannelID>{channel}<" in part:
            start = part.find(f"<{tag}")
            if start >= 0:
                end = part.index("</", start)
                unit_text = part[start:].split(">", 1)[0] if unit is None else f"<{tag} Unit='{unit}'"
                parts[i] = f"{part[:start]}{unit_text}>{value}{part[end:]}"
    return "</Image>".join(parts)


def test_sizes_are_those_of_the_measured_channels(tmp_path: Path) -> None:
    index = write_plate(tmp_path) / "Index.idx.xml"
    index.write_text(changed("ImageSizeX", "112", 6))  # of brightfield, and the first images of the index
    assert find_plate(BARCODE, tmp_path).size == (40, 56)
    index.write_text(changed("ImageResolutionX", "1.18E-06", 6))
    assert find_plate(BARCODE, tmp_path).pixel_um == pytest.approx(0.59)
    assert find_plate(BARCODE, tmp_path, PlateSettings(channels=("Brightfield",))).pixel_um == pytest.approx(1.18)
    index.write_text(changed("ImageSizeX", "wide", 6))
    assert find_plate(BARCODE, tmp_path).size == (40, 56)
    index.write_text(changed("ImageSizeX", "112", 3))
    with pytest.raises(ValueError, match=r"differ in size \(.*channel 3 488 long 40 x 112 pixels.*plate.channels"):
        find_plate(BARCODE, tmp_path)
    assert find_plate(BARCODE, tmp_path, PlateSettings(channels=("DNA", "ER"))).size == (40, 56)
    index.write_text(changed("ImageResolutionX", "1.18E-06", 3))
    with pytest.raises(ValueError, match=r"differ in pixels of \(.*channel 3 488 long 1.18 um"):
        find_plate(BARCODE, tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "um"),
    [
        ("5.9E-07", "m", 0.59),
        ("5.9E-07", "", 0.59),
        ("0.59", "um", 0.59),
        ("0.59", "µm", 0.59),
        ("0.59", "μm", 0.59),
        ("590", "nm", 0.59),
        ("0.00059", "mm", 0.59),
        ("590", "furlong", None),
        ("-1", "m", None),
        ("0", "m", None),
    ],
)
def test_units_are_honoured(tmp_path: Path, value: str, unit: str, um: float | None) -> None:
    index = write_plate(tmp_path) / "Index.idx.xml"
    index.write_text(changed("ImageResolutionX", value, unit=unit), encoding="utf-8")
    if um is None:
        with pytest.raises(ValueError, match=rf"{BARCODE}: Index.idx.xml: channel .*(ImageResolutionX is in|not square)"):
            find_plate(BARCODE, tmp_path)
    else:
        assert find_plate(BARCODE, tmp_path).pixel_um == pytest.approx(um)
    index.write_text(changed("PositionX", "3.25", unit="mm"))
    assert {s.x_um for s in find_plate(BARCODE, tmp_path).sites} == {3250.0}
    index.write_text(changed("PositionX", "3.25", unit="furlong"))
    plate = find_plate(BARCODE, tmp_path)
    assert {s.x_um for s in plate.sites} == {None}
    assert plate.notes == ("Index.idx.xml: 36 positions of images are not lengths; they are left out",)


def test_pixels_may_differ_by_a_thousandth(tmp_path: Path) -> None:
    index = write_plate(tmp_path) / "Index.idx.xml"
    text = index_xml()
    for down, square in (("5.9000001E-07", True), ("5.8E-07", False)):
        index.write_text(text.replace("<ImageSizeX>", f"<ImageResolutionY Unit='m'>{down}</ImageResolutionY><ImageSizeX>"))
        if square:
            assert find_plate(BARCODE, tmp_path).pixel_um == pytest.approx(0.59)
        else:
            with pytest.raises(ValueError, match="pixels are not square"):
                find_plate(BARCODE, tmp_path)


def test_channels_described_apart_as_harmony_7_does(tmp_path: Path) -> None:
    """Pixel and image size in Maps, where an image does not say them itself."""
    index = write_plate(tmp_path) / "Index.xml"
    text = index_xml()
    leaves = ("ImageResolutionX", "ImageSizeX", "ImageSizeY", "ChannelName")
    for tag in leaves:
        while (start := text.find(f"<{tag}")) >= 0:
            text = text[:start] + text[text.index(f"</{tag}>", start) + len(tag) + 3 :]
    entries = "".join(
        f"<Entry ChannelID='{n}'><ChannelName>{s}</ChannelName><ImageResolutionX Unit='mm'>0.0005</ImageResolutionX>"
        "<ImageSizeX>56</ImageSizeX><ImageSizeY>40</ImageSizeY></Entry>"
        for n, s in ROTATED.items()
    )
    index.write_text(text.replace("<Map></Map>", f"<Map><Entry ChannelID='1'></Entry></Map><Map>{entries}</Map>"))
    plate = find_plate(BARCODE, tmp_path)
    assert (plate.pixel_um, plate.size) == (pytest.approx(0.5), (40, 56))
    assert plate.channel_labels[0] == "ch1 HOECHST 33342"


def test_the_config_adds_to_numbers_and_stains(tmp_path: Path) -> None:
    from jumpgpu.settings.config import load_config

    config = tmp_path / "lab.toml"
    config.write_text('[plate.stains]\n"My Red Dye" = "agp"\n[plate.numbers]\ndna = 1\nMito = 5\n')
    plate = load_config(config).plate
    assert plate.stains["my red dye"] == "AGP"
    assert plate.stains["hoechst"] == "DNA"
    assert {c: plate.numbers[c] for c in CHANNELS} == {"DNA": 1, "ER": 4, "RNA": 3, "AGP": 2, "Mito": 5}
    images = write_plate(tmp_path)
    files = find_plate(BARCODE, tmp_path, plate).sites[0].files
    assert [Path(f or "").name[13:16] for f in files] == ["ch1", "ch4", "ch3", "ch2", "ch5"]
    config.write_text("[plate.numbers]\nDNA = 1\n")
    with pytest.raises(
        ValueError,
        match=r"plate.numbers has no Phenix channel number for Mito\. .*\n\n\[plate.numbers\]\n(.*\n)*Mito = [0-9]",
    ):
        find_plate(BARCODE, tmp_path, load_config(config).plate)
    stains = {1: "Foo", 2: "Alexa 568", 3: "Bar B", 4: "Alexa 488", 5: "HOECHST 33342"}
    (images / "Index.idx.xml").write_text(index_xml(stains=stains))
    with pytest.raises(ValueError, match=r"no RNA channel, no Mito channel in Index.idx.xml") as caught:
        find_plate(BARCODE, tmp_path)
    block = str(caught.value).partition("\n\n")[2]
    assert block == '[plate.stains]\n"Foo" = "RNA"\n"Bar B" = "Mito"'
    config.write_text(block)  # it can be pasted
    assert find_plate(BARCODE, tmp_path, load_config(config).plate).channel_labels[2] == "ch1 Foo"
    config.write_text('[plate]\nchannels = ["dna", "Er", "HIGHZBF", "mine"]\n[plate.c_axis]\ndna = 0\nMITO = 1\n')
    assert load_config(config).plate.channels == ("DNA", "ER", "HighZBF", "mine")
    assert load_config(config).plate.c_axis == {"DNA": 0, "Mito": 1}
    config.write_text(f"[plate.stains]\n{json.dumps('Foo')} = 'RNA'\n'foo' = 'Mito'\n")
    with pytest.raises(ValueError, match="stains gives two values for 'foo'"):
        load_config(config)


def test_a_greatest_count_that_is_not_taken_is_said(tmp_path: Path) -> None:
    """A camera of 12 bits, as an index or a table gives it; CellProfiler divides by what the images say, or by 65535."""
    images = write_plate(tmp_path)
    for value, channels in (("4095", "DNA 4095"), ("65535", ""), ("65536", ""), ("4095.0", "DNA 4095.0")):
        text = index_xml().replace("<ChannelID>5<", f"<MaxIntensity>{value}</MaxIntensity><ChannelID>5<")
        (images / "Index.xml").write_text(text)
        warnings = find_plate(BARCODE, tmp_path).warnings
        assert len(warnings) == bool(channels)
        assert not channels or warnings[0].startswith(f"Index.xml gives MaxIntensity {channels}: not taken for the scale")
        assert not find_plate(BARCODE, tmp_path, PlateSettings(scale=4095)).warnings
        assert not find_plate(BARCODE, tmp_path, PlateSettings(channels=("ER",))).warnings
    header, *rows = load_data_csv(str(images)).splitlines()
    for column, said in (("Metadata_MaxIntensity", "DNA 4095, ER 4095"), ("Metadata_MaxIntensity_OrigRNA", "RNA 4095")):
        (tmp_path / "load_data.csv").write_text("\n".join([f"{header},{column}", *(f"{r},4095" for r in rows)]))
        (warning,) = find_plate(BARCODE, tmp_path / "load_data.csv").warnings
        assert warning.startswith(f"load_data.csv gives MaxIntensity {said}")
