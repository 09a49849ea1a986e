"""Label images given by the user in place of segmentation: from CellProfiler, Cellpose, StarDist or by hand.

Every site gives nuclei and cells, as TIFF, NPY or OME-Zarr labels, and cytoplasm if there is any. Numbers may have gaps
and need not agree between the two: a cell is kept if exactly one nucleus has most of its overlap with it, and both then
share a number, 1..n in the order of the cells' own. What has no partner is left out and reported, by site.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..gpu.device import Device
from ..settings.names import COMPARTMENTS, well_position
from ..storage.faults import check_there
from ..storage.local import Status
from .label_files import read_labels
from .site import Problem, without_folders

SUFFIXES = (".tiff", ".tif", ".npy", ".zarr")
SHOWN = 5  # labels named in a report
MANY_PARTS = {1: 2, 2: 6}  # number of labels -> separate parts from which a mask is taken to be binary


@dataclass(frozen=True)
class Masks:
    """Label images of a batch.

    labels    compartment -> int32 [B, H, W], numbered 1..n alike; of the sites that can be used
    rows      which of the sites asked for those are
    problems  what is wrong with the others
    report    what was left out or is odd, a line each, beginning with plate, well and site
    warnings  likewise, what makes nonsense of the numbers: a binary mask in place of labels
    files     of each row, by the name of the label image, size and mark of its file; None for a folder
    """

    labels: dict[str, torch.Tensor]
    rows: tuple[int, ...]
    problems: tuple[Problem, ...]
    report: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    files: tuple[dict[str, Status | None], ...] = ()


def mask_files(folder: Path, plate: str, well: str, site: int, pattern: str) -> dict[str, Path]:
    """Compartment -> label image of a site, whether or not it is there.

    A folder that is itself an OME-Zarr plate (as `--save-labels` and `jumpgpu.segment` write it) is read by its layout.
    Elsewhere the pattern's name counts, or the same name with another of the known endings.
    """
    if (folder / "zarr.json").is_file():
        well_position(well)
        place = folder / well[:-2] / well[-2:] / str(site) / "labels"
        return {c: place / c.lower() / "0" for c in COMPARTMENTS}
    result = {}
    for compartment in COMPARTMENTS:
        asked = folder / pattern.format(plate=plate, well=well, site=site, compartment=compartment)
        others = [asked.with_suffix(s) for s in SUFFIXES] if asked.suffix in SUFFIXES else []
        result[compartment] = next((p for p in (asked, *others) if p.exists()), asked)
    return result


def check_masks(folder: Path, plate: str, sites: Sequence[tuple[str, int]], pattern: str) -> None:
    """FileNotFoundError where no site has an image of its nuclei: the folder or the pattern is a mistake."""
    if sites and not any(mask_files(folder, plate, *site, pattern)["Nuclei"].exists() for site in sites):
        first = mask_files(folder, plate, *sites[0], pattern)["Nuclei"]
        raise FileNotFoundError(f"{plate}: none of {len(sites)} sites has a label image of its nuclei, such as {first}")


def has_cells(folder: Path, plate: str, sites: Iterable[tuple[str, int]], pattern: str) -> bool:
    """Whether a site has a label image of its cells or cytoplasm; without any, nuclei are all that is given."""
    result = (mask_files(folder, plate, *site, pattern) for site in sites)
    return any(files["Cells"].exists() or files["Cytoplasm"].exists() for files in result)


def read_masks(
    folder: Path,
    plate: str,
    sites: Sequence[tuple[str, int]],
    size: tuple[int, int],
    device: Device,
    pattern: str,
    nuclei_alone: bool = False,
) -> Masks:
    """Label images of the (well, site) pairs of a batch; with `nuclei_alone` those of nuclei, numbered 1..n, and no others.

    A site whose nuclei or cells are not there, or one of whose files is no label image of this size, takes no row and is
    among the problems. Cytoplasm is derived where it is absent: the cell without what lies inside the nucleus's outline.
    """
    rows: list[int] = []
    result: list[dict[str, np.ndarray]] = []
    problems: list[Problem] = []
    report: list[str] = []
    warnings: list[str] = []
    files: list[dict[str, Status | None]] = []
    for b, (well, site) in enumerate(sites):
        images, bad = {}, []
        opened: dict[str, Status | None] = {}
        wanted = mask_files(folder, plate, well, site, pattern)
        for compartment, file in ({"Nuclei": wanted["Nuclei"]} if nuclei_alone else wanted).items():
            try:
                if file.exists():
                    images[compartment], status = read_labels(file, folder, size)
                    opened[f"{compartment} labels"] = status
                elif compartment != "Cytoplasm":
                    check_there(str(file))
                    raise ValueError("the file is missing")
            except ValueError as error:
                reason = without_folders(f"no {compartment} label image: {error}", (folder, folder.resolve(), file.parent))
                bad.append(Problem(plate, well, site, compartment, str(file), reason))
        problems += bad
        if not bad:
            if nuclei_alone:
                numbered, ids = compact(images["Nuclei"])
                paired, notes = {"Nuclei": numbered.astype(np.int32)}, anew("nuclei", ids)
            else:
                paired, notes = pair(images["Nuclei"], images["Cells"], images.get("Cytoplasm"))
            binaries = [f"{c}: {remark}" for c, image in images.items() if (remark := binary(image))]
            warnings += [f"{plate} {well} site {site}: {remark}" for remark in binaries]
            report += [f"{plate} {well} site {site}: {note}" for note in notes]
            rows.append(b)
            result.append(paired)
            files.append(opened)
    known = COMPARTMENTS[-1:] if nuclei_alone else COMPARTMENTS
    labels = {c: np.zeros((len(rows), *size), np.int32) for c in known}
    for row, paired in enumerate(result):
        for compartment, image in paired.items():
            labels[compartment][row] = image
    return Masks(
        {c: device.tensor(image) for c, image in labels.items()},
        tuple(rows),
        tuple(problems),
        tuple(report),
        tuple(warnings),
        tuple(files),
    )


def pair(
    nuclei: np.ndarray, cells: np.ndarray, cytoplasm: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Nuclei and cells one to one, under common numbers 1..n; and what was left out, in words.

    A nucleus belongs to the cell that it overlaps most (the lower number of equals). A given cytoplasm belongs to the
    cell of its own number in the cells' image.
    """
    notes = []
    nuclei, nucleus_ids = compact(nuclei)
    cells, cell_ids = compact(cells)
    for name, ids in (("nuclei", nucleus_ids), ("cells", cell_ids)):
        notes += anew(name, ids)
    n_cells = len(cell_ids)
    both = (nuclei > 0) & (cells > 0)
    keys, overlap = np.unique(nuclei[both] * (n_cells + 1) + cells[both], return_counts=True)
    owner = np.zeros(len(nucleus_ids) + 1, np.int64)
    for k in np.lexsort(
        (-(keys % (n_cells + 1)), overlap)
    ):  # the greatest overlap comes last, and of equals the lowest cell
        owner[keys[k] // (n_cells + 1)] = keys[k] % (n_cells + 1)
    owned = np.bincount(owner[1:], minlength=n_cells + 1)
    owned[0] = 0
    single = owned == 1
    number = np.where(single, np.cumsum(single), 0)
    lonely = nucleus_ids[owner[1:] == 0]
    for ids, what in (
        (lonely, "nuclei without a cell left out"),
        (cell_ids[owned[1:] == 0], "cells without a nucleus left out"),
        (cell_ids[owned[1:] > 1], "cells with several nuclei left out"),
    ):
        if len(ids):
            named = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
            notes.append(f"{len(ids)} {what} ({named})")
    new_nuclei, new_cells = number[owner][nuclei], number[cells]
    spilled = np.unique(new_nuclei[(new_nuclei > 0) & (new_nuclei != new_cells)])
    if len(spilled):
        notes.append(f"{len(spilled)} nuclei reach beyond their cell")
    if cytoplasm is None:
        new_cytoplasm = np.where((new_nuclei > 0) & ~outline(new_nuclei), 0, new_cells)
    else:
        lookup = dict(zip(cell_ids.tolist(), number[1:].tolist(), strict=True))
        ids, positions = np.unique(cytoplasm, return_inverse=True)
        new_cytoplasm = np.array([lookup.get(i, 0) for i in ids.tolist()])[positions].reshape(cytoplasm.shape)
        if unknown := [i for i in ids.tolist() if i and i not in lookup]:
            notes.append(f"{len(unknown)} cytoplasms without a cell left out")
        if (astray := (new_cytoplasm > 0) & (new_cytoplasm != new_cells)).any():
            notes.append(f"{len(np.unique(new_cytoplasm[astray]))} cytoplasms reach beyond the cell of their number")
    result = {"Nuclei": new_nuclei, "Cells": new_cells, "Cytoplasm": new_cytoplasm}
    return {name: image.astype(np.int32) for name, image in result.items()}, notes


def anew(name: str, ids: np.ndarray) -> list[str]:
    """A note where labels with gaps were numbered 1..n."""
    gaps = len(ids) and ids[-1] != len(ids)
    return [f"{name} numbered anew: {len(ids)} labels, highest {ids[-1]}"] if gaps else []


def binary(labels: np.ndarray) -> str | None:
    """A remark where labels [H, W] look like a binary mask: one label, or two, in many separate parts."""
    from skimage.measure import label as regions  # slow to import, and only given labels need it

    values = labels[labels > 0]
    if not values.size:
        return None
    ends = values.min(), values.max()
    if not ((values == ends[0]) | (values == ends[1])).all():
        return None
    n = len(set(ends))
    parts = int(regions(labels, connectivity=2).max())
    if parts < MANY_PARTS[n]:
        return None
    named = " and ".join(str(v) for v in sorted(set(ends)))
    return (
        f"label{'s' * (n > 1)} {named} in {parts} separate parts, as in a binary mask; an object is all pixels of one "
        "number: give each its own, as scipy.ndimage.label does"
    )


def compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as 1..n in their order, and what they were."""
    ids, positions = np.unique(labels, return_inverse=True)
    positions = positions.reshape(labels.shape)
    if len(ids) and ids[0] == 0:
        return positions, ids[1:]
    return positions + 1, ids


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels with another label among their eight neighbours, or on the image's border."""
    padded = np.pad(labels, 1, constant_values=-1)
    h, w = labels.shape
    differs = np.zeros(labels.shape, bool)
    for dy in range(3):
        for dx in range(3):
            differs |= padded[dy : dy + h, dx : dx + w] != labels
    return differs
