"""ComBat over batches (plates, sources), by scanpy; its fit may be put to wells that it has not seen."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .platemap import feature_columns, some
from .text_tables import as_text


def batch_of(profiles: pd.DataFrame, column: str, step: str, flag: str) -> pd.Series:
    """The batch of each row as text; ValueError where it does not name two batches or more, or leaves wells out."""
    if column not in profiles:
        raise ValueError(f"{step} integrates over {column}, and the profiles have no such column")
    batch = as_text(profiles[column])
    if batch.isna().any():
        row = profiles[batch.isna()].iloc[0]
        raise ValueError(
            f"{step} integrates over {column}, which is empty for {int(batch.isna().sum())} wells, first "
            f"{row['Metadata_Plate']} {row['Metadata_Well']}"
        )
    if batch.nunique() < 2:
        raise ValueError(f"{step} integrates over {column}, which has one value here; leave it out (--without {flag})")
    return batch


def combat(profiles: pd.DataFrame, column: str, also: Sequence[str] = ()) -> pd.DataFrame:
    """Features with each batch's mean and spread drawn to the others', by ComBat (scanpy's; the extra `[combat]`).

    Parametric empirical Bayes without covariates: treatments are not told to it, so batches that hold different
    treatments lose a part of that difference too.

    Raises
    ------
    ValueError
        For an absent column, empty or single batches, missing values or features of one value.
    RuntimeError
        Without scanpy.
    """
    batch = batch_of(profiles, column, "ComBat", "combat")
    sizes = batch.value_counts()
    if few := sorted(sizes.index[sizes < 2]):
        raise ValueError(f"ComBat needs two wells of every {column}, and {some(few)} has one: its spread is unknown")
    try:
        import anndata
        import scanpy
    except ImportError as error:
        raise RuntimeError("this recipe's ComBat needs scanpy: pip install 'jumpgpu[combat]'") from error
    features = feature_columns(profiles, also)
    values = profiles[features].to_numpy(float)
    if not np.isfinite(values).all():
        lost = [f for f, ok in zip(features, np.isfinite(values).all(axis=0), strict=True) if not ok]
        raise ValueError(f"ComBat needs complete features, and {some(lost)} lacks values; select with 'missing' at 0")
    codes = pd.factorize(batch, sort=True)[0]
    centered = values - (np.stack([values[codes == b].mean(axis=0) for b in range(codes.max() + 1)]))[codes]
    still = np.sqrt((centered**2).mean(axis=0)) <= 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300)
    if still.any():
        constant = [f for f, s in zip(features, still, strict=True) if s]
        raise ValueError(
            f"ComBat divides by the spread within batches, and {some(constant)} has none; select features first"
        )
    table = anndata.AnnData(values, obs=pd.DataFrame({"batch": batch.to_numpy()}, index=[str(i) for i in range(len(batch))]))
    corrected = scanpy.pp.combat(table, key="batch", inplace=False)
    features_after = pd.DataFrame(np.asarray(corrected), columns=features, index=profiles.index)
    return pd.concat([profiles.drop(columns=features), features_after], axis=1)


def combat_of(
    seen: pd.DataFrame, held: pd.DataFrame, column: str, also: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ComBat fitted to the wells `seen`: those corrected, and the wells `held` corrected as their batches are.

    ComBat moves and stretches each feature of a batch, so its input and output of the wells seen give both.
    """
    features = feature_columns(seen, also)
    after = combat(seen, column, also)
    batches, own = batch_of(seen, column, "ComBat", "combat"), as_text(held[column])
    if lost := sorted(set(own.dropna()) - set(batches)):
        raise ValueError(f"ComBat knows no other well of {column} {some(lost)}")
    x, y = seen[features].to_numpy(float), after[features].to_numpy(float)
    new = held[features].to_numpy(float, copy=True)
    for batch in own.unique():
        rows = (batches == batch).to_numpy()
        x_mean, y_mean = x[rows].mean(axis=0), y[rows].mean(axis=0)
        dx, dy = x[rows] - x_mean, y[rows] - y_mean
        square = (dx * dx).sum(axis=0)
        stretch = np.divide((dx * dy).sum(axis=0), square, out=np.ones_like(square), where=square > 0)
        if not np.allclose(dx * stretch, dy, rtol=1e-6, atol=1e-6 * np.abs(y).max()):
            raise ValueError("this scanpy's ComBat does more than to move and stretch each feature of a batch")
        mine = (own == batch).to_numpy()
        new[mine] = y_mean + (new[mine] - x_mean) * stretch
    return after, held.assign(**{f: new[:, i] for i, f in enumerate(features)})
