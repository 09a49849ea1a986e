"""Drawn scenes with known truth, for oracle, ways and property tests.

Scenes are never square and never one field; they hold the cases that go wrong: an object of one pixel, objects on every
border, touching objects, a saturated patch with ties, a constant patch, an empty cytoplasm, and a field with no object.
"""

import dataclasses

import numpy as np
import torch

from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")


def ellipse(height: int, width: int, y: float, x: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
    """bool [H, W]: the ellipse of half axes a and b at (y, x), turned by `angle` radians."""
    yy, xx = np.mgrid[:height, :width]
    u = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
    v = -(xx - x) * np.sin(angle) + (yy - y) * np.cos(angle)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def outline(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pixels of `mask` with a 4-neighbour outside it (the image's edge is not outside)."""
    p = np.pad(mask, 1, mode="edge")
    return mask & ~(p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:])


def drawn_labels(height: int = 83, width: int = 101, fields: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """compartment -> int32 [B, H, W]: cells with nuclei and cytoplasm; the second field is empty.

    In every other field, in this order of numbers: a cell at the upper left corner, one at the lower right, two that touch,
    a ring, a cell of one pixel whose cytoplasm is empty, one whose nucleus fills it, a cell without a nucleus, and cells
    at random. Cytoplasm is the cell minus the nucleus shrunk by its outline.
    """
    rng = np.random.default_rng(seed)
    out = {c: np.zeros((fields, height, width), np.int32) for c in ("Cells", "Cytoplasm", "Nuclei")}
    for b in range(fields):
        if b == 1:
            continue
        cells, nuclei = out["Cells"][b], out["Nuclei"][b]
        count = 0

        def draw(cell: np.ndarray, nucleus: np.ndarray, cells: np.ndarray = cells, nuclei: np.ndarray = nuclei) -> None:
            nonlocal count
            cell = cell & (cells == 0)
            if cell.any():
                count += 1
                cells[cell] = count
                nuclei[cell & nucleus] = count

        def place(y: float, x: float, a: float, b: float, t: float = 0.0, nucleus: float = 0.5) -> None:
            inner = ellipse(height, width, y, x, a * nucleus, b * nucleus, t) if nucleus else np.zeros((height, width), bool)
            draw(ellipse(height, width, y, x, a, b, t), inner)

        place(2, 3, 14, 9)
        place(height - 3, width - 2, 13, 10)
        place(20, 40, 9, 8, 0.4)
        place(20, 55, 8, 9)
        place(45, 20, 12, 10, 0.8, 0.6)
        hole = (cells == count) & ellipse(height, width, 45, 20, 3, 3)
        cells[hole] = nuclei[hole] = 0
        one = np.zeros((height, width), bool)
        one[70, 8 + b] = True
        draw(one, one)
        place(60, 50, 4, 3, 1.2, nucleus=1.0)
        place(40, 75, 6, 5, 0.0, nucleus=0.0)
        for _ in range(4):
            place(*rng.uniform((5, 5), (height - 5, width - 5)), *rng.uniform(4, 12, 2), rng.uniform(0, 3))
        for n in range(1, count + 1):
            nucleus = nuclei == n
            out["Cytoplasm"][b][(cells == n) & ~(nucleus & ~outline(nucleus))] = n
        lone = cells == cells[70, 8 + b]
        out["Cytoplasm"][b][lone] = 0
    return out


def drawn_pixels(labels: dict[str, np.ndarray], channels: int = 5, seed: int = 0) -> np.ndarray:
    """float32 [B, C, H, W] in 0..1: textured blobs over a gradient, a saturated patch (with ties) and a constant one.

    Values are multiples of 1 / 65535 over a smooth function, as corrected 16-bit images are.
    """
    rng = np.random.default_rng(seed + 1000)
    first = next(iter(labels.values()))
    fields, height, width = first.shape
    yy, xx = np.mgrid[:height, :width]
    fall_off = 1 + 0.3 * ((yy / height - 0.5) ** 2 + (xx / width - 0.4) ** 2)
    out = np.empty((fields, channels, height, width), np.float32)
    for b in range(fields):
        inside = np.maximum.reduce([v[b] for v in labels.values()])
        for c in range(channels):
            base = 0.02 + 0.01 * c + 0.0004 * xx + 0.05 * (inside > 0) * (1 + 0.5 * np.sin(0.3 * yy + c) * np.cos(0.21 * xx))
            raw = rng.poisson(base * 8000) * 8
            raw[16:22, 36:46] = 65535  # saturated: many equal maxima
            raw[40:50, 70:82] = 3000  # constant
            out[b, c] = np.clip((np.minimum(raw, 65535) / 65535).astype(np.float32) / fall_off.astype(np.float32), 0, 1)
            out[b, c][16:22, 36:46] = 1
    return out


def ragged_labels(height: int = 47, width: int = 61, fields: int = 2, seed: int = 3) -> dict[str, np.ndarray]:
    """Masks that do not nest: compartments drawn without regard to each other, numbers 1..n in each field, some absent."""
    rng = np.random.default_rng(seed)
    out = {c: np.zeros((fields, height, width), np.int32) for c in ("Cells", "Cytoplasm", "Nuclei")}
    for b in range(fields):
        for n in range(1, 7):
            out["Cells"][b][3 * n, 4 * n] = n  # no number is missing altogether
        for plane in out.values():
            for n in rng.permutation(6)[:5] + 1:
                mask = ellipse(height, width, *rng.uniform((4, 4), (height - 4, width - 4)), *rng.uniform(3, 9, 2))
                plane[b][mask & (plane[b] == 0)] = n
    return out


def drawn_scene(
    device: Device, labels: dict[str, np.ndarray] | None = None, channels: tuple[str, ...] = CHANNELS
) -> ObjectBatch:
    """A scene of `labels` (by default `drawn_labels()`) over `drawn_pixels`."""
    labels = labels or drawn_labels()
    pixels = drawn_pixels(labels, len(channels))
    return make_batch(channels, device.tensor(pixels), {c: device.tensor(v) for c, v in labels.items()}, {}, device)


def one_field(labels: dict[str, np.ndarray], b: int) -> dict[str, np.ndarray]:
    return {c: v[b : b + 1].copy() for c, v in labels.items()}


def row_masks(batch: ObjectBatch) -> list[tuple[int, int, str, np.ndarray]]:
    """Of each object row: field, number, compartment and bool [H, W] mask, in row order."""
    o = batch.objects
    return [
        (int(b), int(n), name, torch.eq(batch.labels[name][int(b)], int(n)).cpu().numpy())
        for name in o.compartments
        for b, n in zip(o.field, o.number, strict=True)
    ]


def carried(batch: ObjectBatch, device: Device) -> ObjectBatch:
    """The scene with its tensors on another device, for a test of what is measured on it, not of how it is made."""

    def moved(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.to(device.torch)
        if isinstance(value, dict):
            return {k: moved(v) for k, v in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(value, **{f.name: moved(getattr(value, f.name)) for f in dataclasses.fields(value)})
        return value

    out = moved(batch)
    assert isinstance(out, ObjectBatch)
    return out
