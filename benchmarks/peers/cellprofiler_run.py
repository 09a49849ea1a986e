"""Modules of CellProfiler itself on given images: CPU seconds by module, images, label images and measurements.

Runs in its own environment (Python 3.9, CellProfiler 4.2.8.1, headless) with one argument, a JSON file:

    images     name -> {"file": .npy of [H, W], "divisor": what its counts are over, or null for what is stored as it is}
    pipeline   a .cppipe or .cpproj; of its modules those run that find, measure or make images
    modules    or a list of {"module": "smooth.Smooth", "settings": {attribute: value}, "add": {method: times}}; each alone
    keep       names of images to keep
    output     folder for labels_<objects>.npy, image_<name>.npy, table_<objects>.npz and run.json

Seconds are those of each module's `run` alone: start-up, reading and saving are not in them.
"""

import json
import logging
import re
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import scipy.linalg

logging.disable(logging.CRITICAL)
if not hasattr(scipy.linalg, "basic"):
    scipy.linalg.basic = scipy.linalg._basic

import cellprofiler_core.preferences  # noqa: E402

cellprofiler_core.preferences.set_headless()

from cellprofiler_core.image import Image, ImageSetList  # noqa: E402
from cellprofiler_core.measurement import Measurements  # noqa: E402
from cellprofiler_core.object import ObjectSet  # noqa: E402
from cellprofiler_core.pipeline import Pipeline  # noqa: E402
from cellprofiler_core.workspace import Workspace  # noqa: E402

LEFT_OUT = re.compile(
    "Images$|Metadata$|NamesAndTypes$|Groups$|LoadData|Save|Export|Overlay|Display|GrayToColor|CreateBatch|FlagImage"
)


class Run:
    def __init__(self, job):
        self.job, self.pipeline, self.lists = job, Pipeline(), ImageSetList()
        self.images, self.objects, self.measurements = self.lists.get_image_set(0), ObjectSet(), Measurements()
        self.measurements.group_number = self.measurements.group_index = 1
        for name in ("Group_Index", "Group_Number"):
            self.measurements.add_image_measurement(name, 1)
        for name, of in job["images"].items():
            pixels = np.load(of["file"], allow_pickle=False)
            if of["divisor"]:
                self.images.add(name, Image(pixels.astype(np.float32) / np.float32(of["divisor"]), scale=of["divisor"]))
            else:
                self.images.add(name, Image(pixels))

    def run(self, module):
        module.show_window = False
        workspace = Workspace(self.pipeline, module, self.images, self.objects, self.measurements, self.lists)
        before = self.held()
        line = {"number": module.module_num, "module": module.module_name, "error": ""}
        start = 0.0
        try:
            module.prepare_group(workspace, {}, [1])
            start = time.process_time()
            module.run(workspace)
        except Exception as error:  # noqa: BLE001 any module's own
            line["error"] = repr(error)
        line["idle"] = not line["error"] and self.held() == before
        return {**line, "cpu_s": time.process_time() - start if start else 0.0}

    def held(self):
        """How much there is by now: a module that adds nothing was told of no image (those that LoadData would list)."""
        of = self.measurements.get_object_names()
        return (
            len(self.images.names),
            len(self.objects.object_names),
            sum(len(self.measurements.get_feature_names(n)) for n in of),
        )

    def save(self, folder):
        for name in self.objects.object_names:
            np.save(folder / f"labels_{name}.npy", self.objects.get_objects(name).segmented.astype(np.int32))
        for name in self.job.get("keep", ()):
            np.save(folder / f"image_{name}.npy", self.images.get_image(name).pixel_data)
        for name in self.measurements.get_object_names():
            if name == "Experiment":
                continue
            table = {}
            for feature in self.measurements.get_feature_names(name):
                try:
                    table[feature] = np.atleast_1d(self.measurements.get_current_measurement(name, feature)).astype(float)
                except (TypeError, ValueError):
                    continue  # text
            np.savez(folder / f"table_{name}.npz", **table)


def text_of(path):
    """The pipeline's text; a project keeps it in an HDF5 file."""
    if path.suffix != ".cpproj":
        return path.read_text(encoding="utf-8", errors="replace")
    import h5py

    with h5py.File(path, "r") as file:
        group = file["Measurements"]
        data = group[next(iter(group))]["Experiment/Pipeline_Pipeline/data"][0]
    return data.decode() if isinstance(data, bytes) else data


def made(wanted, number):
    where, name = wanted["module"].rsplit(".", 1)
    module = getattr(import_module(f"cellprofiler.modules.{where}"), name)()
    for method, times in wanted.get("add", {}).items():
        for _ in range(times):
            getattr(module, method)()
    for attribute, value in wanted["settings"].items():
        at = module
        *parts, last = attribute.split(".")
        for part in parts:
            at = at[int(part)] if part.isdigit() else getattr(at, part)
        getattr(at, last).value = tuple(value) if isinstance(value, list) else value
    module.set_module_num(number)
    return module


def main():
    warnings.simplefilter("ignore")
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["output"])
    run = Run(job)
    if job.get("pipeline"):
        text = folder / "pipeline.cppipe"
        text.write_text(text_of(Path(job["pipeline"])))
        run.pipeline.load(str(text))
        modules = [m for m in run.pipeline.modules(True) if not LEFT_OUT.match(m.module_name)]
    else:
        modules = [made(m, i + 1) for i, m in enumerate(job["modules"])]
    lines = [run.run(module) for module in modules]
    run.save(folder)
    (folder / "run.json").write_text(json.dumps({"modules": lines}))


if __name__ == "__main__":
    main()
