"""Plates are found and read from an index, a load_data.csv or file names; what is wrong is named."""

import math
from pathlib import Path

import pytest

from jumpgpu.images.channels import channel_of, match_channels
from jumpgpu.images.indexes.flatfield import parse_flatfield
from jumpgpu.images.indexes.from_index import from_index
from jumpgpu.images.indexes.from_table import prefix_of
from jumpgpu.images.indexes.harmony import Index, read_index
from jumpgpu.images.indexes.load_data import read_load_data
from jumpgpu.images.locate import find_plate
from jumpgpu.settings.config import PlateSettings, load_config
from jumpgpu.settings.names import BRIGHTFIELD, CHANNELS
from tests.helpers.image_plates import STAINS, index_xml, load_data_csv, noise, write_plate, write_tiff


def test_file_names_and_short_barcode(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    plate = find_plate("BR00000001", tmp_path)
    assert plate.folder == images
    assert plate.channels == CHANNELS
    assert plate.wells == ("A01", "B03")
    assert [(s.well, s.site) for s in plate.sites] == [(w, s) for w in ("A01", "B03") for s in (1, 2, 5)]
    assert plate.sites[1].files[0] == str(images / "r01c01f02p01-ch5sk1fk1fl1.tiff")
    assert "plate.numbers" in plate.channel_source
    assert find_plate("BR00000001", images.parent).sites == plate.sites
    assert find_plate("BR00000001", images).sites == plate.sites


def test_absent_image_has_its_expected_name(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    (images / "r02c03f05p01-ch3sk1fk1fl1.tiff").unlink()
    site = find_plate("BR00000001", tmp_path).select(["B03"], [5])[0]
    assert site.files[CHANNELS.index("RNA")] == str(images / "r02c03f05p01-ch3sk1fk1fl1.tiff")


def test_index_wins_over_file_names_and_config(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    swapped = {1: "HOECHST 33342", 2: "Alexa 568", 3: "488 long", 4: "Alexa 488", 5: "Alexa 647"}
    (images / "Index.idx.xml").write_text(index_xml(stains=swapped, name="other"))
    plate = find_plate("BR00000001", tmp_path)
    assert plate.channel_source == "Index.idx.xml"
    assert plate.channel_line.startswith("DNA=ch1 HOECHST 33342, ER=ch4 Alexa 488")
    assert plate.sites[0].files[0] == str(images / "r01c01f01p01-ch1sk1fk1fl1.tiff")
    assert plate.pixel_um == pytest.approx(0.59)
    assert plate.size == (40, 56)
    assert (plate.sites[2].x_um, plate.sites[2].y_um) == pytest.approx((5.0, -5.0))
    assert plate.notes == ("Index.idx.xml calls the plate 'other', not BR00000001",)


def test_index_above_the_images(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    (images.parent / "Index.idx.xml").write_text(index_xml())
    assert find_plate("BR00000001", tmp_path).channel_source == "Index.idx.xml"
    with pytest.raises(ValueError, match=rf"Index.idx.xml says .* outside the images root .*give --images {images.parent}"):
        find_plate("BR00000001", images)  # the root is the Images folder itself


def test_load_data_paths(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    table = tmp_path / "load_data.csv"
    for folder in (str(images), f"{images}/", str(images.relative_to(tmp_path))):
        table.write_text(load_data_csv(folder))
        plate = find_plate("BR00000001", table)
        assert plate.sites == find_plate("BR00000001", images).sites
        assert plate.channel_source == "load_data.csv"
    table.write_text(load_data_csv("/cluster/run 1/Images/"))
    with pytest.raises(ValueError, match=r"outside the images root.*plate.remap"):
        find_plate("BR00000001", table)
    plate = find_plate("BR00000001", table, PlateSettings(remap={"/cluster/run 1/Images": str(images)}))
    assert Path(plate.sites[0].files[0] or "").is_file()
    table.write_text(load_data_csv(r"D:\data\Images"))
    plate = find_plate("BR00000001", table, PlateSettings(remap={r"D:\data": str(images.parent)}))
    assert Path(plate.sites[0].files[0] or "").is_file()


def doubled(table: str, *columns: str) -> str:
    """A table with further columns, of the last column's cells."""
    header, *rows = table.splitlines()
    lines = [",".join([header, *columns]), *(",".join([row, *[row.split(",")[-1]] * len(columns)]) for row in rows)]
    return "\n".join(lines) + "\n"


def test_original_is_no_channel_called_inal(tmp_path: Path) -> None:
    table = tmp_path / "load_data.csv"
    table.write_text(doubled(load_data_csv("."), "FileName_Original", "PathName_Original", "URL_Illumination", "URL_Orig"))
    data = read_load_data(table, "BR00000001")
    assert data.channels == ["Mito", "AGP", "RNA", "ER", "DNA", "Original", "Illumination", "Orig"]
    assert len(find_plate("BR00000001", table).sites) == 6


def test_url_and_file_name_of_one_column_are_one(tmp_path: Path) -> None:
    table = tmp_path / "load_data.csv"
    header, *rows = load_data_csv(".").splitlines()
    dna = header.split(",").index("FileName_OrigDNA")
    table.write_text("\n".join([f"{header},URL_OrigDNA", *(f"{r},s3://b/images/{r.split(',')[dna]}" for r in rows)]))
    assert read_load_data(table, "BR00000001").rows[0].files["DNA"] == (".", "r01c01f01p01-ch5sk1fk1fl1.tiff")


def test_load_data_sizes_are_those_of_the_measured_channels(tmp_path: Path) -> None:
    table = tmp_path / "load_data.csv"

    def result(columns: dict[str, str], **settings: object) -> tuple[float | None, tuple[int, int] | None]:
        header, *rows = load_data_csv(".").splitlines()
        lines = [",".join([header, *columns]), *(",".join([row, *columns.values()]) for row in rows)]
        table.write_text("\n".join(lines))
        plate = find_plate("BR00000001", table, PlateSettings(**settings))  # type: ignore[arg-type]
        return plate.pixel_um, plate.size

    sizes = {"Metadata_ImageSizeX": "56", "Metadata_ImageSizeY": "40", "Metadata_ImageResolutionX": "5.9e-07"}
    assert result(sizes) == (pytest.approx(0.59), (40, 56))
    assert result({**sizes, "Metadata_ChannelName": "Alexa 647"}) == (pytest.approx(0.59), (40, 56))
    assert result({**sizes, "Metadata_ChannelName": "Brightfield"}) == (None, None)  # the images themselves say it
    per_channel = {f"Metadata_ImageSizeX_Orig{c}": "56" for c in CHANNELS}
    per_channel |= {"Metadata_ImageSizeX_OrigBrightfield": "112", "Metadata_ImageSizeY": "40"}
    assert result(per_channel) == (None, (40, 56))
    with pytest.raises(ValueError, match=r"load_data.csv: BR00000001: .*differ in size \(.*RNA 40 x 112 pixels"):
        result({**per_channel, "Metadata_ImageSizeX_OrigRNA": "112"})
    assert result({**per_channel, "Metadata_ImageSizeX_OrigRNA": "112"}, channels=("DNA",)) == (None, (40, 56))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("Metadata_Site", "Site"), "no column Metadata_Site"),
        (lambda t: t.replace("PathName_OrigER", "Path_OrigER"), "FileName_OrigER without PathName_OrigER"),
        (lambda t: t.replace("OrigDNA", "OrigXYZ"), "no DNA channel in load_data.csv"),
        (lambda t: doubled(t, "FileName_DNA", "PathName_DNA"), "columns FileName_OrigDNA and FileName_DNA are both the DNA"),
        (lambda t: doubled(t, "URL_DNA"), "columns FileName_OrigDNA and URL_DNA are both the DNA"),
        (
            lambda t: doubled(t, "URL_OrigDNA").replace(",.\n", ",s3://b/x.tiff\n"),
            "URL_OrigDNA is .*x.tiff' and FileName_OrigDNA",
        ),
        (lambda t: doubled(t, "FileName_Orig_DNA", "PathName_Orig_DNA"), "FileName_OrigDNA and FileName_Orig_DNA are both"),
        (lambda t: doubled(t, "FileName_dna", "PathName_dna"), "more than one DNA channel in .*'DNA'.* 'dna'"),
        (lambda t: doubled(t, "FileName_Hoechst", "PathName_Hoechst"), "more than one DNA channel in .*'Hoechst'"),
        (lambda t: t.replace("A01,1", "A01,x"), "Metadata_Site must be a whole number"),
        (lambda t: t.replace("A01,1", "A99,1"), "A99"),
        (lambda t: t.replace("A01,1", "=SUM(1),1"), "is not a well"),
        (lambda t: t.replace("A01,2", "A01,1"), "A01 site 1 appears twice"),
        (lambda t: t.replace("BR00000001", "BR9"), "no row with Metadata_Plate BR00000001; it has BR9"),
        (lambda t: t.replace("r01c01f01p01-ch5", "../x/r01c01f01p01-ch5"), "not a file name"),
        (lambda t: t[:-1] + ",1\n", "more cells"),
        (lambda t: "", "no column Metadata_Plate"),
    ],
)
def test_load_data_errors(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "load_data.csv").write_text(change(load_data_csv(".")))
    with pytest.raises(ValueError, match=message):
        find_plate("BR00000001", tmp_path / "load_data.csv")


def test_errors_name_plate_and_remedy(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no plate BR7 .*there is BR00000001__2020"):
        find_plate("BR7", tmp_path)
    with pytest.raises(FileNotFoundError, match="give --images"):
        find_plate("BR7", tmp_path / "absent")
    with pytest.raises(ValueError, match="not a plate barcode"):
        find_plate("../BR7", tmp_path)
    with pytest.raises(ValueError, match="no HighZBF channel"):
        find_plate("BR00000001", tmp_path, PlateSettings(channels=(*CHANNELS, "HighZBF")))
    with pytest.raises(ValueError, match="unknown channel 'DNS'"):
        find_plate("BR00000001", tmp_path, PlateSettings(channels=("DNS",)))
    plate = find_plate("BR00000001", tmp_path)
    with pytest.raises(ValueError, match=r"no images of well C01; it has 2 wells, A01 .. B03"):
        plate.select(["C01"])
    with pytest.raises(ValueError, match=r"no site 3; its sites are 1, 2, 5"):
        plate.select(None, [3])
    write_plate(tmp_path / "again")
    (tmp_path / "again/BR00000001__2020-11-08T18_18_00-Measurement1").rename(tmp_path / "BR00000001__2021")
    with pytest.raises(ValueError, match=r"2 measurements"):
        find_plate("BR00000001", tmp_path)
    (images / "Index.idx.xml").write_text(index_xml(stains={**STAINS, 5: "strange dye"}))
    with pytest.raises(ValueError, match=r"no DNA channel in Index.idx.xml, which has .*ch5 'strange dye'"):
        find_plate("BR00000001", images)


def test_several_planes_ask_for_a_choice(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    write_tiff(images / "r01c01f01p02-ch1sk1fk1fl1.tiff", noise("A01", 1, 1))
    with pytest.raises(ValueError, match=r"planes \[1, 2\] of Mito; set plate.plane"):
        find_plate("BR00000001", tmp_path)
    assert len(find_plate("BR00000001", tmp_path, PlateSettings(plane=1)).sites) == 6


def test_index_lists_no_image_of_a_channel_at_one_site(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    text = index_xml()
    start = text.index("<Image Version")
    (images / "Index.xml").write_text(text[:start] + text[text.index("</Image>") + 8 :])
    assert find_plate("BR00000001", tmp_path).sites[0].files[CHANNELS.index("Mito")] is None


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("DNA", "DNA"),
        ("HOECHST 33342", "DNA"),
        ("Alexa 488 Em 650", "RNA"),
        ("488 650", "RNA"),
        ("Alexa 488 (corrected)", "ER"),
        ("Brightfield high", "HighZBF"),
        ("Digital Phase Contrast", None),
        ("dna", "DNA"),
        ("MitoTracker Alexa 568", "Mito"),  # what is looked at outranks the light
        ("Phalloidin Alexa 647", "AGP"),
        ("Alexa Fluor 647 Phalloidin", "AGP"),
        ("Phalloidin-Alexa488", "AGP"),
        ("WGA Alexa 647", "AGP"),
        ("Wheat Germ Agglutinin AF647", "AGP"),
        ("Concanavalin A Alexa 647", "ER"),
        ("ConA-Alexa568", "ER"),
        ("SYTO14 Alexa 568", "RNA"),
        ("SYTO 14 (488 long)", "RNA"),
        ("Hoechst Alexa 647", "DNA"),
        ("DAPI 488", "DNA"),
        ("MitoTracker Deep Red", "Mito"),
        ("Mito Alexa 568", "Mito"),
        ("Alexa 488 RNA", "RNA"),
        ("Alexa488", "ER"),
        ("Alexa Fluor 568", "AGP"),
        ("alexa  647", "Mito"),
        ("Cy5", None),
        ("405ex, 570-630-em)", None),
    ],
)
def test_stains(name: str, channel: str | None) -> None:
    assert channel_of(name, PlateSettings().stains) == channel


def test_ambiguous_stain() -> None:
    with pytest.raises(ValueError, match=r"fits AGP .*and Mito"):
        channel_of("Alexa 568 647", PlateSettings().stains)
    for name, both in (
        ("MitoTracker Phalloidin", "AGP .*and Mito"),
        ("Hoechst / SYTO 14", "DNA .*and RNA"),
        ("ER RNA 488", "ER .*and RNA"),
        ("WGA, concanavalin A Alexa 488", "AGP .*and ER"),
    ):
        with pytest.raises(ValueError, match=f"channel name '{name}' fits {both}"):
            channel_of(name, PlateSettings().stains)


def test_a_channel_by_its_own_name_wins_over_names_that_contain_it(tmp_path: Path) -> None:
    write_plate(tmp_path)
    table = tmp_path / "load_data.csv"
    header, *rows = load_data_csv(".").splitlines()
    lines = [f"{header},FileName_DNA_mask,PathName_DNA_mask", *(f"{row},x.tiff,." for row in rows)]
    table.write_text("\n".join(lines))
    assert "ch5" in (find_plate("BR00000001", table).sites[0].files[0] or "")


def test_flatfield_profile() -> None:
    profile = parse_flatfield(
        "{Background: {Mean: 1, NonFlatness: {Random: INF}, Profile: {Coefficients: [[1.2], [NaN, -INF]], Dims: [10, 20], "
        "Origin: [4.5, 9.5], Scale: [0.1, 1e-1], Type: Polynomial}, Quality: 1.0}, ChannelName: Alexa 488}",
        "x",
    )
    assert profile.dims == (10, 20)
    assert profile.coefficients[0] == (1.2,)
    assert math.isnan(profile.coefficients[1][0])
    assert profile.coefficients[1][1] == -math.inf
    assert not profile.usable
    assert profile.scale == (0.1, 0.1)
    identity = parse_flatfield("{Background: {Character: Null, Mean: NaN, Profile: {Type: Identity}, Quality: 0.25}}", "x")
    assert identity.coefficients == ()
    for text in (
        "",
        "{Background: {}}",
        "{Background: {Profile: {Type: Spline}}}",
        "{Background: {Profile: {Type: Polynomial}}}",
    ):
        with pytest.raises(ValueError, match="x: "):
            parse_flatfield(text, "x")


def read(path: Path) -> Index:
    with open(path, "rb") as file:
        return read_index(path, file)


def test_real_indexes(shared: Path) -> None:
    v5 = read(shared / "data/harmony/v5/Index.idx.xml")
    assert v5.name == "BR00122249"
    assert v5.geometry([3, 4], "v5") == (pytest.approx(0.5979760809567617), (1080, 1080))
    assert (v5.images[0].x_um, v5.images[0].y_um) == pytest.approx((-322.907, -322.907))
    assert v5.flatfields[3].coefficients[2] == (-1.9677, 0.0603, -2.7414)
    assert v5.flatfields[1].coefficients == ()
    settings = PlateSettings(channels=("ER", "RNA", "AGP", "Mito", "HighZBF"))
    folder = shared / "data/harmony/v5"
    plate = from_index("BR00122249", folder / "Index.idx.xml", folder, folder, settings, read(folder / "Index.idx.xml"))
    table = read_load_data(folder / "load_data.csv", "BR00122249").rows[0]
    for channel, file in zip(plate.channels, plate.sites[0].files, strict=True):
        name = "Brightfield" if channel == "HighZBF" else channel
        assert Path(file or "").name == table.files[name][1]
    folder = shared / "data/harmony/v7"
    plate = from_index(
        "P",
        folder / "Index.xml",
        folder,
        folder,
        PlateSettings(channels=(*CHANNELS, "Brightfield")),
        read(folder / "Index.xml"),
    )
    table = read_load_data(folder / "load_data.csv", "240624_WES_Perturbs_n_densities_1.1").rows[0]
    for channel, file in zip(plate.channels, plate.sites[0].files, strict=True):
        assert Path(file or "").name == table.files[channel][1]
    assert plate.size == (2160, 2160)
    assert set(plate.flatfields) == set(plate.channels)


def test_real_load_data(shared: Path) -> None:
    folder = shared / "data/load_data"
    plate = find_plate("BR00117035", folder, PlateSettings(remap={"/data/bucket/": "/mnt"}))
    assert len(plate.sites) == 9
    assert (
        plate.channel_line
        == "DNA=ch5 DNA, ER=ch4 ER, RNA=ch3 RNA, AGP=ch2 AGP, Mito=ch1 Mito; from BR00117035_load_data.csv"
    )
    assert plate.sites[8].files[0] == (
        "/mnt/cpg0016-jump/source_4/images/2021_04_26_Batch1/images/BR00117035__2021-05-02T16_02_51-Measurement1/Images/"
        "r01c01f09p01-ch5sk1fk1fl1.tiff"
    )
    settings = PlateSettings(remap={"s3://cellpainting-gallery": "/mnt"}, channels=(*CHANNELS, *BRIGHTFIELD))
    url = find_plate("BR00117035", folder / "BR00117035_load_data_url.csv", settings)
    assert url.sites[0].files[:5] == plate.sites[0].files
    assert url.channel_labels[4:] == ("ch1 Mito", "ch6 Brightfield_H", "ch7 Brightfield_L", "ch8 Brightfield")
    assert url.pixel_um == pytest.approx(0.5979760809567617)
    table = folder / "BR00143976_load_data_with_illum.csv"
    settings = PlateSettings(remap={"/data/ALSF_pilot_data": "/mnt"}, channels=(*CHANNELS, "Brightfield"))
    plate = find_plate("BR00143976", table, settings)
    assert plate.wells == ("C03", "D03", "E03")
    assert plate.sites[0].files[0] == (
        "/mnt/SN0313537/BR00143976__2024-07-04T16_04_45-Measurement 2/Images/r03c03f01p01-ch5sk1fk1fl1.tiff"
    )


@pytest.mark.parametrize(
    "written", ["/cluster/{plate}/Images", r"E:\scope\{plate}\Images\ ".strip(), "/mnt/other/run/{plate}/Images/"]
)
def test_a_table_of_another_machine_finds_its_images_below_the_root(tmp_path: Path, written: str) -> None:
    images = write_plate(tmp_path)
    table = tmp_path / "load_data.csv"
    table.write_text(load_data_csv(written.format(plate=images.parent.name)))
    plate = find_plate("BR00000001", table)
    assert plate.sites == find_plate("BR00000001", images).sites
    assert any("which is not here; its images are read from" in w for w in plate.warnings)
    beside = images / "load_data.csv"  # or beside the table
    beside.write_text(load_data_csv("/gone/away"))
    assert find_plate("BR00000001", beside).sites == plate.sites
    for bad in ("/cluster/../Images", "/cluster/Imag\x07es"):
        table.write_text(load_data_csv(bad))
        with pytest.raises(ValueError, match=r"refused|outside"):
            find_plate("BR00000001", table)


def test_a_suggested_prefix_ends_at_a_folder() -> None:
    long = "/a_share/of_the_institute/with/many/folders/and/a_plate_of_long_name/Images"
    assert prefix_of(long) == "/a_share/of_the_institute/with/many/folders/and"
    assert prefix_of("/short/Images") == "/short/Images"
    assert prefix_of("C:\\data\\" + "x" * 80) == "C:\\data"


@pytest.mark.parametrize(
    ("name", "channel"),
    [("ConcanavalinA", "ER"), ("ConA", "ER"), ("SYTO14", "RNA"), ("Mito Tracker Deep Red", "Mito"), ("Hoechst33342", "DNA"),
     ("F-actin", "AGP"), ("DRAQ5", "DNA"), ("Nucleus", "DNA"), ("WGA-568", "AGP"),
     ("PhenoVue 512 Nucleic Acid Stain", "RNA"), ("wheat germ", "AGP"), ("mitochondrial", "Mito"), ("w1DAPI", "DNA"),
     ("PhenoVue 641 Mitochondrial Stain", "Mito"), ("PhenoVue Fluor 488 - Concanavalin A", "ER"), ("SYTO 14", "RNA"),
     ("Syto", "RNA"), ("H33342", "DNA"),
     ("PhenoVue Hoechst 33342 Nuclear Stain", "DNA"), ("PhenoVue Fluor 555 WGA", "AGP"), ("Alexa Fluor 568", "AGP"),
     ("AF488", "ER"),
     ("AF647", "Mito"), ("MitoTracker™ Deep Red FM", "Mito"), ("Concanavalin A/Alexa Fluor 488", "ER"), ("Nucleolus", "RNA"),
     ("WGA/Phalloidin", "AGP")],
)  # fmt: skip
def test_common_spellings_are_known(name: str, channel: str) -> None:
    assert channel_of(name, PlateSettings().stains) == channel


@pytest.mark.parametrize(
    "names",
    [("A", "B", "C", "D", "E"), ("A", "B"), ("DNA", "ER", "RNA", "AGP"), ("DAPI", "Hoechst", "ER", "RNA", "AGP", "Mito")],
)
def test_the_error_on_channels_ends_with_a_settings_file(names: tuple[str, ...], tmp_path: Path) -> None:
    """Pasted as it stands, it is a settings file with which the channels are found."""
    sources = {name: name for name in names}
    with pytest.raises(ValueError, match=r"P1: .* in x, which has ") as error:
        match_channels("P1", sources, "x", PlateSettings())
    file = tmp_path / "lab.toml"
    head, _, block = str(error.value).partition("\n\n")
    assert all(f"no {c} channel" in head for c in CHANNELS if c not in names and len(names) in (2, 5))
    file.write_text(block)
    settings = load_config(file).plate
    assert set(match_channels("P1", sources, "x", settings)) == set(settings.channels)
    assert len(settings.channels) == min(len(names), 5)


def test_the_error_on_channel_numbers_ends_with_a_settings_file(tmp_path: Path) -> None:
    images = tmp_path / "P1" / "Images"
    images.mkdir(parents=True)
    for number in (1, 2, 7, 8):
        (images / f"r01c01f01p01-ch{number}sk1fk1fl1.tiff").touch()
    with pytest.raises(
        ValueError, match=r"P1: no DNA channel, no ER channel, no RNA channel: .* has ch1, ch2, ch7, ch8"
    ) as error:
        find_plate("P1", tmp_path)
    file = tmp_path / "lab.toml"
    file.write_text(str(error.value).partition("\n\n")[2])
    assert len(find_plate("P1", tmp_path, load_config(file).plate).channels) == 4
