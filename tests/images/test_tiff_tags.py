"""What TIFF tags say of counts: each row of the table in docs/plates.md, on both readers, against CellProfiler 4.2.8.

What CellProfiler gives was recorded by its own reader (python-bioformats 4.1.0) from the bytes that `tiff` writes here:
`raw` is the first and last pixel as read, `scale` what they were divided by.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from jumpgpu.gpu.device import Device
from jumpgpu.images import tiff_tags
from jumpgpu.images.focus import check_image, count_image, top_of
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.images.strips import plain_strips
from jumpgpu.images.tiff import decode, load
from jumpgpu.images.tiff_tags import FULL_SCALE, Grey
from jumpgpu.settings.config import PlateSettings
from jumpgpu.storage.local import Local
from tests.conftest import CHECKOUT
from tests.helpers.image_plates import image_name, write_plate
from tests.helpers.tiff_writer import ASCII, DOUBLE, FLOAT, LONG, RATIONAL, SHORT, Value, tiff

IMAGE = (np.arange(120).reshape(12, 10) * 30 + 5).astype(np.uint16)
TURNED = np.vectorize(lambda v: int(f"{v & 255:08b}"[::-1], 2) | int(f"{v >> 8:08b}"[::-1], 2) << 8)(IMAGE)
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'SignificantBits="12" DimensionOrder="XYCZT" Type="uint16" SizeX="10" SizeY="12" SizeC="1" SizeT="1" '
    'SizeZ="1"/></Image></OME>'
)
READ: dict[str, tuple[dict[int, Value], float, tuple[int, int]]] = {  # tags, CellProfiler's scale, its first and last pixel
    "nothing": ({}, 65535, (5, 3575)),
    "281 MaxSampleValue 4095": ({281: (SHORT, (4095,))}, 4095, (5, 3575)),
    "281 as LONG": ({281: (LONG, (4095,))}, 4095, (5, 3575)),
    "281 as BYTE": ({281: (1, (255,))}, 255, (5, 3575)),
    "281 as RATIONAL": ({281: (RATIONAL, (4095, 1))}, 4095, (5, 3575)),
    "281 as FLOAT": ({281: (FLOAT, (4095.5,))}, 4095, (5, 3575)),
    "281 as DOUBLE": ({281: (DOUBLE, (4095.0,))}, 4095, (5, 3575)),
    "281 of two values": ({281: (SHORT, (4095, 1000))}, 4095, (5, 3575)),
    "281 above 16 bits": ({281: (LONG, (70000,))}, 70000, (5, 3575)),
    "281 of 65535": ({281: (SHORT, (65535,))}, 65535, (5, 3575)),
    "281 in an ImageJ file": ({270: (ASCII, "ImageJ=1.53c\nmin=0\nmax=100\n"), 281: (SHORT, (4095,))}, 4095, (5, 3575)),
    "281 in an OME file": ({270: (ASCII, OME), 281: (SHORT, (4095,))}, 4095, (5, 3575)),
    "280 MinSampleValue": ({280: (SHORT, (100,))}, 65535, (5, 3575)),
    "340 SMinSampleValue": ({340: (SHORT, (100,))}, 65535, (5, 3575)),
    "341 SMaxSampleValue": ({341: (SHORT, (4095,))}, 65535, (5, 3575)),
    "262 MinIsWhite": ({262: (SHORT, (0,))}, 65535, (65530, 61960)),
    "262 MinIsWhite and 281": ({262: (SHORT, (0,)), 281: (SHORT, (4095,))}, 4095, (65530, 61960)),
    "254 NewSubfileType, a page": ({254: (LONG, (2,))}, 65535, (5, 3575)),
    "255 SubfileType 0": ({255: (SHORT, (0,))}, 65535, (5, 3575)),
    "255 SubfileType, a page": ({255: (SHORT, (3,))}, 65535, (5, 3575)),
    "284 PlanarConfiguration 2": ({284: (SHORT, (2,))}, 65535, (5, 3575)),
    "330 SubIFDs": ({330: (LONG, (8,))}, 65535, (5, 3575)),
    "339 SampleFormat 1": ({339: (SHORT, (1,))}, 65535, (5, 3575)),
    "339 SampleFormat, undefined": ({339: (SHORT, (4,))}, 65535, (5, 3575)),
    "50714 BlackLevel, 50717 WhiteLevel": ({50714: (SHORT, (100,)), 50717: (SHORT, (4095,))}, 65535, (5, 3575)),
    "42113 GDAL_NODATA": ({42113: (ASCII, "5")}, 65535, (5, 3575)),
    "270 ImageJ without calibration": ({270: (ASCII, "ImageJ=1.53c\nimages=1\nmin=0\nmax=100\n")}, 65535, (5, 3575)),
}
REMARKED: dict[str, tuple[dict[int, Value], str]] = {  # read by CellProfiler as if the tag were absent
    **{f"274 Orientation {n}": ({274: (SHORT, (n,))}, f"Orientation {n}") for n in range(2, 9)},
    "291 GrayResponseCurve": ({290: (SHORT, (2,)), 291: (SHORT, (3, 2, 1, 0))}, "GrayResponseCurve"),
    "301 TransferFunction": ({301: (SHORT, tuple(range(8)))}, "TransferFunction"),
    "532 ReferenceBlackWhite": ({532: (RATIONAL, (0, 1, 4095, 1))}, "ReferenceBlackWhite"),
    "270 ImageJ's calibration": ({270: (ASCII, "ImageJ=1.53c\ncf=0\nc0=-32768.0\nc1=1.0\n")}, r"ImageJ's .*c0=-32768.0"),
    "270 OME's SignificantBits": ({270: (ASCII, OME)}, r"OME's SignificantBits 12.* \[plate\] scale = 4095"),
}
REFUSED: dict[str, tuple[dict[int, Value], str]] = {
    "281 MaxSampleValue 0": ({281: (SHORT, (0,))}, "MaxSampleValue"),  # CellProfiler divides by 0
    "281 of 2^32 - 1": ({281: (LONG, (2**32 - 1,))}, "MaxSampleValue"),  # which it takes for -1
    "281 as ASCII": ({281: (ASCII, "4095")}, "MaxSampleValue"),
    "281 below 1": ({281: (FLOAT, (0.5,))}, "MaxSampleValue"),
    "281 of NaN": ({281: (FLOAT, (float("nan"),))}, "MaxSampleValue"),
    "254 reduced image": ({254: (LONG, (1,))}, "NewSubfileType 1"),
    "254 mask": ({254: (LONG, (4,))}, "NewSubfileType 4"),
    "255 reduced image": ({255: (SHORT, (2,))}, "SubfileType 2"),
    **{
        f"262 Photometric {n}": ({262: (SHORT, (n,))}, f"PhotometricInterpretation {n}")
        for n in (3, 4, 5, 6, 8, 32803, 34892, 99)
    },
    "262 RGB": ({262: (SHORT, (2,))}, r"12 x 10 x 1|shape \(12, 10, 1\)|PhotometricInterpretation 2"),
    "263 Threshholding": ({263: (SHORT, (2,))}, "Threshholding 2"),
    "338 ExtraSamples": ({338: (SHORT, (0,))}, "ExtraSamples"),
    **{f"339 SampleFormat {n}": ({339: (SHORT, (n,))}, r"SampleFormat|pixels|data type") for n in (0, 2, 3, 5, 6)},
    "258 BitsPerSample 12": ({258: (SHORT, (12,))}, "12 bits per sample"),
    "259 Compression, JPEG": ({259: (SHORT, (7,))}, "ompression"),
    "317 Predictor, floating point": ({317: (SHORT, (3,))}, "Predictor 3"),
    "32997 ImageDepth": ({32997: (SHORT, (2,))}, r"2 x 12 x 10|ImageDepth|shape \(2, 12, 10\)"),
    "33629 UIC2tag": ({33629: (RATIONAL, (1, 1, 2, 1, 3, 1))}, "UIC2tag of 3 planes"),
    "270 ImageJ's images": ({270: (ASCII, "ImageJ=1.53c\nimages=3\nslices=3\n")}, "images=3"),
}
FORMS = {
    "plain": {},
    "lzw": {"lzw": True},
    "big-endian": {"order": ">"},
    "big-endian lzw": {"order": ">", "lzw": True},
    "BigTIFF": {"big": True},
}


def both(folder: Path, data: bytes) -> tuple[np.ndarray, Grey]:
    """An image by each of the two readers, `decode` (host) and `load` (a GPU's), which must agree."""
    (folder / "x.tif").write_bytes(data)
    files = Local(folder, (folder.resolve(),))
    image = np.zeros(IMAGE.shape, np.uint16)
    reserved = np.zeros(4000, np.uint8)
    results: list[object] = []
    for read in (
        lambda: decode(str(folder / "x.tif"), files, image),
        lambda: load(str(folder / "x.tif"), files, IMAGE.shape, lambda n: (0, reserved[:n])),
    ):
        try:
            results.append(read())
        except (ValueError, TypeError, LookupError) as error:
            results.append(error)
    decoded, loaded = results
    if isinstance(decoded, Exception):
        assert isinstance(loaded, Exception)
        assert str(decoded) == str(loaded)
        raise decoded
    assert isinstance(decoded, Grey)
    assert isinstance(loaded, tuple)
    assert loaded[2] == decoded
    if loaded[1] is None:
        np.testing.assert_array_equal(reserved[: IMAGE.nbytes].view(np.uint16).reshape(IMAGE.shape), image)
    return image, decoded


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore")
def test_what_is_read_is_what_cellprofiler_reads(tmp_path: Path, name: str, form: str) -> None:
    tags, scale, (first, last) = READ[name]
    image, grey = both(tmp_path, tiff(IMAGE, tags, **FORMS[form]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(image, 65535 - IMAGE if first == 65530 else IMAGE)
    assert (image[0, 0], image[-1, -1]) == (first, last)
    assert (grey.scale or FULL_SCALE) == scale
    assert not grey.remarks


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REMARKED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_applied_is_remarked_on(tmp_path: Path, name: str, form: str) -> None:
    tags, message = REMARKED[name]
    image, grey = both(tmp_path, tiff(IMAGE, tags, **FORMS[form]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(image, IMAGE)
    assert grey.scale is None
    assert len(grey.remarks) == 1
    assert re.match(message, grey.remarks[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_refused_is_named(tmp_path: Path, name: str, form: str) -> None:
    tags, message = REFUSED[name]
    if 259 in tags and "lzw" in form:
        pytest.skip("the compression is LZW")
    with pytest.raises((ValueError, TypeError), match=message):
        both(tmp_path, tiff(IMAGE, tags, **FORMS[form]))  # type: ignore[arg-type]


def test_fill_order(tmp_path: Path) -> None:
    """CellProfiler reads 160 and 45295 where a byte's bits run the other way."""
    image, _ = both(tmp_path, tiff(IMAGE, {266: (SHORT, (2,))}))
    np.testing.assert_array_equal(image, TURNED)
    assert (image[0, 0], image[-1, -1]) == (160, 45295)
    with pytest.raises(ValueError, match="FillOrder 2 of compressed pixels"):
        both(tmp_path, tiff(IMAGE, {266: (SHORT, (2,))}, lzw=True))


def test_plain_files_are_read_without_tifffile() -> None:
    """What a Phenix writes is still read by ourselves; what says something of counts is not."""
    harmless: dict[int, Value] = {254: (LONG, (0,)), 269: (ASCII, "384 wells"), 340: (SHORT, (194,)), 341: (SHORT, (65535,))}
    assert plain_strips(tiff(IMAGE, harmless, lzw=True), IMAGE.shape) is not None
    for tags, *_ in (*REMARKED.values(), *REFUSED.values()):
        assert plain_strips(tiff(IMAGE, tags, lzw=True), IMAGE.shape) is None, tags
    for name, (tags, scale, (first, _)) in READ.items():
        if scale != 65535 or first != 5:
            assert plain_strips(tiff(IMAGE, tags, lzw=True), IMAGE.shape) is None, name


def test_the_table_of_the_docs_is_the_code_s() -> None:
    rows = re.findall(
        r"^\| (\d[\d, ]*) \| .+? \| (honoured|refused|remarked on|irrelevant) \|",
        (CHECKOUT / "docs/plates.md").read_text(),
        re.M,
    )
    listed: dict[str, list[int]] = {}
    for codes, treated in rows:
        listed.setdefault(treated, []).extend(map(int, codes.split(",")))
    assert {k: sorted(v) for k, v in listed.items()} == {k: sorted(v) for k, v in tiff_tags.TABLE.items()}
    tested = {int(name.split()[0]) for cases in (REMARKED, REFUSED) for name in cases}
    assert tested | {266} >= set(tiff_tags.TABLE["refused"]) | set(tiff_tags.TABLE["remarked on"])


# ---- a plate


def write_tagged(root: Path, tags: dict[int, Value], channels: tuple[int, ...] = (1, 2, 3, 4, 5)) -> None:
    """A plate of 12-bit noise whose images of these channels have the tags."""
    images = write_plate(root, shape=(40, 56))
    for path in images.iterdir():
        channel = int(re.search(r"ch(\d)", path.name)[1])  # type: ignore[index]
        noise = np.random.default_rng([channel, len(path.name)]).integers(100, 4096, (40, 56)).astype(np.uint16)
        path.write_bytes(tiff(noise, tags if channel in channels else {}, lzw=True))


def test_a_plate_of_12_bits_is_divided_as_cellprofiler_divides(tmp_path: Path, device: Device) -> None:
    write_tagged(tmp_path, {281: (SHORT, (4095,))}, channels=(5, 4))  # DNA and ER
    plate = find_plate("BR00000001", tmp_path)
    (batch,) = read_fields(plate)
    assert batch.scales == ((4095.0, 4095.0, 65535.0, 65535.0, 65535.0),) * 6
    functions = open_illumination(plate, "none", device=device).functions
    result = correct(batch.pixels, functions, device=device, scales=batch.scales).numpy()
    raw = batch.pixels.numpy()
    np.testing.assert_array_equal(result[:, :2], raw[:, :2].astype(np.float32) / np.float32(4095))
    np.testing.assert_array_equal(result[:, 2:], raw[:, 2:].astype(np.float32) / np.float32(65535))
    assert batch.checks[0][0][0] == (raw[0, 0] >= 4095).mean()  # saturated
    assert batch.checks[0][2][0] == 0


def test_the_setting_wins_over_the_files(tmp_path: Path, device: Device) -> None:
    write_tagged(tmp_path, {281: (SHORT, (1000,))}, channels=(5,))
    plate = find_plate("BR00000001", tmp_path, PlateSettings(scale=4095))
    (batch,) = read_fields(plate)
    assert batch.scales == ((4095.0,) * 5,) * 6
    assert find_plate("BR00000001", tmp_path).scale is None


def test_an_estimate_is_of_the_scaled_images(tmp_path: Path, device: Device) -> None:
    """The same images at 65535, all at 4095, and half of the wells at each: functions as of the means CellProfiler takes."""
    from jumpgpu.images.illumination import smooth
    from jumpgpu.settings.config import IlluminationSettings

    write_tagged(tmp_path / "a", {})
    write_tagged(tmp_path / "b", {281: (SHORT, (4095,))})
    write_tagged(tmp_path / "c", {281: (SHORT, (4095,))})
    for path in (tmp_path / "c").rglob("r02*"):
        path.write_bytes((tmp_path / "a" / path.relative_to(tmp_path / "c")).read_bytes())
    for name in "abc":
        plate = find_plate("BR00000001", tmp_path / name)
        result = open_illumination(plate, "estimate", device=device, batch=4).functions.numpy()
        fields = [(b.pixels.numpy().copy(), b.scales) for b in read_fields(plate, batch=1)]
        means = np.mean([p[0] / np.array(s[0])[:, None, None] for p, s in fields], axis=0)
        np.testing.assert_allclose(
            result, [smooth(m, IlluminationSettings()) for m in means], rtol=2e-3
        )  # a count of 16 bits
    for k, path in enumerate(sorted((tmp_path / "c").rglob("*ch5*"))):
        path.write_bytes(tiff(np.ones((40, 56), np.uint16), {281: (SHORT, (100 + k,))}))
    for k, path in enumerate(sorted((tmp_path / "c").rglob("*ch4*"))):
        path.write_bytes(tiff(np.ones((40, 56), np.uint16), {281: (SHORT, (200 + k,))}))
    from jumpgpu.images import illumination

    assert len(find_plate("BR00000001", tmp_path / "c").sites) < illumination.MAX_SCALES
    more = write_plate(tmp_path / "d", wells=("A01", "A02", "A03"), sites=(1, 2, 3))
    for k, path in enumerate(sorted(more.glob("*ch5*"))):
        path.write_bytes(tiff(np.ones((40, 56), np.uint16), {281: (SHORT, (100 + k,))}))
    with pytest.raises(ValueError, match=r"BR00000001: its images give .* \[plate\] scale"):
        open_illumination(find_plate("BR00000001", tmp_path / "d"), "estimate", device=device)
    settled = find_plate("BR00000001", tmp_path / "d", PlateSettings(scale=4095))
    assert open_illumination(settled, "estimate", device=device).source == "estimated from 9 fields"


def test_remarks_flag_their_image_and_white_is_inverted(tmp_path: Path) -> None:
    write_tagged(tmp_path, {274: (SHORT, (3,)), 262: (SHORT, (0,))}, channels=(3,))
    (batch,) = read_fields(find_plate("BR00000001", tmp_path), wells=["A01"], sites=[1])
    assert [(p.channel, p.reason) for p in batch.flags] == [("RNA", "Orientation 3: read as it is stored")]
    assert batch.pixels[0, 2].numpy().min() >= 65535 - 4095


def test_saturation_is_at_full_scale() -> None:
    image = np.full((20, 20), 100, np.uint16)
    image[0, :8] = 4095
    image[1, :2] = 4096
    assert check_image(count_image(image))[0] == 0
    assert check_image(count_image(image, top_of(4095.0)))[0] == 10 / 400
    assert dataclasses.replace(count_image(image, 4095), top=65535, full=0) == count_image(image)
    assert [top_of(s) for s in (65535.0, 70000.0, 0.5, 4094.2)] == [65535, 65535, 1, 4095]


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(tmp_path: Path, scale: float) -> None:
    from jumpgpu.settings.config import load_config

    config = tmp_path / "x.toml"
    config.write_text(f"[plate]\nscale = {scale}\n")
    with pytest.raises(ValueError, match=r"scale"):
        load_config(config)
    config.write_text("[plate]\nscale = 4095\n")
    assert load_config(config).plate.scale == 4095.0
    assert image_name("A01", 1, 1)
