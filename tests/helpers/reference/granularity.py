"""MeasureGranularity's definition put together from SciPy and scikit-image, one channel of one field at a time."""

import numpy as np
from scipy import ndimage
from skimage.morphology import disk, erosion, reconstruction

from jumpgpu.settings.config import GranularitySettings


def resampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(image, np.meshgrid(rows, columns, indexing="ij"), order=1)


def spectrum(image: np.ndarray, labels: np.ndarray, numbers: np.ndarray, settings: GranularitySettings) -> np.ndarray:
    """float64 [len(numbers), spectrum]: percent; float32 image [H, W], int labels."""
    full = np.array(image.shape)
    size = full * settings.subsampling
    small = resampled(image, *(np.arange(np.ceil(n)) / settings.subsampling for n in size))
    under = size * settings.background_subsampling
    back = resampled(small, *(np.arange(np.ceil(n)) / settings.background_subsampling for n in under))
    footprint = disk(settings.radius)
    back = ndimage.grey_dilation(ndimage.grey_erosion(back, footprint=footprint), footprint=footprint)
    back = resampled(back, *(np.arange(np.ceil(n)) * ((u - 1) / (n - 1)) for n, u in zip(size, under, strict=True)))
    left = small - back
    left[left < 0] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = ndimage.sum_labels(np.ones(image.shape), labels, numbers)
        start = before = ndimage.sum_labels(image.astype(float), labels, numbers) / pixels
        eroded, out = left, []
        for _ in range(settings.spectrum):
            eroded = erosion(eroded, disk(1))
            reader = reconstruction(eroded, left, footprint=disk(1)).astype(float)
            reader = resampled(reader, *(np.arange(n) * ((s - 1) / (n - 1)) for n, s in zip(full, size, strict=True)))
            after = ndimage.sum_labels(reader, labels, numbers) / pixels
            out.append((before - after) * 100 / np.maximum(start, np.finfo(float).eps))
            before = after
    return np.stack(out, 1)
