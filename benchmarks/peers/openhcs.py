"""OpenHCS's CellProfiler functions on given fields and masks: seconds of processor a field, by family.

Runs in its own environment. The functions are called below OpenHCS's own scheduling, on images and labels that are there
already, and with what its batches share handed to them (one granularity series an image, one ranking an image, one label
index a compartment). Numba compiles in a first pass over the first field; that pass's seconds are given apart, as `cold_s`.
"""

import importlib.metadata
import itertools
import json
import sys
import time
import warnings

import numpy as np
from openhcs.core.runtime_image_values import ImagePayloadMetadata
from openhcs.core.runtime_object_labels import (
    ObjectLabelDomain,
    ObjectLabelPayload,
    ObjectLabelVariantData,
    object_label_dense_array,
)
from openhcs.processing.backends.cellprofiler import (
    colocalization,
    granularity,
    intensity,
    intensity_distribution,
    neighbors,
    shape,
    texture,
)

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")
NEIGHBORS = (("Cells", "WITHIN", 5), ("Cells", "ADJACENT", 0), ("Nuclei", "WITHIN", 1))


def payload(labels):
    ids = tuple(int(i) for i in np.unique(labels) if i)
    return ObjectLabelPayload(
        variant_data=ObjectLabelVariantData(labels=labels), domain=ObjectLabelDomain(declared_object_ids=ids)
    )


def measure(pixels, channels, labels, seconds):
    """One field; adds to `seconds` by family. pixels: float32 [C, H, W]; labels: compartment -> int32 [H, W]."""

    def timed(family, work):
        start = time.process_time()
        given = work()
        seconds[family] = seconds.get(family, 0.0) + time.process_time() - start
        return given

    images = [np.ascontiguousarray(p) for p in pixels]
    objects = {name: payload(image) for name, image in labels.items()}
    ranks = colocalization.CachedObjectColocalizationRankProvider()
    for name in COMPARTMENTS:
        given, dense = objects[name], object_label_dense_array(objects[name], dtype=np.int32)
        prepared = timed(
            "intensity",
            lambda given=given, dense=dense: intensity.ObjectIntensityPreparedLabels.from_source(given, dense),
        )
        timed(
            "shape",
            lambda given=given: shape.measure_object_size_shape.__wrapped__(images[0], given, calculate_advanced=False),
        )
        for c, image in enumerate(images):
            named = ImagePayloadMetadata(source_image_names=(channels[c],)).attach_to(image)
            calls = {
                "granularity": lambda image=image, dense=dense: granularity.measure_granularity_objects.__wrapped__(
                    image, dense, subsample_size=0.5, background_subsample_size=0.5, element_radius=10, spectrum_length=16
                ),
                "texture": lambda image=image, given=given: texture.measure_texture_objects.__wrapped__(
                    image, given, scale=(3, 5, 10), gray_levels=256
                ),
                "intensity": lambda image=image, given=given, prepared=prepared: (
                    intensity.measure_object_intensity.__wrapped__(image, given, object_intensity_prepared_labels=prepared)
                ),
                "radial": lambda named=named, given=given: (
                    intensity_distribution.measure_object_intensity_distribution.__wrapped__(named, given, bin_count=4)
                ),
            }
            for family, call in calls.items():
                timed(family, call)
        for first, second in itertools.combinations(range(len(images)), 2):
            timed(
                "correlation",
                lambda first=first, second=second, given=given: colocalization.measure_colocalization_objects.__wrapped__(
                    pixels, given, channel_1=first, channel_2=second, do_costes=False, rank_provider=ranks, scale_max=65535
                ),
            )
    for name, method, distance in NEIGHBORS:
        timed(
            "neighbors",
            lambda name=name, method=method, distance=distance: neighbors.measure_object_neighbors.__wrapped__(
                images[0],
                objects[name],
                distance_method=neighbors.DistanceMethod[method],
                neighbor_distance=distance or 5,
            ),
        )


def main():
    warnings.simplefilter("ignore")
    fields = np.load(sys.argv[1], allow_pickle=False)
    pixels, channels = fields["pixels"], fields["channels"].tolist()
    labels = [{name: fields[name][b] for name in COMPARTMENTS} for b in range(len(pixels))]
    cold, seconds = {}, {}
    measure(pixels[0], channels, labels[0], cold)
    granularity.GRANULARITY_IMAGE_SERIES_CACHE.clear()
    for b in range(len(pixels)):
        measure(pixels[b], channels, labels[b], seconds)
    result = {name: s / len(pixels) for name, s in seconds.items()}
    figures = {"tool": "OpenHCS", "version": importlib.metadata.version("openhcs"), "modules": result}
    figures["cold_s"] = sum(cold.values())
    print(json.dumps({**figures, "cpu_s_a_field": sum(result.values()), "fields": len(pixels)}))


if __name__ == "__main__":
    main()
