"""A plate of every kind of good, odd and bad image is read on CUDA's stand-in as on the CPU: pixels, words and stores."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import jumpgpu
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.cuda import CudaDevice
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images import ring_buffer as rings
from jumpgpu.images.locate import find_plate
from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import read_fields
from jumpgpu.run import batch as measuring
from jumpgpu.run import plate as program
from tests.helpers.image_plates import SHAPE, image_name, noise, write_plate, write_tiff
from tests.helpers.lzw_encoder import encode
from tests.helpers.plates import contents, write_images
from tests.images.test_reader import (
    colour,
    cut_short,
    empty,
    folder,
    garbage,
    jpeg,
    missing,
    short_lzw,
    truncated,
    two_pages,
    wrong_dtype,
    wrong_size,
)
from tests.simulators.standin_cuda import standin

BAD = (colour, cut_short, empty, folder, garbage, jpeg, missing, short_lzw, truncated, two_pages, wrong_dtype, wrong_size)
KINDS: tuple[dict[str, Any], ...] = (
    {"compression": None},
    {"compression": "zlib"},
    {"compression": "zstd", "byteorder": ">"},
    {"compression": "packbits"},
    {"predictor": True},
    {"predictor": True, "byteorder": ">", "rowsperstrip": 9},
    {"byteorder": ">"},
    {"rowsperstrip": 7},
    {"rowsperstrip": 1},
    {"tile": (16, 16)},
    {"compression": None, "byteorder": ">", "bigtiff": True},
)


def turned(path: Path) -> None:
    """A bit within the codes is another: a code that is not in the table, or the wrong number of bytes, or other pixels."""
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.dataoffsets[0] + tiff.pages.first.databytecounts[0] // 2
    data = bytearray(path.read_bytes())
    data[at] ^= 0x80
    path.write_bytes(data)


def without_clear(path: Path) -> None:
    """Codes that do not begin with a clear, which imagecodecs reads and the device does not."""
    with tifffile.TiffFile(path) as tiff:
        at, n = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    bits = int.from_bytes(data[at : at + n], "big") << 9 & (1 << 8 * n) - 1
    data[at : at + n] = bits.to_bytes(n, "big")
    path.write_bytes(data)


def cleared_often(path: Path) -> None:
    """More segments than the device has room for, which the host reads."""
    image = tifffile.imread(path)
    with tifffile.TiffFile(path) as tiff:
        offset, tag = tiff.pages.first.dataoffsets[0], tiff.pages.first.tags["StripByteCounts"].offset + 8
    stream = encode(image.tobytes(), itertools.repeat(60))
    data = bytearray(path.read_bytes()[:offset]) + stream
    data[tag : tag + 4] = len(stream).to_bytes(4, "little")
    path.write_bytes(data)
    assert (tifffile.imread(path) == image).all()


def at(images: Path, k: int, channel: int) -> Path:
    """An image of the k-th site."""
    return images / image_name("A01", k + 1, channel)


def write_all(root: Path) -> Plate:
    """A plate with a site of each kind, and two of several; each channel that is not spoken of is LZW."""
    damages: tuple[Callable[[Path], None], ...] = (*BAD, turned, without_clear, cleared_often)
    images = write_plate(root, wells=("A01",), sites=tuple(range(1, 60)))
    k = 0
    for damage in damages:
        damage(at(images, k, 3))
        k += 1
    for kind in KINDS:
        for channel in (1, 3, 4):
            write_tiff(at(images, k, channel), noise("A01", k + 1, channel), **kind)
        k += 1
    longer = np.random.default_rng(9).integers(0, 65536, SHAPE, np.uint16)  # as LZW than there is room for
    write_tiff(at(images, k - 1, 2), longer)
    truncated(at(images, k, 2))  # the host finds one, the device the other
    turned(at(images, k, 5))
    without_clear(at(images, k, 1))
    cleared_often(at(images, k, 4))
    empty(at(images, k + 1, 2))
    missing(at(images, k + 1, 5))
    k += 2
    write_tiff(at(images, k, 5), np.zeros(SHAPE, np.uint16))
    write_tiff(at(images, k, 4), np.full(SHAPE, 777, np.uint16), compression=None)
    write_tiff(at(images, k, 3), np.full(SHAPE, 777, np.uint16))
    half = noise("A01", 3, 3)
    half[20:] = 0
    half[3, 4] = 0
    write_tiff(at(images, k + 1, 3), half)
    bright = noise("A01", 4, 2)
    bright[:5] = 65535
    write_tiff(at(images, k + 1, 2), bright, predictor=True)
    write_tiff(at(images, k + 1, 1), np.full(SHAPE, 65535, np.uint16))
    shutil.copy(at(images, k + 2, 1), at(images, k + 2, 2))  # a copy, once more in other bytes, and of the last but one
    write_tiff(at(images, k + 2, 4), noise("A01", k + 3, 1), compression="zlib")
    other = noise("A01", k + 3, 5)
    other[0, 0], other[0, 1] = 100, 60000
    write_tiff(at(images, k + 2, 5), other)
    other[-1, -1] += 1
    write_tiff(at(images, k + 2, 3), other)  # the same range, and one pixel is another
    shutil.copy(at(images, k + 3, 5), at(images, k + 3, 3))
    cleared_often(at(images, k + 3, 4))  # what the device judged is judged again
    for site in range(k + 5, 60):
        for channel in range(1, 6):
            at(images, site - 1, channel).unlink()
    return find_plate("BR00000001", root)


def said(plate: Plate, batch: int, device: Device | None, **options: Any) -> tuple[list[Any], list[str], np.ndarray]:
    """All that batches say, and their pixels."""
    lines, kinds, pixels = [], [], []
    for b in read_fields(plate, batch=batch, device=device, **options):
        lines += [(b.sites, b.quarantined, b.flags, b.finished, repr(b.checks))]
        kinds += [p.reason for p in (*b.quarantined, *b.flags)]
        pixels.append(b.pixels.cpu().numpy().copy())
    return lines, kinds, np.concatenate(pixels)


@pytest.mark.parametrize(("batch", "workers", "ahead"), [(1, 0, 0), (7, 2, 2), (64, 1, 1)])
def test_a_plate_of_all_kinds_is_read_as_on_the_cpu(tmp_path: Path, batch: int, workers: int, ahead: int) -> None:
    plate = write_all(tmp_path)
    want, reasons, pixels = said(plate, batch, CpuDevice(1))
    assert len(set(reasons)) >= 20
    assert sum("again" in r for r in reasons) == 3
    with standin() as gpu:
        got, _, result = said(plate, batch, open_device("cuda"), workers=workers, ahead=ahead)
        assert {"lzw_bytes", "raw_place", "raw_counts", "raw_same"} <= set(gpu.launches)
    assert got == want
    np.testing.assert_array_equal(result, pixels)


def test_codes_that_the_device_reads_are_not_decoded_by_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plate(tmp_path, wells=("A01", "A02"), sites=(1, 2, 3))
    plate = find_plate("BR00000001", tmp_path)
    want = said(plate, 4, None)
    monkeypatch.setattr("jumpgpu.images.strips.decode_lzw", None)
    monkeypatch.setattr("jumpgpu.images.site.decode", None)
    monkeypatch.setattr("jumpgpu.images.site.count_image", None)
    with standin():
        got = said(plate, 4, open_device("cuda"))
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[2], want[2])


def test_one_batch_is_sent_ahead_and_the_host_waits_once_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plate(tmp_path, wells=("A01", "A02"), sites=(1, 2, 3))
    plate = find_plate("BR00000001", tmp_path)
    done: list[str] = []
    for name in ("send", "finish"):
        real = getattr(rings.CudaRing, name)

        def noted(self: Any, pending: Any, name: str = name, real: Any = real) -> Any:
            done.append(f"{name} {pending.number}")
            return real(self, pending)

        monkeypatch.setattr(rings.CudaRing, name, noted)
    with standin() as gpu:
        waits = []
        real_wait = gpu.waited
        monkeypatch.setattr(gpu, "waited", lambda known: (waits.append(done[-1]), real_wait(known)))
        device = CudaDevice()  # opened without the launch that open_device tries
        list(read_fields(plate, batch=2, ahead=2, workers=0, device=device))
    assert done == ["send 0", "send 1", "finish 0", "send 2", "finish 1", "finish 2"]
    assert [w for w in waits if w.startswith("finish")][:3] == ["finish 0", "finish 1", "finish 2"]


@pytest.mark.parametrize("batch", [None, 2])
def test_a_store_made_on_cuda_is_the_cpus_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | None
) -> None:
    """Both say that they are one device, for that is the only word in a store that may differ.

    With some batches, a batch's tables are waited for when the next one is launched.
    """
    images = write_images(tmp_path, sites=(1, 2, 3, 4))

    def image(well: int, site: int, channel: int) -> Path:
        return images / f"r{well:02d}c{well:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"

    missing(image(1, 1, 2))
    truncated(image(1, 2, 3))
    cleared_often(image(1, 3, 4))
    write_tiff(image(1, 4, 5), np.zeros((56, 64), np.uint16))
    turned(image(2, 1, 1))
    garbage(image(2, 1, 4))
    shutil.copy(image(2, 2, 1), image(2, 2, 3))
    write_tiff(image(2, 3, 1), tifffile.imread(image(2, 3, 1)), compression=None)
    write_tiff(image(2, 3, 2), tifffile.imread(image(2, 3, 2)), predictor=True)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number", "intensity"]\n')
    real = program.settings_of
    monkeypatch.setattr(program, "settings_of", lambda *given: {**real(*given), "device": "either"})
    monkeypatch.setattr("jumpgpu.run.provenance.settings_of", program.settings_of)

    def run(device: str) -> dict[str, bytes]:
        jumpgpu.extract(
            "DEMO",
            images=tmp_path / "images",
            masks=tmp_path / "masks",
            illumination="none",
            config=tmp_path / "small.toml",
            device=device,
            batch=batch,
            output=tmp_path / device,
            quiet=True,
        )
        return contents(tmp_path / device)

    want = run("cpu")
    assert b"truncated" in want["quarantine.csv"]
    order: list[str] = []
    launch = measuring.launch

    def watched(*given: Any) -> measuring.Tables:
        order.append("launched")
        end = launch(*given)
        return lambda: order.append("fetched") or end()  # type: ignore[func-returns-value]

    monkeypatch.setattr(measuring, "launch", watched)
    with standin() as gpu:
        got = run("cuda")
        assert "lzw_bytes" in gpu.launches
    assert got == want
