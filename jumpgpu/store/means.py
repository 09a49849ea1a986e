"""Means of a table's columns, which a well keeps beside its cells so that profiles need not read them."""

from collections.abc import Sequence

import numpy as np

BLOCK = 256  # columns that are added at a time: a well's rows of them fit a cache


def column_means(parts: Sequence[np.ndarray], n_columns: int) -> np.ndarray:
    """float32 or float64 [N, F], the rows in parts, to float64 [F]; nan counts as absent, and of no value the mean is nan.

    Rows are added in one order, however they lie in memory and in how many parts, so that stored means have the bits of
    those that are taken of the cells read back.
    """
    mean, n_rows = np.full(n_columns, np.nan), sum(map(len, parts))
    starts = range(0, max(1, n_columns - 1), BLOCK)  # the last block has two columns or more: of one, NumPy adds by halves
    with np.errstate(invalid="ignore"):  # nan from no value, or from infinities of both signs
        for start in starts if n_rows else ():
            here = slice(start, start + BLOCK if start != starts[-1] else n_columns)
            rows = np.empty((n_rows, here.stop - start), parts[0].dtype)
            np.concatenate([part[:, here] for part in parts], out=rows)
            n, sums = n_rows, rows.sum(axis=0, dtype=np.float64)
            if not np.isfinite(sums).all():
                missing = np.isnan(rows)
                rows[missing] = 0
                n, sums = n - missing.sum(axis=0), rows.sum(axis=0, dtype=np.float64)
            mean[here] = sums / n
    return mean
