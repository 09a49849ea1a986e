"""OME-Zarr plates as input: the features of the TIFFs they were made from, bit for bit; odd and hostile ones refused."""

import json
import os
import re
import shutil
import zlib
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
import pytest
import zarr
from imagecodecs import numcodecs

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.images.locate import find_plate, find_source
from jumpgpu.images.ome_zarr import planes as zarr_planes
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from jumpgpu.synthetic import SyntheticSettings, draw_plate
from tests.helpers.ome_plates import change, recoded, write_ome_plate
from tests.helpers.plates import write_plate as write_store

BARCODE = "BR00117010"
FORMS = {
    "0.5": {},
    "0.5 sharded": {"shards": True},
    "0.5 gzip, fields from 1": {"packer": "gzip", "first": 1},
    "0.5 cyx, channels together, unpacked": {"axes": "cyx", "together": True, "packer": "none"},
    "0.4": {"version": "0.4"},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_plate(root, BARCODE, SyntheticSettings(wells=3, sites=2, height=96, width=112, cells=3.0))
    return root


@pytest.fixture(scope="module")
def tiffs(drawn):
    return find_plate(BARCODE, drawn)


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiffs) -> Path:
    return write_ome_plate(tmp_path_factory.mktemp("written") / "plate.ome.zarr", tiffs)


@pytest.fixture
def plate(tmp_path, written) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "plate.ome.zarr"))


def pixels(plate) -> np.ndarray:
    batch = next(read_fields(plate, batch=100, workers=2))
    assert batch.quarantined == ()
    return np.array(batch.pixels.numpy())


def problems(plate) -> list[str]:
    return [str(p) for batch in read_fields(plate, batch=100, workers=0) for p in batch.quarantined]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_pixels_of_the_tiffs(form, tmp_path, tiffs):
    result = find_source(BARCODE, write_ome_plate(tmp_path / "p.ome.zarr", tiffs, **FORMS[form]), PlateSettings())
    assert [(s.well, s.site) for s in result.sites] == [(s.well, s.site) for s in tiffs.sites]
    assert result.channel_line == (
        "DNA=4 HOECHST 33342, ER=3 Alexa 488, RNA=2 488 long, AGP=1 Alexa 568, Mito=0 Alexa 647; from the OME-Zarr "
        "channels' labels"
    )
    assert result.pixel_um == 0.598
    np.testing.assert_array_equal(pixels(result), pixels(tiffs))


def test_the_command_gives_the_features_of_the_tiffs(tmp_path, drawn, plate, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number", "intensity", "shape"]\n')
    known = ["--plate", BARCODE, "--config", "small.toml", "--device", "cpu"]
    assert main([*known, "--images", str(drawn), "--output", "tiffs"]) == 0
    assert main([*known, "--images", str(plate), "--output", "zarr"]) == 0
    assert main([*known, "--images", str(plate), "--output", "zarr"]) == 0  # there already, from the same files
    here, there = (jumpgpu.open_plate(tmp_path / name / BARCODE) for name in ("tiffs", "zarr"))
    assert len(here.to_pandas()) >= 5
    assert there.to_pandas().equals(here.to_pandas())
    assert there.settings == here.settings
    entry = there.record("A01")["sites"][0]["inputs"][0]
    assert entry["file"] == "A/1/0#4"
    assert entry["bytes"] > 50_000
    (tmp_path / f"{BARCODE}.ome.zarr").symlink_to(plate)
    assert len(find_source(BARCODE, tmp_path, PlateSettings()).sites) == 6


def test_a_plate_in_a_bucket_is_read_too(server, tmp_path, plate, tiffs, monkeypatch):
    server.empty()
    server.make("plates")
    server.upload(plate, "plates", "x/plate.ome.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    result = find_source(BARCODE, "s3://plates/x/plate.ome.zarr", PlateSettings(), tmp_path / "cache")
    np.testing.assert_array_equal(pixels(result), pixels(tiffs))
    assert result.images.status(result.sites[0].files[0])[0] > 50_000


def test_channels_without_labels_are_said_in_the_config(tmp_path, tiffs):
    path = write_ome_plate(tmp_path / "p.zarr", tiffs, labels=False)
    with pytest.raises(
        ValueError,
        match=r"names no channels .*Say which of 0 \.\. 4 is which in a settings file .*\n\n\[plate\.c_axis\]\nDNA = 0",
    ):
        find_source(BARCODE, path, PlateSettings())
    mapping = {"DNA": 4, "ER": 3, "RNA": 2, "AGP": 1, "Mito": 0}
    result = find_source(BARCODE, path, PlateSettings(c_axis=mapping))
    np.testing.assert_array_equal(pixels(result), pixels(tiffs))
    with pytest.raises(ValueError, match=r"c_axis must say which of 0 \.\. 4 is Mito; it says 5"):
        find_source(BARCODE, path, PlateSettings(c_axis={**mapping, "Mito": 5}))


def test_one_of_several_planes_is_chosen(tmp_path, tiffs, monkeypatch):
    path = write_ome_plate(tmp_path / "p.zarr", tiffs)
    for file in path.glob("*/*/*/0/zarr.json"):
        change(file, lambda v: v["shape"].__setitem__(2, 3))  # planes 2 and 3 have no chunks: zeros
    with pytest.raises(ValueError, match=r"has 3 planes; set plate\.plane in the config to the one to read, 1 to 3"):
        find_source(BARCODE, path, PlateSettings())
    np.testing.assert_array_equal(pixels(find_source(BARCODE, path, PlateSettings(plane=1))), pixels(tiffs))
    assert not pixels(find_source(BARCODE, path, PlateSettings(plane=3))).any()
    with pytest.raises(ValueError, match=r"planes 1 to 3, not plate\.plane = 4"):
        find_source(BARCODE, path, PlateSettings(plane=4))


def test_fields_are_read_when_they_are_wanted(plate, monkeypatch):
    asked: list[str] = []
    honest = zarr_planes.Local.read
    monkeypatch.setattr(
        zarr_planes.Local, "read", lambda self, file, limit: (asked.append(file), honest(self, file, limit))[1]
    )
    result = find_source(BARCODE, plate, PlateSettings())
    assert not [a for a in asked if re.search(r"/0/c/", a)]
    assert len({a for a in asked if a.endswith("/0/zarr.json")}) == 2  # the first field's group and array
    asked.clear()
    next(read_fields(result, wells=["A02"], sites=[2], batch=1, workers=0))
    chunks = [a for a in asked if "/c/" in a]
    assert {a.removeprefix(str(plate)).split("/c/")[0] for a in chunks} == {"/A/2/1/0"}
    assert len(chunks) == 20  # five channels in four tiles, each read once


ROOT, WELL, FIELD, ARRAY = "zarr.json", "A/1/zarr.json", "A/1/0/zarr.json", "A/1/0/0/zarr.json"
OME = ("attributes", "ome")
HOSTILE = {
    "version": (ROOT, [*OME, "version"], "0.1", r"OME-Zarr '0.1' on zarr v3"),
    "well outside": (
        ROOT,
        [*OME, "plate", "wells", 0, "path"],
        "../../etc",
        r"well path '../../etc' is not made of its rows",
    ),
    "well absolute": (ROOT, [*OME, "plate", "wells", 0, "path"], "/etc/1", r"not made of its rows"),
    "row with a slash": (ROOT, [*OME, "plate", "rows", 0, "name"], "..", r"not made of its rows"),
    "well twice": (ROOT, [*OME, "plate", "wells", 1, "path"], "A/1", r"lists well A01 twice"),
    "well absent": (ROOT, [*OME, "plate", "columns", 2, "name"], "7", r"not made of its rows"),
    "no wells": (ROOT, [*OME, "plate", "wells"], [], r"wells must be a list of 1 to"),
    "wells no list": (ROOT, [*OME, "plate", "wells"], {"a": 1}, r"wells must be a list"),
    "plate no object": (ROOT, [*OME, "plate"], 3, r"plate must be an object"),
    "field outside": (WELL, [*OME, "well", "images", 0, "path"], "../0", r"'../0' is not a field's name"),
    "field of letters": (
        WELL,
        [*OME, "well", "images", 0, "path"],
        "x",
        r"fields must be named by numbers|not there|No such",
    ),
    "acquisitions": (WELL, [*OME, "well", "images", 0, "acquisition"], 7, r"several acquisitions"),
    "axes": (FIELD, [*OME, "multiscales", 0, "axes", 4, "name"], "y", r"axes 'tczyy'; expected"),
    "no axes": (FIELD, [*OME, "multiscales", 0, "axes"], None, r"axes must be a list"),
    "array outside": (FIELD, [*OME, "multiscales", 0, "datasets", 0, "path"], "../1/0", r"is not an array's path"),
    "not square": (
        FIELD,
        [*OME, "multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale"],
        [1, 1, 1, 0.5, 0.6],
        r"pixels are not square",
    ),
    "labels": (FIELD, [*OME, "omero", "channels", 0, "label"], "Alexa 488", r"more than one ER channel"),
    "signed": (ARRAY, ["data_type"], "int16", r"int16 pixels; expected uint16"),
    "objects": (ARRAY, ["data_type"], {"name": "fixed_length_utf32"}, r"pixels; expected uint16"),
    "time": (ARRAY, ["shape", 0], 2, r"time points \[1, 2\]; set plate.time"),
    "vast": (ARRAY, ["shape", 3], 10**9, r"1000000000 along y; 1 to 8192"),
    "negative": (ARRAY, ["shape", 3], -5, r"shape must be whole numbers"),
    "vast chunks": (ARRAY, ["chunk_grid", "configuration", "chunk_shape", 4], 10**10, r"bytes, more than"),
    "grid": (ARRAY, ["chunk_grid", "name"], "rectilinear", r"chunk grid 'rectilinear'"),
    "codec": (ARRAY, ["codecs", 1, "name"], "numcodecs.pickle", r"codec 'numcodecs.pickle'; one of blosc"),
    "transformers": (ARRAY, ["storage_transformers"], [{"name": "x"}], r"expected uint16"),
    "ours": (ROOT, ["attributes", "jumpgpu"], {}, r"was made by jumpgpu: it holds results"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_is_refused(case, plate):
    file, keys, value, message = HOSTILE[case]

    def edit(tree):
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    change(plate / file, edit)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_source(BARCODE, plate, PlateSettings())


@pytest.mark.parametrize("text", ["{", "[1]", "nul", '{"attributes": ' + "[" * 100_000, "\xff\xfe"])
def test_what_is_no_metadata_is_refused(text, plate):
    (plate / "A/1/zarr.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"is not zarr metadata|well must be an object"):
        find_source(BARCODE, plate, PlateSettings())
    (plate / ROOT).write_text(" " * (1 << 22) + "{}")
    with pytest.raises(ValueError, match="more than 4194304"):
        find_source(BARCODE, plate, PlateSettings())


def test_metadata_of_zarr_v2_is_refused_too(tmp_path, tiffs):
    for n, (key, value, message) in enumerate(
        [
            ("dtype", "|O", r"\|O pixels; expected uint16"),
            ("filters", [{"id": "pickle"}], "filters .*pickle"),
            ("compressor", {"id": "pickle"}, "compressor 'pickle'"),
            ("chunks", [1, 1, 1, 0, 56], "chunks must be whole numbers"),
            ("shape", [1, 5, 1, 96], "for axes 'tczyx'"),
        ]
    ):
        path = write_ome_plate(tmp_path / f"{n}.zarr", tiffs, "0.4")
        change(path / "A/1/0/0/.zarray", lambda v, key=key, value=value: v.update({key: value}))
        with pytest.raises(ValueError, match=message):
            find_source(BARCODE, path, PlateSettings())


def test_a_later_field_that_is_wrong_costs_its_site(plate, tmp_path):
    result = find_source(BARCODE, plate, PlateSettings())
    change(plate / "A/1/1/0/zarr.json", lambda v: v["shape"].__setitem__(3, 97))
    change(plate / "A/2/0/zarr.json", lambda v: v["attributes"]["ome"]["omero"]["channels"].reverse())
    chunk = plate / "A/2/1/0/c/0/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    outside = tmp_path / "outside"
    outside.write_bytes((plate / "A/3/0/0/c/0/1/0/0/0").read_bytes())
    (plate / "A/3/0/0/c/0/1/0/0/0").unlink()
    (plate / "A/3/0/0/c/0/1/0/0/0").symlink_to(outside)
    lines = "\n".join(problems(result))
    assert "A01 site 2 DNA: unreadable DNA image: 97 x 112 pixels, expected 96 x 112" in lines
    assert "A02 site 1 DNA: unreadable DNA image: " in lines
    assert "its channels lie in another order" in lines
    assert re.search(r"A02 site 2 Mito: unreadable Mito image", lines)
    assert re.search(r"A03 site 1 AGP: unreadable AGP image: a symlink leads outside", lines)
    assert "A01 site 1" not in lines
    assert "A03 site 2" not in lines


@pytest.mark.parametrize("packer", ["gzip", "zstd", "blosc"])
def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused_before_it_does(packer, tmp_path, tiffs):
    import numcodecs

    options = {"version": "0.4"} if packer == "blosc" else {"packer": packer}
    path = write_ome_plate(tmp_path / "p.zarr", tiffs, **options)
    result = find_source(BARCODE, path, PlateSettings())
    bomb = bytes(1 << 26)
    packed = {
        "gzip": lambda: zlib.compress(bomb, 1, wbits=31),
        "zstd": lambda: numcodecs.Zstd().encode(bomb),
        "blosc": lambda: numcodecs.Blosc("lz4").encode(bomb[: 1 << 24]),
    }[packer]()
    if packer == "blosc":
        change(
            path / "A/1/0/0/.zarray",
            lambda v: v.update(compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}),
        )
    name = "A/1/0/0/0/4/0/0/0" if packer == "blosc" else "A/1/0/0/c/0/4/0/0/0"
    (path / name).write_bytes(packed)
    result = find_source(BARCODE, path, PlateSettings())
    lines = problems(result)
    assert len([x for x in lines if "A01 site 1 DNA" in x]) == 1
    assert re.search(r"a chunk holds \d+ bytes, expected 5376|more than", "\n".join(lines))


def test_results_are_not_taken_for_images(tmp_path):
    write_store(tmp_path, {"A01": [1]}, images=True)
    with pytest.raises(ValueError, match="was made by jumpgpu"):
        find_source(BARCODE, tmp_path / f"{BARCODE}.zarr", PlateSettings())
    assert json.loads((tmp_path / f"{BARCODE}.zarr/zarr.json").read_text())["attributes"]["ome"]
    assert os.path.isdir(tmp_path / f"{BARCODE}.zarr")


@pytest.mark.parametrize("form", FORMS)
def test_a_first_field_or_a_well_that_is_missing_loses_only_that(tmp_path, tiffs, form):
    whole = find_source(BARCODE, write_ome_plate(tmp_path / "p.ome.zarr", tiffs, **FORMS[form]), PlateSettings())
    first, lost = whole.sites[0], whole.wells[-1]
    shutil.rmtree(Path((first.files[0] or "").partition("#")[0]))
    result = find_source(BARCODE, tmp_path / "p.ome.zarr", PlateSettings())
    assert result.sites == whole.sites
    batches = list(read_fields(result, batch=len(whole.sites), workers=0))
    assert batches[0].skipped == ((first.well, first.site),)
    assert {p.reason for p in batches[0].quarantined} == {f"no {c} image: the file is missing" for c in whole.channels}
    expected = pixels(tiffs)
    np.testing.assert_array_equal(batches[0].pixels.numpy(), expected[1:])
    well = lost[0], str(int(lost[1:]))
    shutil.rmtree(tmp_path / "p.ome.zarr" / "/".join(well))
    result = find_source(BARCODE, tmp_path / "p.ome.zarr", PlateSettings())
    assert result.sites == tuple(s for s in whole.sites if s.well != lost)
    assert result.warnings == (f"{lost} is listed by {tmp_path / 'p.ome.zarr'} but does not exist; left out",)
    for path in (tmp_path / "p.ome.zarr/A").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=r"lists no field; none of its wells|none of \d+ fields is there"
    ):
        find_source(BARCODE, tmp_path / "p.ome.zarr", PlateSettings())


def test_pixels_that_are_square_to_a_thousandth(plate):
    for y, square in ((0.5980001, True), (0.61, False)):
        for file in plate.glob("*/*/*/zarr.json"):
            change(
                file,
                lambda v, y=y: v["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(
                    coordinateTransformations=[{"type": "scale", "scale": [1, 1, 1, y, 0.598]}]
                ),
            )
        if square:
            assert find_source(BARCODE, plate, PlateSettings()).pixel_um == 0.598
        else:
            with pytest.raises(ValueError, match="pixels are not square"):
                find_source(BARCODE, plate, PlateSettings())


def test_a_row_that_is_no_row_is_called_a_row(plate):
    def edit(v):
        v["attributes"]["ome"]["plate"]["rows"][0]["name"] = "A9"
        for well in v["attributes"]["ome"]["plate"]["wells"]:
            well["path"] = well["path"].replace("A/", "A9/")

    change(plate / ROOT, edit)
    with pytest.raises(ValueError, match=r"row 'A9' and column '1': 'A91': no well at row 1, column 91") as caught:
        find_source(BARCODE, plate, PlateSettings())
    assert "Metadata_Well" not in str(caught.value)


RECODED = {
    "0.4 compressor": {"version": "0.4"},
    "0.4 filter": {"version": "0.4"},
    "0.5": {},
    "0.5 sharded": {"shards": True},
}


@pytest.mark.parametrize("form", RECODED)
@pytest.mark.parametrize("packer", ["imagecodecs_jpeg2k", "imagecodecs_jpegxl"])
def test_images_that_were_packed_again_without_loss(form, packer, tmp_path, tiffs):
    """zarr's names of imagecodecs, v2 and v3: the pixels of the TIFFs, through the codec imagecodecs registers, and ours."""
    path = write_ome_plate(tmp_path / "p.ome.zarr", tiffs, **RECODED[form])
    reversible = {"reversible": True} if packer.endswith("2k") else {"lossless": True}
    recoded(path, packer, "filter" if "filter" in form else "compressor", **(reversible if "0.4" in form else {}))
    result = find_source(BARCODE, path, PlateSettings())
    np.testing.assert_array_equal(pixels(result), pixels(tiffs))
    if "0.4" in form:
        numcodecs.register_codecs([packer], verbose=False)
        field = zarr.open_array(path / "A/1/0/0", mode="r")
        np.testing.assert_array_equal(field[...][0, ::-1, 0], pixels(tiffs)[0])
    if packer.endswith("xl") and form == "0.5":
        for file in path.glob("*/*/*/0/zarr.json"):
            change(file, lambda v: v["codecs"][0].update(name="numcodecs.imagecodecs_jpegxl"))
        np.testing.assert_array_equal(pixels(find_source(BARCODE, path, PlateSettings())), pixels(tiffs))


@pytest.mark.parametrize(
    ("packer", "options", "message"),
    [
        ("imagecodecs_jpegxl", {"distance": 1.0}, r"imagecodecs_jpegxl with distance = 1.0: not without loss"),
        ("imagecodecs_jpegxl", {"lossless": False}, r"imagecodecs_jpegxl with lossless = False: not without loss"),
        ("imagecodecs_jpegxl", {"level": 90}, r"imagecodecs_jpegxl with level = 90: not without loss"),
        ("imagecodecs_jpeg2k", {"level": 40}, r"imagecodecs_jpeg2k with level = 40: not without loss"),
        ("imagecodecs_jpeg2k", {"level": 40, "reversible": True}, r"imagecodecs_jpeg2k with level = 40: not without loss"),
        ("imagecodecs_jpeg2k", {"reversible": False}, r"imagecodecs_jpeg2k with reversible = False"),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_that_were_packed_with_loss_are_refused_by_name(tmp_path, tiffs, packer, options, message, version):
    """What the metadata says is refused when the plate is opened; where it says nothing, the chunks do, image by image."""
    path = write_ome_plate(tmp_path / "p.ome.zarr", tiffs, version)
    recoded(path, packer, **options)
    with pytest.raises(ValueError, match=message):
        find_source(BARCODE, path, PlateSettings())

    def forget(tree):
        if version == "0.4":
            tree["compressor"] = {"id": packer}
        else:
            tree["codecs"][0].pop("configuration")

    for file in (*path.glob("*/*/*/0/.zarray"), *path.glob("*/*/*/0/zarr.json")):
        change(file, forget)
    if options == {"level": 40, "reversible": True}:
        return  # layers that were left out: a codestream does not say so
    lines = problems(find_source(BARCODE, path, PlateSettings()))
    assert len(lines) == 30
    assert all("not without loss: JPEG" in line for line in lines)


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("packer", ["imagecodecs_jpeg2k", "imagecodecs_jpegxl"])
def test_chunks_that_are_no_such_image(tmp_path, tiffs, packer, shards):
    """A larger image, one of 8 bits, one cut short, bytes that are none: each costs its own site, before memory is taken."""
    path = write_ome_plate(tmp_path / "p.ome.zarr", tiffs, shards=shards)
    recoded(path, packer)
    encode = imagecodecs.jpeg2k_encode if packer.endswith("2k") else imagecodecs.jpegxl_encode
    right = np.zeros((48, 56), np.uint16)
    spoilt = {
        "A/1/0": (encode(np.zeros((8192, 8192), np.uint16)), r"declares 8192 x 8192 pixels of 16 bits, expected 48 x 56"),
        "A/1/1": (encode(right.astype(np.uint8)), r"declares 48 x 56 pixels of 8 bits"),
        "A/2/0": (encode(right + 7)[:40], r"no JPEG|truncated|jpeg2k|jpegxl|Jpeg"),
        "A/2/1": (b"x" * 400, r"no JPEG (2000|XL) codestream"),
        "A/3/0": (encode(np.zeros((48, 48), np.uint16)), r"declares 48 x 48 pixels"),
    }
    for field, (data, _) in spoilt.items():
        file = path / field / "0/c/0/0/0/0/0"
        if shards:  # the second of its chunks
            whole = file.read_bytes()
            index = np.frombuffer(whole, "<u8", 8, len(whole) - 68).reshape(4, 2).copy()
            index[1] = len(whole) - 68, len(data)
            numbers = index.tobytes()
            file.write_bytes(whole[:-68] + data + numbers + google_crc32c.value(numbers).to_bytes(4, "little"))
        else:
            file.write_bytes(data)
    lines = problems(find_source(BARCODE, path, PlateSettings()))
    assert len(lines) == 5
    for field, (_, message) in spoilt.items():
        site = f"A0{field[2]} site {int(field[4]) + 1} Mito"
        (line,) = [line for line in lines if site in line]
        assert re.search(message, line), line


def test_image_codecs_that_are_not_read(tmp_path, tiffs):
    for n, (options, edit, message) in enumerate(
        [
            ({}, lambda v: v["codecs"].append({"name": "zstd"}), r"codec 'zstd'; one of blosc"),
            (
                {},
                lambda v: v["codecs"].append({"name": "crc32c"}),
                r"imagecodecs_jpegxl, crc32c; imagecodecs_jpegxl is read alone",
            ),
            ({}, lambda v: v["codecs"][0].update(name="imagecodecs_jpegls"), r"codec 'imagecodecs_jpegls'"),
            ({}, lambda v: v["codecs"][0].update(configuration=[1]), r"imagecodecs_jpegxl must be an object"),
            ({"version": "0.4"}, lambda v: v.update(order="F"), r"order 'F' of imagecodecs_jpegxl"),
            (
                {"version": "0.4"},
                lambda v: v.update(compressor={"id": "imagecodecs_jpeg"}),
                r"compressor 'imagecodecs_jpeg'",
            ),
            (
                {"version": "0.4"},
                lambda v: v.update(filters=[{"id": "imagecodecs_jpegxl"}]),
                r"filters .*; an image has none",
            ),
            ({"version": "0.4"}, lambda v: v.update(chunks=[1, 5, 1, 48, 56]), r"those of one plane each are read"),
        ]
    ):
        path = write_ome_plate(tmp_path / f"{n}.zarr", tiffs, **options)
        recoded(path, "imagecodecs_jpegxl")
        change(path / ("A/1/0/0/.zarray" if options else "A/1/0/0/zarr.json"), edit)
        with pytest.raises(ValueError, match=message):
            find_source(BARCODE, path, PlateSettings())


@pytest.mark.parametrize("packer", ["zstd", "gzip", "none"])
def test_every_chunk_of_a_shard_is_checked(packer, tmp_path, tiffs):
    """A shard that is read whole, whatever packs its chunks; the last of which would unpack to more than it may."""
    path = write_ome_plate(tmp_path / "p.ome.zarr", tiffs, shards=True, packer=packer)
    result = find_source(BARCODE, path, PlateSettings())
    np.testing.assert_array_equal(pixels(result), pixels(tiffs))
    bomb = bytes(1 << 24)
    data = {"zstd": imagecodecs.zstd_encode, "gzip": lambda b: zlib.compress(b, 1, wbits=31), "none": bytes}[packer](bomb)
    file = path / "A/1/0/0/c/0/0/0/0/0"
    whole = file.read_bytes()
    index = np.frombuffer(whole, "<u8", 8, len(whole) - 68).reshape(4, 2).copy()
    index[3] = len(whole) - 68, len(data[:70_000])
    numbers = index.tobytes()
    file.write_bytes(whole[:-68] + data[:70_000] + numbers + google_crc32c.value(numbers).to_bytes(4, "little"))
    (line,) = problems(result)
    assert "A01 site 1 Mito" in line
    assert re.search(r"a chunk holds \d+ bytes, expected 5376|more than", line)
