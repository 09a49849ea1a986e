"""What was found on plates, as a table for MultiQC."""

import json
from collections.abc import Sequence

from ..store.reader import StoredPlate


def multiqc(plates: Sequence[StoredPlate]) -> str:
    """A table for MultiQC (custom content, JSON; name the file `*_mqc.json`): what was found and left out."""
    data = {}
    for plate in plates:
        records = [plate.record(well) for well in plate.wells]
        sites, cells = sum(len(r["sites"]) for r in records), sum(r["cells"] for r in records)
        result = [bool(entry["used"]) for r in records for entry in r["quarantine"]]
        data[plate.barcode] = {
            "wells": len(records),
            "sites": sites,
            "cells": cells,
            "cells_per_site": round(cells / sites, 1) if sites else 0.0,
            "left_out": result.count(False),
            "odd": result.count(True),
        }
    titles = ("Wells", "Sites", "Cells", "Cells per site", "Left-out images", "Odd images used")
    form = ("{:,d}", "{:,d}", "{:,d}", "{:,.1f}", "{:,d}", "{:,d}")
    names = ("wells", "sites", "cells", "cells_per_site", "left_out", "odd")
    table = {
        "id": "jumpgpu",
        "section_name": "jumpgpu",
        "description": "Plates measured: what was found, and what was left out (quarantine.csv says why).",
        "plot_type": "table",
        "pconfig": {"id": "jumpgpu_plates", "title": "jumpgpu: plates", "col1_header": "Plate"},
        "headers": {n: {"title": t, "format": f} for n, t, f in zip(names, titles, form, strict=True)},
        "data": data,
    }
    return json.dumps(table, indent=1) + "\n"
