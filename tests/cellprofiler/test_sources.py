"""Images found by a pipeline's own rules: NamesAndTypes over file names, Metadata's regular expression, LoadData's table."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from jumpgpu.cellprofiler.findings import Unsupported
from jumpgpu.cellprofiler.parse import parse_text
from jumpgpu.cellprofiler.sources import renamed, rule_as_regex, source_of
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.cellprofiler.verdict import settings
from jumpgpu.extract import table_in
from jumpgpu.images.locate import find_plate

NAMES = Path(__file__).parent / "pipelines/cpjump1_analysis_names_and_types.cppipe"
OPERETTA = "^r(?P<WellRow>[0-9]{2})c(?P<WellCol>[0-9]{2})f(?P<Site>[0-9]{2}).*-ch(?P<ChannelNumber>[0-9]).*"
RULES = {
    'and (file does contain "d0")': (["x/A01f01d0.tif"], ["x/A01f01d1.tif", "d0/A01f01d1.tif"]),
    'and (file does contain "D.TIF")': (["01_POS002_D.TIF"], ["01_POS002_d.tif", "01_POS002_DxTIF"]),
    'or (file does startwith "a") (file does endwith "z.tif")': (["a1.tif", "q/1z.tif"], ["ba.tif", "z/b.tif"]),
    'and (file does contain "w1") (file doesnot contain "thumb")': (["p_w1.tif"], ["p_w1_thumb.tif", "p_w2.tif"]),
    'and (file does containregexp "ch[13]")': (["r-ch1.tif", "r-ch3.tif"], ["r-ch2.tif"]),
    'and (directory does contain "ZProj") (image does ismonochrome)': (["a/ZProj/x.tif"], ["a/x.tif", "a/ZProj.tif"]),
    'and (extension does istif) (or (file does contain "a") (file does contain "b"))': (["b.tif"], ["c.tif"]),
    'and (metadata does ChannelNumber "5")': (["r01c02f03p01-ch5sk1.tif"], ["r01c02f03p01-ch4sk1.tif", "ch5.tif"]),
}


@pytest.mark.parametrize("text", RULES)
def test_rules_of_files(text: str) -> None:
    rule = re.compile("^" + rule_as_regex(text, OPERETTA))
    yes, no = RULES[text]
    assert [n for n in [*yes, *no] if rule.search(n)] == yes


@pytest.mark.parametrize(
    "text", ['xor (file does contain "a")', 'and (file does resemble "a")', 'and (file does contain "a"', "and"]
)
def test_rules_that_are_not_known_are_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="a rule for images"):
        rule_as_regex(text, "")


def test_groups_take_the_names_that_plates_have() -> None:
    pattern = re.compile(renamed(OPERETTA))
    match = pattern.search("r01c02f03p01-ch5sk1.tif")
    assert match is not None
    assert match.groupdict() == {"row": "01", "column": "02", "site": "03"}


def pipeline(metadata: str, rules: dict[str, str]) -> str:
    """CPJUMP1's analysis, its images named by rules."""
    text = NAMES.read_text()
    at, end = text.index("NamesAndTypes:"), text.index("\n\n", text.index("NamesAndTypes:"))
    head = text[at : text.index("\n", at)]
    lines = [
        *(head, "    Assign a name to:Images matching rules", "    Select the image type:Grayscale image"),
        *("    Name to assign these images:DNA", "    Match metadata:[]", "    Image set matching method:Order"),
        *("    Set intensity range from:Image metadata", f"    Assignments count:{len(rules)}", "    Single images count:0"),
        *("    Maximum intensity:255.0", "    Process as 3D?:No"),
    ]
    for name, rule in rules.items():
        lines += [
            *(f"    Select the rule criteria:{rule}", f"    Name to assign these images:{name}"),
            *("    Name to assign these objects:Cell", "    Select the image type:Grayscale image"),
            *("    Set intensity range from:Image metadata", "    Maximum intensity:255.0"),
        ]
    text = text[:at] + "\n".join(lines) + text[end:]
    at, end = text.index("\nMetadata:") + 1, text.index("\n\n", text.index("\nMetadata:"))
    head = text[at : text.index("\n", at)]
    lines = [
        *(head, f"    Extract metadata?:{'Yes' if metadata else 'No'}", "    Extraction method count:1"),
        *("    Metadata extraction method:Extract from file/folder names", "    Metadata source:File name"),
        *(f"    Regular expression to extract from file name:{metadata}", "    Extract metadata from:All images"),
    ]
    return text[:at] + "\n".join(lines) + text[end:]


def loaded_images() -> list[str]:
    return [
        s.image for s in translate([parse_text(NAMES.read_text(), "lab.cppipe")]).steps if s.do == "load" and not s.function
    ]  # type: ignore[attr-defined]


def draw(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        tifffile.imwrite(folder / name, np.zeros((16, 16), np.uint16))


def test_a_plate_by_a_pipelines_rules(tmp_path: Path) -> None:
    images = loaded_images()
    metadata = r"(?P<Well>[A-H]{1}[0-9]{2})(?P<Site>[f]{1}[0-9]{2})(?P<Channel>[d]{1}[0-9]{1})"
    text = pipeline(metadata, {name: f'and (file does contain "d{i}")' for i, name in enumerate(images)})
    imported = translate([parse_text(text, "lab.cppipe")])
    config = settings(imported)
    names = [f"{w}f{s:02d}d{c}.tif" for w in ("B02", "C11") for s in (0, 7) for c in range(len(images))]
    draw(tmp_path / "P1", [*names, "other.tif"])
    plate = find_plate("P1", tmp_path, config.plate)
    assert [(s.well, s.site) for s in plate.sites] == [("B02", 0), ("B02", 7), ("C11", 0), ("C11", 7)]
    for c, channel in enumerate(plate.channels):
        image = next(s.image for s in imported.steps if s.do == "load" and s.channel == channel and not s.function)  # type: ignore[attr-defined]
        assert str(plate.sites[1].files[c]).endswith(f"B02f07d{images.index(image)}.tif")
    assert any("20 of 21 image files" in note for note in plate.notes)


def test_image_sets_by_order_where_nothing_tells_wells(tmp_path: Path) -> None:
    images = loaded_images()
    text = pipeline("", {name: f'and (file does contain "_{i}.TIF")' for i, name in enumerate(images)})
    config = settings(translate([parse_text(text, "lab.cppipe")]))
    draw(tmp_path / "P1", [f"pos{s}_{c}.TIF" for s in (3, 1, 2) for c in range(len(images))])
    plate = find_plate("P1", tmp_path, config.plate)
    assert [(s.well, s.site) for s in plate.sites] == [("A01", 1), ("A01", 2), ("A01", 3)]
    assert str(plate.sites[2].files[0]).rpartition("/")[2].startswith("pos3_")
    assert any("nothing tells wells" in note for note in plate.notes)
    (tmp_path / "P1/pos3_0.TIF").unlink()
    with pytest.raises(ValueError, match="different numbers of files"):
        find_plate("P1", tmp_path, config.plate)


def test_a_file_of_two_channels_is_refused(tmp_path: Path) -> None:
    images = loaded_images()
    rules = {name: f'and (file does contain "d{i}")' for i, name in enumerate(images)} | {
        images[1]: 'and (file does contain "d")'
    }
    config = settings(translate([parse_text(pipeline("", rules), "lab.cppipe")]))
    draw(tmp_path / "P1", ["A01d0.tif"])
    with pytest.raises(ValueError, match="follows the rules of"):
        find_plate("P1", tmp_path, config.plate)
    (tmp_path / "P1/A01d0.tif").rename(tmp_path / "P1/A01w0.tif")
    with pytest.raises(FileNotFoundError, match="tell 0 of 1 image files; a pipeline's are those of its NamesAndTypes"):
        find_plate("P1", tmp_path, config.plate)


def test_a_pattern_of_the_labs_goes_before_the_rules() -> None:
    from jumpgpu.settings.config import Config, PlateSettings

    text = pipeline("", {name: f'and (file does contain "d{i}")' for i, name in enumerate(loaded_images())})
    imported = translate([parse_text(text, "lab.cppipe")])
    pattern = PlateSettings(pattern="(?P<well>[A-P][0-9]+)_(?P<channel>[a-z]+)")
    for plate in (pattern, PlateSettings(numbers={"DNA": 7})):
        assert settings(imported, Config(plate=plate)).plate.assign == {}
    assert settings(imported).plate.assign.keys() == set(imported.channels)


def test_the_table_that_load_data_names(tmp_path: Path) -> None:
    text = (Path(__file__).parent / "pipelines/cpjump1_analysis_load_data.cppipe").read_text()
    name = next(line.partition(":")[2] for line in text.splitlines() if "Name of the file:" in line)
    file = tmp_path / "lab.cppipe"
    file.write_text(text.replace(f"Name of the file:{name}", "Name of the file:of_this_lab.csv"))
    assert source_of(parse_text(file.read_text(), "lab.cppipe")).table == "of_this_lab.csv"
    assert table_in(str(tmp_path), [str(file)]) == str(tmp_path)
    (tmp_path / "of_this_lab.csv").write_text("")
    assert table_in(str(tmp_path), [str(file)]) == str(tmp_path / "of_this_lab.csv")
    assert table_in("s3://bucket/images", [str(file)]) == "s3://bucket/images"
