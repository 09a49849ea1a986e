"""Scores and plate position: the tables of docs/position.md. `python -m benchmarks.position [--profiles DIR] [--seeds N]`.

With --profiles, published profiles of replicate plates of one layout: DMSO that shares only a position, Percent
Replicating, treatments above same-position DMSO and the gap of mAP, for each step alone and together, with 95 % intervals
(exact binomial; resampled positions and treatments; for a difference from raw, the same resamples of both), and with
treatments' labels permuted. Always, drawn plates with a known position effect and known actives.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.normalize import normalize
from jumpgpu.profiles.platemap import SAMPLE, feature_columns, is_negcon
from jumpgpu.profiles.position import correct_position, deal
from jumpgpu.profiles.recipe import NormalizeSettings, PositionSettings
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.mean_average_precision import replicability
from jumpgpu.scores.percent_replicating import percent_replicating
from tests.helpers.profiles_drawn import draw_position_plates, position_patterns

RESAMPLES = 2000
EFFECTS = (0.4, 0.7)  # of drawn plates: same-position controls pass at about 25 and 45 % (the published ones at 53)
STEPS: dict[str, PositionSettings | None] = {
    "raw": None,
    "surface of controls": PositionSettings(fit="controls", max_directions=0),
    "surface of all wells": PositionSettings(max_directions=0),
    "surface of controls, directions": PositionSettings(fit="controls"),
    "surface of all wells, directions (default)": PositionSettings(),
    "the same, seed 1": PositionSettings(seed=1),
    "the same, seed 2": PositionSettings(seed=2),
    "a surface for each plate, directions": PositionSettings(per_plate=True),
}


def corrected(plates: Sequence[pd.DataFrame], settings: PositionSettings | None) -> pd.DataFrame:
    return concatenate(list(plates) if settings is None else correct_position(plates, settings)[0])


def measure(profiles: pd.DataFrame, treated: set[str]) -> dict[str, np.ndarray | float]:
    """The values that the tables are made of."""
    usual = percent_replicating(profiles)
    position = next(c for c in usual.checks if c.place == "position")
    maps = replicability(profiles, null_size=200)
    control = next(c for c in maps.checks if c.place == "position").values
    chosen = maps.table[maps.table[SAMPLE].isin(treated)]
    scored = usual.table[usual.table[SAMPLE].isin(treated)]
    return {
        "dmso": position.percent,
        "dmso_low": position.low,
        "dmso_high": position.high,
        "replicating": 100 * scored["above"].mean(),
        "values": scored["value"].to_numpy(),
        "controls": position.values,
        "maps": chosen["value"].to_numpy(),
        "control_maps": control,
    }


def published(folder: Path) -> None:
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".csv.gz", ".parquet")))
    plates = [read_profiles(f) for f in files]
    treated = set().union(*(p.loc[p["Metadata_pert_type"] == "trt", SAMPLE] for p in plates))
    raw = None
    print(f"{len(plates)} plates, {len(treated)} treatments")
    for name, settings in STEPS.items():
        start = time.process_time()
        profiles = corrected(plates, settings)
        seconds = time.process_time() - start
        m = measure(profiles, treated)
        raw = raw or m
        report(name, m, raw, seconds)
    for seed in range(3):
        random = np.random.default_rng(seed)
        permuted = corrected([permute(p, random) for p in plates], PositionSettings())
        report(f"labels permuted on each plate, corrected, seed {seed}", measure(permuted, treated), None, 0)


def permute(plate: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """A plate whose treatments' names are dealt anew to its treated wells."""
    treated = np.flatnonzero(~is_negcon(plate))
    names = [c for c in plate if c.startswith("Metadata_") and c not in ("Metadata_Plate", "Metadata_Well")]
    plate = plate.copy()
    plate.loc[treated, names] = plate.loc[random.permutation(treated), names].to_numpy()
    return plate


def report(name: str, m: dict, raw: dict | None, seconds: float) -> None:
    random = np.random.default_rng(0)
    n, k = len(m["controls"]), len(m["values"])
    above, gaps, changes = [], [], []
    for _ in range(RESAMPLES):
        p, t = random.integers(n, size=n), random.integers(k, size=k)
        above.append(100 * (m["values"][t] > np.percentile(m["controls"][p], 95)).mean())
        p = random.integers(len(m["control_maps"]), size=len(m["control_maps"]))
        gaps.append(m["maps"][t].mean() - m["control_maps"][p].mean())
        if raw is not None:  # paired: the same positions and treatments of both
            changes.append(gaps[-1] - raw["maps"][t].mean() + raw["control_maps"][p].mean())
    share = 100 * (m["values"] > np.percentile(m["controls"], 95)).mean()
    gap = m["maps"].mean() - m["control_maps"].mean()
    print(
        f"{name:52s} DMSO {m['dmso']:4.1f} [{m['dmso_low']:.0f}, {m['dmso_high']:.0f}]  "
        f"replicating {m['replicating']:4.1f}  "
        f"above DMSO {share:4.1f} {ends(above, 0)}  mAP {m['maps'].mean():.3f} - {m['control_maps'].mean():.3f} = "
        f"{gap:.3f} {ends(gaps, 3)}"
        + (f"  change {gap - raw['maps'].mean() + raw['control_maps'].mean():+.3f} {ends(changes, 3)}" if raw else "")
        + (f"  {seconds:.1f} s" if seconds else ""),
        flush=True,
    )


def ends(values: list[float], digits: int) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def synthetic(seeds: Sequence[int], effects: Sequence[float] = EFFECTS) -> None:
    """Recall of 200 actives and false positives among 120 inactives, judged by wells and by position."""
    rows: dict[str, list[list[float]]] = {}
    for seed in seeds:
        clean, active = draw_position_plates(seed, 0.0)
        rows.setdefault("no effect", []).append(rates(clean, active))
        for effect in effects:
            moved, _ = draw_position_plates(seed, effect)
            fixed, _ = correct_position(moved, PositionSettings(seed=seed))
            told = by_true_patterns(moved, seed)
            words = ("", ", corrected", ", least squares on the true patterns")
            for name, plates in zip((f"effect {effect}{w}" for w in words), (moved, fixed, told), strict=True):
                rows.setdefault(name, []).append(rates(plates, active))
    words = ("DMSO", "recall", "false", "recall by position", "false by position")
    clean = np.array(rows["no effect"])
    for name, result in rows.items():
        for label, values in ((name, np.array(result)), (f"{name}: change", np.array(result) - clean)):
            if values is not clean and (values != 0).any():
                mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
                figures = (f"  {w} {m:.1f} +- {e:.1f}" for w, m, e in zip(words, mean, error, strict=True))
                print(f"{label:24s} {len(values)} seeds" + "".join(figures), flush=True)


def by_true_patterns(plates: Sequence[pd.DataFrame], seed: int) -> list[pd.DataFrame]:
    """What no correction can know: the patterns that places were drawn from, their strengths alone fitted, in ten folds.

    Least squares over all wells, treated ones weighted by how much wider they scatter; what it leaves is what this design
    does not tell of the position.
    """
    features = feature_columns(plates[0])
    controls = is_negcon(plates[0]).to_numpy()
    mean = np.mean([p[features].to_numpy(float) for p in plates], axis=0)
    patterns = np.column_stack([np.ones(len(mean)), position_patterns()])
    spread = [mean[who].var(axis=0).mean() for who in (controls, ~controls)]
    weight = np.sqrt(np.where(controls, 1.0, spread[0] / spread[1]))[:, None]
    fold, predicted = deal(np.arange(len(mean)), 10, seed), np.empty_like(mean)
    for k in range(10):
        others = fold != k
        strengths = np.linalg.lstsq((patterns * weight)[others], (mean * weight)[others], rcond=None)[0]
        predicted[~others] = patterns[~others] @ strengths
    return [p.assign(**dict(zip(features, (p[features].to_numpy(float) - predicted).T, strict=True))) for p in plates]


def rates(plates: Sequence[pd.DataFrame], active: set[str]) -> list[float]:
    """Percent of same-position controls that pass; of actives and inactives above the usual null, then by position.

    Plates are normalised by their controls first, as a recipe does after a correction: what all wells of a plate share would
    make them all alike.
    """
    profiles = concatenate([normalize(p, "negcon", NormalizeSettings())[0] for p in plates])
    score = percent_replicating(profiles, draws=1000)
    check = next(c for c in score.checks if c.place == "position")
    table = score.table.set_index(SAMPLE)
    is_active = table.index.isin(active)
    result = [check.percent]
    for above in (table["above"], table["value"] > np.percentile(check.values, 95)):
        result += [100 * above[is_active].mean(), 100 * above[~is_active].mean()]
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.position", description=__doc__)
    parser.add_argument("--profiles", type=Path, metavar="DIR", help="published profiles, a file per plate")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="drawn sets of plates (default: %(default)s)")
    parser.add_argument("--effect", type=float, action="append", metavar="E", help="of drawn plates (default: 0.4 and 0.7)")
    options = parser.parse_args(argv)
    if options.profiles:
        published(options.profiles)
    if options.seeds > 1:
        synthetic(range(options.seeds), options.effect or EFFECTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
