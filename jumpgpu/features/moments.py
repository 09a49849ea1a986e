"""The 'advanced' shape measures: spatial, central and normalised moments, Hu's invariants, the inertia tensor.

scikit-image's, as CellProfiler 4.2.8 MeasureObjectSizeShape takes them: powers of row, then column, from the upper left
corner of the object's box. Elementwise torch arithmetic in float64, the same bits on every device.
"""

from math import comb

import torch

_SPATIAL = [(i, j) for i in range(3) for j in range(4)]
_NORMALIZED = [(i, j) for i in range(4) for j in range(4)]
MEASUREMENTS = (
    *(f"SpatialMoment_{i}_{j}" for i, j in _SPATIAL),
    *(f"CentralMoment_{i}_{j}" for i, j in _SPATIAL),
    *(f"NormalizedMoment_{i}_{j}" for i, j in _NORMALIZED),
    *(f"HuMoment_{i}" for i in range(7)),
    *(f"InertiaTensor_{i}_{j}" for i in range(2) for j in range(2)),
    "InertiaTensorEigenvalues_0",
    "InertiaTensorEigenvalues_1",
)
ORDER = 4  # powers 0..3 of row and of column


def measure(moments: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """float64 [R, 53] from moments [R, 10, 10] about the floored middle of `box`; nan for an empty row."""
    from_corner = ((box[:, :2] + box[:, 2:]) >> 1) - box[:, :2]  # of the middle, row and column
    n = moments[:, 0, 0]
    about_corner = _moved(moments, -from_corner[:, 0].double(), -from_corner[:, 1].double())
    mu = _moved(moments, moments[:, 1, 0] / n, moments[:, 0, 1] / n)
    nu = {}
    for i, j in _NORMALIZED:
        if i + j < 2:
            nu[i, j] = torch.full_like(n, torch.nan)
            continue
        scale = torch.ones_like(n)
        for _ in range((i + j) // 2 + 1):
            scale = scale * n
        nu[i, j] = mu[i, j] / (scale * n.sqrt() if (i + j) % 2 else scale)
    xx, yy, xy = mu[0, 2] / n, mu[2, 0] / n, mu[1, 1] / n
    half, apart = (xx + yy) / 2, ((xx - yy) * (xx - yy) + 4 * xy * xy).sqrt() / 2
    major = half + apart
    minor = torch.where(major > 0, ((xx * yy - xy * xy) / major).clamp(min=0), torch.zeros_like(major))
    found = [
        *(about_corner[p] for p in _SPATIAL),
        *(mu[p] for p in _SPATIAL),
        *(nu[p] for p in _NORMALIZED),
        *_hu(nu),
        xx,
        -xy,
        -xy,
        yy,
        major,
        minor,
    ]
    table = torch.stack(found, dim=1)
    table[n == 0] = torch.nan
    return table


def _moved(moments: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """Moments about another point, y and x away: sum over pixels of (Y - y)^i (X - x)^j."""
    found = {}
    for i, j in _NORMALIZED:
        total = torch.zeros_like(y)
        for a in range(i + 1):
            for b in range(j + 1):
                weight = torch.full_like(y, comb(i, a) * comb(j, b))
                for _ in range(i - a):
                    weight = weight * -y
                for _ in range(j - b):
                    weight = weight * -x
                total = total + weight * moments[:, a, b]
        found[i, j] = total
    return found


def _hu(nu: dict[tuple[int, int], torch.Tensor]) -> list[torch.Tensor]:
    """Hu's seven invariants."""
    sum2, difference = nu[2, 0] + nu[0, 2], nu[2, 0] - nu[0, 2]
    a, b = nu[3, 0] + nu[1, 2], nu[2, 1] + nu[0, 3]
    c, d = nu[3, 0] - 3 * nu[1, 2], 3 * nu[2, 1] - nu[0, 3]
    return [
        sum2,
        difference * difference + 4 * nu[1, 1] * nu[1, 1],
        c * c + d * d,
        a * a + b * b,
        c * a * (a * a - 3 * b * b) + d * b * (3 * a * a - b * b),
        difference * (a * a - b * b) + 4 * nu[1, 1] * a * b,
        d * a * (a * a - 3 * b * b) - c * b * (3 * a * a - b * b),
    ]
