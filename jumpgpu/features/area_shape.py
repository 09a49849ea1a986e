"""Shape of an object (CellProfiler MeasureObjectSizeShape), in pixels; Orientation in degrees from -90 to 90.

Moments, perimeter, Euler number and convex area are scikit-image's (regionprops), Feret diameters and the circle of the
Zernike magnitudes centrosome's, radii those of the exact distance transform of the object by itself. MajorAxisLength and
the like belong to the ellipse with the object's second moments. An empty object has area 0 and nan otherwise.

Off by default: ConvexArea, and the 'advanced' moments of `moments.py`.
"""

from collections.abc import Sequence
from math import comb, factorial

import numpy as np
import torch

from ..gpu.device import Device, few_blocks, kept_by_device
from ..gpu.kernel_source import measures
from ..settings.config import FeatureSettings
from ..settings.names import feature_name
from . import moments as shape_moments
from .distance_map import depths
from .objects import ObjectBatch
from .outline import POWERS, outlines

MEASUREMENTS = measures("features/area_shape.cu", "Shape")[:-1]  # without ConvexArea
CONVEX_AREA = "ConvexArea"  # the kernel's next and last
ZERNIKE = tuple((n, m) for n in range(POWERS) for m in range(n % 2, n + 1, 2))
HULL = 6  # measures of trace_hulls


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    shape = settings.shape
    result = list(MEASUREMENTS)
    if shape.convex_area:
        result.append(CONVEX_AREA)
    if shape.zernike:
        result += [f"Zernike_{n}_{m}" for n, m in ZERNIKE]
    if shape.advanced:
        result += shape_moments.MEASUREMENTS
    return [feature_name(compartment, "AreaShape", m) for m in result]


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: the compartments' columns one after the other."""
    shape, objects = settings.shape, batch.objects
    traced = outlines(batch, device)
    hull, vertex, vertices = trace_hulls(batch, traced.extent, device)
    shapes = device.empty(objects.rows, len(MEASUREMENTS) + 1, dtype=torch.float64)
    device.launch(
        "measure_shapes",
        few_blocks(objects.rows),
        box=objects.box,
        counts=traced.counts,
        moments=traced.moments,
        hull=hull,
        radii=depths(batch, device).radii,
        rows=objects.rows,
        shapes=shapes,
    )
    result = [shapes if shape.convex_area else shapes[:, : len(MEASUREMENTS)]]
    if shape.zernike:
        magnitudes = device.empty(objects.rows, len(ZERNIKE), dtype=torch.float64)
        device.launch(
            "measure_zernike",
            objects.rows,
            box=objects.box,
            line_start=objects.line_start,
            moments=traced.moments,
            vertex=vertex,
            vertices=vertices,
            hull=hull,
            terms=zernike_terms(device),
            magnitudes=magnitudes,
        )
        result.append(magnitudes)
    if shape.advanced:
        result.append(shape_moments.measure(batch, device))
    table = torch.cat(result, dim=1)
    return table.reshape(len(objects.compartments), objects.n, table.shape[1]).transpose(0, 1).flatten(1)


def trace_hulls(batch: ObjectBatch, extent: torch.Tensor, device: Device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hull measures float64 [R, 6], vertices int32 [2 L, 2] and their counts int32 [R]; see area_shape.cu."""
    objects = batch.objects
    hull = device.empty(objects.rows, HULL, dtype=torch.float64)
    vertex = device.empty(2 * objects.n_lines, 2, dtype=torch.int32)
    vertices = device.empty(objects.rows, dtype=torch.int32)
    device.launch(
        "trace_hulls",
        objects.rows,
        box=objects.box,
        line_start=objects.line_start,
        extent=extent,
        schedule=objects.schedule,
        scratch=device.empty(6 * objects.n_lines + 2 * objects.rows, dtype=torch.int32),
        vertex=vertex,
        vertices=vertices,
        hull=hull,
    )
    return hull, vertex, vertices


@kept_by_device
def zernike_terms(device: Device) -> torch.Tensor:
    """float64 [10, 10, 60]: the weight of v^q u^p in the real, then the imaginary part of each polynomial; integers."""
    terms = np.zeros((POWERS, POWERS, 2, len(ZERNIKE)))
    for i, (n, m) in enumerate(ZERNIKE):
        for k in range((n - m) // 2 + 1):
            radial = (-1) ** k * factorial(n - k)
            radial //= factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
            power = (n - m) // 2 - k  # of u^2 + v^2
            for a in range(power + 1):
                for b in range(m + 1):  # (v + i u)^m: i^b u^b v^(m - b)
                    weight = radial * comb(power, a) * comb(m, b) * (-1) ** (b // 2)
                    terms[2 * (power - a) + m - b, 2 * a + b, b % 2, i] += weight
    return device.tensor(terms.reshape(POWERS, POWERS, -1))
