"""What CellProfiler 4.2.8.1 makes of a pipeline here on three small images, and on them as one in colours.

`python make.py modules` in its environment.
`modules.json`, `more.json` have a checksum of every image, mask and label image, the sum of every image, and columns.
"""

import json
import logging
import sys
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZE = 160
COLUMNS = (
    *("Count_", "Math_", "Distance_", "Crop_", "Parent_", "Children_", "Location_Center", "Location_Max", "Mean_"),
    *("Neighbors_", "Overlap_", "Skeleton_"),
)


def images() -> dict[str, np.ndarray]:
    """Three images of cells, uint16 of whole-number arithmetic, the same with every NumPy."""
    rng = np.random.default_rng(15)
    y, x = np.mgrid[:SIZE, :SIZE]
    result = {name: rng.integers(300, 420, (SIZE, SIZE)) for name in ("OrigDNA", "OrigRNA", "OrigER")}
    for _ in range(14):
        (at_y, at_x), (a, b), height = rng.integers(8, SIZE - 8, 2), rng.integers(5, 11, 2), int(rng.integers(2000, 9000))
        near = ((y - at_y) ** 2 * 1000) // int(a) ** 2 + ((x - at_x) ** 2 * 1000) // int(b) ** 2
        for name, wide, share in (("OrigDNA", 1, 1), ("OrigRNA", 5, 2), ("OrigER", 8, 3)):
            result[name] += np.maximum(0, 1000 * wide - near) * height // (1000 * wide * share)
    return {name: np.minimum(image, 65535).astype(np.uint16) for name, image in result.items()}


def checksum(values: np.ndarray) -> int:
    """Of what is there, whatever its type."""
    return zlib.crc32((np.ascontiguousarray(values, np.float64) + 0.0).tobytes())


def run(name: str) -> dict:
    import cellprofiler_core.preferences

    cellprofiler_core.preferences.set_headless()
    from cellprofiler_core.image import Image, ImageSetList
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.workspace import Workspace

    pipeline, measurements, lists, objects = Pipeline(), Measurements(), ImageSetList(), ObjectSet()
    pipeline.load(str(HERE / f"{name}.cppipe"))
    measurements.group_number = measurements.group_index = 1
    for name in ("Group_Index", "Group_Number"):
        measurements.add_image_measurement(name, 1)
    loaded = lists.get_image_set(0)
    for name, image in images().items():
        loaded.add(name, Image(image.astype(np.float32) / np.float32(65535), scale=65535.0))
    planes = np.stack(list(images().values()), 2)
    loaded.add("OrigColor", Image(planes.astype(np.float32) / np.float32(65535), scale=65535.0))
    workspace = Workspace(pipeline, None, loaded, objects, measurements, lists)
    for module in pipeline.modules(True):
        workspace.set_module(module)
        module.show_window = False
        module.prepare_group(workspace, {}, [1])
        module.run(workspace)
    result: dict = {"images": {}, "masks": {}, "labels": {}, "columns": {}}
    for name in loaded.names:
        if name == "OrigColor":
            continue
        image = loaded.get_image(name)
        result["images"][name] = [checksum(image.pixel_data), float(np.nansum(image.pixel_data, dtype=float))]
        if image.has_mask:
            result["masks"][name] = checksum(image.mask)
    for name in objects.object_names:
        of = objects.get_objects(name)
        every = of.segmented, of.unedited_segmented, of.small_removed_segmented
        result["labels"][name] = [checksum(labels) for labels in every]
    for name in measurements.get_object_names():
        if name == "Experiment":
            continue
        result["columns"][name] = {
            column: [float(f"{v:.9g}") for v in np.atleast_1d(measurements.get_current_measurement(name, column))]
            for column in measurements.get_feature_names(name)
            if column.startswith(COLUMNS)
        }
    return result


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    of = sys.argv[1]
    (HERE / f"{of}.json").write_text(json.dumps(run(of), separators=(",", ":")).replace('],"', '],\n"') + "\n")
