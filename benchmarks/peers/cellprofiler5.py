"""CellProfiler 5's library (cellprofiler-library-nightly) on given fields and masks: its measurements by object set.

Runs in its own environment with two arguments: an .npz file as of the other peers (benchmarks/peers/__init__.py) of one
field, and the .npz file to write, `<Object>/<column>` -> float64 [n]. Settings are those of configs/cpjump1.toml.
"""

import sys
import types
import warnings
from itertools import combinations

import numpy as np

# Its intensity module asks the application, which is not there, for one function: images and labels here are of one size.
core = types.ModuleType("cellprofiler_core.utilities.core.object")
core.crop_labels_and_image = lambda labels, image: (labels, image)
for package in ("cellprofiler_core", "cellprofiler_core.utilities", "cellprofiler_core.utilities.core"):
    sys.modules[package] = types.ModuleType(package)
sys.modules[core.__name__] = core

from cellprofiler_library.functions.measurement import ObjectRecord  # noqa: E402
from cellprofiler_library.modules._measurecolocalization import run_image_pair_objects  # noqa: E402
from cellprofiler_library.modules._measuregranularity import measure_granularity  # noqa: E402
from cellprofiler_library.modules._measureobjectintensity import measure_object_intensity  # noqa: E402
from cellprofiler_library.modules._measureobjectintensitydistribution import measureobjectintensitydistribution  # noqa: E402
from cellprofiler_library.modules._measureobjectsizeshape import measureobjectsizeshape  # noqa: E402
from cellprofiler_library.modules._measuretexture import measure_object_texture  # noqa: E402
from cellprofiler_library.opts.measurecolocalization import MeasurementType  # noqa: E402
from cellprofiler_library.opts.measureobjectintensitydistribution import CenterChoice  # noqa: E402

METRICS = [MeasurementType.CORRELATION, MeasurementType.MANDERS, MeasurementType.RWC, MeasurementType.OVERLAP]


def measured(name, labels, images):
    """Library measurements of one object set, module after module."""
    n, whole = int(labels.max()), np.ones(labels.shape, bool)
    numbers = np.arange(1, n + 1, dtype=np.int32)
    yield measureobjectsizeshape(labels[None, None, None, None], name, calculate_advanced=False, calculate_zernikes=True)
    for image, pixels in images.items():
        yield measure_object_intensity(pixels, image, name, None, [(labels, numbers)], n, 2)
        yield measureobjectintensitydistribution(
            pixel_data=pixels,
            image_name=image,
            object_labels=labels,
            object_name=name,
            objects_indices=numbers,
            center_choice=CenterChoice.SELF,
            bin_count=4,
            wants_scaled=True,
            maximum_radius=100,
        )
        for scale in (3, 5, 10):
            yield measure_object_texture(name, labels, image, pixels, None, 256, numbers, scale, False)
        record = ObjectRecord(name, labels, whole, pixels)
        yield measure_granularity(image, pixels, whole, 0.5, 0.5, 10, [record], 16)
    for a, b in combinations(images, 2):
        inside = labels > 0
        yield run_image_pair_objects(
            images[a][inside],
            images[b][inside],
            labels[inside],
            n,
            a,
            b,
            name,
            None,
            15,
            15,
            measurement_types=METRICS,
        )


def main():
    warnings.simplefilter("ignore")
    with np.load(sys.argv[1], allow_pickle=False) as given:
        images = dict(zip(given["channels"].tolist(), given["pixels"][0], strict=True))
        result = {}
        for name in ("Cells", "Cytoplasm", "Nuclei"):
            if name not in given.files:
                continue
            for part in measured(name, given[name][0], images):
                part = part[0] if isinstance(part, tuple) else part
                for column, values in part.objects.get(name, {}).items():
                    result[f"{name}/{column}"] = np.asarray(values, np.float64)
    np.savez(sys.argv[2], **result)


if __name__ == "__main__":
    main()
