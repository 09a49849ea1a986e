"""A page's LZW strips read by ourselves, against tifffile's reading of the same bytes."""

import io
import itertools

import numpy as np
import pytest
import tifffile

from jumpgpu.images.strips import Strips, lzw_strips, plain_strips
from jumpgpu.images.tiff import MALFORMED, reader

SHAPE = 41, 33
FILES = list(itertools.product("<>", (False, True), (7, 41, None)))


def written(byteorder: str, predictor: bool, rows: int | None, **more: object) -> bytes:
    image = np.random.default_rng(0).integers(0, 4000, SHAPE, dtype=np.uint16)
    file = io.BytesIO()
    given = {"byteorder": byteorder, "predictor": predictor, "rowsperstrip": rows, "compression": "lzw"}
    tifffile.imwrite(file, image, **{"metadata": None, **given, **more})  # type: ignore[arg-type]
    return file.getvalue()


def theirs(data: bytes) -> Strips | None:
    with reader(data, SHAPE) as page:
        return lzw_strips(page, SHAPE)


def same(ours: Strips | None, other: Strips | None) -> bool:
    assert ours is not None
    assert other is not None
    return np.array_equal(ours.places, other.places) and (ours.swap, ours.predict) == (other.swap, other.predict)


@pytest.mark.parametrize(("byteorder", "predictor", "rows"), FILES)
def test_strips_are_those_of_tifffile(byteorder: str, predictor: bool, rows: int | None) -> None:
    data = written(byteorder, predictor, rows)
    assert same(plain_strips(data, SHAPE), theirs(data))
    assert plain_strips(data, SHAPE[::-1]) is None


def test_what_is_not_plain_is_left_to_tifffile() -> None:
    for more in ({"compression": None}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}):
        assert plain_strips(written("<", False, None, **more), SHAPE) is None, more
    two, colour = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(two, np.zeros((2, *SHAPE), np.uint16), compression="lzw", metadata=None, photometric="minisblack")
    tifffile.imwrite(colour, np.zeros((*SHAPE, 3), np.uint16), compression="lzw", metadata=None, photometric="rgb")
    bytes_ = io.BytesIO()
    tifffile.imwrite(bytes_, np.zeros(SHAPE, np.uint8), compression="lzw", metadata=None)
    for file in (two, colour, bytes_):
        assert plain_strips(file.getvalue(), SHAPE) is None


def test_bytes_that_were_tampered_with() -> None:
    """Whatever the tags say, strips lie within the file, and are tifffile's where it takes the file."""
    random, taken = np.random.default_rng(1), 0
    for order, predictor, rows in FILES:
        whole = np.frombuffer(written(order, predictor, rows), np.uint8)
        for _ in range(80):
            data = whole.copy()
            places = random.integers(4, 300, random.integers(1, 3))
            data[places] = random.choice([0, 1, 2, 3, 4, 5, 16, 127, 255], len(places))
            ours = plain_strips(data.tobytes(), SHAPE)
            assert plain_strips(data[: random.integers(0, 400)].tobytes(), SHAPE) is None
            if ours is None:
                continue
            taken += 1
            assert (ours.places[:, :2] > 0).all()
            assert (ours.places[:, :2].sum(axis=1) <= len(data)).all()
            try:
                other = theirs(data.tobytes())
            except MALFORMED:
                continue
            assert same(ours, other)
    assert taken > 50
