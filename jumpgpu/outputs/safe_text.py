"""Text of tables that a spreadsheet may open: what it would take for a formula is made text."""

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula


def safe_text(table: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers spelled as text do not."""
    return table.assign(
        **{
            name: table[name].map(
                lambda v: f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) and not is_number(v) else v
            )
            for name in table.columns
            if table[name].dtype.kind == "O" or isinstance(table[name].dtype, pd.StringDtype | pd.CategoricalDtype)
        }
    )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
