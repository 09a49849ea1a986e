"""`extract --pipeline`: a CellProfiler pipeline over a plate, its tables, and when it does not begin."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from jumpgpu.extract import main, read_pipelines
from jumpgpu.store.reader import open_plate
from tests.helpers.real import IMAGES

REFERENCE = "data/pipeline_references/v6"
CPJUMP1 = Path(__file__).parents[1] / "cellprofiler/pipelines/cpjump1_analysis_load_data.cppipe"
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")


def test_a_pipelines_tables_are_cellprofilers(shared: Path, tmp_path: Path) -> None:
    """v6 has five object sets, two of them not the cells'. RadialDistribution is left to tools/pipelines.py: CellProfiler's
    centre of an object is one of several pixels, by an unstable sort."""
    functions = tmp_path / "illum"
    functions.mkdir()
    for channel in CHANNELS:
        flat = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"]
        np.save(functions / f"BR00117010_Illum{channel}.npy", flat)
    file = shared / REFERENCE / "pipeline.cppipe"
    plate, images = "BR00117010", (shared / IMAGES).parents[1]
    at = ["--plate", plate, "--images", str(images), "--wells", "D14", "--illumination", str(functions), "--device", "cpu"]
    assert main([*at, "--pipeline", str(file), "--save-labels", "--quiet", "--output", str(tmp_path)]) == 0
    output = open_plate(tmp_path / f"{plate}.zarr")
    assert output.objects == ("NucleiIncludingEdges", "CellsIncludingEdges")
    assert output.image_table()["Image_Count_Nuclei"].tolist() == [93]
    labels = output.labels("D14", 5)
    cells = output.to_pandas()
    for name in ("Nuclei", "Cells", "Cytoplasm", *output.objects):
        theirs = pd.read_parquet(shared / REFERENCE / f"{name}.parquet")
        ours = output.to_pandas(objects=name) if name in output.objects else cells
        assert np.array_equal(labels[name], tifffile.imread(shared / REFERENCE / f"labels_{name}.tiff"))
        assert len(ours) == len(theirs)
        compared = 0
        for column in theirs.columns:
            if f"{name}_{column}" in ours and "RadialDistribution" not in column:
                expected = theirs[column].to_numpy(float)
                close = np.isclose(ours[f"{name}_{column}"], expected, rtol=1e-4, atol=1e-6, equal_nan=True)
                assert close.mean() >= 0.999, (name, column)
                compared += 1
        assert compared > 0


@pytest.mark.parametrize("accept", [False, True])
def test_labels_that_would_differ_stop_the_run(tmp_path: Path, accept: bool, capsys) -> None:
    old, new = "secondary objects:Watershed - Image", "secondary objects:Something new"
    text = CPJUMP1.read_text()
    assert old in text
    (tmp_path / "lab.cppipe").write_text(text.replace(old, new))
    if accept:
        assert read_pipelines([str(tmp_path / "lab.cppipe")], None, accept, False).steps
    else:
        with pytest.raises(ValueError, match="--accept-differences"):
            read_pipelines([str(tmp_path / "lab.cppipe")], None, accept, False)
    assert "labels" in capsys.readouterr().err
