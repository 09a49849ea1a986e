"""Well profiles with known effects, plate maps and stores of cells, drawn by seed."""

from pathlib import Path

import numpy as np
import pandas as pd

from jumpgpu.settings.names import CHANNELS, COMPARTMENTS, feature_name, well_name
from jumpgpu.store.layout import Layout, SiteTable
from jumpgpu.store.writer import PlateWriter

MEASURES = ("IntegratedIntensity", "MeanIntensity", "StdIntensity", "MaxIntensity")


def feature_names(n: int) -> list[str]:
    """n CellProfiler-like names over compartments, families and channels."""
    names = [feature_name(k, "Intensity", m, c) for k in COMPARTMENTS for m in MEASURES for c in sorted(CHANNELS)]
    names += [
        feature_name(k, "Texture", "Variance", c, s) for k in COMPARTMENTS for c in sorted(CHANNELS) for s in range(400)
    ]
    return names[:n]


def draw_plate(
    plate: str,
    effects: pd.DataFrame,
    samples: list[str | None],
    noise: float = 1.0,
    seed: int = 0,
    wells: list[str] | None = None,
) -> pd.DataFrame:
    """Annotated profiles of one plate: each well is its sample's effect plus noise; None is a negative control."""
    random = np.random.default_rng([seed, *map(ord, plate)])
    wells = wells or [well_name(1 + i // 24, 1 + i % 24) for i in range(len(samples))]
    values = random.normal(scale=noise, size=(len(samples), effects.shape[1]))
    for i, sample in enumerate(samples):
        if sample is not None:
            values[i] += effects.loc[sample].to_numpy()
    metadata = {
        "Metadata_broad_sample": samples,
        "Metadata_Plate": plate,
        "Metadata_Well": wells,
        "Metadata_Object_Count": random.integers(500, 2000, len(samples)),
        "Metadata_gene": [None if s is None else s.split("-")[0] for s in samples],
        "Metadata_pert_type": ["control" if s is None else "trt" for s in samples],
        "Metadata_control_type": ["negcon" if s is None else None for s in samples],
    }
    return pd.concat([pd.DataFrame(metadata), pd.DataFrame(values, columns=list(effects.columns))], axis=1)


def draw_effects(samples: list[str], strengths: list[float], n_features: int = 60, seed: int = 0) -> pd.DataFrame:
    """One direction a gene (the word before the sample's dash), times the sample's strength: DataFrame [samples, F]."""
    directions = {}
    for sample in samples:
        gene = sample.split("-")[0]
        directions.setdefault(gene, np.random.default_rng([seed, *map(ord, gene)]).normal(size=n_features))
    values = [strength * directions[s.split("-")[0]] for s, strength in zip(samples, strengths, strict=True)]
    return pd.DataFrame(values, index=samples, columns=feature_names(n_features))


def write_store(output: Path, plate: str, wells: dict[str, np.ndarray], columns: list[str]) -> None:
    """`<plate>.zarr` with these cells, float [N, F] a well, spread over two sites."""
    layout = Layout(plate, columns, CHANNELS)
    with PlateWriter(output, layout, {"drawn": True}, {w: [1, 2] for w in wells}) as writer:
        for well, cells in wells.items():
            half = len(cells) // 2
            for site, part in ((1, cells[:half]), (2, cells[half:])):
                writer.append(SiteTable(well, site, np.arange(1, len(part) + 1, dtype=np.int32), part))


def write_metadata(folder: Path, platemap: dict[str, str | None], plates: list[str]) -> None:
    """A metadata folder as CPJUMP1's, the map called `demo_platemap`; None is a DMSO well."""
    for part in ("platemaps", "external"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    barcodes = pd.DataFrame({"Assay_Plate_Barcode": plates, "Plate_Map_Name": "demo_platemap"})
    barcodes.to_csv(folder / "platemaps" / "barcode_platemap.csv", index=False)
    layout = pd.DataFrame({"well_position": platemap.keys(), "broad_sample": platemap.values(), "solvent": "DMSO"})
    layout.to_csv(folder / "platemaps" / "demo_platemap.txt", sep="\t", index=False)
    samples = [*sorted({s for s in platemap.values() if s}), None]
    treatments = {
        "broad_sample": samples,
        "gene": [s and s.split("-")[0] for s in samples],
        "pert_type": ["trt" if s else "control" for s in samples],
        "control_type": [None if s else "negcon" for s in samples],
    }
    pd.DataFrame(treatments).to_csv(folder / "external" / "demo_metadata.tsv", sep="\t", index=False)
