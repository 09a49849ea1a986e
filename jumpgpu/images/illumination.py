"""Illumination functions: estimated over a plate, from Harmony's flat fields, from files; and the division by them.

The estimate is CellProfiler's CorrectIlluminationCalculate ('Regular', all images, median filter, rescaled) between two
Resize modules. Resizing is linear, so the raw counts are summed first, as integers, and resized once: the mean is exact,
whatever the order of the fields, and memory does not grow with the plate.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device, blocks
from ..settings.config import IlluminationSettings
from ..storage.buckets import Place
from .illumination_files import Illumination, gallery_illumination, load_illumination, read_kept, save_illumination
from .indexes.flatfield import Flatfield
from .plate import Plate
from .reader import field_size, read_fields
from .site import Problem
from .tiff_tags import FULL_SCALE

SOURCES = ("auto", "estimate", "flatfield", "none")  # anything else is a folder
MAX_SCALES = 8  # different full scales among a plate's fields


def correct(
    pixels: torch.Tensor,
    illumination: torch.Tensor,
    *,
    device: Device,
    scales: Sequence[Sequence[float]] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Divide raw fields by their channel's illumination function.

    Parameters
    ----------
    pixels : uint16 [B, C, H, W]
        Raw camera counts, on `device`; int32 where they are sums of planes (`FieldBatch.pixels`).
    illumination : float32 [C, H, W]
        On `device`.
    scales : [B][C]
        What each image's counts are divided by (`FieldBatch.scales`); 65535 where None.
    out : float32 [B, C, H, W]
        Written and returned where given. On the CPU a fresh one costs five times the division: keep it over batches.

    Returns
    -------
    float32 [B, C, H, W]
        Counts / scale / illumination, each division rounded to float32 as CellProfiler does; clipped to 0..1, NaN to 0.
    """
    if pixels.ndim != 4 or illumination.shape != pixels.shape[1:]:
        raise ValueError(
            f"pixels {tuple(pixels.shape)} and illumination {tuple(illumination.shape)} must be [B, C, H, W] and [C, H, W]"
        )
    if out is None:
        out = device.empty(*pixels.shape, dtype=torch.float32)
    elif out.shape != pixels.shape:
        raise ValueError(f"out must be {tuple(pixels.shape)}, is {tuple(out.shape)}")
    n_values = illumination.numel()
    grid = pixels.shape[0] * blocks(n_values)
    said = [[FULL_SCALE] * pixels.shape[1]] * pixels.shape[0] if scales is None else scales
    full = torch.tensor(said, dtype=torch.float32).reshape(-1, pixels.shape[1])
    if full.shape != pixels.shape[:2]:
        raise ValueError(f"scales of {tuple(full.shape)} images, pixels are {tuple(pixels.shape)}")
    device.launch(
        "correct" if pixels.dtype == torch.uint16 else "correct_sums",
        grid,
        pixels=pixels,
        illumination=illumination,
        scales=device.tensor(full),
        n_values=n_values,
        n_pixels=illumination[0].numel(),
        corrected=out,
    )
    return out


def open_illumination(
    plate: Plate,
    source: str = "estimate",
    *,
    device: Device,
    settings: IlluminationSettings | None = None,
    channels: Sequence[str] | None = None,
    folder: Place | None = None,
    batch: int = 8,
    workers: int | None = None,
    divides: bool = True,
) -> Illumination:
    """The functions that `--illumination` asks for.

    Parameters
    ----------
    source : 'estimate' from the plate's own images, all of them; 'auto' is that, unless the gallery has functions of all
        its channels; 'flatfield' from its Harmony index; 'none' (1 everywhere);
        or a folder with `<plate>_Illum<channel>` or `Illum<channel>` as `.npy`, or `.npz` with key `illum`.
    divides : whether images are divided by them (they are subtracted otherwise, and may have any values).
    folder : where an estimate is kept (`<output>/illum/<plate>`); one made with the same settings from the same images is
        read back from there.

    Raises ValueError or FileNotFoundError naming plate and channel where the source does not serve.
    """
    settings = settings or IlluminationSettings()
    names = tuple(plate.channels if channels is None else channels)
    if source == "none":
        return Illumination(names, torch.ones(len(names), *field_size(plate)), "none: 1 everywhere")
    if source == "flatfield":
        return flatfield_illumination(plate, names, settings.quantile)
    if source == "auto" and (given := gallery_illumination(plate, names)):
        return given
    if source not in ("auto", "estimate"):
        return load_illumination(Path(source).expanduser(), plate, names, divides=divides)
    key = estimate_key(plate, names, asdict(settings))
    if folder and (kept := read_kept(folder, plate, names, key)):
        return kept
    functions, n_fields, bad = estimate_illumination(
        plate, settings, channels=names, device=device, batch=batch, workers=workers
    )
    notes = tuple(f"left out of the illumination estimate: {p}" for p in bad)
    if folder:
        save_illumination(folder, plate, names, functions, {"key": key, "fields": n_fields, "notes": list(notes)})
    return Illumination(names, functions, f"estimated from {n_fields} fields", notes)


def estimate_illumination(
    plate: Plate,
    settings: IlluminationSettings,
    *,
    device: Device,
    channels: Sequence[str] | None = None,
    batch: int = 8,
    workers: int | None = None,
) -> tuple[torch.Tensor, int, tuple[Problem, ...]]:
    """Illumination functions of the whole plate in one pass over its images.

    Returns float32 [C, H, W], the number of fields averaged, and the problems of the sites that were left out. ValueError
    where no field can be read.
    """
    names = tuple(plate.channels if channels is None else channels)
    height, width = field_size(plate)
    sums: dict[tuple[float, ...], torch.Tensor] = {}  # by what counts are divided by, as plates have one
    n_fields = 0
    bad: list[Problem] = []
    for fields in read_fields(plate, channels=names, batch=batch, workers=workers, device=device):
        for scales in dict.fromkeys(fields.scales):
            if scales not in sums:
                if len(sums) == MAX_SCALES:
                    said = sorted({s for each in (*sums, scales) for s in each})
                    raise ValueError(
                        f"{plate.barcode}: its images give {len(said)} numbers and more to divide by ({said[0]:g} to "
                        f"{said[-1]:g}, MaxSampleValue); set [plate] scale in the config to the one that is right"
                    )
                sums[scales] = device.zeros(len(names), height, width, dtype=torch.int64)
            rows = [row for row, result in enumerate(fields.scales) if result == scales]
            pixels = fields.pixels if len(rows) == len(fields.scales) else device.take(fields.pixels, rows)
            if pixels.dtype != torch.uint16:  # sums of planes
                sums[scales] += pixels.sum(dim=0, dtype=torch.int64)
                continue
            sizes = {"fields": len(rows), "n_values": sums[scales].numel()}
            device.launch("accumulate_fields", blocks(sizes["n_values"]), pixels=pixels, **sizes, sums=sums[scales])
        device.synchronize()
        n_fields += fields.pixels.shape[0]
        bad += fields.quarantined
    if not n_fields:
        raise ValueError(f"{plate.barcode}: no field to estimate illumination from; the first problem is {bad[0]}")
    means = sum(
        result.cpu().numpy() / (np.array(scales) * n_fields)[:, None, None] for scales, result in sorted(sums.items())
    )
    functions = np.stack([smooth(mean, settings) for mean in means])
    return torch.from_numpy(functions), n_fields, tuple(bad)


def smooth(mean: np.ndarray, settings: IlluminationSettings) -> np.ndarray:
    """The illumination function of a channel's mean image, float64 [H, W] on the 0..1 scale; float32 [H, W].

    Reduced, median filtered on 16 bits, rescaled, enlarged. The radius and the truncation to 16 bits are CellProfiler's.
    """
    from skimage.filters import median  # half a second to import, and only an estimate needs it
    from skimage.morphology import disk
    from skimage.transform import resize

    height, width = mean.shape
    small = tuple(max(1, round(side * settings.resize)) for side in mean.shape)
    reduced = resize(mean, small, order=1, mode="symmetric", anti_aliasing=min(small) < min(mean.shape))
    radius = min(max(1, int(settings.filter_size / 2.35 + 0.5)), math.ceil(math.hypot(*small)))  # no farther than the image
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Bad rank filter performance")  # a twentieth of a second per channel
        smoothed = median((reduced * 65535).astype(np.uint16), disk(radius), behavior="rank")
    rescaled = rescale(smoothed.astype(np.float32) / np.float32(65535), settings.quantile)
    return resize(rescaled, (height, width), order=1, mode="symmetric").astype(np.float32)


def rescale(function: np.ndarray, quantile: float) -> np.ndarray:
    """Divide by the value at position int(n * quantile) of the n sorted positive pixels; what is below it becomes 1.

    A function without positive pixels is returned as ones: there is nothing to divide by.
    """
    positive = np.sort(function[function > 0])
    if not positive.size:
        return np.ones_like(function)
    minimum = positive[min(int(positive.size * quantile), positive.size - 1)]
    return np.maximum(function, minimum) / minimum


def flatfield_illumination(plate: Plate, channels: Sequence[str], quantile: float) -> Illumination:
    """The Background polynomials of the plate's Harmony index, rescaled as an estimate is; needs no pass over the images."""
    if absent := [c for c in channels if c not in plate.flatfields]:
        raise ValueError(
            f"{plate.barcode}: no FlatfieldProfile for {absent[0]} ({plate.channel_source}); choose --illumination "
            "estimate, none or a folder"
        )
    size = field_size(plate)
    profiles = [plate.flatfields[c] for c in channels]
    if unread := [(c, p.problem) for c, p in zip(channels, profiles, strict=True) if p.problem]:
        raise ValueError(
            f"{plate.barcode} {unread[0][0]}: the FlatfieldProfile cannot be read: {unread[0][1]}; choose --illumination "
            "estimate, none or a folder"
        )
    notes = tuple(
        f"{plate.barcode} {c}: the FlatfieldProfile has coefficients that are not numbers; taken as 1 everywhere"
        for c, profile in zip(channels, profiles, strict=True)
        if not profile.usable
    )
    functions = np.stack([polynomial(profile, size, quantile) for profile in profiles])
    return Illumination(tuple(channels), torch.from_numpy(functions), f"FlatfieldProfile of {plate.channel_source}", notes)


def polynomial(profile: Flatfield, size: tuple[int, int], quantile: float) -> np.ndarray:
    """A flat field over a field's pixels, float32 [H, W]; ones for an Identity profile or unusable coefficients."""
    if not profile.coefficients or not profile.usable:
        return np.ones(size, np.float32)
    (height, width), (columns, rows) = size, profile.dims
    x = (np.arange(width) + 0.5) * (columns / width) - 0.5  # the profile's own grid, should the images be binned
    y = (np.arange(height) + 0.5) * (rows / height) - 0.5
    u = ((x - profile.origin[0]) * profile.scale[0])[None, :]
    v = ((y - profile.origin[1]) * profile.scale[1])[:, None]
    value = np.zeros(size)
    for degree, row in enumerate(profile.coefficients):
        for j, coefficient in enumerate(row):
            value += coefficient * u ** (degree - j) * v**j
    return rescale(value, quantile).astype(np.float32)


def estimate_key(plate: Plate, channels: Sequence[str], settings: Any) -> str:
    """Names all an estimate depends on: settings (JSON), channels, and each image by path, size and time of change."""
    said = [plate.barcode, list(channels), settings, *([plate.scale] if plate.scale else [])]
    said += [plate.projection] if plate.planes else []
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    order = [plate.channels.index(c) for c in channels]
    for site in plate.sites:
        for c in order:
            for file in site.images_of(c):
                size, mark = plate.images.status(file or "")
                digest.update(f"{site.well} {site.site} {file or ''} {size} {mark}\n".encode())
    return digest.hexdigest()
