"""What is run to see every kernel launched: the standard settings, and others for the kernels that those leave alone.

`standard` is a batch of the plate's fields with CPJUMP1's settings and given illumination functions. The others are a field
or two with settings that lead to other kernels; they stand apart in the page and in no total.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tifffile
import torch

from benchmarks.gpu_model.recording import Recording, recorded
from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.features import families as features
from jumpgpu.features.embedding import Crops
from jumpgpu.features.image_quality import measure_images
from jumpgpu.features.objects import segment_batch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.plate import Plate
from jumpgpu.images.projection import Stack, fold
from jumpgpu.images.reader import read_fields
from jumpgpu.settings import steps as kinds
from jumpgpu.settings import table_steps
from jumpgpu.settings.config import (
    Config,
    CorrelationSettings,
    FeatureSettings,
    PrimarySettings,
    RadialSettings,
    SecondarySettings,
    SegmentationSettings,
    ShapeSettings,
    ThresholdSettings,
    load_config,
)
from jumpgpu.settings.networks import ModelSettings
from jumpgpu.steps.run import run_steps


@dataclass(frozen=True)
class Fields:
    """Where the fields are: a plate's images, and what `--illumination` is given."""

    images: Path
    plate: str
    illumination: str


@dataclass(frozen=True)
class Recorded:
    """A workload's launches, with the batch they were of."""

    recording: Recording
    fields: int
    cells: int
    shape: tuple[int, ...]
    copied: float = 0.0  # bytes, of the images as they are in their files


def standard_config() -> Config:
    return load_config("cpjump1")


def production() -> Config:
    """JUMP production's settings and every family's options."""
    config = load_config("jump-production")
    more = FeatureSettings(
        correlation=CorrelationSettings(costes=True),
        radial=RadialSettings(zernike="magnitudes_and_phase"),
        shape=ShapeSettings(advanced=True, convex_area=True),
        image_quality=True,
    )
    return replace(config, features=more)


def distances() -> Config:
    """Two-class Otsu and robust background, maxima of intensity at low resolution, cells by distance."""
    log = ThresholdSettings(method="otsu2", log_transform=True)
    nuclei = PrimarySettings(threshold=log, declump="intensity", dividing_lines="intensity", min_diameter=30.0)
    cells = SecondarySettings(method="distance", threshold=ThresholdSettings(method="robust_background"))
    return Config(
        segmentation=SegmentationSettings(nuclei=nuclei, cells=cells), features=FeatureSettings(families=("number",))
    )


def propagation() -> Config:
    """Cells by propagation, nuclei without a background and of shape at low resolution."""
    nuclei = PrimarySettings(background=None, min_diameter=30.0, threshold=ThresholdSettings(method="otsu2"))
    cells = SecondarySettings(method="propagation", threshold=ThresholdSettings(method="robust_background"))
    return Config(
        segmentation=SegmentationSettings(nuclei=nuclei, cells=cells), features=FeatureSettings(families=("number",))
    )


OTHERS: dict[str, tuple[Callable[[], Config], str, int]] = {  # settings, illumination, fields
    "production": (production, "none", 1),
    "distances": (distances, "none", 1),
    "propagation": (propagation, "none", 1),
    "estimate": (standard_config, "estimate", 2),
    "other files": (standard_config, "none", 1),
    "pipeline": (standard_config, "none", 1),
    "crops": (standard_config, "none", 1),
    "planes": (standard_config, "none", 1),
}
PIPELINE = Path(__file__).resolve().parents[2] / "tests" / "cellprofiler" / "pipelines" / "jump_production_load_data.cppipe"


def run_batch(pixels: torch.Tensor, functions: torch.Tensor, plate: Plate, config: Config, device: Device) -> int:
    """One batch, as extract.py computes it; the number of its cells, as of the other works here."""
    corrected = correct(pixels, functions, device=device)
    batch = segment_batch(corrected, plate.channels, config.segmentation, device)
    features.measure_batch(batch, config.features, device)
    if config.features.image_quality:
        measure_images(corrected, plate.channels, device)
    return batch.objects.n


def other_files(plate: Plate, root: Path) -> Path:
    """The plate's first site as TIFFs that other programs write: uncompressed, high bytes first, with a predictor."""
    kinds: list[dict[str, Any]] = [{"compression": None}, {"byteorder": ">"}, {"predictor": True, "rowsperstrip": 4}]
    files = [f for f in plate.select(None, None)[0].files if f]
    for k, file in enumerate(files):
        path = root / plate.barcode / Path(file).name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, tifffile.imread(file), **{"compression": "lzw", "metadata": None, **kinds[k % len(kinds)]})
    return root


def run_pipeline(pixels: torch.Tensor, functions: torch.Tensor, plate: Plate, config: Config, device: Device) -> int:
    """JUMP production's pipeline as it is imported, and three measures that it does not take."""
    corrected = correct(pixels, functions, device=device)
    imported = translate([read_pipeline(PIPELINE)]).steps
    images = [s.image for s in imported if isinstance(s, kinds.Load) and not s.function]
    more = (
        table_steps.MeasureImageTexture((images[0],), (3,)),
        table_steps.MeasureImageQuality((images[0],), thresholds=("Otsu_2S",)),
        kinds.MeasureRadial((images[0],), ("Cells",), center="centers", of="Nuclei"),
    )
    planes = {c: corrected[:, k] for k, c in enumerate(plate.channels)}
    return run_steps([*imported, *more], planes, dict.fromkeys(planes, functions[0]), device).objects["Cells"].n


def run_crops(pixels: torch.Tensor, functions: torch.Tensor, plate: Plate, config: Config, device: Device) -> int:
    """Masked crops of every cell, normalised each by itself."""
    batch = segment_batch(correct(pixels, functions, device=device), plate.channels, config.segmentation, device)
    Crops(batch, ModelSettings(name="crops", channels=plate.channels, mask="Cells"), device).part(0, batch.objects.n)
    return batch.objects.n


def run_planes(pixels: torch.Tensor, functions: torch.Tensor, plate: Plate, config: Config, device: Device) -> int:
    """A plane of each field taken into the maximum and into the sum of its planes; the sum corrected."""
    channels = tuple(range(len(plate.channels)))
    planes, stack = SimpleNamespace(pixels=pixels), Stack(None, channels, channels, 1)  # type: ignore[arg-type]
    sums = device.zeros(*pixels.shape, dtype=torch.int32)
    for projection, images in (("max", torch.empty_like(pixels)), ("mean", sums)):
        fold(planes, images, range(len(pixels)), stack, projection, device)  # type: ignore[arg-type]
    correct(sums, functions, device=device)
    return 0


WORK = {"pipeline": run_pipeline, "crops": run_crops, "planes": run_planes}


def record(name: str, given: Fields, only: Callable[[str], bool] = lambda kernel: True) -> Recorded:
    """One workload, within `standin()`; kernels for which `only` is false are launched and not counted."""
    make, illumination, n = (standard_config, given.illumination, 0) if name == "standard" else OTHERS[name]
    config = make()
    plate = find_plate(given.plate, given.images, config.plate)
    sites = plate.select(None, None)
    n = n or len(sites)
    with tempfile.TemporaryDirectory() as folder:
        device = open_device("cuda")
        if name == "other files":
            plate = find_plate(given.plate, other_files(plate, Path(folder)), config.plate)
            with recorded(only) as recording:
                next(read_fields(plate, batch=n, workers=0, device=device))
            return Recorded(recording, n, 0, ())
        arguments: dict[str, Any] = {"device": device, "settings": config.illumination, "batch": n, "workers": 1}
        if illumination == "estimate":
            with recorded(only) as recording:
                open_illumination(plate, illumination, folder=Path(folder), **arguments)
            return Recorded(recording, len(sites), 0, ())
        functions = open_illumination(plate, illumination, folder=Path(folder), **arguments)
        on_device = device.tensor(functions.functions)
        with recorded(only) as recording:
            batch = next(read_fields(plate, batch=n, workers=0, device=device))
            copied = recording.operators["to the device"][1]
            cells = WORK.get(name, run_batch)(batch.pixels, on_device, plate, config, device)
        return Recorded(recording, len(batch.sites), cells, tuple(batch.pixels.shape), copied)
