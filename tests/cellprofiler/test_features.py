"""Pairs of channels in the order in which a pipeline lists its images: all colocalization against CellProfiler."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from jumpgpu.cellprofiler.convert import import_pipelines
from jumpgpu.cellprofiler.features import Measured, pair_order
from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.features import correlation
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import CorrelationSettings, FeatureSettings
from tests.helpers.real import IMAGES

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")
# The stand-in for brightfield is another well's image: it goes together with none, so that the regression line is steep, and
# CellProfiler sums for it in single precision. A few cells then have pixels between its threshold and ours.
STEEP = {f"Correlation_Costes_{a}_{b}" for a, b in (("AGP", "Brightfield"), ("Brightfield", "Mito"))}
LISTED = {"v2": ("DNA", "AGP"), "ipsc_cp4": ("RNA", "Brightfield", "DNA", "AGP", "Mito", "ER")}


def images_of(folder: Path, data: Path) -> dict[str, np.ndarray]:
    """float32 [H, W] by channel: the loaded image over its function, clipped to 0..1, as the pipeline corrects it."""
    mapping = json.loads((folder / "mapping.json").read_text())
    result = {}
    for name, image in mapping["images"].items():
        raw = (tifffile.imread(data.parent / IMAGES / image["file"]) / 65535).astype(np.float32)
        channel = name.removeprefix("Orig")
        function = np.load(data / mapping["illumination"][f"Illum{channel}"]["file"])["illum"].astype(np.float32)
        result[channel] = np.clip(raw / function, 0, 1)
    return result


@pytest.mark.parametrize("name", LISTED)
def test_pairs_as_the_pipeline_lists_them(name: str, shared: Path, device: Device) -> None:
    folder = shared / "data/pipeline_references" / name
    imported = import_pipelines([read_pipeline(folder / "pipeline.cppipe")]).config.features.correlation
    assert imported.costes
    assert imported.order == LISTED[name]
    images, settings = images_of(folder, shared / "data"), FeatureSettings(correlation=imported)
    channels = tuple(c for c in ("DNA", "ER", "RNA", "AGP", "Mito", "Brightfield") if c in LISTED[name])  # no such order
    pixels = device.tensor(np.stack([images[c] for c in channels])[None])
    labels = {
        c: device.tensor(tifffile.imread(folder / f"labels_{saved(folder, c)}.tiff").astype(np.int32)[None])
        for c in COMPARTMENTS
    }
    batch = make_batch(channels, pixels, labels, {}, device)
    table = correlation.measure(batch, settings, device).numpy()
    names = [c for compartment in COMPARTMENTS for c in correlation.columns(compartment, channels, settings)]
    mine = pd.DataFrame(table, columns=names)
    for compartment in COMPARTMENTS:
        theirs = pd.read_parquet(folder / f"{saved(folder, compartment)}.parquet").sort_values("ObjectNumber")
        wanted = [c for c in theirs if c.startswith("Correlation_")]
        assert f"Correlation_Costes_{LISTED[name][0]}_{LISTED[name][1]}" in wanted
        for column in wanted:  # the tables hold 28 bits of mantissa
            result = mine[f"{compartment}_{column}"].to_numpy()
            if column in STEEP:
                gap = np.nan_to_num(np.abs(result - theirs[column]))
                assert (gap > 1e-7).sum() <= 2
                assert gap.max() < 2e-3
            else:
                np.testing.assert_allclose(result, theirs[column], rtol=1e-6, atol=1e-7, err_msg=f"{compartment}_{column}")


def saved(folder: Path, compartment: str) -> str:
    """How the pipeline calls the objects that it measures."""
    filtered = folder / f"Filtered{compartment}.parquet"
    return f"Filtered{compartment}" if filtered.exists() else compartment


def test_the_order_matters(shared: Path, device: Device) -> None:
    """By name, Mito and ER would be searched along ER: other thresholds; what has no order keeps its numbers."""
    folder = shared / "data/pipeline_references/ipsc_cp4"
    images = images_of(folder, shared / "data")
    pixels = device.tensor(np.stack([images["Mito"], images["ER"]])[None])
    labels = {"Cells": device.tensor(tifffile.imread(folder / "labels_Cells.tiff").astype(np.int32)[None])}
    batch = make_batch(("Mito", "ER"), pixels, labels, {}, device)
    tables = {}
    for order in ((), ("Mito", "ER")):
        settings = FeatureSettings(correlation=CorrelationSettings(costes=True, order=order))
        columns = correlation.columns("Cells", batch.channels, settings)
        tables[order] = pd.DataFrame(correlation.measure(batch, settings, device).numpy(), columns=columns)
    listed, by_name = tables[("Mito", "ER")], tables[()]
    assert "Cells_Correlation_Overlap_Mito_ER" in listed
    assert "Cells_Correlation_Overlap_ER_Mito" in by_name
    for measure in ("K", "Manders", "RWC"):  # both ways of these are made anyway
        column = f"Cells_Correlation_{measure}_ER_Mito"
        np.testing.assert_allclose(listed[column], by_name[column], rtol=1e-12)
    gap = listed["Cells_Correlation_Costes_ER_Mito"] - by_name["Cells_Correlation_Costes_ER_Mito"]
    assert gap.abs().max() > 1e-3


def test_an_order_of_other_channels_is_refused() -> None:
    settings = FeatureSettings(correlation=CorrelationSettings(order=("DNA", "GFP")))
    with pytest.raises(ValueError, match=r"correlation.order names 'GFP'; the channels are DNA, ER"):
        correlation.columns("Cells", ("DNA", "ER"), settings)
    settings = FeatureSettings(correlation=CorrelationSettings(order=("RNA", "ER")))
    pairs = correlation.pairs_of(("DNA", "ER", "RNA", "AGP"), settings)
    assert pairs == [("RNA", "ER"), ("RNA", "AGP"), ("RNA", "DNA"), ("ER", "AGP"), ("ER", "DNA"), ("AGP", "DNA")]


def test_orders_of_several_modules_are_joined() -> None:
    """Where two modules list two images in opposite orders, the first module's order holds and it is said."""

    class Importer:
        measured, said = Measured(), []

        def say(self, *finding: object) -> None:
            self.said.append(finding)

    importer = Importer()
    assert pair_order(importer, "one", ["AGP", "ER"]) == ()  # type: ignore[arg-type]
    assert pair_order(importer, "two", ["RNA", "AGP"]) == ("RNA", "AGP", "ER")  # type: ignore[arg-type]
    assert not importer.said
    assert pair_order(importer, "three", ["ER", "RNA", "DNA"]) == ("RNA", "AGP", "ER", "DNA")  # type: ignore[arg-type]
    assert [kind for kind, *_ in importer.said] == ["changes"]
