"""CorrectIlluminationCalculate, Smooth and Resize beside the functions that CellProfiler calls (centrosome, scikit-image).

The 99 cases of CorrectIlluminationCalculate that these are drawn from were also run by CellProfiler 4.2.8.1 itself on crops
of real fields: docs/cellprofiler.md says how they compare.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from centrosome import bg_compensate, cpmorphology, filter, smooth
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from skimage import filters
from skimage.transform import resize as resize_plane

from jumpgpu.gpu.device import Device
from jumpgpu.images.locate import find_plate
from jumpgpu.run.functions import functions_by_steps
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.names import CHANNELS
from jumpgpu.steps.illumination import PlateAverage
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import Image
from tests.segmentation.test_ranks import twin as introsort

SHAPE = (131, 173)
Array = np.ndarray
SMOOTHINGS = ("none", "median", "gaussian", "polynomial", "average", "convex_hull", "splines")


def drawn(seed: int) -> Array:
    """float32 [H, W]: light that falls off, and cells."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = 0.02 + 0.03 * np.exp(-(((y / SHAPE[0] - 0.4) / 0.6) ** 2) - ((x / SHAPE[1] - 0.6) / 0.5) ** 2)
    cells = ndimage.gaussian_filter((random.random(SHAPE) > 0.997).astype(float), 3) * 8
    return np.asarray((light * (1 + cells) + random.normal(0, 2e-4, SHAPE)).clip(0, 1), np.float32)


def mask_of(seed: int) -> Array:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray((y - 60) ** 2 + (x - 80) ** 2 < (45 + 5 * seed) ** 2)


def stored(image: Array) -> Array:
    """As CellProfiler keeps an image: whole counts of 16 bits over 65535, all in float32."""
    return image.astype(np.float32) / np.float32(65535) if image.dtype == np.uint16 else image.astype(np.float32)


def averaged(image: Array, mask: Array | None, step: kinds.Illumination) -> Array:
    if not step.background or step.smoothing == "splines":
        return image if mask is None else np.where(mask, image, 0).astype(np.float32)
    labels, indexes = cpmorphology.block(image.shape, (step.block, step.block))
    if mask is not None:
        labels[~mask] = -1
    minima = cpmorphology.fixup_scipy_ndimage_result(ndimage.minimum(image, labels, indexes))
    result = np.zeros(image.shape)
    result[labels != -1] = minima[labels[labels != -1]]
    return stored(result)


def smoothed(image: Array, mask: Array, step: kinds.Illumination) -> Array:
    size = min(30, max(image.shape) / 40) if step.size is None else step.size
    by: dict[str, Callable[[], Array]] = {
        "none": lambda: image,
        "gaussian": lambda: smooth.smooth_with_function_and_mask(
            image, lambda v: ndimage.gaussian_filter(v, size / 2.35, mode="constant", cval=0), mask
        ),
        "median": lambda: filters.median(
            (image * 65535).astype(np.uint16) * mask,
            cpmorphology.strel_disk(max(1, int(size / 2.35 + 0.5))),
            behavior="rank",
        ),
        "polynomial": lambda: smooth.fit_polynomial(image, mask),
        "average": lambda: np.ones(image.shape, image.dtype) * np.mean(image[mask]),
        "convex_hull": lambda: cpmorphology.grey_dilation(
            filter.convex_hull_transform(cpmorphology.grey_erosion(image, 2, mask), mask=mask), 2, mask
        ),
        "splines": lambda: by_splines(image, mask),
    }
    return stored(by[step.smoothing]())


def by_splines(image: Array, mask: Array) -> Array:
    result = bg_compensate.backgr(image, mask, scale=max(1, min(image.shape) / 200))
    result[mask] -= np.mean(result[mask])
    return np.asarray(result)


def scaled(image: Array, mask: Array, how: str) -> Array:
    values = np.sort(image[(image > 0) & mask])
    if how == "no":
        return image
    if how == "median":
        return image / values[len(values) // 2]
    minimum = values[int(len(values) * 0.02)]
    return np.where(image < minimum, minimum, image) / minimum


def function_by_centrosome(average: Array, mask: Array, step: kinds.Illumination) -> Array:
    if step.dilation:
        kernel = smooth.circular_gaussian_kernel(step.dilation, step.dilation * 3)
        average = stored(
            smooth.smooth_with_function_and_mask(
                average, lambda v: ndimage.convolve(v, kernel, mode="constant", cval=0), mask
            )
        )
    return scaled(smoothed(average, mask, step), mask, step.rescale)


CASES = {
    f"{smoothing}, {name}": kinds.Illumination("in", "out", smoothing=smoothing, **given)
    for smoothing in SMOOTHINGS
    for name, given in {
        "plain": {},
        "rescaled": {"rescale": "yes"},
        "background": {"background": True, "block": 20, "rescale": "median"},
        "dilated": {"dilation": 2, "rescale": "yes"},
    }.items()
} | {
    "a wide background": kinds.Illumination("in", "out", background=True, block=20, smoothing="gaussian", size=60.0),
    "a sized median": kinds.Illumination("in", "out", smoothing="median", size=20.0, rescale="yes"),
}


@pytest.mark.filterwarnings("ignore:Bad rank filter performance")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_function_of_each_image(name: str, masked: bool, device: Device) -> None:
    step = CASES[name]
    images = np.stack([drawn(0), drawn(1)])
    masks = np.stack([mask_of(0), mask_of(1)]) if masked else None
    state = run_steps(
        [step],
        {},
        {},
        device,
        images={"in": Image(torch.from_numpy(images), None if masks is None else torch.from_numpy(masks))},
    )
    ours = state.images["out"].pixels.numpy()
    assert ours.dtype == np.float32
    for b, image in enumerate(images):
        mask = np.ones(SHAPE, bool) if masks is None else masks[b]
        theirs = function_by_centrosome(averaged(image, None if masks is None else mask, step), mask, step)
        if step.smoothing == "splines":  # a rounding of the fit, over values near 0
            assert_allclose(ours[b][mask], theirs[mask], rtol=1e-3, atol=1e-3 * np.abs(theirs).max())
        else:
            assert_array_equal(ours[b], theirs.astype(np.float32))


@pytest.mark.filterwarnings("ignore:Bad rank filter performance")
@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("splines")])
def test_function_of_a_plate(name: str, device: Device) -> None:
    """The mean is added up in float32, image after image, as CellProfiler does."""
    step = dataclasses.replace(CASES[name], plate=True)
    average, total = PlateAverage(step), np.zeros(SHAPE, np.float32)
    for seed in range(3):
        average.add(Image(torch.from_numpy(drawn(seed)[None])))
        total = total + averaged(drawn(seed), None, step)
    ours = average.function(device)["out"].pixels[0].numpy()
    theirs = function_by_centrosome((total / np.int32(3)).astype(np.float32), np.ones(SHAPE, bool), step)
    assert_array_equal(ours, theirs.astype(np.float32))


def test_what_is_kept_besides(device: Device) -> None:
    step = kinds.Illumination("in", "out", dilation=2, smoothing="gaussian", average="mean", dilated="wide")
    state = run_steps([step], {}, {}, device, images={"in": Image(torch.from_numpy(drawn(0)[None]))})
    assert_array_equal(state.images["mean"].pixels[0].numpy(), drawn(0))
    assert np.ptp(state.images["wide"].pixels.numpy()) < np.ptp(drawn(0))
    assert np.ptp(state.images["out"].pixels.numpy()) < np.ptp(state.images["wide"].pixels.numpy())


class OlderSort:
    """NumPy, but for the order of equals in whole numbers, which is 1.23's (CellProfiler 4.2.8's)."""

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    def argsort(self, counts: Array) -> Array:
        return np.array(introsort(counts.tolist()))


def median_of_older_numpy(image: Array, mask: Array, radius: float) -> Array:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("centrosome.rankorder.np", OlderSort())
        return np.asarray(filter.median_filter(image, mask, radius))


SMOOTH: dict[str, tuple[kinds.Smooth, Callable[[Array, Array], Array]]] = {
    "gaussian": (
        kinds.Smooth("in", "out", "gaussian", 9.0),
        lambda v, m: smooth.smooth_with_function_and_mask(
            v, lambda u: ndimage.gaussian_filter(u, 9 / 2.35, mode="constant", cval=0), m
        ),
    ),
    "median": (kinds.Smooth("in", "out", "median", 8.0), lambda v, m: median_of_older_numpy(v, m, 5.0)),
    "automatic": (
        kinds.Smooth("in", "out", "median"),
        lambda v, m: median_of_older_numpy(v, m, np.mean(v.shape) / 40 / 2 + 1),
    ),
    "circular": (
        kinds.Smooth("in", "out", "circular_average", 6.0),
        lambda v, m: filter.circular_average_filter(v, 4.0, m),
    ),
    "polynomial": (kinds.Smooth("in", "out", "polynomial"), lambda v, m: smooth.fit_polynomial(v, m)),
    "average": (kinds.Smooth("in", "out", "average"), lambda v, m: np.ones(v.shape) * np.mean(v[m])),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth(name: str, masked: bool, device: Device) -> None:
    step, oracle = SMOOTH[name]
    image, mask = drawn(0), mask_of(0) if masked else np.ones(SHAPE, bool)
    there = Image(torch.from_numpy(image[None]), torch.from_numpy(mask[None]) if masked else None)
    ours = run_steps([step], {}, {}, device, images={"in": there}).images["out"].pixels[0].numpy()
    assert ours.dtype == np.float32
    assert_array_equal(ours[mask], oracle(image, mask).astype(np.float32)[mask])


def test_smooth_keeping_edges(device: Device) -> None:
    """Noise goes, an edge higher than the range stays."""
    image = np.where(np.arange(80) < 40, 0.2, 0.7) + np.random.default_rng(0).normal(0, 0.01, (60, 80))
    there = {"in": Image(torch.from_numpy(image.astype(np.float32)[None]))}
    step = kinds.Smooth("in", "out", "keeping_edges", 7.0, 0.05)
    ours = run_steps([step], {}, {}, device, images=there).images["out"].pixels[0].numpy()
    assert ours[:, :40].std() < image[:, :40].std() / 3
    assert ours[:, 40].mean() - ours[:, 39].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("factor", "order"), [(0.1, 1), (0.3, 1), (0.3, 0), (3.0, 1), (2.0, 0)])
def test_resize(factor: float, order: int, device: Device) -> None:
    image = drawn(0)
    there = {"in": Image(torch.from_numpy(image[None]), torch.from_numpy(mask_of(0)[None]))}
    state = run_steps([kinds.Resize("in", "out", factor, factor, order=order)], {}, {}, device, images=there)
    size = tuple(round(n * factor) for n in SHAPE)
    theirs = resize_plane(image, size, order=order, mode="symmetric", anti_aliasing=factor < 1)
    # Today's scikit-image interpolates in another order of operations than 0.18 did: a few roundings of float32.
    assert_allclose(state.images["out"].pixels[0].numpy(), theirs, atol=1e-6)
    valid = state.images["out"].valid
    assert valid is not None
    assert valid.shape == (1, *size)
    assert float(valid.double().mean()) == pytest.approx(mask_of(0).mean(), abs=0.02)


def test_a_function_that_has_another_size(device: Device) -> None:
    there = {"in": Image(torch.from_numpy(drawn(0)[None])), "f": Image(torch.ones(20, 30))}
    with pytest.raises(ValueError, match=r"image in is \[131, 173\] pixels, function f is \[20, 30\]"):
        run_steps([kinds.Illuminate("in", "f", "out")], {}, {}, device, images=there)


@pytest.mark.parametrize("method", ["divide", "subtract"])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("high", [False, True])
def test_apply(method: str, low: bool, high: bool, device: Device) -> None:
    """CellProfiler's truncation of negative values after a subtraction does not ask."""
    image, function = drawn(0) - np.float32(0.03), np.full(SHAPE, 0.01, np.float32)
    there = {"in": Image(torch.from_numpy(image[None])), "f": Image(torch.from_numpy(function))}
    state = run_steps([kinds.Illuminate("in", "f", "out", method, low, high)], {}, {}, device, images=there)
    theirs = image / function if method == "divide" else np.maximum(image - function, 0)
    theirs = np.maximum(theirs, 0) if low else theirs
    theirs = np.minimum(theirs, 1) if high else theirs
    assert_array_equal(state.images["out"].pixels[0].numpy(), theirs)


def test_functions_over_a_plate_equal_cellprofilers(shared: Path, device: Device, tmp_path: Path) -> None:
    """CPJUMP1's illumination pipeline over the six real fields, to the last bit."""
    from jumpgpu.cellprofiler.parse import read_pipeline
    from jumpgpu.cellprofiler.translate import translate

    file = Path(__file__).parents[1] / "cellprofiler/pipelines/cpjump1_illumination_load_data.cppipe"
    plate = find_plate("BR00117010", shared / "data/fields")
    steps = translate([read_pipeline(file)]).function_steps
    result = functions_by_steps(plate, steps, True, tmp_path, device, 4, 1)
    assert result.source == "by the pipeline from 6 fields"
    assert sorted(result.channels) == sorted(CHANNELS)
    for channel, ours in zip(result.channels, result.functions.numpy(), strict=True):
        theirs = np.load(shared / f"data/cellprofiler/Illum{channel}.npz")["illum"]
        assert_array_equal(ours, theirs, channel)
    again = functions_by_steps(plate, steps, True, tmp_path, device, 4, 1)
    assert "kept in" in again.source
    assert torch.equal(again.functions, result.functions)
