"""The correction `position`: what a well's place on the plate does to its features, predicted from other wells, taken away.

    z = arcsinh((x - m) / s)         m, s: median and 1.4826 MAD of the plate's negative controls; outliers are drawn in
    z = z - surface(position)        a smooth surface over rows and columns (`surface`), shared by all plates given
    z = z - directions               directions of feature space in which controls of one position agree across plates
    x = m + s * sinh(z)

Nothing is fitted on a well that it corrects: positions are dealt into folds by seed, a treatment's positions into one, and
a fold's wells are corrected by a surface, an origin, a number of directions and directions that were fitted to the other
folds alone. So a negative control shows what is left at a position that the fit has not seen. How many directions go is
chosen within the fitted wells: by predicting their controls in folds again, and taking the fewest directions that leave
same-position controls as unlike as the best number does, within one standard error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..settings.names import well_position
from .design_checks import FEW_CONTROLS, FORMATS
from .platemap import SAMPLE, common_features, feature_columns, is_negcon, some
from .recipe import PositionSettings
from .surface import Positions, Surface

SCALE = 1.4826  # MAD to standard deviation of a normal distribution
NEAR = 6.0  # wells of a 384-well plate: a control this near says what a position does
NEIGHBOURS, WITHIN = 4, 3.0  # other treatments' wells that a surface of all wells needs, and within how many wells
COUNTS = (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40)  # directions that are tried
PLATES = 8  # that choose the number of directions, at most


@dataclass(frozen=True)
class Wells:
    """The wells of several plates by position: values float64 [plates, P, F], nan where a plate lacks the position.

    names [P]; control bool [plates, P]; group int [P]: positions that go into one fold; `usual` bool [P]: controls on
    most plates.
    """

    plates: list[str]
    names: np.ndarray
    positions: Positions
    values: np.ndarray
    control: np.ndarray
    group: np.ndarray

    @property
    def usual(self) -> np.ndarray:
        present = ~np.isnan(self.values).all(axis=2)
        usual: np.ndarray = 2 * self.control.sum(axis=0) > present.sum(axis=0)
        return usual


@dataclass(frozen=True)
class Explained:
    """What the correction explains: `table` has a row for each plate and feature."""

    table: pd.DataFrame  # Metadata_Plate, feature, position_share, position_sd, position_directions, position_note
    shapes: list[tuple[float, float, float]]  # of the surface's covariance, a fold each
    directions: list[int]  # a fold each
    folds: dict[str, int]  # well to fold

    def of(self, plate: str) -> pd.DataFrame:
        return self.table[self.table["Metadata_Plate"] == plate].drop(columns="Metadata_Plate").reset_index(drop=True)


def correct_position(
    plates: Sequence[pd.DataFrame], settings: PositionSettings | None = None, group: str = SAMPLE, also: Sequence[str] = ()
) -> tuple[list[pd.DataFrame], Explained]:
    """Profiles without what their positions explain.

    Parameters
    ----------
    plates : DataFrames
        Annotated profiles, one plate each, aggregated or normalised: any scale, features in columns. The surface is shared
        by all of them, so give plates of one experiment. With one plate no directions are taken: they need controls that
        agree across plates.
    settings : PositionSettings
        Which wells are fitted, most directions, folds, seed.
    group : str
        The column that names a treatment.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.

    Returns
    -------
    list of DataFrame, Explained
        The plates as given, the common features corrected. position_share is the share of the controls' variance over the
        wells of the plate that went, out of fold (below 0: the correction adds noise to this feature), position_sd the
        spread of what went over all wells, in the controls' MADs.

    Raises
    ------
    ValueError
        Where the design cannot tell positions from treatments: fewer than 8 control positions, controls too far from the
        treatments, or wells whose neighbours all hold the same treatment. It names plate, wells and what to do.
    """
    settings = settings or PositionSettings()
    features = common_features(plates, also)
    if not features:
        raise ValueError("position correction: the plates have no feature in common")
    centers, scales = zip(*(controls_scale(p, features) for p in plates), strict=True)
    usable = np.all([np.isfinite(s) & (s > 0) & np.isfinite(m) for m, s in zip(centers, scales, strict=True)], axis=0)
    if not usable.any():
        raise ValueError("position correction: no feature has a finite MAD over every plate's negative controls")
    kept = [f for f, u in zip(features, usable, strict=True) if u]
    with np.errstate(invalid="ignore"):
        compressed = [
            np.arcsinh((p[kept].to_numpy(float) - m[usable]) / s[usable])
            for p, m, s in zip(plates, centers, scales, strict=True)
        ]
    wells = arrange(plates, compressed, group)
    check_design(wells, settings)
    folds = deal(wells.group, settings.folds, settings.seed)
    corrected = np.full_like(wells.values, np.nan)
    shapes, directions = [], []
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        model = fit(wells, ~held_out, settings)
        corrected[:, held_out] = model.apply(wells.values[:, held_out], wells.positions.take(held_out))
        shapes.append(model.surface.shape)
        directions.append(len(model.directions))
    tables, explained, place = [], [], {w: i for i, w in enumerate(wells.names)}
    for i, (plate, m, s) in enumerate(zip(plates, centers, scales, strict=True)):
        rows = plate["Metadata_Well"].map(place).to_numpy()
        new, old = corrected[i, rows], wells.values[i, rows]
        x = plate[kept].to_numpy(float)
        finite = np.isfinite(new)
        values = pd.DataFrame(np.where(finite, m[usable] + s[usable] * np.sinh(new), x), columns=kept, index=plate.index)
        tables.append(pd.concat([plate.drop(columns=kept), values], axis=1)[list(plate.columns)])
        controls = wells.control[i, rows]
        table = pd.DataFrame({"feature": feature_columns(plate, also)})
        before, after = spread(old[controls]), spread(new[controls])
        share = np.divide(before - after, before, out=np.full_like(before, np.nan), where=before > 0)
        columns = {
            "position_share": pd.Series(share, kept),
            "position_sd": pd.Series(np.sqrt(spread(old - new)), kept),
        }
        for name, column in columns.items():
            table[name] = table["feature"].map(column)
        table["position_directions"] = int(np.median(directions))
        notes = {f: "" if u else "MAD 0 or missing: left as it was" for f, u in zip(features, usable, strict=True)}
        table["position_note"] = table["feature"].map(notes).fillna("not in every plate: left as it was")
        table.insert(0, "Metadata_Plate", wells.plates[i])
        explained.append(table)
    assigned = dict(zip(wells.names.tolist(), folds.tolist(), strict=True))
    return tables, Explained(pd.concat(explained, ignore_index=True), shapes, directions, assigned)


def spread(values: np.ndarray) -> np.ndarray:
    """Variance of each feature over wells, nan left out: float64 [wells, F] to [F]; 0 for fewer than two."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(n, 1)
    squares: np.ndarray = np.where(known, (values - mean) ** 2, 0).sum(axis=0) / np.maximum(n - 1, 1)
    return squares


def controls_scale(plate: pd.DataFrame, features: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 MAD of each feature over a plate's negative controls: float64 [F] each."""
    controls = is_negcon(plate)
    if controls.sum() < FEW_CONTROLS:
        raise ValueError(
            f"{plate['Metadata_Plate'].iloc[0]}: position correction needs {FEW_CONTROLS} negative controls on every plate, "
            f"found {int(controls.sum())}; leave it out (--without position)"
        )
    values = plate.loc[controls, features].astype(float).replace([np.inf, -np.inf], np.nan)
    median = values.median()
    return median.to_numpy(), SCALE * (values - median).abs().median().to_numpy()


def arrange(plates: Sequence[pd.DataFrame], values: Sequence[np.ndarray], group: str) -> Wells:
    """Plates by position, sorted by well name."""
    barcodes = [str(p["Metadata_Plate"].iloc[0]) for p in plates]
    for barcode, plate in zip(barcodes, plates, strict=True):
        if (twice := plate["Metadata_Well"].duplicated()).any():
            raise ValueError(f"{barcode}: well {plate.loc[twice, 'Metadata_Well'].iloc[0]} appears twice")
    names = sorted(set().union(*(p["Metadata_Well"] for p in plates)))
    at = np.array([well_position(w) for w in names]) - 1
    rows, columns = next((f for f in sorted(FORMATS.values()) if (at < f).all()), FORMATS[1536])
    place = {w: i for i, w in enumerate(names)}
    together = np.full((len(plates), len(names), values[0].shape[1]), np.nan)
    control = np.zeros((len(plates), len(names)), bool)
    label = pd.DataFrame(index=names, columns=range(len(plates)), dtype=object)
    for i, (plate, z) in enumerate(zip(plates, values, strict=True)):
        where = plate["Metadata_Well"].map(place).to_numpy()
        together[i, where] = np.where(np.isfinite(z), z, np.nan)
        control[i, where] = is_negcon(plate)
        label.iloc[where, i] = plate[group].astype(object).to_numpy() if group in plate else None
    label = label.mask(control.T, None)
    one_layout = (label.nunique(axis=1) <= 1).all() and (control.all(axis=0) | ~control.any(axis=0)).all()
    treatment = label.bfill(axis=1).infer_objects()[0] if one_layout else pd.Series(None, names, dtype=object)
    keys = [f"treatment {t}" if pd.notna(t) and t != "" else f"well {w}" for w, t in treatment.items()]
    positions = Positions(at[:, 0], at[:, 1], rows, columns)
    return Wells(barcodes, np.array(names), positions, together, control, np.unique(keys, return_inverse=True)[1])


def deal(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each position: groups int [P] dealt out alike by seed, int [P]."""
    n = int(groups.max()) + 1
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    fold: np.ndarray = (order % min(folds, n))[groups]
    return fold


def check_design(wells: Wells, settings: PositionSettings) -> None:
    """ValueError where positions and treatments cannot be told apart."""
    usual, names = wells.usual, wells.names
    out = "leave the correction out (--without position)"
    if usual.sum() < FEW_CONTROLS:
        raise ValueError(
            f"position correction needs negative controls at {FEW_CONTROLS} positions, found {int(usual.sum())} "
            f"({some(list(names[usual])) or 'none'}): nothing says what a position does without a treatment; {out}"
        )
    distances = wells.positions.distances(wells.positions)
    treated = np.flatnonzero(~usual)
    nearest = distances[np.ix_(treated, np.flatnonzero(usual))].min(axis=1) if len(treated) else np.zeros(0)
    far = treated[nearest > NEAR]
    allowed = 0.05 if settings.fit == "controls" else 0.5
    if len(far) > allowed * len(treated):
        raise ValueError(
            f"position correction: {len(far)} of {len(treated)} treated positions have no negative control within "
            f"{NEAR:.0f} wells of a 384-well plate ({some(list(names[far]))}): position and treatment cannot be told apart; "
            + (f'fit all wells ([position] fit = "all") or {out}' if settings.fit == "controls" else out)
        )
    if settings.fit == "all":
        other = (wells.group[:, None] != wells.group) & (distances <= WITHIN)
        alone = treated[other.sum(axis=1)[treated] < NEIGHBOURS]
        if len(alone) > 0.05 * len(treated):
            raise ValueError(
                f"position correction: {len(alone)} of {len(treated)} treated positions have fewer than {NEIGHBOURS} wells "
                f"of another treatment within {WITHIN:.0f} wells ({some(list(names[alone]))}): a surface would subtract the "
                f'treatments; fit the controls alone ([position] fit = "controls") or {out}'
            )


@dataclass(frozen=True)
class Model:
    """What one fold is corrected by."""

    surface: Surface
    surfaces: list[Surface]  # of each plate; the shared one for all of them
    level: np.ndarray  # of each plate's surface over the control positions, float64 [plates, F]
    origin: np.ndarray  # of each plate's controls after the surface, float64 [plates, F]
    directions: np.ndarray  # orthonormal, float64 [k, F]

    def apply(self, values: np.ndarray, positions: Positions) -> np.ndarray:
        """float64 [plates, P, F] to the same."""
        predicted: dict[int, np.ndarray] = {}
        for s in self.surfaces:
            if id(s) not in predicted:
                predicted[id(s)] = s.predict(positions)
        flat = values - np.stack([predicted[id(s)] - level for s, level in zip(self.surfaces, self.level, strict=True)])
        return remove(flat, self.origin, self.directions)


def remove(values: np.ndarray, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """values [plates, P, F] without their parts along directions through the origin; nan counts as no part."""
    if len(directions) == 0:
        return values
    parts = np.nan_to_num(values - origin[:, None], nan=0.0) @ directions.T
    removed: np.ndarray = values - parts @ directions
    return removed


def fit(wells: Wells, train: np.ndarray, settings: PositionSettings) -> Model:
    """Surface, origins and directions from the positions in `train`, bool [P], alone."""
    used = np.flatnonzero(train)
    control = wells.control[:, used]
    values = wells.values[:, used]
    if settings.fit == "controls":
        values = np.where(control[:, :, None], values, np.nan)
    mean, n = mean_known(values, 0)
    keep = n.max(axis=1) > 0
    used, mean, n, control = used[keep], mean[keep], n[keep], control[:, keep]
    gaps = n == 0
    if gaps.any():  # a feature that a position lacks: the others' median
        middle = np.nanmedian(np.where(gaps, np.nan, mean), axis=0)
        mean = np.where(gaps, middle, mean)
    plates_here = np.maximum(n.max(axis=1).astype(float), 1)
    positions, usual = wells.positions.take(used), wells.usual[used]
    scale = None
    if settings.fit == "all":
        controls = mean[usual]
        scale = SCALE * np.median(np.abs(controls - np.median(controls, axis=0)), axis=0)
    surface = Surface(positions, mean, scale, 1 / plates_here)
    surfaces = [surface] * len(values)
    if settings.per_plate:
        spread = None if scale is None else scale * np.sqrt(max(1.0, np.median(plates_here)))
        surfaces = [surface.of(v[keep], spread) for v in values]
    level = np.stack([s.predict(positions.take(usual)).mean(axis=0) for s in surfaces])
    left = np.stack([s.predict_left_out() for s in surfaces]) - level[:, None]
    left = wells.values[:, used] - left
    left = np.where(control[:, :, None], left, np.nan)[:, usual]
    origin = mean_known(left, 1)[0]
    directions = find_directions(left, settings)
    return Model(surface, surfaces, level, origin, directions)


def mean_known(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the values that are there, 0 where none is, and their number."""
    known = np.isfinite(values)
    n = known.sum(axis=axis)
    mean: np.ndarray = np.where(known, values, 0).sum(axis=axis) / np.maximum(n, 1)
    return mean, n


def find_directions(controls: np.ndarray, settings: PositionSettings) -> np.ndarray:
    """Directions in which controls of one position agree across plates: [plates, P, F] to orthonormal [k, F]."""
    n_positions = controls.shape[1]
    counts = [k for k in COUNTS if k <= min(settings.max_directions, n_positions // 2)]
    shared = np.isfinite(controls).any(axis=2).sum(axis=0) >= 2
    if len(counts) < 2 or len(controls) < 2 or shared.sum() < FEW_CONTROLS:
        return np.empty((0, controls.shape[2]))
    some_plates = np.unique(np.linspace(0, len(controls) - 1, min(PLATES, len(controls))).astype(int))
    folds = deal(np.arange(n_positions), min(8, n_positions), settings.seed + 1)
    held = {k: np.empty((len(some_plates), *controls.shape[1:])) for k in counts}
    for fold in range(folds.max() + 1):
        train = folds != fold
        origin = mean_known(controls[:, train], 1)[0]
        directions = agreeing(controls[:, train], origin)
        for k in counts:
            rest = remove(controls[some_plates][:, ~train], origin[some_plates], directions[:k])
            held[k][:, ~train] = rest - origin[some_plates][:, None]
    likeness = np.stack([same_position_likeness(held[k]) for k in counts])  # [counts, P]
    means = likeness.mean(axis=1)
    best = int(means.argmin())
    error = likeness[best].std(ddof=1) / np.sqrt(likeness.shape[1])
    count = counts[int(np.flatnonzero(means <= means[best] + error)[0])]
    return agreeing(controls, mean_known(controls, 1)[0])[:count]


def agreeing(controls: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Principal directions of the control positions' means over plates: [plates, P, F] to orthonormal [min(P, F), F]."""
    means = mean_known(controls - origin[:, None], 0)[0]
    directions: np.ndarray = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2]
    return directions


def same_position_likeness(values: np.ndarray) -> np.ndarray:
    """Each position's median correlation between plates, over the spread of that between different positions: [P]."""
    z = np.nan_to_num(values, nan=0.0)
    z = z - z.mean(axis=2, keepdims=True)
    norm = np.linalg.norm(z, axis=2, keepdims=True)
    z = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0)
    i, j = np.triu_indices(len(z), 1)
    r = np.stack([z[a] @ z[b].T for a, b in zip(i, j, strict=True)])
    same = np.median(np.diagonal(r, axis1=1, axis2=2), axis=0)
    others = r[:, ~np.eye(r.shape[1], dtype=bool)]
    likeness: np.ndarray = same / (others.std() / np.sqrt(len(i)))
    return likeness
