"""Label images given by the user in place of segmentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch

from .device import Device
from .names import COMPARTMENTS


def mask_files(folder: Path, plate: str, well: str, site: int, pattern: str) -> dict[str, Path]:
    """Compartment -> label image file of a site, whether or not it is there."""
    return {c: folder / pattern.format(plate=plate, well=well, site=site, compartment=c) for c in COMPARTMENTS}


def read_masks(
    folder: Path, plate: str, sites: Sequence[tuple[str, int]], size: tuple[int, int], device: Device, pattern: str
) -> dict[str, torch.Tensor]:
    """Compartment -> int32 [B, H, W] for the (well, site) pairs of a batch; errors name plate, well, site and file."""
    labels = {c: np.zeros((len(sites), *size), np.int32) for c in COMPARTMENTS}
    for b, (well, site) in enumerate(sites):
        for compartment, file in mask_files(folder, plate, well, site, pattern).items():
            where = f"{plate} {well} site {site} {compartment}"
            if not file.is_file():
                raise FileNotFoundError(f"{where}: no label image {file}")
            image = tifffile.imread(file)
            if image.shape != size or image.dtype.kind not in "iu":
                raise ValueError(f"{where}: {file} is {image.dtype} {image.shape}, expected integers {size}")
            labels[compartment][b] = image
    return {c: device.tensor(image) for c, image in labels.items()}
