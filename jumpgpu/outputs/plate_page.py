"""The plate's page: one HTML file that needs nothing else, and an index of the pages of a folder.

It answers what happened on the plate: treatments by effect, every well against the negative controls, the wells in a plane,
heat maps of every feature, each site's channels, the worst images, edge effects, scores, and how the numbers were made. It
works offline, by keyboard, on a phone and in the dark.
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..profiles import platemap as platemaps
from ..profiles.aggregate import COUNT, aggregate
from ..profiles.cell_quality import flag_plate, load_cell_rules, shares
from ..profiles.conventions import choose_controls, one_line
from ..profiles.design_checks import FEW_CONTROLS
from ..profiles.text_tables import as_text
from ..settings.names import well_position
from ..storage.atomic import read_file, write_whole
from ..store.annotation import variables
from ..store.blur import grouped, sharpness_of
from ..store.reader import StoredPlate, open_plate
from ..store.views import CHECKS, grid
from .page_effects import MIN_CONTROLS, effects_of, in_short, plane_of_wells, top_features, treatment_table
from .page_index import write_index
from .page_pictures import Pictures, illumination_pictures
from .page_scores import hits_of, scores_of

MISSING = 65535  # of a quantised value
WORST = 12  # images listed as the least sharp
MAX_PAGE = 1 << 31  # bytes of a page that is looked into before it is replaced


def report(
    plate: StoredPlate | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    metadata: str | os.PathLike[str] | None = None,
    scores: Sequence[str | os.PathLike[str]] = (),
    pictures: str = "auto",
    images: str | os.PathLike[str] | None = None,
    plane: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write a plate's page: one HTML file that needs nothing else. It is there whole, or as it was before.

    A folder with the pages of several plates gets an `index.html` of them too.

    Parameters
    ----------
    plate : an open plate, or its path
    output : folder that gets `<plate>.html`; the plate's own where None
    metadata : folder of plate maps and treatments; without it no well has a treatment
    scores : JSON files of `jumpgpu score`
    pictures : {"auto", "all", "first", "none"}
        Sites shown of each well; `auto` is all of a plate of up to 800 sites, and else the first. They are drawn from the
        overviews in the store (save_overview).
    images : path, optional
        Folder of the plate's raw images: sharper pictures, a larger file.
    plane : {"auto", "pca", "umap"}
        How wells are laid out in a plane; `auto` is UMAP where umap-learn is installed.
    overwrite : bool
        Replace a page that shows more than this one would.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        For a damaged plate, or metadata or scores that are something else; and where the page that is there has treatments,
        scores or pictures that the new one would lack.
    FileNotFoundError
        For a file that is not there.
    """
    stored = plate if isinstance(plate, StoredPlate) else open_plate(Path(os.fspath(plate)))
    folder = stored.beside if output is None else Path(output)
    target = folder / f"{stored.barcode}.html"
    page, contents = drawn(
        stored,
        None if metadata is None else Path(metadata),
        [Path(s) for s in scores],
        pictures,
        None if images is None else os.fspath(images),
        plane,
    )
    if not overwrite and (lost := lost_from(target, contents)):
        raise ValueError(f"{target} has {lost}, which this page would lack; give the same options again, or --overwrite")
    write_whole(target, page)
    write_index(folder)
    return target


def page_of(
    plate: StoredPlate,
    metadata: Path | None = None,
    scores: Sequence[Path] = (),
    pictures: str = "auto",
    images: str | None = None,
    plane: str = "auto",
) -> str:
    """The page, as HTML."""
    return drawn(plate, metadata, scores, pictures, images, plane)[0]


def drawn(
    plate: StoredPlate, metadata: Path | None, scores: Sequence[Path], pictures: str, images: str | None, plane: str
) -> tuple[str, dict[str, Any]]:
    """The page as HTML, and what it shows, as `lost_from` and the index read it."""
    import jinja2

    profiles = profiles_of(plate)
    quarantine = plate.quarantine
    known, notes = treatments(plate, metadata)
    features = platemaps.feature_columns(profiles.drop(columns=COUNT))
    effects = effects_of(profiles, features, known)
    cells = [plate.record(w)["cells"] for w in profiles.index]
    shown = Pictures(plate, images).by_well(pictures)
    score_list = [score for path in scores for score in scores_of(path)]
    hits = [table for path in scores for table in hits_of(path)]
    figures = facts(plate, profiles, quarantine)
    table = treatment_table(effects, list(profiles.index), cells, known)
    wells = wells_of(plate, profiles, known, quarantine)
    n_controls = sum(w["control"] == platemaps.NEGCON for w in wells)
    contents = {
        "barcode": plate.barcode,
        "facts": figures,
        "cells": {w: plate.record(w)["cells"] for w in plate.wells},
        "treatments": sum(bool(w["treatment"]) for w in known.values()),
        "scores": [f"{s['name']} {s['condition']}".strip() for s in (*score_list, *hits)],
        "percent": {s["name"]: round(s["percent"], 1) for s in score_list},
        "pictures": sum(map(len, shown["wells"].values())),
    }
    data = {
        "barcode": plate.barcode,
        **grid(plate.wells),
        "wells": wells,
        "features": quantised(profiles) | said_of(features, plate.channels),
        "reference": {"words": effects.reference, **{k: short(getattr(effects, k)) for k in ("median", "mad")}},
        "top": top_features(effects, features, plate.channels),
        "treatments": table,
        "plane": plane_of_wells(effects, plane),
        "images": image_measures(plate),
        "pictures": shown,
        "scores": score_list,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jumpgpu"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        barcode=plate.barcode,
        facts=figures,
        summary=script_safe(contents),
        data=script_safe(data),
        notes=notes,
        reference=effects.reference,
        rough=MIN_CONTROLS <= n_controls < FEW_CONTROLS,
        happened=in_short(table, n_controls, score_list, sum(w["flags"] > 0 for w in wells), len(wells)),
        hits=hits,
        worst=worst_images(plate, quarantine, Pictures(plate, images)),
        illumination=illumination_pictures(plate),
        quarantine=quarantine.astype(str).to_dict("records"),
        provenance=list(flat(plate.settings | {"made_with": plate.manifest.get("made_with", {})})),
    )
    return page, contents


def lost_from(page: Path, contents: dict[str, Any]) -> str:
    """What a page that is there shows and one of these contents would not, in words; "" for nothing."""
    if not page.is_file():
        return ""
    match = re.search(rb'<script type="application/json" id="summary">(.*?)</script>', read_file(page, MAX_PAGE), re.DOTALL)
    try:
        old = json.loads(match[1]) if match else {}
        lost = [f"the score {s}" for s in old.get("scores", ()) if s not in contents["scores"]]
        if old.get("treatments", 0) > contents["treatments"]:
            lost.insert(0, f"treatments on {old['treatments']} wells")
        if old.get("pictures", 0) > contents["pictures"]:
            lost.append(f"{old['pictures']} pictures")
    except (ValueError, TypeError, AttributeError):
        return ""  # no page of ours
    return ", ".join(map(str, lost))


def worst_images(plate: StoredPlate, quarantine: pd.DataFrame, pictures: Pictures) -> list[dict[str, Any]]:
    """The images that are flagged, then the least sharp fields beside the plate's others, with thumbnails.

    A field is as sharp as the median z of its channels, so that a treatment that smooths one stain does not fill the list;
    its least sharp channel is shown.
    """
    rows = [r for r in sharpness_of(plate.record(w) for w in plate.wells) if np.isfinite(r["z"])]
    flagged = quarantine[quarantine["used"].astype(bool) & quarantine["channel"].isin(plate.channels)]
    reasons = {(q.well, q.site, q.channel): q.reason for q in flagged.itertuples()}
    known = {(r["well"], r["site"], r["channel"]): r["z"] for r in rows}
    listed = sorted(reasons, key=lambda k: known.get(k, 0.0))[: 2 * WORST]
    fields = grouped(rows, "well", "site")
    worst = sorted(fields, key=lambda k: float(np.median([r["z"] for r in fields[k]])))[:WORST]
    minimum = [min(fields[k], key=lambda r: r["z"]) for k in worst]
    listed += [k for r in minimum if (k := (r["well"], r["site"], r["channel"])) not in reasons]
    every = [(w, s["site"]) for w in plate.wells for s in plate.record(w)["sites"]]
    limits = pictures.limits(every) if listed else None
    return [
        {
            **{"well": well, "site": site, "channel": channel, "z": known.get((well, site, channel))},
            "reason": reasons.get((well, site, channel), ""),
            "url": pictures.thumbnail(well, site, channel, limits),
        }
        for well, site, channel in listed
    ]


def short(values: np.ndarray) -> list[float | None]:
    """Numbers to seven digits, None for those that are none."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values]


def said_of(features: list[str], channels: tuple[str, ...]) -> dict[str, Any]:
    """Compartment, family, channels and unit of every feature, as numbers into lists of words."""
    said = variables(features, channels)
    result: dict[str, Any] = {}
    for field in ("compartment", "family", "channel", "channel_2", "unit"):
        words = sorted(set(said[field]))
        place = {w: i for i, w in enumerate(words)}
        result[field] = {"words": words, "of": [place[w] for w in said[field]]}
    return result


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
        ("images flagged", f"{int(quarantine['used'].astype(bool).sum()):,}"),
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
