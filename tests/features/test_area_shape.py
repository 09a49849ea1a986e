"""Shape against scikit-image (regionprops), SciPy (distances) and centrosome (Feret diameters, Zernike) on drawn scenes."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.measure import perimeter, regionprops

from jumpgpu.features import area_shape as shape
from jumpgpu.features.distance_map import depths
from jumpgpu.features.objects import ObjectBatch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, ShapeSettings
from tests.helpers.scenes import drawn_labels, drawn_scene, ellipse, ragged_labels, row_masks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # centrosome's own
    from centrosome.cpmorphology import convex_hull_ijv, feret_diameter
    from centrosome.zernike import zernike

SETTINGS = FeatureSettings(shape=ShapeSettings(zernike=True, advanced=True, convex_area=True))


def odd_labels() -> dict[str, np.ndarray]:
    """Objects that strain the conventions: one pixel, lines, squares, two parts, holes, a wide one, a tall one, a frame."""
    labels = np.zeros((2, 150, 140), np.int32)
    n = 0
    for y, x in ((0, 0), (149, 139), (4, 6)):  # single pixels, two at corners
        n += 1
        labels[0, y, x] = n
    for mask in (
        np.s_[10, 3:9],  # a line along the row
        np.s_[12:20, 5],  # a line down the column
        np.s_[12:14, 12:14],  # a square of 4
        np.s_[22:31, 3:12],  # a square of 81
        np.s_[34:36, 1:139],  # wider than two words of pixels
        np.s_[40:148, 3:5],  # taller than a band of lines
    ):
        n += 1
        labels[0][mask] = n
    n += 1
    np.fill_diagonal(labels[0, 50:61, 20:31], n)  # a slanted line
    n += 1
    labels[0, 50:56, 40:46] = n  # two parts, far from each other, and a hole in one
    labels[0, 80:90, 90:100] = n
    labels[0, 83:85, 93:96] = 0
    n += 1
    labels[0, 100, 40] = labels[0, 101, 41] = labels[0, 100, 42] = n  # touching at corners alone
    n += 1
    labels[0][ellipse(150, 140, 120, 70, 30, 18, 0.5)] = n
    n += 1
    labels[0][ellipse(150, 140, 120, 70, 11, 9, 0.5)] = n  # inside it
    labels[1] = 1  # an object that fills the field
    return {"Cells": labels}


SCENES = {"cells": drawn_labels, "ragged": ragged_labels, "odd": odd_labels}


@pytest.fixture(scope="module", params=SCENES)
def batch(request: pytest.FixtureRequest, device: Device) -> ObjectBatch:
    return drawn_scene(device, SCENES[request.param](), channels=("DNA",))


def measured(batch: ObjectBatch, device: Device) -> list[tuple[str, np.ndarray, dict[str, float]]]:
    """Of every row with pixels: what it is, its mask, and its measures by name without compartment and family."""
    table = shape.measure(batch, SETTINGS, device).numpy()
    names = [c for k in batch.objects.compartments for c in shape.columns(k, ("DNA",), SETTINGS)]
    result = []
    for row, (field, number, compartment, mask) in enumerate(row_masks(batch)):
        mine = {
            c.split("_", 2)[2]: table[row % batch.objects.n, i]
            for i, c in enumerate(names)
            if c.startswith(compartment + "_")
        }
        if not mask.any():
            assert mine.pop("Area") == 0
            assert np.isnan(list(mine.values())).all()
            continue
        result.append((f"{compartment} {number} of field {field}", mask, mine))
    return result


def assert_close(mine: dict[str, float], theirs: dict[str, float], what: str, rtol: float, atol: float) -> None:
    names = list(theirs)
    ours = np.array([mine[n] for n in names])
    wanted = np.array([theirs[n] for n in names])
    with np.errstate(invalid="ignore"):
        bad = ~np.isclose(ours, wanted, rtol, atol, equal_nan=True)
    assert not bad.any(), f"{what}: " + ", ".join(
        f"{names[i]} {ours[i]!r}, expected {wanted[i]!r}" for i in np.nonzero(bad)[0]
    )


def test_region_properties(batch: ObjectBatch, device: Device) -> None:
    for what, mask, mine in measured(batch, device):
        (props,) = regionprops(mask.astype(np.uint8))
        area, border = float(props.area), float(perimeter(mask, 4))
        y0, x0, y1, x1 = props.bbox
        exact = {
            "Area": area,
            "BoundingBoxArea": props.area_bbox,
            "BoundingBoxMinimum_X": x0,
            "BoundingBoxMaximum_X": x1,
            "BoundingBoxMinimum_Y": y0,
            "BoundingBoxMaximum_Y": y1,
            "EulerNumber": props.euler_number,
            "ConvexArea": props.area_convex,
        }
        assert_close(mine, exact, what, 0, 0)
        with np.errstate(divide="ignore"):
            form = 4 * np.pi * area / np.float64(border) ** 2
        close = {
            "Center_X": props.centroid[1],
            "Center_Y": props.centroid[0],
            "Compactness": border**2 / (4 * np.pi * area),
            "EquivalentDiameter": props.equivalent_diameter_area,
            "Extent": props.extent,
            "FormFactor": form,
            "MajorAxisLength": props.axis_major_length,
            "Perimeter": border,
            "Solidity": props.solidity,
        }
        assert_close(mine, close, what, 1e-12, 1e-12)
        # Theirs takes an eigenvalue from a difference: an error of 1e-15 in it is one of 3e-8 in its root.
        assert_close(
            mine, {"MinorAxisLength": props.axis_minor_length, "Eccentricity": props.eccentricity}, what, 1e-12, 4e-7
        )


def test_orientation(batch: ObjectBatch, device: Device) -> None:
    for what, mask, mine in measured(batch, device):
        (props,) = regionprops(mask.astype(np.uint8))
        if props.eccentricity < 1e-6:  # no axis is longer, and rounding decides theirs
            assert abs(mine["Orientation"]) in (0, 45, 90), what
            continue
        if abs(props.orientation) == np.pi / 4:  # equal moments along both axes: see test_slanted_lines
            assert abs(mine["Orientation"]) == 45, what
            continue
        apart = mine["Orientation"] - props.orientation * 180 / np.pi
        assert abs(apart - 180 * np.rint(apart / 180)) < 1e-9, what  # at 90 degrees either sign is right
        assert abs(mine["Orientation"]) <= 90


def test_slanted_lines(device: Device) -> None:
    """scikit-image 0.18.3, which CellProfiler 4.2.8 pins, gives -45 and 45; from 0.19 the signs are the other way round."""
    labels = np.zeros((1, 11, 23), np.int32)
    labels[0, :, :11] = np.eye(11)
    labels[0, :, 12:] = 2 * np.eye(11)[::-1]
    batch = drawn_scene(device, {"Cells": labels}, channels=("DNA",))
    assert [mine["Orientation"] for _, _, mine in measured(batch, device)] == [-45, 45]


def test_radii(batch: ObjectBatch, device: Device) -> None:
    for what, mask, mine in measured(batch, device):
        distances = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
        wanted = {"MaximumRadius": distances.max(), "MeanRadius": distances.mean(), "MedianRadius": np.median(distances)}
        assert_close(mine, wanted, what, 1e-13, 0)


def test_radii_of_a_deep_object(device: Device) -> None:
    """Deeper than 16 bits of a square hold: 180 pixels, and once more at the image's border, which is an edge."""
    labels = np.zeros((2, 370, 383), np.int32)
    labels[0, 2:368, 3:380] = 1
    labels[0, 9, 11] = 0
    labels[1, :, 5:] = 1
    batch = drawn_scene(device, {"Cells": labels}, channels=("DNA",))
    radii = depths(batch, device).radii.numpy()
    for result, plane in zip(radii, labels, strict=True):
        distances = distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1][plane > 0]
        np.testing.assert_allclose(result, [distances.max(), distances.mean(), np.median(distances)], rtol=1e-13)


def test_feret_diameters(batch: ObjectBatch, device: Device) -> None:
    for what, mask, mine in measured(batch, device):
        y, x = np.nonzero(mask)
        hull, count = convex_hull_ijv(np.column_stack([y, x, np.ones(len(y), int)]), np.array([1]))
        minimum, maximum = feret_diameter(hull, count, np.array([1]))
        wanted = {"MinFeretDiameter": float(np.ravel(minimum)[0]), "MaxFeretDiameter": float(np.ravel(maximum)[0])}
        assert_close(mine, wanted, what, 1e-13, 0)


def test_zernike_magnitudes(batch: ObjectBatch, device: Device) -> None:
    indexes = np.array(shape.ZERNIKE)
    for what, mask, mine in measured(batch, device):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # a one-pixel circle divides by 0
            theirs = zernike(indexes, mask.astype(int), np.array([1]))[0]
        wanted = {f"Zernike_{n}_{m}": v for (n, m), v in zip(shape.ZERNIKE, theirs, strict=True)}
        # Sums of up to 20,000 terms of either sign, each at most 1, over pi radius^2.
        assert_close(mine, wanted, what, 1e-9, 1e-11)


def test_advanced_moments(batch: ObjectBatch, device: Device) -> None:
    for what, mask, mine in measured(batch, device):
        (props,) = regionprops(mask.astype(np.uint8))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            spatial, central, normal, hu = props.moments, props.moments_central, props.moments_normalized, props.moments_hu
            tensor, values = props.inertia_tensor, props.inertia_tensor_eigvals
        size = max(mask.shape)
        for i in range(4):
            for j in range(4):
                if i < 3:
                    assert_close(mine, {f"SpatialMoment_{i}_{j}": spatial[i, j]}, what, 1e-12, 0)
                    scale = float(props.area) * size ** (i + j)  # of the terms that cancel
                    assert_close(mine, {f"CentralMoment_{i}_{j}": central[i, j]}, what, 1e-9, 1e-13 * scale)
                scale = size ** (i + j) / float(props.area) ** ((i + j) / 2)
                assert_close(mine, {f"NormalizedMoment_{i}_{j}": normal[i, j]}, what, 1e-9, 1e-13 * scale)
        assert_close(mine, {f"HuMoment_{i}": v for i, v in enumerate(hu)}, what, 1e-7, 1e-10)
        wanted = {f"InertiaTensor_{i}_{j}": tensor[i, j] for i in range(2) for j in range(2)}
        wanted |= {f"InertiaTensorEigenvalues_{i}": v for i, v in enumerate(values)}
        assert_close(mine, wanted, what, 1e-11, 1e-11 * size * size)


def test_columns_by_settings() -> None:
    bare = FeatureSettings(shape=ShapeSettings(zernike=False))
    assert len(shape.columns("Cells", (), bare)) == 24
    assert len(shape.columns("Cells", (), FeatureSettings())) == 54
    assert len(shape.columns("Cells", (), SETTINGS)) == 54 + 1 + 53
