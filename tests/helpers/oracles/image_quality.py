"""Make the numbers of tests/features/test_image_quality.py: CellProfiler 4.2.8.1 with NumPy 1.23.5, Python 3.9, by hand.

    python tests/helpers/oracles/image_quality.py        prints a dict, to be pasted

MeasureImageQuality's own methods run on the drawn image of `draw`; nothing else of a pipeline is needed.
"""

import numpy as np


def draw():
    """float32 [120, 150]: smooth blobs, noise, and a saturated patch. Integers first, so that every NumPy draws the same."""
    rng = np.random.default_rng(11)
    noise = rng.integers(0, 2000, (120, 150))
    y, x = np.mgrid[:120, :150]
    blobs = (((y - 40) ** 2 + (x - 60) ** 2) < 700) * 9000 + (((y - 90) ** 2 + (x - 110) ** 2) < 400) * 21000
    image = noise + blobs + 20 * y
    image[10:14, 20:29] = 65535
    return (image / 65535).astype(np.float32)


def main():
    import cellprofiler_core.preferences
    import scipy.linalg

    cellprofiler_core.preferences.set_headless()
    if not hasattr(scipy.linalg, "basic"):
        scipy.linalg.basic = scipy.linalg._basic
    from cellprofiler.modules.measureimagequality import MeasureImageQuality
    from cellprofiler_core.image import Image, ImageSetList
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.workspace import Workspace

    module = MeasureImageQuality()
    group = module.image_groups[0]
    while len(group.scale_groups) < 4:
        module.add_scale_group(group)
    for scale_group, scale in zip(group.scale_groups, (5, 10, 20, 50)):  # noqa: B905 (Python 3.9)
        scale_group.scale.value = scale
    images = ImageSetList()
    image_set = images.get_image_set(0)
    image_set.add("DNA", Image(draw()))
    module.images_to_process = lambda *_: ["DNA"]
    measurements = Measurements()
    workspace = Workspace(Pipeline(), module, image_set, ObjectSet(), measurements, images)
    for step in ("focus_scores", "saturation", "image_intensity", "power_spectrum"):
        getattr(module, f"calculate_{step}")(group, workspace)
    names = [n for n in measurements.get_feature_names("Image") if n.startswith("ImageQuality")]
    for name in sorted(names):
        print(f'    "Image_{name}": {float(measurements.get_current_image_measurement(name))!r},')


if __name__ == "__main__":
    main()
