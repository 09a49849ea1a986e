"""Every reader, fed with damaged files, ends in what it read or in the one error it promises.

A short run by default. A long one by hand: `JUMPGPU_FUZZ=100000 python -m pytest tests/images/test_readers_fuzz.py`.
"""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jumpgpu.images.illumination import polynomial
from jumpgpu.images.illumination_files import parse_npy
from jumpgpu.images.indexes.flatfield import parse_flatfield
from jumpgpu.images.label_files import read_labels
from jumpgpu.images.locate import find_plate
from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import read_fields
from tests.helpers.image_plates import SHAPE, image_name, index_xml, load_data_csv, noise, write_plate

BARCODE = "BR00000001"
EXAMPLES = int(os.environ.get("JUMPGPU_FUZZ", "150"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=True
)
WORDS = [b"", b"\0", b"\xff" * 4, b"0", b"-1", b"99999999999", b"NaN", b"1e999", b"/../", b"<", b"&amp;", b'"', b",", b"\n"]
WORDS += [b"\x00\x01", b"\xff\xff\xff\x7f", b"[", b"]", b"{", b"}", b"=1", "\u202e".encode(), b"<!DOCTYPE a>", b"://"]
edit = st.tuples(
    st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(WORDS), st.binary(max_size=8)), st.booleans()
)


def damaged(seed: bytes, edits: list[tuple[float, int, bytes, bool]]) -> bytes:
    """The file with pieces replaced; half of the places in its first 400 bytes, where headers are."""
    data = bytearray(seed)
    for place, length, piece, early in edits:
        at = int(place * min(len(data), 400 if early else len(data)))
        data[at : at + length] = piece
    return bytes(data)


def tiff(dtype: str = "uint16", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = noise("A01", 1, 5).astype(dtype)
    tifffile.imwrite(buffer, image, **{"photometric": "minisblack", "metadata": None, **options})
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


TIFFS = [
    tiff(compression="lzw"),
    tiff(),
    tiff(compression="zlib"),
    tiff(compression="zstd"),
    tiff(compression="lzw", predictor=True),
    tiff(compression="lzw", rowsperstrip=7),
    tiff(compression="lzw", tile=(16, 16)),
    tiff(compression="lzw", byteorder=">"),
    tiff(compression="lzw", bigtiff=True),
]
PROFILE = (
    "{Background: {Character: NonFlat, Mean: 443.8, Profile: {Coefficients: [[1.2], [0.1, -0.1], [-1.4, 0.2, INF]], Dims: "
    "[56, 40], Origin: [27.5, 19.5], Scale: [0.0179, 0.0179], Type: Polynomial}, Quality: 1.0}, ChannelName: Alexa 488}"
)
INDEX = index_xml(
    wells=("A01",), sites=(1,), extra=f"<Entry ChannelID='5'><FlatfieldProfile>{PROFILE}</FlatfieldProfile></Entry>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of one site, whose metadata the tests overwrite."""
    return write_plate(tmp_path_factory.mktemp("fuzz"), wells=("A01",), sites=(1,))


def sound(plate: Plate) -> None:
    """What every plate that is handed on must be."""
    assert plate.sites
    assert len({(s.well, s.site) for s in plate.sites}) == len(plate.sites)
    for site in plate.sites:
        assert len(site.files) == len(plate.channels)
        for file in site.files:
            assert file is None or (os.path.normpath(file) == file and Path(file).is_relative_to(plate.roots[0]))


def outcome(read: Callable[[], Any], *errors: type[Exception]) -> tuple[Any, str]:
    """What was read and an empty string, or None and the message of the one error that is promised."""
    try:
        return read(), ""
    except errors as error:
        return None, str(error) or "an error without a message"


def read_or_refuse(read: Callable[[], Plate]) -> None:
    plate, message = outcome(read, ValueError)
    assert len(message) < 2000
    if not message:
        sound(plate)


@fuzz
@given(edits=st.lists(edit, min_size=1, max_size=6))
def test_indexes(folder: Path, edits: list[tuple[float, int, bytes, bool]]) -> None:
    index = folder / "Index.idx.xml"
    index.write_bytes(damaged(INDEX.encode(), edits))
    read_or_refuse(lambda: find_plate(BARCODE, folder))
    index.unlink()


@fuzz
@given(edits=st.lists(edit, min_size=1, max_size=6))
def test_tables(folder: Path, edits: list[tuple[float, int, bytes, bool]]) -> None:
    table = folder / "load_data.csv"
    table.write_bytes(damaged(load_data_csv(".", wells=("A01", "B02"), sites=(1, 2)).encode(), edits))
    read_or_refuse(lambda: find_plate(BARCODE, table))
    table.unlink()


@fuzz
@given(seed=st.sampled_from(TIFFS), edits=st.lists(edit, min_size=1, max_size=6))
def test_images(folder: Path, seed: bytes, edits: list[tuple[float, int, bytes, bool]]) -> None:
    plate = find_plate(BARCODE, folder)
    (folder / image_name("A01", 1, 5)).write_bytes(damaged(seed, edits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (batch,) = list(read_fields(plate, workers=0))
    assert len(batch.sites) + len(batch.skipped) == 1
    assert tuple(batch.pixels.shape[1:]) == (5, *SHAPE)
    assert all(0 < len(p.reason) < 400 for p in (*batch.quarantined, *batch.flags))


@fuzz
@given(edits=st.lists(edit, min_size=1, max_size=4), fortran=st.booleans())
def test_arrays(edits: list[tuple[float, int, bytes, bool]], fortran: bool) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(1 + np.random.default_rng(0).random((6, 7), np.float32), order="F" if fortran else "C"))
    result, message = outcome(lambda: parse_npy(damaged(buffer.getvalue(), edits), (6, 7), "x"), ValueError)
    assert message == "" or message.startswith("x: ")
    if not message:
        assert result.shape == (6, 7)
        assert result.dtype == np.float32
        assert (result > 0).all()
        assert np.isfinite(result).all()


LABELS = [
    *(tiff(dtype=kind, compression="zlib") for kind in ("uint16", "int32", "uint8")),
    *(npy(np.arange(40 * 56, dtype=kind).reshape(40, 56)) for kind in ("uint16", "int64")),
]


@fuzz
@given(seed=st.sampled_from(LABELS), edits=st.lists(edit, min_size=1, max_size=6))
def test_label_images(folder: Path, seed: bytes, edits: list[tuple[float, int, bytes, bool]]) -> None:
    path = folder / ("label.npy" if seed.startswith(b"\x93NUMPY") else "label.tiff")
    path.write_bytes(damaged(seed, edits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, message = outcome(lambda: read_labels(path, folder, SHAPE)[0], ValueError)
    assert len(message) < 400
    if not message:
        assert image.shape == SHAPE
        assert 0 <= image.min() <= image.max() < 2**31
    path.unlink()


@fuzz
@given(edits=st.lists(edit, min_size=1, max_size=6))
def test_flat_fields(edits: list[tuple[float, int, bytes, bool]]) -> None:
    text = damaged(PROFILE.encode(), edits).decode(errors="replace")
    profile, message = outcome(lambda: parse_flatfield(text, "x"), ValueError)
    assert message == "" or message.startswith("x: ")
    if not message:
        with np.errstate(over="ignore", invalid="ignore"):
            assert polynomial(profile, (20, 30), 0.02).shape == (20, 30)


@fuzz
@given(text=st.text(max_size=60))
def test_any_text_as_barcode(folder: Path, text: str) -> None:
    plate, message = outcome(lambda: find_plate(text, folder.parents[1]), ValueError, FileNotFoundError)
    assert message or plate.barcode == text
