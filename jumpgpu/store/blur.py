"""Blurred fields: images whose sharpness lies far below that of the plate's other images of the channel.

Sharpness depends on the stain and on what grows, so an image is judged among its own channel on its own plate: by the robust
z of its logarithm, (x - median) / (1.4826 MAD), for blur divides it. A treatment that smooths one stain does so at every
site of its well; so one channel alone makes no blurred field where the well's other sites have the same. Nothing is left
out: the images are flagged, as saturated ones are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

MIN_IMAGES = 8  # of a channel; among fewer nothing is said
FAR = -5.0  # robust standard deviations of one image
BESIDE = -2.5  # of half of the site's channels, where one is FAR
SHARE = 0.6  # of the median, and of the well's other sites: above it nothing is called blurred
LEAST_SPREAD = 0.08  # of the logarithm, however alike the images are


def robust_z(values: np.ndarray) -> np.ndarray:
    """Sharpness, float [N], to the robust z of its logarithm; nan where it is nan or 0, or fewer than 8 are known."""
    known = np.isfinite(values) & (values > 0)
    z = np.full(len(values), np.nan)
    if known.sum() >= MIN_IMAGES:
        logs = np.log(values[known])
        median = np.median(logs)
        z[known] = (logs - median) / max(1.4826 * float(np.median(np.abs(logs - median))), LEAST_SPREAD)
    return z


def sharpness_of(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Well, site, channel, file, sharpness, z and median of every raw image, in the order of the records."""
    rows = []
    for record in records:
        for site in record["sites"]:
            files = {i.get("channel"): i.get("file", "") for i in site.get("inputs", ())}
            for channel, (_, sharpness) in site.get("checks", {}).items():
                at = {"well": record["well"], "site": site["site"], "channel": channel, "file": files.get(channel, "")}
                rows.append({**at, "sharpness": float("nan") if sharpness is None else float(sharpness)})
    for members in grouped(rows, "channel").values():
        values = np.array([row["sharpness"] for row in members])
        median = float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
        for row, z in zip(members, robust_z(values), strict=True):
            row["z"], row["median"] = float(z), median
    return rows


def grouped(rows: Iterable[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by their values of these keys."""
    result = defaultdict(list)
    for row in rows:
        result[tuple(row[k] for k in keys)].append(row)
    return result


def blurred(records: Iterable[Mapping[str, Any]], barcode: str) -> list[dict[str, Any]]:
    """The blurred images, as rows of `quarantine.csv` that were used, the worst first."""
    rows = sharpness_of(records)
    wells, sites = grouped(rows, "well", "channel"), grouped(rows, "well", "site")
    result = []
    for row in rows:
        if not (row["z"] <= FAR and row["sharpness"] < SHARE * row["median"]):
            continue
        others = [r["sharpness"] for r in wells[row["well"], row["channel"]] if r["site"] != row["site"]]
        beside = [r["z"] <= BESIDE for r in sites[row["well"], row["site"]]]
        if 2 * sum(beside) >= len(beside) or not others or row["sharpness"] < SHARE * np.median(others):
            result.append(row)
    return [
        {
            **{"plate": barcode, **{k: r[k] for k in ("well", "site", "channel", "file")}},
            "reason": f"blurred: sharpness {r['sharpness']:.4f}, the plate's {r['channel']} images have {r['median']:.4f} "
            f"(robust z {r['z']:.1f})",
            "used": True,
        }
        for r in sorted(result, key=lambda r: r["z"])
    ]
