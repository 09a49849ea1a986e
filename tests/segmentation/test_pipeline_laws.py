"""Laws of the segmentation: batches, threads and flipped blocks change nothing; odd fields have defined results."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.pipeline import Segmentation, segment
from jumpgpu.settings.config import PrimarySettings, SecondarySettings, SegmentationSettings, ThresholdSettings, load_config

CHANNELS = ("DNA", "RNA")
SETTINGS = SegmentationSettings()


def drawn(seed: int, fields: int, nuclei: int, height: int = 150, width: int = 190) -> torch.Tensor:
    """float32 [B, 2, H, W]: round nuclei, some touching, in cells that fade outward."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.zeros((fields, 2, height, width))
    for field in pixels:
        for _ in range(nuclei):
            cy, cx, r = random.uniform(0, height), random.uniform(0, width), random.uniform(6, 11)
            squared = (y - cy) ** 2 + (x - cx) ** 2
            field[0] = np.maximum(field[0], 0.2 / (1 + np.exp((np.sqrt(squared) - r) * 1.5)))
            field[1] += 0.1 * np.exp(-squared / (2 * (2.2 * r) ** 2))
        field += random.uniform(0.001, 0.004, field.shape)
    return torch.from_numpy(pixels.clip(0, 1).astype(np.float32))


def assert_same(one: Segmentation, other: Segmentation) -> None:
    for kind in ("labels", "unfiltered", "thresholds"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), (kind, name)
    assert torch.equal(one.counts, other.counts)


def field_of(result: Segmentation, b: int) -> Segmentation:
    parts = [{n: v[b : b + 1] for n, v in getattr(result, kind).items()} for kind in ("labels", "unfiltered", "thresholds")]
    return Segmentation(parts[0], parts[1], result.counts[b : b + 1], parts[2])


@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_a_batch_is_its_fields_one_at_a_time(device: Device, preset: str) -> None:
    settings = load_config(preset).segmentation
    pixels = drawn(0, 5, 18)
    pixels[2] = 0  # an empty field inside the batch
    together = segment(pixels, CHANNELS, settings, device)
    assert together.counts[0] > 5
    for b in range(5):
        assert_same(field_of(together, b), segment(pixels[b : b + 1], CHANNELS, settings, device))
    flipped = segment(pixels.flip(0), CHANNELS, settings, device)
    for b in range(5):
        assert_same(field_of(together, b), field_of(flipped, 4 - b))


@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_sixteen_small_fields_are_their_fields_one_at_a_time(device: Device, preset: str) -> None:
    settings = load_config(preset).segmentation
    pixels = torch.cat([drawn(10 + n, 1, n, 97, 131) for n in range(16)])  # the first has no nucleus
    together = segment(pixels, CHANNELS, settings, device)
    assert together.counts[0] == 0
    assert together.counts.max() > 5
    for b in range(16):
        assert_same(field_of(together, b), segment(pixels[b : b + 1], CHANNELS, settings, device))


@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_threads_change_nothing(preset: str) -> None:
    settings = load_config(preset).segmentation
    pixels = drawn(1, 4, 18)
    assert_same(*(segment(pixels, CHANNELS, settings, open_device("cpu", workers)) for workers in (1, 2)))


def test_numbers_and_nesting(device: Device) -> None:
    result = segment(drawn(2, 4, 22), CHANNELS, SETTINGS, device)
    nuclei, cells, cytoplasm = (result.labels[c] for c in ("Nuclei", "Cells", "Cytoplasm"))
    for b, n in enumerate(result.counts.tolist()):
        assert sorted(set(nuclei[b].unique().tolist()) - {0}) == list(range(1, n + 1))
        assert set(cells[b].unique().tolist()) == set(nuclei[b].unique().tolist())
        for name, images in result.unfiltered.items():
            kept = result.labels[name][b]
            assert torch.equal(torch.where(images[b] <= n, images[b], 0), kept), name
    inside = nuclei > 0
    assert torch.equal(cells[inside], nuclei[inside])
    assert torch.equal(torch.where(cytoplasm > 0, cytoplasm, cells), cells)
    assert not (torch.cat([nuclei[:, 0], nuclei[:, -1]], 1) > 0).any()
    assert not (torch.cat([nuclei[..., 0], nuclei[..., -1]], 1) > 0).any()


def test_a_mirrored_field_has_as_many_cells(device: Device) -> None:
    """Their borders may differ, since the jitter that parts equal distances is not mirrored; what they cover may not."""
    pixels = drawn(3, 1, 12)
    settings = dataclasses.replace(SETTINGS, nuclei=dataclasses.replace(SETTINGS.nuclei, background=None))
    plain, mirrored = (segment(p, CHANNELS, settings, device) for p in (pixels, pixels.flip(3).contiguous()))
    assert torch.equal(plain.unfiltered["Cells"] > 0, mirrored.unfiltered["Cells"].flip(2) > 0)
    assert plain.counts.tolist() == mirrored.counts.tolist()


def test_empty_full_and_saturated_fields(device: Device) -> None:
    pixels = torch.zeros((4, 2, 61, 83))
    pixels[1] = 0.5
    pixels[2] = 1.0
    pixels[3, :, 20:40, 30:52] = 1.0  # one saturated object on nothing: a plateau has one maximum
    result = segment(pixels, CHANNELS, SETTINGS, device)
    assert result.counts.tolist() == [0, 0, 0, 1]
    assert result.labels["Nuclei"][3][30, 41] == 1


def test_one_pixel_objects_and_one_pixel_fields(device: Device) -> None:
    settings = SegmentationSettings(
        nuclei=PrimarySettings(
            background=None,
            threshold=ThresholdSettings(method="manual", manual=0.5),
            discard_size=False,
            discard_border=False,
        ),
        cells=SecondarySettings(threshold=ThresholdSettings(method="manual", manual=0.5)),
    )
    pixels = torch.zeros((2, 2, 9, 13))
    pixels[0, :, 4, 5] = pixels[0, :, 0, 0] = pixels[0, :, 8, 12] = 0.9
    result = segment(pixels, CHANNELS, settings, device)
    assert result.counts.tolist() == [3, 0]
    assert result.labels["Cells"][0][4, 5] == 2
    for shape in ((1, 1), (1, 7), (7, 1)):
        result = segment(torch.full((1, 2, *shape), 0.9), CHANNELS, settings, device)
        assert result.counts.tolist() == [1]
        assert (result.labels["Nuclei"] == 1).all()
    assert segment(torch.zeros((0, 2, 9, 13)), CHANNELS, settings, device).counts.numel() == 0


def test_two_thousand_nuclei(device: Device) -> None:
    y, x = np.mgrid[:840, :1040]
    spots = np.sqrt(((y % 21) - 10.0) ** 2 + ((x % 20) - 9.5) ** 2)
    dna = (0.3 / (1 + np.exp((spots - 6.5) * 3))).astype(np.float32)
    result = segment(torch.from_numpy(np.stack([dna, dna])[None]), CHANNELS, SETTINGS, device)
    count = int(ndimage.label(dna > 0.15)[1])
    assert count == 2080
    assert result.counts.tolist() == [count]
    assert len(result.labels["Cells"].unique()) == count + 1


@pytest.mark.parametrize("method", ["watershed", "propagation", "distance"])
@pytest.mark.parametrize("declump", ["shape", "intensity", "none"])
def test_every_method_gives_cells_for_nuclei(device: Device, declump: str, method: str) -> None:
    settings = SegmentationSettings(
        nuclei=PrimarySettings(declump=declump, dividing_lines=declump, fill_holes="both"),
        cells=SecondarySettings(method=method, distance=6, threshold=ThresholdSettings(method="otsu2"), discard_border=True),
    )
    result = segment(drawn(4, 2, 14), CHANNELS, settings, device)
    assert (result.counts > 0).all()
    for b, n in enumerate(result.counts.tolist()):
        for name in ("Nuclei", "Cells"):
            assert sorted(set(result.labels[name][b].unique().tolist()) - {0}) == list(range(1, n + 1))


def test_unknown_settings_and_channels_are_told(device: Device) -> None:
    pixels = torch.zeros((1, 2, 9, 13))
    with pytest.raises(ValueError, match=r"channel is 'DNA'; this plate's channels are \('ER', 'RNA'\)"):
        segment(pixels, ("ER", "RNA"), SETTINGS, device)
    wrong = dataclasses.replace(SETTINGS, cells=dataclasses.replace(SETTINGS.cells, method="flood"))
    with pytest.raises(ValueError, match=r"unknown segmentation.cells.method 'flood'; expected one of \('watershed'"):
        segment(pixels, CHANNELS, wrong, device)
