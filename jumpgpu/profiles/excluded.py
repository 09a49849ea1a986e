"""Wells that somebody leaves out by name: a spill, a dispensing error, a bad stain."""

from collections.abc import Sequence

import pandas as pd

from ..settings.names import counted, spelled_well


class Excluded:
    """Wells to leave out, as "A01" of every plate or "BARCODE:A01" of one; `by_plate` says what was left out.

    ValueError for what is no well, and in `check` for a well that no plate had: a misspelled one would stay in.
    """

    def __init__(self, wells: Sequence[str]):
        if isinstance(wells, str):
            raise TypeError(f"exclude_wells is a list: exclude_wells=[{wells!r}]")
        self.wanted = [(plate, spelled_well(well)) for plate, _, well in (name.rpartition(":") for name in wells)]
        self.by_plate: dict[str, list[str]] = {}

    def taken_from(self, table: pd.DataFrame, plate: str) -> pd.DataFrame:
        """A plate's wells without the excluded ones, which `by_plate` names then."""
        names = {well for barcode, well in self.wanted if barcode in ("", plate)}
        here = table["Metadata_Well"].isin(names)
        if not here.any():
            return table
        self.by_plate[plate] = sorted(table.loc[here, "Metadata_Well"])
        if here.all():
            raise ValueError(f"{plate}: every well is excluded (--exclude-wells)")
        return table[~here].reset_index(drop=True)

    def check(self, plates: Sequence[str]) -> None:
        """ValueError for a well that was excluded from none of these plates."""
        for barcode, well in self.wanted:
            if not any(well in self.by_plate.get(plate, ()) for plate in ([barcode] if barcode else plates)):
                where = f"plate {barcode}" if barcode else f"any of {counted(len(plates), 'plate')}"
                raise ValueError(f"--exclude-wells {well}: no such well on {where} ({', '.join(plates)})")
