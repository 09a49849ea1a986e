"""The 'advanced' shape measures: spatial, central and normalised moments, Hu's invariants, the inertia tensor (moments.cu).

scikit-image's, as CellProfiler 4.2.8 MeasureObjectSizeShape takes them: powers of row, then column.
"""

import torch

from ..gpu.device import Device, few_blocks
from .objects import ObjectBatch
from .outline import outlines

MEASUREMENTS = (  # order of the kernel
    *(f"{m}_{i}_{j}" for m in ("SpatialMoment", "CentralMoment") for i in range(3) for j in range(4)),
    *(f"NormalizedMoment_{i}_{j}" for i in range(4) for j in range(4)),
    *(f"HuMoment_{i}" for i in range(7)),
    *(f"InertiaTensor_{i}_{j}" for i in range(2) for j in range(2)),
    *(f"InertiaTensorEigenvalues_{i}" for i in range(2)),
)


def measure(batch: ObjectBatch, device: Device) -> torch.Tensor:
    """float64 [R, 53] of the object rows; nan for an empty one."""
    objects = batch.objects
    result = device.empty(objects.rows, len(MEASUREMENTS), dtype=torch.float64)
    moments = outlines(batch, device).moments
    device.launch(
        "measure_moments", few_blocks(objects.rows), box=objects.box, moments=moments, rows=objects.rows, result=result
    )
    return result
