"""Drawn fields have what was asked for: counts, sizes, effects, fall-off, and no accident of the drawing."""

import numpy as np
import pytest

from jumpgpu.drawing.fields import BACKGROUND, Drawn, Effects, draw_field, falloff, make_tiles
from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import correct
from jumpgpu.settings.names import CHANNELS
from jumpgpu.synthetic import MECHANISMS

SIZE = 400, 440
TILES, LIGHT = make_tiles(np.random.default_rng(0), SIZE), falloff(SIZE)


def draw(seed: int, cells: float, effects: Effects = Effects(), light: np.ndarray = LIGHT) -> Drawn:  # noqa: B008
    return draw_field(np.random.default_rng(seed), SIZE, cells, effects, TILES, light)


@pytest.mark.parametrize("a_field", [0, 20, 100, 400, 800])
def test_density(a_field: int) -> None:
    """Nuclei a 1080 x 1080 field, 20 to 800: within a fifth of what was asked, over a few fields."""
    wanted = a_field * SIZE[0] * SIZE[1] / 1080**2
    result = [draw(seed, wanted).nuclei.max() for seed in range(6)]
    assert np.mean(result) == pytest.approx(wanted, rel=0.2, abs=1.5)


def test_sizes_and_intensities_are_those_of_real_fields() -> None:
    """U2OS at 0.6 um: nuclei 25 to 42 pixels across, counts in the ranges of CPJUMP1's fields."""
    field = draw(1, 16)
    diameters = 2 * np.sqrt(field.table["nucleus_area"][field.table["touches_border"] == 0] / np.pi)
    assert 25 < np.median(diameters) < 42
    background = field.cells == 0
    for channel, image, low, high in zip(
        CHANNELS, field.images, (300, 200, 350, 400, 700), (600, 450, 650, 760, 1060), strict=True
    ):
        assert low < np.median(image[background]) < high, channel
        assert image[field.nuclei > 0].mean() > 1.1 * image[background].mean(), channel
        assert image.max() < 65535
    assert field.images[0][field.nuclei > 0].mean() > 4000


def test_labels_are_whole_numbers_shared_by_nuclei_and_cells() -> None:
    for seed, cells in ((0, 15), (1, 90), (2, 0)):
        field = draw(seed, cells)
        n = len(field.table["object"])
        np.testing.assert_array_equal(np.unique(field.nuclei), np.arange(n + 1))
        np.testing.assert_array_equal(np.unique(field.cells), np.arange(n + 1))
        assert (field.cells[field.nuclei > 0] == field.nuclei[field.nuclei > 0]).all()


def test_light_falls_off_as_told() -> None:
    """Empty fields over flat ones: the ratio of means is the fall-off, to the noise of 176,000 pixels."""
    dark, flat = draw(3, 0), draw(3, 0, light=np.ones_like(LIGHT))
    for c in range(5):
        corner = np.s_[:40, :40]
        expected = LIGHT[c][corner].mean()
        assert dark.images[c][corner].mean() / flat.images[c][corner].mean() == pytest.approx(expected, rel=2e-3)
    assert LIGHT.max() == 1
    assert (LIGHT > 0.4).all()


def test_corrected_cells_have_the_intensity_they_were_drawn_with(device: Device) -> None:
    """Divided by the true illumination, a cell's mean is signal plus background: to 2 %, since blur moves light out."""
    functions = LIGHT / LIGHT.min(axis=(1, 2), keepdims=True)
    for seed in range(3):
        field = draw(seed, 14)
        pixels = correct(device.tensor(field.images[None]), device.tensor(functions), device=device)[0].numpy()
        n = len(field.table["object"])
        areas = np.bincount(field.cells.ravel(), minlength=n + 1)[1:]
        for c, channel in enumerate(CHANNELS):
            result = np.bincount(field.cells.ravel(), weights=pixels[c].ravel(), minlength=n + 1)[1:] / areas
            drawn = (field.table[f"signal_{channel}"] + BACKGROUND[channel]) * LIGHT[c].min() / 65535
            np.testing.assert_allclose(np.median(result / drawn), 1, atol=0.02, err_msg=channel)
            assert np.corrcoef(result, drawn)[0, 1] > 0.99, channel


def mean(fields: list[Drawn], key: str) -> float:
    return float(np.mean(np.concatenate([f.table[key] for f in fields])))


@pytest.mark.parametrize(
    ("gene", "key", "minimum", "maximum"),
    [
        ("MITO", "signal_Mito", 0.2, 0.7),
        ("RETI", "signal_ER", 1.5, 2.1),
        ("NUCL", "signal_RNA", 0.5, 0.85),
        ("COND", "nucleus_area", 0.45, 0.8),
        ("SWEL", "nucleus_area", 1.2, 1.7),
        ("TOXI", "cell_area", 0.5, 0.95),
    ],
)
def test_treatments_have_effects_that_grow_with_strength(gene: str, key: str, minimum: float, maximum: float) -> None:
    plain = [draw(seed, 14) for seed in range(3)]
    half = [draw(seed + 10, 14, MECHANISMS[gene].at(0.5)) for seed in range(3)]
    full = [draw(seed + 20, 14, MECHANISMS[gene]) for seed in range(3)]
    ratio = mean(full, key) / mean(plain, key)
    assert minimum < ratio < maximum
    assert min(1, ratio) - 0.12 < mean(half, key) / mean(plain, key) < max(1, ratio) + 0.12
    assert Effects() == MECHANISMS[gene].at(0)


def test_toxic_treatments_leave_fewer_cells() -> None:
    assert sum(draw(s, 20, MECHANISMS["TOXI"]).nuclei.max() for s in range(4)) < 0.6 * sum(
        draw(s, 20).nuclei.max() for s in range(4)
    )


def test_same_generator_same_field() -> None:
    one, two, other = draw(7, 12), draw(7, 12), draw(8, 12)
    np.testing.assert_array_equal(one.images, two.images)
    assert (one.images != other.images).any()
