"""Labels and thresholds of the six real fields against CellProfiler 4.2.8.1's, to the pixel."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from jumpgpu.cellprofiler.convert import import_pipelines
from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.pipeline import Segmentation, segment
from jumpgpu.settings.config import load_config
from jumpgpu.settings.names import CHANNELS as ALL_CHANNELS
from tests.helpers.real import real_pixels

WELLS = ("A21", "D08", "D14", "F10", "M02", "N09")
CHANNELS = {"DNA": 5, "RNA": 3}
# Equal pixels are flooded in raster order, by CellProfiler's scikit-image in order of age: 3 pixels of one field.
TIED = {("jump-production", "A21", "Cells"): 3, ("jump-production", "A21", "Cytoplasm"): 3}


def corrected(shared: Path) -> torch.Tensor:
    """float32 [6, 2, 1080, 1080]: DNA and RNA, divided by the flat fields that CellProfiler was given."""
    images = next((shared / "data/fields").iterdir()) / "Images"
    fields = []
    for well in WELLS:
        field = []
        for channel, number in CHANNELS.items():
            name = f"r{ord(well[0]) - 64:02d}c{well[1:]}f05p01-ch{number}sk1fk1fl1.tiff"
            raw = tifffile.imread(images / name).astype(np.float32) / np.float32(65535)
            function = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"]
            field.append((raw / function).clip(0, 1))
        fields.append(np.stack(field))
    return torch.from_numpy(np.stack(fields))


@pytest.fixture(scope="module", params=["cpjump1", "jump-production"])
def both(request: pytest.FixtureRequest, shared: Path, device: Device) -> tuple[str, Path, Segmentation]:
    preset = request.param
    folder = shared / "data" / ("cellprofiler" if preset == "cpjump1" else "cellprofiler_jump_production")
    return preset, folder, segment(corrected(shared), tuple(CHANNELS), load_config(preset).segmentation, device)


def test_labels_are_identical(both: tuple[str, Path, Segmentation]) -> None:
    preset, folder, result = both
    for i, well in enumerate(WELLS):
        for name, labels in result.labels.items():
            theirs = tifffile.imread(folder / f"{well}_s5_{name}.tiff")
            differ = int((labels[i].numpy() != theirs).sum())
            assert differ == TIED.get((preset, well, name), 0), f"{preset} {well} {name}: {differ} pixels differ"
        assert result.counts[i] == result.labels["Nuclei"][i].max()


def test_thresholds(both: tuple[str, Path, Segmentation]) -> None:
    preset, folder, result = both
    table = pd.read_parquet(folder / "Image.parquet").set_index("Metadata_Well").loc[list(WELLS)]
    suffix = "" if preset == "cpjump1" else "IncludingEdges"
    for name, ours in result.thresholds.items():
        np.testing.assert_allclose(ours.numpy(), table[name + suffix], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("well", ["D14", "M02"])
def test_watershed_cells_with_a_smoothing_scale(well: str, shared: Path, device: Device) -> None:
    """`Watershed - Image` takes the smoothed threshold: an astrocyte pipeline, smoothing scale 1.3488, to the pixel."""
    name = "broadinstitute+imaging-platform-pipelines__cellpainting_astrocyte_20x_phenix__analysis_with_branching.cppipe"
    settings = import_pipelines([read_pipeline(shared / "data/pipelines" / name)]).config.segmentation
    assert settings.cells.method == "watershed"
    assert settings.cells.threshold.smoothing == pytest.approx(1.348)
    pixels = torch.from_numpy(real_pixels(shared, (well,)))
    result = segment(pixels, ALL_CHANNELS, settings, device)
    references = shared / "data/pipeline_references/labels"
    for compartment, labels in result.labels.items():
        theirs = tifffile.imread(references / f"astrocyte_20x_phenix_analysis_with_branching_{well}_{compartment}.tiff")
        differ = int((labels[0].numpy() != theirs).sum())  # 893 (D14) and 3787 (M02) without smoothing
        assert differ == 0, f"{compartment}: {differ} pixels differ"


@pytest.mark.parametrize("well", ["D14", "M02"])
def test_nuclei_of_an_image_from_which_nothing_is_subtracted(well: str, shared: Path, device: Device) -> None:
    """It is of single precision in CellProfiler: a threshold of double precision was 4e-7 off, and a pixel with it."""
    name = "broadinstitute+imaging-platform-pipelines__cellpainting_snu761_20x_phenix_bin1__analysis.cppipe"
    settings = import_pipelines([read_pipeline(shared / "data/pipelines" / name)]).config.segmentation
    assert settings.nuclei.background is None
    assert settings.nuclei.threshold.smoothing == pytest.approx(1.4)
    result = segment(torch.from_numpy(real_pixels(shared, (well,))), ALL_CHANNELS, settings, device)
    references = shared / "data/pipeline_references"
    for compartment, labels in result.labels.items():
        theirs = tifffile.imread(references / f"labels/snu761_20x_phenix_bin1_analysis_{well}_{compartment}.tiff")
        assert int((labels[0].numpy() != theirs).sum()) == 0, compartment
    if well == "D14":
        (row,) = pd.read_parquet(references / "snu761/Image.parquet").to_dict("records")
        segmented = float(result.thresholds["Threshold_FinalThreshold_Nuclei"][0])
        assert segmented == pytest.approx(row["Threshold_FinalThreshold_Nuclei"], abs=5e-9)
