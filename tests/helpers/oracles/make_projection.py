"""Make the numbers of tests/images/test_projection.py: CellProfiler 4.2.8.1 with NumPy 1.23.5, Python 3.9, by hand.

    python tests/helpers/oracles/make_projection.py > tests/helpers/oracles/make_projection.json

MakeProjection itself runs over a group of image sets, one for each plane; its images are as CellProfiler's reader gives
them: counts over full scale, in float32, and that scale.
"""

import json

import numpy as np

SHAPE = 4, 7
CASES = {"16 bits": (65535, 5), "8 bits": (255, 3), "MaxSampleValue 4095": (4095, 10)}  # full scale, planes


def planes(name):
    """Whole numbers [planes, H, W] up to full scale, which every NumPy draws the same."""
    scale, n = CASES[name]
    return np.random.default_rng(scale).integers(0, scale + 1, (n, *SHAPE))


def main():
    import cellprofiler_core.preferences

    cellprofiler_core.preferences.set_headless()
    from cellprofiler.modules.makeprojection import MakeProjection
    from cellprofiler_core.image import Image, ImageSetList
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.workspace import Workspace

    output = {name: {} for name in CASES}
    for name, (scale, n) in CASES.items():
        for kind in ("Maximum", "Average"):
            module = MakeProjection()
            module.set_module_num(1)
            module.show_window = False
            module.image_name.value, module.projection_image_name.value = "Raw", "Projected"
            module.projection_type.value = kind
            pipeline, images, measurements = Pipeline(), ImageSetList(), Measurements()
            pipeline.add_module(module)
            module.prepare_group(Workspace(pipeline, module, None, ObjectSet(), measurements, images), {}, range(1, n + 1))
            for k, counts in enumerate(planes(name)):
                image_set = images.get_image_set(k)
                image_set.add("Raw", Image(counts.astype(np.float32) / np.float32(scale), scale=scale))
                workspace = Workspace(pipeline, module, image_set, ObjectSet(), measurements, images)
                module.run(workspace)
            module.post_group(workspace, {})
            result = image_set.get_image("Projected")
            assert (result.scale, result.pixel_data.dtype) == (None, np.float32)
            output[name][kind] = [float(str(v)) for v in result.pixel_data.ravel()]  # all of float32's digits
    print(json.dumps(output))


if __name__ == "__main__":
    main()
