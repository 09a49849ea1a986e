"""The plate's page: one HTML file that needs nothing else.

It shows heat maps of the cell count, of every feature and of focus and saturation, each well's picture with outlines one
click away, treated wells against negative controls, edge effects, replicates against their null, illumination functions,
what was quarantined, and how the numbers were made. It works offline, by keyboard and on a phone.
"""

import base64
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..profiles import platemap as platemaps
from ..profiles.aggregate import COUNT, aggregate
from ..profiles.cell_quality import flag_plate, load_cell_rules, shares
from ..profiles.conventions import choose_controls, one_line
from ..profiles.text_tables import as_text
from ..settings.names import well_position
from ..storage.atomic import read_file, write_whole
from ..store import render as pictures
from ..store.reader import StoredPlate, open_plate
from ..store.views import CHECKS, grid, outlined

MISSING = 65535  # of a quantised value
PICTURE = 540  # pixels of a well's picture, at most


def report(
    plate: StoredPlate | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    metadata: str | os.PathLike[str] | None = None,
    scores: Sequence[str | os.PathLike[str]] = (),
    pictures: str = "first",
) -> Path:
    """Write a plate's page: one HTML file that needs nothing else. It is there whole, or as it was before.

    Parameters
    ----------
    plate : an open plate, or its path
    output : folder that gets `<plate>.html`; the plate's own where None
    metadata : folder of plate maps and treatments; without it no well has a treatment
    scores : JSON files of `python -m jumpgpu.score`
    pictures : 'first' site of each well, 'all' sites, or 'none'; needs overviews in the store (save_overview)

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        For a damaged plate, or metadata or scores that are something else.
    FileNotFoundError
        For a file that is not there.
    """
    stored = plate if isinstance(plate, StoredPlate) else open_plate(Path(os.fspath(plate)))
    folder = stored.beside if output is None else Path(output)
    page = page_of(stored, None if metadata is None else Path(metadata), [Path(s) for s in scores], pictures)
    write_whole(folder / f"{stored.barcode}.html", page)
    return folder / f"{stored.barcode}.html"


def page_of(plate: StoredPlate, metadata: Path | None = None, scores: Sequence[Path] = (), pictures: str = "first") -> str:
    """The page, as HTML."""
    import jinja2

    if pictures not in ("first", "all", "none"):
        raise ValueError(f"pictures is {pictures!r}; expected 'first', 'all' or 'none'")
    profiles = profiles_of(plate)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jumpgpu"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    quarantine = plate.quarantine
    known, notes = treatments(plate, metadata)
    return page.render(
        barcode=plate.barcode,
        facts=facts(plate, profiles, quarantine),
        data=script_safe(
            {
                "barcode": plate.barcode,
                **grid(plate.wells),
                "wells": wells_of(plate, profiles, known, quarantine),
                "features": quantised(profiles),
                "images": image_measures(plate),
                "pictures": dict(well_pictures(plate, pictures)),
                "scores": [score for path in scores for score in scores_of(path)],
            }
        ),
        notes=notes,
        hits=[table for path in scores for table in hits_of(path)],
        illumination=illumination_pictures(plate),
        quarantine=quarantine.astype(str).to_dict("records"),
        provenance=list(flat(plate.settings | {"made_with": plate.manifest.get("made_with", {})})),
    )


def profiles_of(plate: StoredPlate) -> pd.DataFrame:
    """Well means by well; no rows for a plate without cells."""
    if not any(plate.record(w)["cells"] for w in plate.wells):
        return pd.DataFrame(columns=[COUNT, *plate.columns], index=pd.Index([], name="Metadata_Well"), dtype=float)
    return aggregate(plate).set_index("Metadata_Well")


def treatments(plate: StoredPlate, metadata: Path | None) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Well -> treatment and control type, from the plate map, and findings of its tables; empty without metadata."""
    if metadata is None:
        return {}, []
    path = platemaps.find_platemap(metadata, plate.barcode)
    file = platemaps.find_treatments(metadata, path)
    tables = [platemaps.read_platemap(path), *([platemaps.read_treatments(file)] if file is not None else [])]
    wells = pd.DataFrame({"Metadata_Plate": plate.barcode, "Metadata_Well": plate.wells})
    known = platemaps.annotate(wells, *tables)
    findings = [f for t in (*tables, known) for f in t.attrs["findings"]]
    known, chosen = choose_controls(known, ())
    findings += one_line(chosen)
    says = {platemaps.CONTROL, platemaps.NEGATIVE} & set(known)
    negcon = platemaps.is_negcon(known) if says else pd.Series(False, index=known.index)
    names = [as_text(known[c]) for c in ("Metadata_pert_iname", "Metadata_gene", platemaps.SAMPLE) if c in known]
    control = as_text(known[platemaps.CONTROL]) if platemaps.CONTROL in known else pd.Series(np.nan, index=known.index)
    control = control.astype(object).mask(negcon, platemaps.NEGCON)
    treatment = names[0]
    for further in names[1:]:
        treatment = treatment.where(treatment.notna(), further)
    result = {
        well: {"treatment": "" if pd.isna(t) else t, "control": "" if pd.isna(c) else c}
        for well, t, c in zip(known["Metadata_Well"], treatment, control, strict=True)
    }
    return result, findings


def wells_of(
    plate: StoredPlate, profiles: pd.DataFrame, known: dict[str, dict[str, str]], quarantine: pd.DataFrame
) -> list[dict[str, Any]]:
    """What the page says of each well."""
    flagged = quarantine.groupby("well").size().to_dict() if len(quarantine) else {}
    result = []
    for well in plate.wells:
        record = plate.record(well)
        row, column = well_position(well)
        sites = [{"site": s["site"], "cells": s["cells"]} for s in record["sites"]]
        treatment = known.get(well, {"treatment": "", "control": ""})
        result.append(
            {"well": well, "row": row, "column": column, "cells": record["cells"], "sites": sites}
            | {"flags": int(flagged.get(well, 0)), "profile": profiles.index.get_loc(well) if well in profiles.index else -1}
            | treatment
        )
    return result


def image_measures(plate: StoredPlate) -> dict[str, Any]:
    """Means over each well's sites of what is known of its images: names, and a list of values by well for each.

    Sharpness and saturation (percent) of every channel; of the Image table all it has; and the percent of
    cells with each flag of `configs/rules/cell_quality.toml`, where the plate has the features.
    """
    wells = pd.Index(plate.wells)
    tables = []
    checks = plate.image_checks()
    checks["saturated"] *= 100
    for kind in CHECKS:
        table = checks.groupby(["well", "channel"], sort=False)[kind].mean().unstack()
        known = [c for c in plate.channels if c in table]
        tables.append(table[known].set_axis([f"{kind} {c}" for c in known], axis=1))
    measures = plate.image_table().drop(columns=["Metadata_Site", "Image_Count_Cells"])
    tables.append(measures.groupby("Metadata_Well").mean(numeric_only=True))
    rules = load_cell_rules()
    if set(rules.features) <= set(plate.columns):
        flagged = 100 * shares(flag_plate(plate, rules))
        tables.append(
            flagged.rename(columns=lambda c: f"cells {c.removeprefix('Metadata_').removesuffix('_Share')}, percent")
        )
    table = pd.concat([t.reindex(wells) for t in tables], axis=1)
    columns = [[float(f"{v:.6g}") if np.isfinite(v) else None for v in table[name]] for name in table]
    return {"names": list(table), "values": columns}


def quantised(profiles: pd.DataFrame) -> dict[str, Any]:
    """Every feature's well means in 65,535 steps between its least and greatest: what a heat map can show, in few bytes."""
    names = platemaps.feature_columns(profiles.drop(columns=COUNT))
    values = profiles[names].to_numpy(float).T.reshape(len(names), -1)
    finite = np.isfinite(values)
    minimum = np.where(finite, values, np.inf).min(1, initial=np.inf)
    maximum = np.where(finite, values, -np.inf).max(1, initial=-np.inf)
    known = finite.any(1)
    minimum, maximum = np.where(known, minimum, 0.0), np.where(known, maximum, 0.0)
    scaled = (values - minimum[:, None]) / np.where(maximum > minimum, maximum - minimum, 1.0)[:, None] * (MISSING - 1)
    steps = np.where(finite, np.rint(np.where(finite, scaled, 0)), MISSING).astype("<u2")
    return {
        "names": names,
        "least": [float(f"{v:.7g}") for v in minimum],
        "most": [float(f"{v:.7g}") for v in maximum],
        "steps": base64.b64encode(steps.tobytes()).decode(),
    }


def well_pictures(plate: StoredPlate, which: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Well -> pictures of its sites, from the stored overviews and labels; wells without overviews are left out."""
    for well in plate.wells if which != "none" else ():
        sites = [s["site"] for s in plate.record(well)["sites"]]
        drawn = []
        for site in sites[: 1 if which == "first" else None]:
            try:
                field = plate.overview(well, site)
            except ValueError:
                break  # saved for all sites of a plate or for none
            drawn.append({"site": site, "url": pictures.data_url(draw(plate, well, site, field))})
        if drawn:
            yield well, drawn


def draw(plate: StoredPlate, well: str, site: int, field: np.ndarray) -> np.ndarray:
    """A site's overview as colours, enlarged, with outlines where labels are stored; uint8 [H, W, 3]."""
    times = max(1, PICTURE // max(field.shape[1:]))
    image = pictures.enlarge(pictures.composite(field, plate.channels), *(times * n for n in field.shape[1:]))
    try:
        return outlined(image, plate.labels(well, site))
    except ValueError:
        return image


def illumination_pictures(plate: StoredPlate) -> list[dict[str, str]]:
    """The plate's estimated illumination functions, if they lie where extract saves them."""
    result = []
    for channel in plate.channels:
        path = plate.path.parent / "illum" / plate.barcode / f"{plate.barcode}_Illum{channel}.npy"
        if path.is_file():
            function = np.load(io.BytesIO(read_file(path, 1 << 28)), allow_pickle=False)
            step = max(1, max(function.shape) // 180)
            small = np.asarray(function[::step, ::step], float)
            spread = max(float(small.max() - small.min()), 1e-9)
            shade = np.rint((small - small.min()) / spread * 255).astype(np.uint8)
            limits = f"{function.min():.3f} .. {function.max():.3f}"
            result.append({"channel": channel, "limits": limits, "url": pictures.data_url(shade, "png")})
    return result


def scores_of(path: Path) -> Iterator[dict[str, Any]]:
    """What the page shows of a score's JSON, a condition at a time: percent, and the values beside their null."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of scores (--scores)")
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            if "histogram" in record:
                known = {k: record[k] for k in ("condition", "percent", "null_95th")}
                known["notes"] = [*control_notes(record), *map(str, record.get("findings", ()))]
                yield {"name": record["score"], **known, **{k: record["histogram"][k] for k in ("edges", "values", "null")}}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what jumpgpu score writes as .json ({error})") from error


def control_notes(record: dict[str, Any]) -> Iterator[str]:
    """What a score's record says of negative controls that share only a place, a line each."""
    for place in ("position", "row", "column", "plate"):
        percent, low, high, n = (record.get(f"controls_{place}_{k}") for k in ("percent", "low", "high", "n"))
        if percent is not None and low is not None and high is not None:
            yield (
                f"Negative controls that share only a {place}: {percent:.1f} % pass "
                f"[{low:.1f}, {high:.1f}] over {n}; chance 5 %"
            )


def hits_of(path: Path) -> Iterator[dict[str, Any]]:
    """What the page shows of `jumpgpu score hits`: a condition, its findings, columns and rows of text, hits only."""
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            if "hits" in record:
                rows = [r for r in record["hits"] if r.get("hit", r.get("active"))]
                columns = [c.removeprefix("Metadata_") for c in (rows[0] if rows else ())]
                yield {
                    "name": record["score"],
                    "condition": record["condition"],
                    "total": record["rows"],
                    "findings": list(record["findings"]),
                    "columns": columns,
                    "rows": [[shown(v) for v in r.values()] for r in rows],
                }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what jumpgpu score writes as .json ({error})") from error


def shown(value: Any) -> str:
    """A table's cell as text: numbers to three digits, yes and no, nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def facts(plate: StoredPlate, profiles: pd.DataFrame, quarantine: pd.DataFrame) -> list[tuple[str, str]]:
    """The figures at the top of the page."""
    records = [plate.record(w) for w in plate.wells]
    sites = sum(len(r["sites"]) for r in records)
    cells = sum(r["cells"] for r in records)
    left_out = (
        0 if quarantine.empty else len(quarantine.loc[~quarantine["used"].astype(bool), ["well", "site"]].drop_duplicates())
    )
    return [
        ("wells", f"{len(records):,}"),
        ("sites", f"{sites:,}"),
        ("cells", f"{cells:,}"),
        ("cells per site", f"{cells / sites:.0f}" if sites else "none"),
        ("features", f"{len(plate.columns):,}"),
        ("sites left out", f"{left_out:,}"),
        ("wells without cells", f"{len(records) - len(profiles):,}"),
    ]


def flat(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and values."""
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, settings if isinstance(settings, str) else json.dumps(settings)


def script_safe(data: Any) -> str:
    """JSON that may stand inside a <script> element, whatever strings it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
