"""Kernels beside their library rivals, in the same run on the same data: CPU seconds, median and spread, and their ratio.

    python -m benchmarks.kernels [--only watershed ...] [--repeats 5] [--json FILE]

A case is a function with the decorator `case`: it takes a `Setting` and returns our work, and the rival's by name. Work is a
callable without arguments; what both need is made before, so that neither is charged for it. To add a kernel, add a case.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import disk, reconstruction
from skimage.segmentation import watershed as flood_by_age

from benchmarks.machine import Spread, seconds, write_json
from jumpgpu.basins import find_basins
from jumpgpu.config import FeatureSettings, GranularitySettings
from jumpgpu.device import Device, open_device
from jumpgpu.features import granularity
from jumpgpu.objects import Scene, make_scene
from jumpgpu.watershed import watershed


@dataclass(frozen=True)
class Setting:
    """What every case gets: the device, and one drawn field of `size` x `size` pixels with about `cells` cells."""

    device: Device
    size: int = 1080
    cells: int = 90
    seed: int = 1

    @cached_property
    def nuclei(self) -> np.ndarray:
        """int32 [H, W]: disks that do not touch, numbered in raster order."""
        rng = np.random.default_rng(self.seed)
        centres = np.zeros((self.size, self.size), bool)
        centres[tuple(rng.integers(15, self.size - 15, (2, self.cells)))] = True
        found, _ = ndimage.label(ndimage.distance_transform_edt(~centres) < 14)
        return found.astype(np.int32)

    @cached_property
    def cells_of_nuclei(self) -> np.ndarray:
        """int32 [H, W]: what is within 30 pixels of a nucleus, to the nearest."""
        distance, at = ndimage.distance_transform_edt(self.nuclei == 0, return_indices=True)
        return np.where(distance < 30, self.nuclei[tuple(at)], 0).astype(np.int32)

    @cached_property
    def image(self) -> np.ndarray:
        """float32 [H, W] in 0..1: bright, textured cells on a dim background, with shot noise of a 16-bit camera."""
        rng = np.random.default_rng(self.seed + 1)
        texture = ndimage.gaussian_filter(rng.standard_normal(self.nuclei.shape), 3) * 8
        inside = ndimage.gaussian_filter((self.cells_of_nuclei > 0).astype(float), 4)
        expected = 400 + 2500 * inside * np.exp(0.4 * texture)
        return (rng.poisson(expected) / 65535).astype(np.float32)

    def scene(self, compartments: tuple[str, ...], channels: tuple[str, ...]) -> Scene:
        labels = {"Cells": self.cells_of_nuclei, "Nuclei": self.nuclei}
        labels["Cytoplasm"] = np.where(labels["Nuclei"] > 0, 0, labels["Cells"])
        pixels = np.stack([np.roll(self.image, 7 * c, 1) for c in range(len(channels))])[None]
        tensors = {c: self.device.tensor(labels[c][None]) for c in compartments}
        return make_scene(channels, self.device.tensor(pixels), tensors, {}, self.device)


Work = Callable[[], object]
Case = Callable[[Setting], tuple[Work, dict[str, Work]]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    """Registers a case under its function's name."""
    CASES[make.__name__] = make
    return make


@case
def watershed_8(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Cells of one field from its nuclei, eight neighbours."""
    depth, seeds = 1 - setting.image, setting.nuclei
    mask = (setting.cells_of_nuclei > 0) | (ndimage.gaussian_filter(setting.image, 2) > 0.012)
    tensors = [setting.device.tensor(a[None]) for a in (depth, mask, seeds)]
    return lambda: watershed(*tensors, setting.device), {
        "skimage.segmentation.watershed": lambda: flood_by_age(depth, seeds, np.ones((3, 3)), mask=mask)
    }


@case
def reconstruction_16(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """One half-resolution plane: 16 erosions and their reconstructions, as levels of basins; the rival writes 16 images."""
    plane = np.ascontiguousarray(setting.image[::2, ::2])
    height, width = plane.shape
    bits = np.full((1, height + 2, width + 2), 0xFFFFFFFF, np.uint32)
    bits[0, 1:-1, 1:-1] = 0x7FFFFFFF - plane.view(np.uint32)
    key = setting.device.tensor(bits)

    def rival() -> None:
        eroded = plane
        for _ in range(16):
            eroded = ndimage.grey_erosion(eroded, footprint=disk(1))
            reconstruction(eroded, plane, footprint=disk(1))

    return lambda: granularity.levels_of(find_basins(key, 4, setting.device), setting.device), {
        "skimage.morphology.reconstruction": rival
    }


@case
def opening_10(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The background of one channel: an opening with a disk of radius 10 at a quarter of the resolution."""
    plane = np.ascontiguousarray(setting.image[::4, ::4])
    tensor = setting.device.tensor(plane[None])
    return lambda: granularity.opening(tensor, 10, setting.device), {
        "scipy.ndimage": lambda: ndimage.grey_opening(plane, footprint=disk(10))
    }


@case
def granularity_field(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The spectrum of one compartment in one channel, 16 scales."""
    from cp_measure.core.measuregranularity import get_granularity

    scene, wanted = setting.scene(("Cells",), ("RNA",)), FeatureSettings(granularity=GranularitySettings())
    return lambda: granularity.measure(scene, wanted, setting.device), {
        "cp_measure": lambda: get_granularity(
            setting.cells_of_nuclei, setting.image, subsample_size=0.5, image_sample_size=0.5, element_size=10
        )
    }


@dataclass(frozen=True)
class Figure:
    """CPU seconds of one case, ours and the rival's, and the ratio of the medians (above 1: ours is faster)."""

    case: str
    rival: str
    ours_s: Spread
    rival_s: Spread
    ratio: float


def measure(setting: Setting, names: list[str], repeats: int) -> list[Figure]:
    figures = []
    for name in names:
        ours, rivals = CASES[name](setting)
        for rival, work in rivals.items():
            a, b = seconds(ours, repeats), seconds(work, max(1, repeats // 2), warm_up=0)
            figures.append(Figure(name, rival, a, b, b.median / a.median))
    return figures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=1080, help="pixels a side of the drawn field")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    setting = Setting(open_device("cpu", 1), args.size, max(2, args.size**2 * 90 // 1080**2))
    figures = measure(setting, args.only, args.repeats)
    for f in figures:
        print(f"{f.case:20s} {f.ours_s} s   {f.rival}: {f.rival_s} s   ratio {f.ratio:.1f}")
    if args.json:
        write_json(args.json, {"size": args.size, "cases": [asdict(f) for f in figures]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
