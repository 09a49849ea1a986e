"""The six real fields beside the checkout: corrected pixels and CellProfiler's own labels (data/README.md there)."""

from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import distance_transform_edt, find_objects

from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import load_config
from jumpgpu.settings.names import CHANNELS, COMPARTMENTS, well_position

WELLS = ("A21", "D08", "D14", "F10", "M02", "N09")
PHENIX = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}
TABLES = {"cpjump1": "data/cellprofiler", "jump-production": "data/cellprofiler_jump_production"}  # by preset
IMAGES = "data/fields/BR00117010__2020-11-08T18_18_00-Measurement1/Images"


@cache
def real_pixels(shared: Path, wells: tuple[str, ...] = WELLS) -> np.ndarray:
    """float32 [B, C, H, W]: float32(raw / 65535) over the flat field, clipped to 0..1, as CellProfiler corrected them."""
    out = []
    for well in wells:
        row, column = well_position(well)
        for channel in CHANNELS:
            raw = tifffile.imread(shared / IMAGES / f"r{row:02d}c{column:02d}f05p01-ch{PHENIX[channel]}sk1fk1fl1.tiff")
            flat = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"].astype(np.float32)
            out.append(np.nan_to_num(np.clip((raw / 65535).astype(np.float32) / flat, 0, 1)))
    return np.stack(out).reshape(len(wells), len(CHANNELS), *out[0].shape)


@cache
def real_labels(shared: Path, wells: tuple[str, ...] = WELLS, preset: str = "cpjump1") -> dict[str, np.ndarray]:
    """CellProfiler's label images: compartment -> int32 [B, H, W]."""
    return {
        c: np.stack([tifffile.imread(shared / f"{TABLES[preset]}/{w}_s5_{c}.tiff").astype(np.int32) for w in wells])
        for c in COMPARTMENTS
    }


def real_batch(shared: Path, device: Device, wells: tuple[str, ...] = WELLS, preset: str = "cpjump1") -> ObjectBatch:
    labels = {c: device.tensor(v) for c, v in real_labels(shared, wells, preset).items()}
    return make_batch(CHANNELS, device.tensor(real_pixels(shared, wells)), labels, {}, device)


def segmented_batch(shared: Path, device: Device, preset: str = "cpjump1") -> ObjectBatch:
    """The six fields on our own labels, which know the objects that CellProfiler found and its label images lack."""
    pixels = device.tensor(real_pixels(shared))
    result = segment(pixels, CHANNELS, load_config(preset).segmentation, device)
    return make_batch(CHANNELS, pixels, result.labels, result.unfiltered, device)


@cache
def unique_centres(shared: Path, preset: str = "cpjump1") -> dict[str, set[tuple[str, int]]]:
    """By compartment, (well, number) of objects with one pixel farthest from the edge; of several it takes any."""
    result: dict[str, set[tuple[str, int]]] = {}
    for compartment, planes in real_labels(shared, preset=preset).items():
        for well, plane in zip(WELLS, planes, strict=True):
            for number, box in enumerate(find_objects(plane), 1):
                ys, xs = (slice(max(s.start - 1, 0), s.stop + 1) for s in box)
                distance = distance_transform_edt(plane[ys, xs] == number)
                if np.count_nonzero(distance == distance.max()) == 1:
                    result.setdefault(compartment, set()).add((well, number))
    return result
