"""LZW of TIFF files against imagecodecs: real files, drawn bytes, other byte orders, streams that were tampered with."""

import io
import random
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jumpgpu.gpu.cpu import CpuDevice, decode_lzw
from jumpgpu.images.lzw import decode_strips
from jumpgpu.images.tiff import decode
from jumpgpu.storage.local import Local

GUARD = 64


def ours(stream: bytes, size: int) -> bytes | None:
    """The decoded bytes, or None where they are declined; nothing before or behind them is touched."""
    out = np.full(size + 2 * GUARD, 0xA5, np.uint8)
    (done,) = decode_lzw(b"\x11" * 5 + stream, np.array([[5, len(stream), GUARD, size]]), out)
    assert (out[:GUARD] == 0xA5).all()
    assert (out[GUARD + size :] == 0xA5).all()
    return out[GUARD : GUARD + size].tobytes() if done else None


def on_device(stream: bytes, size: int) -> bytes | None:
    """`ours` by the kernels that cut a strip into segments."""
    out = torch.full((size + 2 * GUARD,), 0xA5, dtype=torch.uint8)
    data = torch.from_numpy(np.frombuffer(bytearray(b"\x11" * 5 + stream + bytes(8)), np.uint8))
    status = torch.full((1,), 7)
    decode_strips(data, np.array([[5, len(stream), GUARD, size]]), out, status, CpuDevice(1))
    assert (out[:GUARD] == 0xA5).all()
    assert (out[GUARD + size :] == 0xA5).all()
    return None if status.item() else out[GUARD : GUARD + size].numpy().tobytes()


def drawn(kind: str, n: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return {
        "noise": lambda: rng.integers(0, 256, n, np.uint8),
        "camera": lambda: rng.poisson(300, n // 2 + 1).astype("<u2").view(np.uint8)[:n],
        "few": lambda: rng.integers(0, 3, n, np.uint8),
        "flat": lambda: np.zeros(n, np.uint8),
        "runs": lambda: np.repeat(rng.integers(0, 256, n // 50 + 1, np.uint8), 50)[:n],
        "pairs": lambda: np.tile(np.array([7, 200], np.uint8), n // 2 + 1)[:n],
    }[kind]().tobytes()


@pytest.mark.parametrize("kind", ["noise", "camera", "few", "flat", "runs", "pairs"])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 255, 3837, 4096, 100_003, 2_000_000])
def test_drawn_bytes_of_every_kind_and_size(kind: str, n: int) -> None:
    plain = drawn(kind, n, n)
    assert ours(imagecodecs.lzw_encode(plain), n) == plain
    assert on_device(imagecodecs.lzw_encode(plain), n) == plain


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.integers(1, 60))
def test_any_bytes_come_back(pattern: bytes, times: int) -> None:
    plain = pattern * times
    assert ours(imagecodecs.lzw_encode(plain), len(plain)) == plain


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["noise", "camera", "few", "flat", "runs"]), st.integers(1, 9000), st.randoms(use_true_random=False))
def test_a_stream_that_was_tampered_with_is_declined_or_means_the_same_to_both(
    kind: str, n: int, rng: random.Random
) -> None:
    stream = bytearray(imagecodecs.lzw_encode(drawn(kind, n, n)))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(stream))
        what = rng.randrange(3)
        if what == 0:
            stream[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del stream[at:]
        else:
            stream[at:at] = rng.randbytes(rng.randint(1, 5))
        if not stream:
            break
    size = rng.choice([n, n, max(1, n // 2), 2 * n, 40 * n])
    result, segmented = ours(bytes(stream), size), on_device(bytes(stream), size)
    assert segmented in (None, result)
    if result is not None:
        other = np.zeros(size, np.uint8)
        assert len(imagecodecs.lzw_decode(bytes(stream), out=other)) == size
        assert result == other.tobytes()


def test_what_cannot_be_decoded_is_declined() -> None:
    stream = imagecodecs.lzw_encode(drawn("camera", 5000, 1))
    assert ours(stream, 5000) is not None
    assert ours(stream, 5001) is None  # ends early
    assert ours(stream[:-40], 5000) is None
    assert ours(b"", 10) is None
    assert ours(stream[2:], 5000) is None  # does not begin with a clear
    bomb = imagecodecs.lzw_encode(bytes(3_000_000))  # 4 KB that stand for 3 MB
    assert len(bomb) < 6000
    assert ours(bomb, 1000) is None
    assert on_device(bomb, 1000) is None
    assert on_device(stream, 5001) is None
    assert on_device(stream[2:], 5000) is None


def test_a_strip_outside_the_file_or_the_image_is_refused() -> None:
    out = np.zeros(10, np.uint8)
    for strip in ([0, 5, 0, 10], [-1, 3, 0, 10], [0, 4, 1, 10], [0, 4, 0, -1]):
        with pytest.raises(ValueError, match="outside"):
            decode_lzw(b"1234", np.array([strip]), out)
    with pytest.raises(TypeError, match="uint8"):
        decode_lzw(b"1234", np.array([[0, 4, 0, 10]]), np.zeros(10, np.int8))
    assert decode_lzw(b"", np.zeros((0, 4), np.int64), out).shape == (0,)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows", [1, 7, 61])
def test_files_of_either_byte_order_with_a_predictor_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byteorder: Any, predictor: int, rows: int
) -> None:
    """`decode` reads them itself: tifffile's own decoding is taken away."""
    image = np.random.default_rng(rows).poisson(2000, (61, 83)).astype(np.uint16)
    image[20:40, 10:60] = 65535
    path = tmp_path / "image.tiff"
    tifffile.imwrite(
        path,
        image,
        byteorder=byteorder,
        compression="lzw",
        predictor=predictor == 2,
        rowsperstrip=rows,
        photometric="minisblack",
    )
    np.testing.assert_array_equal(tifffile.imread(path), image)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    out = np.zeros_like(image)
    decode(str(path), Local(tmp_path, (tmp_path.resolve(),)), out)
    np.testing.assert_array_equal(out, image)


def test_the_real_files(shared: Path) -> None:
    files = sorted((shared / "data" / "fields").glob("*/Images/*.tiff"))
    assert len(files) == 30
    for k, path in enumerate(files):
        data = path.read_bytes()
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            (offset,), (count,) = page.dataoffsets, page.databytecounts
            stream, size = data[offset : offset + count], 2 * page.shape[0] * page.shape[1]
        plain = imagecodecs.lzw_decode(stream, out=size)
        assert ours(stream, size) == plain, path.name
        if k % 7 == 0:
            assert on_device(stream, size) == plain, path.name
