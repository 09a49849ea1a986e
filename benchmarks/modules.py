"""Image modules beside CellProfiler's own: CPU seconds of each on one real field, and whether the images are equal.

    benchmarks/peers/setup cellprofiler
    python -m benchmarks.modules [--only 'Smooth median' ...] [--well D14]

A case is one of CellProfiler's modules with its settings, and our steps. The last column of what is printed is how often our
time would hold a copy of one field of float32 (read and written once): below about 3 memory is the limit, whoever computes.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import RESULTS, Spread, seconds, write_json
from benchmarks.pipelines import plane, run_cellprofiler
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import steps as kinds
from jumpgpu.settings import table_steps
from jumpgpu.settings.config import ThresholdSettings
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import Image

CALCULATE = "correctilluminationcalculate.CorrectIlluminationCalculate"
IN_OUT = {"image_name": "In", "illumination_image_name": "Out"}
SMOOTH = {"image_name": "In", "filtered_image_name": "Out", "wants_automatic_object_size": False}


@dataclasses.dataclass(frozen=True)
class Case:
    """CellProfiler's module and settings (benchmarks/peers/cellprofiler_run.py), and what we do."""

    module: str
    settings: dict[str, Any]
    steps: tuple[kinds.Step, ...]
    add: dict[str, int] = dataclasses.field(default_factory=dict)
    image: str = "Out"


def calculated(smoothing: str, ours: str, size: float | None = None, **more: Any) -> Case:
    """CorrectIlluminationCalculate of one image."""
    theirs = {**IN_OUT, "smoothing_method": smoothing, "rescale_option": "No", "each_or_all": "Each"}
    if size is not None:
        theirs |= {"automatic_object_width": "Manually", "size_of_smoothing_filter": int(size)}
    if "block" in more:
        theirs |= {"intensity_choice": "Background", "block_size": more["block"]}
        more["background"] = True
    if "dilation" in more:
        theirs |= {"dilate_objects": True, "object_dilation_radius": more["dilation"]}
    return Case(CALCULATE, theirs, (kinds.Illumination("In", "Out", smoothing=ours, size=size, **more),))


def smoothed(method: str, ours: str, size: float) -> Case:
    step = kinds.Smooth("In", "Out", ours, size, 0.05)
    return Case("smooth.Smooth", {**SMOOTH, "smoothing_method": method, "object_size": size, "sigma_range": 0.05}, (step,))


def enhanced(theirs: dict[str, Any], **ours: Any) -> Case:
    names = {"x_name": "In", "y_name": "Out"}
    return Case(
        "enhanceorsuppressfeatures.EnhanceOrSuppressFeatures", {**names, **theirs}, (kinds.Enhance("In", "Out", **ours),)
    )


def resized(factor: float) -> Case:
    by = "Resize by a fraction or multiple of the original size"
    theirs = {"x_name": "In", "y_name": "Out", "size_method": by, "resizing_factor_x": factor, "resizing_factor_y": factor}
    theirs["interpolation"] = "Bilinear"
    return Case("resize.Resize", theirs, (kinds.Resize("In", "Out", factor, factor),))


CASES = {
    "Calculate: Background of 100, Gaussian 200": calculated("Gaussian Filter", "gaussian", 200.0, block=100),
    "Calculate: Background of 10, Gaussian 20": calculated("Gaussian Filter", "gaussian", 20.0, block=10),
    "Calculate: Background of 60, none": calculated("No smoothing", "none", block=60),
    "Calculate: Regular, Gaussian 20": calculated("Gaussian Filter", "gaussian", 20.0),
    "Calculate: Regular, Gaussian 200": calculated("Gaussian Filter", "gaussian", 200.0),
    "Calculate: Regular, median 20": calculated("Median Filter", "median", 20.0),
    "Calculate: Regular, median 100": calculated("Median Filter", "median", 100.0),
    "Calculate: Regular, polynomial": calculated("Fit Polynomial", "polynomial"),
    "Calculate: Regular, convex hull": calculated("Convex Hull", "convex_hull"),
    "Calculate: Regular, splines": calculated("Splines", "splines"),
    "Calculate: Regular, average": calculated("Smooth to Average", "average"),
    "Calculate: Regular, dilated by 10": calculated("No smoothing", "none", dilation=10),
    "Smooth: Gaussian 16": smoothed("Gaussian Filter", "gaussian", 16.0),
    "Smooth: median 16": smoothed("Median Filter", "median", 16.0),
    "Smooth: median 3": smoothed("Median Filter", "median", 3.0),
    "Smooth: keeping edges 10": smoothed("Smooth Keeping Edges", "keeping_edges", 10.0),
    "Smooth: circular average 10": smoothed("Circular Average Filter", "circular_average", 10.0),
    "Smooth: polynomial": smoothed("Fit Polynomial", "polynomial", 16.0),
    "Enhance: speckles of 10": enhanced(
        {"method": "Enhance", "enhance_method": "Speckles", "object_size": 10, "speckle_accuracy": "Slow"},
        feature="speckles",
    ),
    "Enhance: neurites, tubeness 2": enhanced(
        {"method": "Enhance", "enhance_method": "Neurites", "neurite_choice": "Tubeness", "smoothing": 2.0},
        feature="tubeness",
        rescale=True,
    ),
    "ImageMath: subtract": Case(
        "imagemath.ImageMath",
        {"operation": "Subtract", "output_image_name": "Out", "images.0.image_name": "In", "images.1.image_name": "Other"},
        (kinds.Math("Out", "subtract", ("In", "Other"), (1.0, 1.0)),),
    ),
    "Apply: divide": Case(
        "correctilluminationapply.CorrectIlluminationApply",
        {
            "images.0.image_name": "In",
            "images.0.corrected_image_name": "Out",
            "images.0.illum_correct_function_image_name": "Other",
            "images.0.divide_or_subtract": "Divide",
        },
        (kinds.Illuminate("In", "Other", "Out"),),
    ),
    "Crop": Case(
        "crop.Crop",
        {
            "image_name": "In",
            "cropped_image_name": "Out",
            "shape": "Rectangle",
            "crop_method": "Coordinates",
            "horizontal_limits": [100, 900],
            "vertical_limits": [100, 900],
            "remove_rows_and_columns": "All",
        },
        (kinds.Crop("In", "Out", left=100, right=900, top=100, bottom=900),),
    ),
    "MaskImage": Case(
        "maskimage.MaskImage",
        {"image_name": "In", "masked_image_name": "Out", "source_choice": "Image", "masking_image_name": "Other"},
        (kinds.MaskImage("In", "Out", mask="Other"),),
    ),
    "Resize: by 0.5": resized(0.5),
    "Resize: by 2": resized(2.0),
    "Threshold: minimum cross-entropy": Case(
        "threshold.Threshold",
        {
            "x_name": "In",
            "y_name": "Out",
            "threshold_scope": "Global",
            "global_operation": "Minimum Cross-Entropy",
            "threshold_smoothing_scale": 1.3488,
            "threshold_range": [0.0, 1.0],
        },
        (kinds.Threshold("In", "Out", ThresholdSettings(smoothing=1.3488)),),
    ),
    "MeasureTexture: whole image": Case(
        "measuretexture.MeasureTexture",
        {"images_list": "In", "images_or_objects": "Images", "scale_groups.0.scale": 3},
        (table_steps.MeasureImageTexture(("In",), (3,)),),
        image="",
    ),
    "MeasureGranularity: whole image": Case(
        "measuregranularity.MeasureGranularity",
        {"images_list": "In", "wants_objects": False},
        (table_steps.MeasureImageGranularity(("In",)),),
        image="",
    ),
    "MeasureColocalization: whole images, Costes": Case(
        "measurecolocalization.MeasureColocalization",
        {"images_list": "In, Other", "images_or_objects": "Across entire image"},
        (table_steps.MeasureImageCorrelation(("In", "Other")),),
        image="",
    ),
    "MeasureColocalization: whole images, without Costes": Case(
        "measurecolocalization.MeasureColocalization",
        {"images_list": "In, Other", "images_or_objects": "Across entire image", "do_costes": False},
        (table_steps.MeasureImageCorrelation(("In", "Other"), metrics=("correlation", "manders", "rwc", "overlap")),),
        image="",
    ),
    "MeasureImageIntensity": Case(
        "measureimageintensity.MeasureImageIntensity",
        {"images_list": "In"},
        (kinds.MeasureImageIntensity("In"),),
        image="",
    ),
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """CPU seconds of one case; `differ` pixels of the outcome, -1 where there is none to compare."""

    case: str
    cellprofiler_s: float
    ours_s: Spread
    ratio: float
    copies: float
    differ: int


def run_case(name: str, shared: Path, well: str, device: Device, runs: int, copy: float) -> Figure:
    case = CASES[name]
    images = {"In": (plane(shared, well, "RNA"), 65535.0), "Other": (plane(shared, well, "ER"), 65535.0)}
    with tempfile.TemporaryDirectory() as temporary:
        folder, wanted = Path(temporary), {"module": case.module, "settings": case.settings, "add": case.add}
        line = run_cellprofiler({"modules": [wanted], "keep": [case.image] * bool(case.image)}, images, folder)[0]
        if line["error"]:
            raise RuntimeError(f"{name}: {line['error']}")
        theirs = np.load(folder / f"image_{case.image}.npy") if case.image else None
    given = {
        n: Image(torch.from_numpy((p.astype(np.float32) / np.float32(65535))[None]), scale=65535.0)
        for n, (p, _) in images.items()
    }
    state = run_steps(case.steps, {}, {}, device, images=given)
    ours = seconds(lambda: run_steps(case.steps, {}, {}, device, images=given), runs)
    differ = -1
    if theirs is not None:
        result = state.images[case.image].pixels[0].numpy()
        differ = int((result != theirs).sum()) if result.shape == theirs.shape else theirs.size
    return Figure(name, line["cpu_s"], ours, line["cpu_s"] / ours.median, ours.median / copy, differ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of cases' names")
    parser.add_argument("--well", default="D14")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--json", type=Path, default=RESULTS / "modules.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = open_device("cpu", 1)
    image = torch.rand(1080, 1080)
    copy = seconds(lambda: image.clone(), 20).median
    print(f"a copy of one field of float32: {1e3 * copy:.3f} ms")
    figures = {} if not args.json.is_file() else json.loads(args.json.read_text())["cases"]
    for name in CASES:
        if any(part.lower() in name.lower() for part in args.only):
            f = run_case(name, args.shared, args.well, device, args.runs, copy)
            equal = "" if f.differ < 0 else "equal" if not f.differ else f"{f.differ} pixels differ"
            print(
                f"{name:52s} {1e3 * f.cellprofiler_s:9.1f} ms against {1e3 * f.ours_s.median:8.2f} ms: 1/{f.ratio:<5.0f} "
                f"{f.copies:6.1f} copies  {equal}",
                flush=True,
            )
            figures[name] = dataclasses.asdict(f)
            write_json(args.json, {"copy_s": copy, "cases": figures})


if __name__ == "__main__":
    main()
