"""How whole images go together, against NumPy and SciPy as CellProfiler's MeasureColocalization calls them."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from jumpgpu.features import costes
from jumpgpu.gpu.device import Device
from jumpgpu.image_features import colocalization as colocal

NAMES = ("DNA", "RNA", "AGP")


def drawn() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    common = rng.integers(0, 4000, (53, 71))
    images = {n: (common // (k + 2) + rng.integers(0, 2000, common.shape)) for k, n in enumerate(NAMES)}
    images["AGP"][20:40] = 0
    return {n: (image / 65535).astype(np.float32) for n, image in images.items()}


def expected(a: np.ndarray, b: np.ndarray, percent: float, limits: tuple[float, float]) -> dict[str, float]:
    wide_a, wide_b = a.astype(float), b.astype(float)
    tops = [np.float32(percent * float(v.max()) / 100) for v in (a, b)]
    both = (a > tops[0]) & (b > tops[1])
    totals = [v[v > t].sum(dtype=float) for v, t in zip((a, b), tops, strict=True)]
    ranks = [rankdata(v.astype(float), "dense") - 1 for v in (a, b)]
    maximum = max(r.max() for r in ranks) + 1
    weight = (maximum - np.abs(ranks[0] - ranks[1])) / maximum
    x, y = wide_a[both], wide_b[both]
    of_limits = [np.float32(t) for t in limits]
    above = (a > of_limits[0]) & (b > of_limits[1])
    return {
        "Correlation": np.corrcoef(wide_a, wide_b)[0, 1],
        "Slope": np.linalg.lstsq(np.stack([wide_a, np.ones_like(wide_a)], 1), wide_b, rcond=None)[0][0],
        "Overlap": (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()),
        "K": (x * y).sum() / (x * x).sum(),
        "K_back": (x * y).sum() / (y * y).sum(),
        "Manders": x.sum() / totals[0],
        "Manders_back": y.sum() / totals[1],
        "RWC": (x * weight[both]).sum() / totals[0],
        "RWC_back": (y * weight[both]).sum() / totals[1],
        "Costes": wide_a[above].sum() / wide_a[a > of_limits[0]].sum(),
        "Costes_back": wide_b[above].sum() / wide_b[b > of_limits[1]].sum(),
    }


@pytest.mark.oracle
@pytest.mark.parametrize("masked", [(), ("RNA",), ("DNA", "AGP")])
@pytest.mark.parametrize("percent", [15.0, 40.0])
def test_every_pair(masked: tuple[str, ...], percent: float, device: Device) -> None:
    images, rng = drawn(), np.random.default_rng(0)
    masks = {n: rng.random((53, 71)) > 0.4 for n in masked}
    images["DNA"][7, 9] = np.float32(percent * float(images["DNA"].max()) / 100)  # at its threshold, which does not count
    given = {
        n: (device.tensor(torch.from_numpy(v)), device.tensor(torch.from_numpy(masks[n])) if n in masks else None)
        for n, v in images.items()
    }
    result = colocal.measure(given, percent, colocal.METRICS, device)
    names = []
    for a, b in (("DNA", "RNA"), ("DNA", "AGP"), ("RNA", "AGP")):
        inside = np.ones((53, 71), bool)
        for n in (a, b):
            inside &= masks.get(n, inside)
        planes = torch.from_numpy(np.stack([images[a][inside], images[b][inside]]))[None, :, None]
        (limits,) = costes.thresholds(planes.contiguous(), [(0, 1)], 65535, device)
        for measure, value in expected(images[a][inside], images[b][inside], percent, limits).items():
            head, _, back = measure.partition("_")
            names.append(f"{head}_{b}_{a}" if back else f"{head}_{a}_{b}")
            # products of two float32 are float32 in the kernel, as in CellProfiler
            assert result[names[-1]] == pytest.approx(value, rel=3e-7), names[-1]
    assert sorted(result) == sorted(names)


def test_images_without_a_common_pixel_have_nothing(device: Device) -> None:
    left = torch.zeros(6, 8, dtype=torch.bool)
    left[:, :4] = True
    images = {"A": (torch.rand(6, 8), left), "B": (torch.rand(6, 8), ~left)}
    result = colocal.measure(images, 15.0, ("correlation", "overlap"), device)
    assert list(result) == ["Correlation_A_B", "Slope_A_B", "Overlap_A_B", "K_A_B", "K_B_A"]
    assert all(np.isnan(v) for v in result.values())


def test_a_constant_image_has_no_correlation(device: Device) -> None:
    rng = np.random.default_rng(1)
    varied = torch.from_numpy(rng.random((20, 30)).astype(np.float32))
    result = colocal.measure({"A": (torch.full((20, 30), 0.5), None), "B": (varied, None)}, 15.0, ("correlation",), device)
    solver = np.linalg.lstsq(np.stack([np.full(600, 0.5), np.ones(600)], 1), varied.double().numpy().ravel(), rcond=None)
    assert np.isnan(result["Correlation_A_B"])
    assert result["Slope_A_B"] == pytest.approx(solver[0][0])


def test_images_of_several_sizes_are_refused(device: Device) -> None:
    with pytest.raises(ValueError, match=r"image B is \[4, 6\], image A \[5, 6\]"):
        colocal.measure({"A": (torch.rand(5, 6), None), "B": (torch.rand(4, 6), None)}, 15.0, ("rwc",), device)
