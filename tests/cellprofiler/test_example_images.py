"""CellProfiler's own examples, 8-bit images of HT29 and fly cells, beside the Image tables that it wrote for them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.gpu.device import Device
from jumpgpu.outputs.comparison import BOOKS
from jumpgpu.settings import steps as kinds
from jumpgpu.steps.run import run_steps

FILES = {
    "ExampleFly": {"OrigBlue": "01_POS002_D.TIF", "OrigGreen": "01_POS002_F.TIF", "OrigRed": "01_POS002_R.TIF"},
    "ExampleHuman": {n: f"AS_09125_050116030001_D03f00d{i}.tif" for i, n in enumerate(("DNA", "PH3", "cellbody"))},
}
COLUMNS = {"ExampleFly": 145, "ExampleHuman": 16}


@pytest.mark.parametrize("name", FILES)
def test_image_tables(name: str, shared: Path, device: Device) -> None:
    """Costes' thresholds are looked for in the steps of 8-bit images; CellProfiler's means over objects are left out."""
    folder = shared / "data/examples" / name
    steps = translate([read_pipeline(folder / f"{name}.cppipe")]).steps
    pixels = {}
    for step in steps:
        if isinstance(step, kinds.Load):
            image = tifffile.imread(folder / "images" / FILES[name][step.image])
            image = image if image.ndim == 2 else image[..., 0]
            pixels[step.channel] = device.tensor(torch.from_numpy((image / 255).astype(np.float32)))[None]
    state = run_steps(steps, pixels, {}, device, dict.fromkeys(pixels, 255.0))
    theirs = pd.read_csv(folder / "cellprofiler/Image.csv").select_dtypes("number")
    columns = [c for c in theirs if not c.startswith((*BOOKS, "Mean_", "ImageNumber"))]
    assert len(columns) == COLUMNS[name]
    ours = [state.image_measured[c].item() for c in columns]
    np.testing.assert_allclose(ours, theirs[columns].iloc[0], rtol=1e-4, atol=1e-6)
    if name == "ExampleFly":
        table = pd.read_csv(folder / "cellprofiler/Nuclei.csv")
        for pair in ("CropBlue_CropGreen", "CropGreen_CropBlue"):
            column = f"Correlation_Costes_{pair}"
            np.testing.assert_allclose(state.measured["Nuclei"][column].cpu(), table[column], rtol=1e-4, atol=1e-6)
