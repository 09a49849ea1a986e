"""CellProfiler's own measurement modules on given fields and masks: seconds of processor a field, by module.

Runs in its own environment (Python 3.9, CellProfiler 4.2.8.1, headless), with the settings of configs/cpjump1.toml. The
modules are handed images and objects that are there already: reading, illumination, segmentation and start-up are not in
these figures.
"""

import importlib.metadata
import json
import sys
import time
import warnings

import cellprofiler_core.preferences
import numpy as np
import scipy.linalg

cellprofiler_core.preferences.set_headless()
if not hasattr(scipy.linalg, "basic"):
    scipy.linalg.basic = scipy.linalg._basic

from cellprofiler.modules.measurecolocalization import MeasureColocalization  # noqa: E402
from cellprofiler.modules.measuregranularity import MeasureGranularity  # noqa: E402
from cellprofiler.modules.measureobjectintensity import MeasureObjectIntensity  # noqa: E402
from cellprofiler.modules.measureobjectintensitydistribution import MeasureObjectIntensityDistribution  # noqa: E402
from cellprofiler.modules.measureobjectneighbors import MeasureObjectNeighbors  # noqa: E402
from cellprofiler.modules.measureobjectsizeshape import MeasureObjectSizeShape  # noqa: E402
from cellprofiler.modules.measuretexture import MeasureTexture  # noqa: E402
from cellprofiler_core.image import Image, ImageSetList  # noqa: E402
from cellprofiler_core.measurement import Measurements  # noqa: E402
from cellprofiler_core.object import Objects, ObjectSet  # noqa: E402
from cellprofiler_core.pipeline import Pipeline  # noqa: E402
from cellprofiler_core.workspace import Workspace  # noqa: E402

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")
NEIGHBORS = (
    ("Cells", "Within a specified distance", 5),
    ("Cells", "Adjacent", 0),
    ("Nuclei", "Within a specified distance", 1),
)


def modules(channels):
    """Family -> the modules that measure it, set as for CPJUMP1."""
    images = ", ".join(channels)
    objects = ", ".join(COMPARTMENTS)
    output = {}

    def add(family, module):
        module.show_window = False
        output.setdefault(family, []).append(module)
        return module

    for family, kind in (
        ("granularity", MeasureGranularity),
        ("texture", MeasureTexture),
        ("correlation", MeasureColocalization),
        ("intensity", MeasureObjectIntensity),
    ):
        module = add(family, kind())
        module.images_list.value = images
        module.objects_list.value = objects
        if family == "granularity":
            module.wants_objects.value = True
            module.subsample_size.value = module.image_sample_size.value = 0.5
            module.element_size.value, module.granular_spectrum_length.value = 10, 16
        elif family == "texture":
            while len(module.scale_groups) < 3:
                module.add_scale()
            for group, scale in zip(module.scale_groups, (3, 5, 10)):  # noqa: B905 (Python 3.9)
                group.scale.value = scale
            module.gray_levels.value = 256
            module.images_or_objects.value = "Objects"
        elif family == "correlation":
            module.images_or_objects.value = "Within objects"
            module.thr.value = 15
            module.do_costes.value = False
    shape = add("shape", MeasureObjectSizeShape())
    shape.objects_list.value = objects
    shape.calculate_zernikes.value, shape.calculate_advanced.value = True, False
    radial = add("radial", MeasureObjectIntensityDistribution())
    radial.images_list.value = images
    while len(radial.objects) < 3:
        radial.add_object()
    for group, name in zip(radial.objects, COMPARTMENTS):  # noqa: B905 (Python 3.9)
        group.object_name.value = name
    radial.bin_counts[0].bin_count.value = 4
    radial.wants_zernikes.value = "None"
    for name, method, distance in NEIGHBORS:
        module = add("neighbors", MeasureObjectNeighbors())
        module.object_name.value = module.neighbors_name.value = name
        module.distance_method.value = method
        module.distance.value = distance or 5
    return output


def main():
    warnings.simplefilter("ignore")
    fields = np.load(sys.argv[1], allow_pickle=False)
    pixels, channels = fields["pixels"].astype(np.float64), fields["channels"].tolist()
    known = modules(channels)
    pipeline = Pipeline()
    seconds = {}
    for b in range(len(pixels)):
        images = ImageSetList()
        image_set = images.get_image_set(0)
        for c, name in enumerate(channels):
            image_set.add(name, Image(pixels[b, c]))
        for family, several in known.items():
            for number, module in enumerate(several):
                module.set_module_num(number + 1)
                object_set = ObjectSet()
                for name in COMPARTMENTS:  # fresh ones, that no module profits from what another has kept in them
                    objects = Objects()
                    objects.segmented = fields[name][b]
                    object_set.add_objects(objects, name)
                workspace = Workspace(pipeline, module, image_set, object_set, Measurements(), images)
                start = time.process_time()
                module.run(workspace)
                seconds[family] = seconds.get(family, 0.0) + time.process_time() - start
    result = {name: s / len(pixels) for name, s in seconds.items()}
    version = importlib.metadata.version("cellprofiler")
    figures = {"tool": "CellProfiler", "version": version, "modules": result}
    print(json.dumps({**figures, "cpu_s_a_field": sum(result.values()), "fields": len(pixels)}))


if __name__ == "__main__":
    main()
