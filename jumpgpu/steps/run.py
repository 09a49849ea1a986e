"""A batch of fields through the steps of an imported pipeline."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..gpu.device import Device
from ..settings import steps as kinds
from . import images, measures, objects
from .state import Image, State

HANDLERS: dict[type[kinds.Step], Callable[[State, Any, Device], None]] = {
    kinds.Illuminate: images.illuminate,
    kinds.Background: images.background,
    kinds.Math: images.image_math,
    kinds.Smooth: images.smooth_image,
    kinds.Enhance: images.enhance,
    kinds.Crop: images.crop,
    kinds.MaskImage: images.mask_image,
    kinds.Threshold: images.threshold,
    kinds.Skeletonize: images.skeletonize,
    kinds.ObjectsImage: images.objects_to_image,
    kinds.Primary: objects.primary,
    kinds.Secondary: objects.secondary,
    kinds.Tertiary: objects.tertiary,
    kinds.Filter: objects.filter_objects,
    kinds.Expand: objects.expand,
    kinds.Relate: objects.relate_objects,
    kinds.MeasureIntensity: measures.intensity,
    kinds.MeasureShape: measures.shape,
    kinds.MeasureCorrelation: measures.correlation,
    kinds.MeasureGranularity: measures.granularity,
    kinds.MeasureTexture: measures.texture,
    kinds.MeasureRadial: measures.radial,
    kinds.MeasureZernike: measures.radial_zernike,
    kinds.MeasureSkeleton: measures.skeleton,
    kinds.MeasureNeighbors: measures.neighbors,
    kinds.MeasureImageIntensity: measures.image_intensity,
    kinds.CalculateMath: measures.calculate_math,
    kinds.Classify: measures.classify,
}


def run_steps(
    steps: Sequence[kinds.Step],
    pixels: Mapping[str, torch.Tensor],
    functions: Mapping[str, torch.Tensor],
    device: Device,
) -> State:
    """Everything that the steps make of a batch.

    Parameters
    ----------
    steps : in the pipeline's order
    pixels : channel -> float32 [B, H, W], count / 65535
    functions : channel -> float32 [H, W]

    Raises ValueError, beginning with the step's module, where it cannot be done with these fields.
    """
    state = State()
    for step in steps:
        try:
            if isinstance(step, kinds.Load):
                result = functions[step.channel] if step.function else pixels[step.channel]
                state.images[step.image] = Image(result)
            else:
                HANDLERS[type(step)](state, step, device)
        except ValueError as error:
            raise ValueError(f"{step.module or step.do}: {error}") from error
    return state
