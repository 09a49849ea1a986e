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


def position_patterns() -> np.ndarray:
    """What the places of a drawn plate of 384 wells do, float64 [384, 9]: gradients, curvature, two outer rings, waves."""
    row, column = np.divmod(np.arange(384), 24)
    y, x = (row - 7.5) / 7.5, (column - 11.5) / 11.5
    ring = np.minimum.reduce([row, 15 - row, column, 23 - column])
    return np.column_stack([y, x, y * y, x * x, y * x, ring == 0, 0.5 * (ring == 1), np.sin(3 * y), np.cos(2 * x)])


def draw_position_plates(
    seed: int,
    effect: float = 1.0,
    n_plates: int = 4,
    n_active: int = 200,
    n_features: int = 120,
    n_controls: int = 64,
    strength: float = 1.0,
) -> tuple[list[pd.DataFrame], set[str]]:
    """Plates of one layout of 384 wells with a known position effect and known actives, and the active treatments' names.

    64 negative controls lie over the plate, 320 treatments take a well each on every plate. Noise has 20 directions of its
    own. The position effect is a smooth random surface per feature (gradients, curvature, waves, the two outer rings), the
    same on every plate, times `effect`.
    """
    random = np.random.default_rng([seed, 17])
    names = [well_name(1 + i // 24, 1 + i % 24) for i in range(384)]
    order = random.permutation(384)
    samples: list[str | None] = [f"T{i:03d}-a" for i in range(384)]
    for i in order[:n_controls]:
        samples[i] = None
    treated = [i for i in range(384) if samples[i] is not None]
    active = set(random.permutation(treated)[:n_active].tolist())
    directions = random.normal(size=(384, n_features)) * strength * random.uniform(0.3, 1.2, (384, 1))
    signal = np.where(np.isin(np.arange(384), list(active))[:, None], directions, 0)
    shapes = position_patterns()
    few = random.normal(size=(shapes.shape[1], 4)) @ random.normal(size=(4, n_features))
    surface = shapes @ (0.35 * random.normal(size=(shapes.shape[1], n_features)) + 0.25 * few)
    loadings = random.normal(size=(20, n_features)) * 0.27
    plates = []
    for p in range(n_plates):
        noise = random.normal(size=(384, 20)) @ loadings + random.normal(size=(384, n_features))
        metadata = {
            "Metadata_broad_sample": samples,
            "Metadata_Plate": f"P{p + 1}",
            "Metadata_Well": names,
            "Metadata_pert_type": ["control" if s is None else "trt" for s in samples],
            "Metadata_control_type": ["negcon" if s is None else None for s in samples],
        }
        features = pd.DataFrame(signal + effect * surface + noise, columns=feature_names(n_features))
        plates.append(pd.concat([pd.DataFrame(metadata), features], axis=1))
    return plates, {str(samples[i]) for i in active}
