"""What the settings of CellProfiler's modules are called here, by module and revision of its settings.

A module writes its settings in one order a revision, and `read_settings` gives them names: `{"image": "CorrBlue", ...}`.
Every revision that CellProfiler 4.2.8 itself upgrades is read, and means what it makes of it.
"""

from collections.abc import Callable, Sequence

from . import filter_settings as filters
from . import image_settings as images
from . import measure_settings as measures
from . import object_settings as objects
from .parse import Module
from .rows import Row, Settings

READERS: dict[str, tuple[Sequence[int], Callable[[Row, int], Settings]]] = {
    "CorrectIlluminationCalculate": (range(1, 3), images.calculate),
    "CorrectIlluminationApply": (range(1, 6), images.apply),
    "Resize": (range(1, 6), images.resize),
    "ColorToGray": (range(1, 5), images.color_to_gray),
    "ImageMath": (range(1, 6), images.image_math),
    "EnhanceOrSuppressFeatures": (range(1, 8), images.enhance),
    "Crop": (range(2, 4), images.crop),
    "MaskImage": (range(1, 4), images.mask_image),
    "Smooth": (range(1, 3), images.smooth),
    "Threshold": (range(7, 13), objects.threshold_module),
    "Morph": (range(1, 7), images.morph),
    "MorphologicalSkeleton": (range(1, 2), images.two_images),
    **dict.fromkeys(("Opening", "Closing", "ErodeImage", "DilateImage"), (range(1, 2), filters.with_element)),
    **dict.fromkeys(("GaussianFilter", "MedianFilter", "RemoveHoles"), (range(1, 2), filters.with_size)),
    "ReduceNoise": (range(1, 2), filters.reduce_noise),
    "RescaleIntensity": (range(1, 4), filters.rescale),
    "EnhanceEdges": (range(1, 3), filters.edges),
    "ErodeObjects": (range(1, 2), filters.erode_objects),
    "DilateObjects": (range(1, 2), filters.dilate_objects),
    "FillObjects": (range(1, 3), filters.fill_objects),
    "ShrinkToObjectCenters": (range(1, 2), filters.centers),
    "ConvertImageToObjects": (range(1, 2), filters.image_to_objects),
    "ConvertObjectsToImage": (range(1, 2), images.objects_to_image),
    "IdentifyPrimaryObjects": (range(10, 16), objects.primary),
    "IdentifySecondaryObjects": (range(9, 11), objects.secondary),
    "IdentifyTertiaryObjects": (range(1, 4), objects.tertiary),
    "FilterObjects": (range(4, 11), objects.filter_objects),
    "ExpandOrShrinkObjects": (range(1, 3), objects.expand),
    "MaskObjects": (range(1, 4), objects.mask_objects),
    "RelateObjects": (range(1, 6), objects.relate),
    "ResizeObjects": (range(1, 4), objects.resize_objects),
    "SplitOrMergeObjects": (range(3, 7), objects.regroup),
    "Watershed": (range(1, 4), objects.watershed),
    "MeasureColocalization": (range(2, 6), measures.colocalization),
    "MeasureGranularity": (range(1, 5), measures.granularity),
    "MeasureObjectIntensity": (range(2, 5), measures.intensity),
    "MeasureObjectSizeShape": (range(1, 4), measures.shape),
    "MeasureObjectNeighbors": (range(1, 4), measures.neighbors),
    "MeasureObjectIntensityDistribution": (range(1, 7), measures.distribution),
    "MeasureObjectSkeleton": (range(1, 4), measures.skeleton),
    "MeasureTexture": (range(1, 8), measures.texture),
    "MeasureImageQuality": (range(4, 7), measures.image_quality),
    "MeasureImageIntensity": (range(2, 5), measures.image_intensity),
    "MeasureImageAreaOccupied": (range(4, 6), measures.area_occupied),
    "MeasureImageSkeleton": (range(1, 2), objects.image_skeleton),
    "MeasureObjectOverlap": (range(1, 3), objects.overlap),
    "MeasureImageOverlap": (range(1, 6), objects.image_overlap),
    "FlagImage": (range(2, 6), measures.flag),
    "CalculateMath": (range(1, 4), measures.calculate_math),
    "ClassifyObjects": (range(2, 5), measures.classify),
}
ONCE = {  # what a module was called before
    "MeasureCorrelation": "MeasureColocalization",
    "MeasureNeurons": "MeasureObjectSkeleton",
    "ApplyThreshold": "Threshold",
    "Erosion": "ErodeImage",
    "Dilation": "DilateImage",
    "FindEdges": "EnhanceEdges",
    "EnhanceOrSuppressSpeckles": "EnhanceOrSuppressFeatures",
    "ExpandOrShrink": "ExpandOrShrinkObjects",
    "Relate": "RelateObjects",
    "RelabelObjects": "SplitOrMergeObjects",
    "ReassignObjectNumbers": "SplitOrMergeObjects",
    "IdentifyTertiarySubregion": "IdentifyTertiaryObjects",
    "MeasureObjectAreaShape": "MeasureObjectSizeShape",
    "MeasureObjectRadialDistribution": "MeasureObjectIntensityDistribution",
}


def read_settings(module: Module) -> Settings:
    """A module's settings by name; ValueError for a revision that is not read, or settings that are not the revision's."""
    revisions, reader = READERS[ONCE.get(module.name, module.name)]
    if module.revision not in revisions:
        raise ValueError(
            f"{module}: revision {module.revision} of its settings is not read, {revisions[0]} to {revisions[-1]} are; "
            "open the pipeline in CellProfiler 4 and export it again"
        )
    return reader(Row(module, module.values), module.revision)
