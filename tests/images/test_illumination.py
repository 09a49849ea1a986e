"""Illumination sources: estimate and its reuse, flat fields, folders, none; and what is refused."""

import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.filters import median
from skimage.morphology import disk
from skimage.transform import resize

from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import open_illumination, polynomial, rescale
from jumpgpu.images.illumination_files import Illumination, load_illumination, parse_npy
from jumpgpu.images.indexes.flatfield import Flatfield
from jumpgpu.images.locate import find_plate
from jumpgpu.settings.config import IlluminationSettings
from jumpgpu.settings.names import CHANNELS, well_name
from tests.helpers.image_plates import NUMBERS, image_name, index_xml, write_plate, write_tiff

BARCODE = "BR00000001"
SIZE = 100, 120


@pytest.fixture
def plate(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Two wells of vignetted noise at 100 x 120."""
    images = write_plate(tmp_path, wells=("A01", "B02"), sites=(1, 2), shape=SIZE)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    falloff = 1 / (1 + ((y - 50) ** 2 + (x - 60) ** 2) / 4000)
    for well in ("A01", "B02"):
        for site in (1, 2):
            for c in NUMBERS.values():
                rng = np.random.default_rng([site, c, ord(well[0])])
                write_tiff(
                    images / image_name(well, site, c), (2000 * falloff * rng.uniform(0.8, 1.2, SIZE)).astype(np.uint16)
                )
    return find_plate(BARCODE, tmp_path)


@pytest.mark.filterwarnings("ignore:Bad rank filter performance")
def test_estimate_is_the_five_steps(plate, device: Device) -> None:  # type: ignore[no-untyped-def]
    """scikit-image, image by image as CellProfiler does; apart from rounding across a count of the median the same."""
    from jumpgpu.images.reader import read_fields

    result = open_illumination(plate, "estimate", device=device)
    stack = np.concatenate([b.pixels.numpy().copy() for b in read_fields(plate)]) / 65535
    for c in range(5):
        small = np.mean([resize(i, (20, 24), order=1, mode="symmetric", anti_aliasing=True) for i in stack[:, c]], axis=0)
        smooth = median((small * 65535).astype(np.uint16), disk(9), behavior="rank") / 65535
        expected = resize(rescale(smooth, 0.02), SIZE, order=1, mode="symmetric")
        np.testing.assert_allclose(result.functions[c].numpy(), expected, rtol=2e-3)  # one count of about 1000
    assert result.functions.min() == 1.0
    assert result.source == "estimated from 4 fields"


def test_estimate_is_kept_and_reused_only_for_the_same_inputs(plate, device: Device, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "out/illum" / BARCODE
    first = open_illumination(plate, device=device, folder=folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*(f"{BARCODE}_Illum{c}.npy" for c in CHANNELS), f"{BARCODE}_estimate.json"]
    )
    again = open_illumination(plate, device=device, folder=folder)
    assert "kept in" in again.source
    assert torch.equal(first.functions, again.functions)
    assert torch.equal(first.functions, load_illumination(folder, plate, CHANNELS).functions)
    other = open_illumination(plate, device=device, folder=folder, settings=IlluminationSettings(filter_size=10))
    assert "kept" not in other.source
    (folder / f"{BARCODE}_IllumDNA.npy").write_bytes(b"torn")
    mended = open_illumination(plate, device=device, folder=folder, settings=IlluminationSettings(filter_size=10))
    assert "kept" not in mended.source
    assert torch.equal(mended.functions, other.functions)
    Path(plate.sites[0].files[0]).unlink()
    third = open_illumination(plate, device=device, folder=folder)
    assert third.source == "estimated from 3 fields"
    assert third.notes[0].startswith(f"left out of the illumination estimate: {BARCODE} A01 site 1 DNA")


def test_estimate_does_not_depend_on_batch_or_threads(plate, device: Device) -> None:  # type: ignore[no-untyped-def]
    expected = open_illumination(plate, device=device, batch=1, workers=0).functions
    assert torch.equal(expected, open_illumination(plate, device=device, batch=3, workers=2).functions)


MEASURED = """
import resource, sys
from jumpgpu.settings.config import IlluminationSettings
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import estimate_illumination
from jumpgpu.images.locate import find_plate
device = open_device("cpu")
peaks = []
for barcode in ("SMALL", "LARGE"):
    _, n, _ = estimate_illumination(find_plate(barcode, sys.argv[1]), IlluminationSettings(), device=device, batch=4)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(n, peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_plate(tmp_path: Path) -> None:
    """240 fields after 20: 96 MB of pixels, and at most 16 MB more memory (lists of names, threads' buffers)."""
    written = write_plate(tmp_path / "one", wells=("A01",), sites=(1,), shape=(200, 200))
    for barcode, wells in (("SMALL", 5), ("LARGE", 60)):
        folder = tmp_path / "all" / barcode
        folder.mkdir(parents=True)
        for k in range(wells):
            well = well_name(k // 24 + 1, k % 24 + 1)
            for site in range(1, 5):
                for c in NUMBERS.values():
                    os.link(written / image_name("A01", 1, c), folder / image_name(well, site, c))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, str(tmp_path / "all")],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    n, kilobytes = map(int, done.stdout.split())
    assert n == 240
    assert kilobytes < 16_000


def test_none(plate, device: Device) -> None:  # type: ignore[no-untyped-def]
    result = open_illumination(plate, "none", device=device, channels=["RNA", "DNA"])
    assert torch.equal(result.functions, torch.ones(2, *SIZE))


def test_flatfield_from_an_index(plate, device: Device) -> None:  # type: ignore[no-untyped-def]
    profile = (
        "{{Background: {{Profile: {{Coefficients: [[1.5], [0, {}], [-1, 0, -0.5]], Dims: [120, 100], "
        "Origin: [59.5, 49.5], Scale: [0.01, 0.01], Type: Polynomial}}}}}}"
    )
    identity = "{Background: {Profile: {Type: Identity}}}"
    entries = {1: profile.format("NaN"), 2: profile.format("-INF"), 3: identity, 4: identity, 5: profile.format(0.2)}
    extra = "".join(f"<Entry ChannelID='{c}'><FlatfieldProfile>{t}</FlatfieldProfile></Entry>" for c, t in entries.items())
    with pytest.raises(ValueError, match=r"no FlatfieldProfile for DNA .*--illumination estimate"):
        open_illumination(plate, "flatfield", device=device)
    (plate.folder / "Index.idx.xml").write_text(index_xml(("A01", "B02"), (1, 2), extra=extra, shape=SIZE))
    result = open_illumination(find_plate(BARCODE, plate.folder), "flatfield", device=device)
    x, y = np.meshgrid((np.arange(120) - 59.5) / 100, (np.arange(100) - 49.5) / 100)
    expected = rescale(1.5 + 0.2 * y - x * x - 0.5 * y * y, 0.02)
    np.testing.assert_allclose(result.functions[0].numpy(), expected, rtol=1e-6)  # float32
    assert torch.equal(result.functions[1:], torch.ones(4, *SIZE))
    assert [n.split(":")[0] for n in result.notes] == [f"{BARCODE} AGP", f"{BARCODE} Mito"]


def test_flatfield_of_another_binning() -> None:
    profile = Flatfield(((1.0,), (0.5, -0.25)), (200, 100), (99.5, 49.5), (0.005, 0.005))
    full = polynomial(profile, (100, 200), 0.0)
    half = polynomial(profile, (50, 100), 0.0)
    pooled = full.reshape(50, 2, 100, 2).mean((1, 3))
    ratio = half / pooled
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)  # the scale differs by the 2 % position alone


def test_folder_names(plate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "functions"
    (folder / BARCODE).mkdir(parents=True)
    functions = {c: np.full(SIZE, 1 + i, np.float32) for i, c in enumerate(CHANNELS)}
    np.save(folder / "IllumDNA.npy", functions["DNA"])
    np.save(folder / f"{BARCODE}_IllumER.npy", functions["ER"].astype(np.float64))
    np.save(folder / "IllumER.npy", functions["DNA"])  # the plate's own wins
    np.savez(folder / f"{BARCODE}_IllumRNA.npz", illum=functions["RNA"])
    np.savez_compressed(folder / "IllumAGP.npz", illum=np.asfortranarray(functions["AGP"]))
    with pytest.raises(FileNotFoundError, match=f"{BARCODE}: no Mito illumination function"):
        load_illumination(folder, plate, CHANNELS)
    np.save(folder / BARCODE / f"{BARCODE}_IllumMito.npy", functions["Mito"])
    result = load_illumination(folder, plate, CHANNELS)
    np.testing.assert_array_equal(result.functions.numpy(), np.stack(list(functions.values())))


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, ""),
        (0.5, "values are 0.5 to 2.5; .* 1 as its least: images come out 2 times as bright"),
        (0.97, "values are 0.97 to"),
        (100.0, "values are 100 to 500; .* images come out 0.01 times as bright"),
        (1.2, "values are 1.2 to 6;"),
        (np.where(np.arange(SIZE[1]) == 7, 100.0, 1.0), "values are 1 to 123.5: the light would fall off"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "npz"])
def test_doubtful_functions_are_flagged(plate, tmp_path: Path, device: Device, source: str, factor, said: str) -> None:  # type: ignore[no-untyped-def]
    """Of one channel, by name; what CellProfiler makes, of six real fields and from flat fields, is not."""
    good = np.broadcast_to(np.linspace(1, 5, SIZE[1], dtype=np.float32), SIZE)
    folder = tmp_path / "functions"
    folder.mkdir()
    for c in CHANNELS:
        function = (good * (factor if c == "RNA" else 1)).astype(np.float32)
        if source == "npz":
            np.savez(folder / f"Illum{c}.npz", illum=function)
        else:
            np.save(folder / f"Illum{c}.npy", function)
    warnings = open_illumination(plate, str(folder), device=device).warnings
    if said:
        assert len(warnings) == 1
        assert re.match(f"RNA: the illumination function's {said}", warnings[0]), warnings
    else:
        assert not warnings


def test_real_functions_are_not_flagged(shared: Path, plate, device: Device) -> None:  # type: ignore[no-untyped-def]
    for folder in (shared / "data/cellprofiler", shared / "data/cellprofiler/flatfield"):
        functions = [np.load(folder / f"Illum{c}.npz")["illum"] for c in CHANNELS]
        assert not Illumination(CHANNELS, torch.from_numpy(np.stack(functions)), "x").warnings
    assert not open_illumination(plate, "estimate", device=device).warnings
    assert not open_illumination(plate, "none", device=device).warnings


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype == object)
    return buffer.getvalue()


class Shout:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (print, ("a pickle ran",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not an .npy file"),
        (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16, "not an .npy file"),
        (pickle.dumps(Shout()), "not an .npy file"),
        (npy(np.array([[Shout()]], dtype=object)), "object of shape"),
        (npy(np.ones((5, 4), np.float32)), r"shape \(5, 4\); expected .* \(4, 5\)"),
        (npy(np.ones((4, 5), np.int32)), "int32"),
        (npy(np.ones((4, 5), np.float16)), "float16"),
        (npy(np.ones((4, 5), np.float32))[:-1], "bytes of values"),
        (npy(np.zeros((4, 5), np.float32)), "not positive"),
        (npy(np.full((4, 5), np.nan)), "not positive"),
        (npy(np.ones((4, 5))).replace(b"(4, 5)", b"(4, 9)"), r"\(4, 9\)"),
        (npy(np.ones((4, 5))).replace(b"(4, 5), }", b"(9**9**9,)"), "not an .npy file"),
    ],
)
def test_hostile_arrays(data: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=message):
        parse_npy(data, (4, 5), "x")
    assert "pickle" not in capsys.readouterr().out
