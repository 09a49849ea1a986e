"""A batch of fields through the steps of an imported pipeline."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..gpu.device import Device
from ..settings import filter_steps, object_steps, table_steps
from ..settings import steps as kinds
from . import calculate, filters, illumination, image_tables, images, measures, objects, regroup, shapes
from .state import Image, Skipped, State

HANDLERS: dict[type[kinds.Step], Callable[[State, Any, Device], None]] = {
    kinds.Illuminate: images.illuminate,
    kinds.Illumination: illumination.illumination,
    kinds.Resize: images.resize,
    kinds.GrayOfColors: images.gray_of_colors,
    kinds.Math: images.image_math,
    kinds.Smooth: images.smooth_image,
    kinds.Enhance: images.enhance,
    kinds.Crop: images.crop,
    kinds.MaskImage: images.mask_image,
    kinds.Threshold: images.threshold,
    kinds.Skeletonize: images.skeletonize,
    kinds.ObjectsImage: images.objects_to_image,
    filter_steps.FilterImage: filters.filter_image,
    filter_steps.Rescale: filters.rescale,
    filter_steps.Morph: filters.morph,
    filter_steps.Edges: filters.edges,
    filter_steps.Reshape: shapes.reshape,
    filter_steps.ImageToObjects: shapes.image_to_objects,
    object_steps.ResizeObjects: regroup.resize_objects,
    object_steps.Regroup: regroup.regroup,
    object_steps.Watershed: regroup.watershed,
    kinds.Primary: objects.primary,
    kinds.Secondary: objects.secondary,
    kinds.Tertiary: objects.tertiary,
    kinds.Filter: objects.filter_objects,
    kinds.Expand: shapes.expand,
    kinds.MaskObjects: objects.mask_objects,
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
    kinds.MeasureImageIntensity: image_tables.image_intensity,
    table_steps.MeasureImageQuality: image_tables.image_quality,
    table_steps.MeasureAreaOccupied: image_tables.area_occupied,
    table_steps.MeasureImageTexture: image_tables.image_texture,
    table_steps.MeasureImageGranularity: image_tables.image_granularity,
    table_steps.MeasureImageCorrelation: image_tables.image_correlation,
    object_steps.MeasureImageSkeleton: image_tables.image_skeleton,
    object_steps.MeasureOverlap: image_tables.measure_overlap,
    table_steps.Flag: image_tables.flag,
    kinds.CalculateMath: calculate.calculate_math,
    kinds.Classify: measures.classify,
}


def run_steps(
    steps: Sequence[kinds.Step],
    pixels: Mapping[str, torch.Tensor],
    functions: Mapping[str, torch.Tensor],
    device: Device,
    scales: Mapping[str, float] | None = None,
    *,
    images: Mapping[str, Image] | None = None,
    site: float = math.nan,
    skip: bool = True,
) -> State:
    """Everything that the steps make of a batch.

    Parameters
    ----------
    steps : in the pipeline's order
    pixels : channel -> float32 [B, H, W], count / 65535
    functions : channel -> float32 [H, W]
    images : name -> images that there are already
    scales : channel -> what its files' counts were divided by, 65535 where absent
    site : the field's number, for flags
    skip : whether a flag may end the field; the state then says so (`skipped`) and holds what came before

    Raises ValueError, beginning with the step's module, where it cannot be done with these fields.
    """
    state = State(images=dict(images or {}), site=site)
    for step in steps:
        try:
            if isinstance(step, kinds.Load):
                result = functions[step.channel] if step.function else pixels[step.channel]
                scale = 1.0 if step.function else (scales or {}).get(step.channel, 65535.0)
                state.images[step.image] = Image(result, scale=scale)
            else:
                HANDLERS[type(step)](state, step, device)
        except Skipped as ended:
            if skip:
                state.skipped = str(ended)
                break
        except ValueError as error:
            raise ValueError(f"{step.module or step.do}: {error}") from error
    return state
