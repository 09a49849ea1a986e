"""Nuclei, cells and cytoplasm: label images that share numbers (CellProfiler's Identify modules).

Nuclei are the clumps above a threshold, told apart; cells grow from nuclei; cytoplasm is what the nucleus leaves of
its cell. The steps and their arithmetic are CellProfiler 4.2.8's; `docs/segmentation.md` says how closely they agree.
"""

from dataclasses import dataclass

import torch

from ..gpu.device import Device
from ..gpu.list_capacity import Capacity
from ..settings.config import PrimarySettings, SecondarySettings, SegmentationSettings
from .background import subtract_background
from .declump import fill_small_holes, separate
from .expand import grow_by_distance, propagate
from .label import Kept, apply_table, apply_tables, fill_holes, keep_objects, label_extents, label_maximum, number_objects
from .planes import channel_planes, whole_planes
from .secondary import identify_secondary
from .threshold import above_threshold, check_words, find_threshold, mean_of
from .watershed import watershed

DECLUMP = ("shape", "intensity", "none")
LINES = (*DECLUMP, "propagate")
SECONDARY = ("watershed", "propagation", "distance", "watershed_gradient", "distance_b")
FILL = ("never", "after_declump", "both")


@dataclass(frozen=True)
class Segmentation:
    """Labels of a batch of fields, numbered 1..n alike in all compartments of a field.

    labels      compartment -> int32 [B, H, W]
    unfiltered  compartment -> int32 [B, H, W]: what CellProfiler hands to its neighbour measurements, its 'small removed'
                objects. Nuclei: kept ones and those too large; Cells: those of every seed, at the border too. Kept objects
                have their own number, the others numbers above the field's count
    counts      int32 [B]        cells of each field
    thresholds  name -> float64 [B]: Threshold_OrigThreshold_Nuclei and so on
    """

    labels: dict[str, torch.Tensor]
    unfiltered: dict[str, torch.Tensor]
    counts: torch.Tensor
    thresholds: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Primary:
    """Nuclei and what became of every object that was found.

    nuclei      int32 [B, H, W]         kept, 1..n
    unfiltered  int32 [B, H, W]         kept and too large
    unedited    int32 [B, H, W]         every object found, in order of its seed
    border      int32 [B, capacity]     by unedited label: touches the image's border
    number      int32 [B, capacity]     by unedited label: 1..n if kept, above n if not
    counts      int32 [B]               n
    n_labels    int64 [B]               the highest unedited label
    above       uint8 [B, H, W]         pixels above the threshold, before holes are filled
    """

    nuclei: torch.Tensor
    unfiltered: torch.Tensor
    unedited: torch.Tensor
    border: torch.Tensor
    number: torch.Tensor
    counts: torch.Tensor
    n_labels: torch.Tensor
    above: torch.Tensor


def segment(
    pixels: torch.Tensor,
    channels: tuple[str, ...] | list[str],
    settings: SegmentationSettings,
    device: Device,
    list_capacity: Capacity | None = None,
) -> Segmentation:
    """Find nuclei, cells and cytoplasm in a batch of fields.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    channels : sequence of str
        Names along the C axis.
    list_capacity : Capacity
        If given, nothing waits for the device; the result holds only if `list_capacity.enough` says so of its counts.

    Raises
    ------
    ValueError
        A channel that the settings name is not there, or a setting is not known.
    """
    check(channels, settings)
    if settings.method != "cellprofiler":
        raise ValueError(f"segmentation.method = {settings.method!r} is of a plate's run; here only 'cellprofiler' is known")
    b, _, h, w = pixels.shape
    thresholds: dict[str, torch.Tensor] = {}
    if b == 0 or h == 0 or w == 0:
        empty = {name: device.zeros(b, h, w, dtype=torch.int32) for name in ("Nuclei", "Cells", "Cytoplasm")}
        return Segmentation(empty, dict(empty), device.zeros(b, dtype=torch.int32), thresholds)
    primary = find_nuclei(pixels, list(channels).index(settings.nuclei.channel), settings, device, thresholds, list_capacity)
    return segment_from(primary, pixels, channels, settings, device, thresholds)


def primary_of(nuclei: torch.Tensor, device: Device) -> Primary:
    """Nuclei that something else found, int32 [B, H, W] numbered 1..n, all of them kept."""
    counts = nuclei.flatten(1).amax(1)
    capacity = 1 + int(counts.max())
    _, border = label_extents(nuclei, capacity, device)
    number = torch.arange(capacity, dtype=torch.int32, device=device.torch).expand(len(nuclei), capacity)
    number = torch.where(number <= counts[:, None], number, 0).contiguous()
    above = (nuclei > 0).to(torch.uint8)
    return Primary(nuclei, nuclei, nuclei, border, number, counts, counts.to(torch.int64), above)


def segment_from(
    primary: Primary,
    pixels: torch.Tensor,
    channels: tuple[str, ...] | list[str],
    settings: SegmentationSettings,
    device: Device,
    thresholds: dict[str, torch.Tensor],
) -> Segmentation:
    """Cells grown from nuclei, and cytoplasm; `thresholds` gets the cells'."""
    b, _, h, w = pixels.shape
    cells, every_cell = find_cells(
        pixels, list(channels).index(settings.cells.channel), primary, settings.cells, device, thresholds
    )
    nuclei, unfiltered, counts = primary.nuclei, primary.unfiltered, primary.counts
    if settings.filter_border_nuclei or settings.cells.discard_border:
        nuclei, cells, unfiltered, every_cell, counts = drop_border(primary, cells, every_cell, settings, device)
    cytoplasm = device.empty(*cells.shape, dtype=torch.int32)
    device.launch(
        "cytoplasm_of",
        b * h,
        nuclei=nuclei,
        cells=cells,
        height=h,
        width=w,
        outline=int(settings.shrink_nucleus),
        cytoplasm=cytoplasm,
    )
    return Segmentation(
        {"Nuclei": nuclei, "Cells": cells, "Cytoplasm": cytoplasm},
        {"Nuclei": unfiltered, "Cells": every_cell, "Cytoplasm": cytoplasm},
        counts,
        thresholds,
    )


def check(channels: tuple[str, ...] | list[str], settings: SegmentationSettings) -> None:
    """ValueError for a channel or a setting that is not known."""
    for step, channel in (("nuclei", settings.nuclei.channel), ("cells", settings.cells.channel)):
        if channel not in channels:
            raise ValueError(f"segmentation.{step}.channel is {channel!r}; this plate's channels are {tuple(channels)}")
    for name, value, known in (
        ("nuclei.declump", settings.nuclei.declump, DECLUMP),
        ("nuclei.dividing_lines", settings.nuclei.dividing_lines, LINES),
        ("nuclei.fill_holes", settings.nuclei.fill_holes, FILL),
        ("cells.method", settings.cells.method, SECONDARY),
    ):
        if value not in known:
            raise ValueError(f"unknown segmentation.{name} {value!r}; expected one of {known}")
    check_words(settings.nuclei.threshold)
    check_words(settings.cells.threshold)


def find_nuclei(
    pixels: torch.Tensor,
    channel: int,
    settings: SegmentationSettings,
    device: Device,
    thresholds: dict[str, torch.Tensor],
    list_capacity: Capacity | None,
) -> Primary:
    """CellProfiler IdentifyPrimaryObjects."""
    s = settings.nuclei
    images = pixels[:, channel] if s.background is None else subtract_background(pixels, channel, s.background, device)
    result, *both = identify_primary(images, s, device, list_capacity)
    thresholds["Threshold_OrigThreshold_Nuclei"], thresholds["Threshold_FinalThreshold_Nuclei"] = both
    return result


def identify_primary(
    images: torch.Tensor,
    s: PrimarySettings,
    device: Device,
    list_capacity: Capacity | None = None,
    valid: torch.Tensor | None = None,
    queue: bool = False,
) -> tuple[Primary, torch.Tensor, torch.Tensor]:
    """Objects of an image, and its thresholds as the method gives them and after correction and bounds, float64 [B].

    Parameters
    ----------
    images : float32 or float64 [B, H, W]
        Not negative; 0 where it is masked. A float32 image is smoothed in float32, as CellProfiler does.
    valid : bool [B, H, W]
        Where the image counts; None: everywhere.
    queue : bool
        See `separate`.
    """
    single = images.dtype == torch.float32
    planes = whole_planes(images.contiguous())
    original, final = find_threshold(planes, s.threshold, device, valid)
    above = mask = above_threshold(planes, final, s.threshold.smoothing, device, valid)
    if s.fill_holes == "both":
        mask = fill_small_holes(mask, s, device)
    unedited, n_labels = separate(
        images.double().contiguous(), mask, s, device, list_capacity, single=single, valid=valid, queue=queue
    )
    # A label a pixel at most; on a device that is not to be waited for the tables have room for that.
    capacity = 1 + (int(n_labels.max()) if list_capacity is None else mask[0].numel())
    area, border = label_extents(unedited, capacity, device)
    if valid is not None and s.discard_border:
        border = masked_border(unedited, border, valid, capacity)
    circles = torch.pi * (s.min_diameter * s.min_diameter) / 4, torch.pi * (s.max_diameter * s.max_diameter) / 4
    kept = Kept(n_labels, area, border if s.discard_border else None, sizes=circles if s.discard_size else None)
    if s.fill_holes == "never":
        number, only_kept, not_small, counts = number_objects(kept, device)
        nuclei, unfiltered = apply_tables(unedited, only_kept, not_small, device)
    else:
        filled = fill_holes(apply_table(unedited, keep_objects(kept, device), device), capacity, device, objects=True)
        number, only_kept, not_small, counts = number_objects(kept, device, label_extents(filled, capacity, device)[0])
        nuclei, unfiltered = apply_table(filled, only_kept, device), apply_table(unedited, not_small, device)
    if s.max_objects is not None:
        few = (counts <= s.max_objects).to(torch.int32)
        nuclei, counts = nuclei * few.view(-1, 1, 1), counts * few
    result = Primary(nuclei, unfiltered, unedited, border, number, counts, n_labels, above)
    return result, mean_of(original), mean_of(final)


def masked_border(labels: torch.Tensor, border: torch.Tensor, valid: torch.Tensor, capacity: int) -> torch.Tensor:
    """Which labels CellProfiler discards at the border of a masked image: those at the image's border, or, in a field that
    has none there, those at the mask's."""
    edge = valid & ~eroded(valid)
    touches = torch.zeros(len(labels), capacity, dtype=torch.int32, device=labels.device)
    touches.scatter_reduce_(1, labels.flatten(1).long(), edge.flatten(1).to(torch.int32), "amax")
    touches[:, 0] = 0
    at_image = (border[:, 1:] > 0).any(1, keepdim=True)
    whole = valid.flatten(1).all(1, keepdim=True)
    return torch.where(at_image | whole, border, touches)


def eroded(valid: torch.Tensor) -> torch.Tensor:
    """A bool [B, H, W] mask without the pixels beside what is not in it; beyond the image nothing is."""
    around = torch.nn.functional.pad(valid, (1, 1, 1, 1))
    return valid & around[:, :-2, 1:-1] & around[:, 2:, 1:-1] & around[:, 1:-1, :-2] & around[:, 1:-1, 2:]


def find_cells(
    pixels: torch.Tensor,
    channel: int,
    primary: Primary,
    settings: SecondarySettings,
    device: Device,
    thresholds: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """CellProfiler IdentifySecondaryObjects: the cells of kept nuclei, and those of every seed; int32 [B, H, W] each."""
    b, _, h, w = pixels.shape
    if settings.method in ("watershed_gradient", "distance_b") or settings.threshold.window is not None:
        result = identify_secondary(pixels[:, channel], primary.unedited, primary.nuclei, settings, device)
        cells, every, original, final, _ = result
        thresholds["Threshold_OrigThreshold_Cells"], thresholds["Threshold_FinalThreshold_Cells"] = map(
            mean_of, (original, final)
        )
        return cells, apply_table(every, primary.number, device)
    planes = channel_planes(pixels, channel)
    if settings.method == "distance":  # CellProfiler takes no threshold here
        final = torch.zeros(b, dtype=torch.float64, device=device.torch)
    else:
        original, final = find_threshold(planes, settings.threshold, device)
        thresholds["Threshold_OrigThreshold_Cells"], thresholds["Threshold_FinalThreshold_Cells"] = original, final
    seeds, mask = device.empty(b, h, w, dtype=torch.int32), device.empty(b, h, w, dtype=torch.uint8)
    depth = device.empty(b, h, w, dtype=torch.float32)
    capacity = primary.number.shape[1]
    device.launch(
        "cell_seeds",
        b * h,
        unedited=primary.unedited,
        kept=primary.nuclei,
        border=primary.border,
        number=primary.number,
        capacity=capacity,
        values=pixels,
        offset=planes.offset,
        stride=planes.stride,
        height=h,
        width=w,
        threshold=final,
        seeds=seeds,
        mask=mask,
        depth=depth,
    )
    if settings.method == "distance":
        every_cell = grow_by_distance(seeds, settings.distance, device)
    elif settings.method == "propagation":
        above = above_threshold(planes, final, settings.threshold.smoothing, device)
        every_cell = propagate(planes, above, seeds, settings.regularization, device)
    else:
        if settings.threshold.smoothing:
            above = above_threshold(planes, final, settings.threshold.smoothing, device)
            mask = torch.where(seeds > 0, 1, above)
        every_cell = watershed(depth, mask.view(torch.bool), seeds, device)
    if settings.fill_holes:
        every_cell = fill_holes(every_cell, capacity, device, objects=False)
    of_nucleus = label_maximum(every_cell, primary.nuclei, capacity, device)
    return apply_table(every_cell, of_nucleus, device), every_cell


def drop_border(
    primary: Primary,
    cells: torch.Tensor,
    every_cell: torch.Tensor,
    settings: SegmentationSettings,
    device: Device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells that touch the image's border, or whose nucleus does, are dropped with their nuclei, the others numbered anew.

    Those that IdentifySecondaryObjects discards (`cells.discard_border`) stay in the unfiltered images; those that
    FilterObjects removes afterwards (`filter_border_nuclei`) go from these too, with each pixel that they had in the labels.
    """
    nuclei, unfiltered, counts, capacity = primary.nuclei, primary.unfiltered, primary.counts, primary.number.shape[1]
    for of_cells in (True, False):
        if not (settings.cells.discard_border if of_cells else settings.filter_border_nuclei):
            continue
        before = nuclei, cells
        area, border = label_extents(nuclei, capacity, device)
        if of_cells:
            border = label_extents(cells, capacity, device)[1]
        number, only, _, counts = number_objects(Kept(primary.n_labels, area, border), device, absent=True)
        nuclei, cells = (apply_table(labels, only, device) for labels in before)
        unfiltered, every_cell = (apply_table(labels, number, device) for labels in (unfiltered, every_cell))
        if not of_cells:
            unfiltered, every_cell = (
                labels.masked_fill((old != 0) & (new == 0), 0)
                for labels, old, new in zip((unfiltered, every_cell), before, (nuclei, cells), strict=True)
            )
    return nuclei, cells, unfiltered, every_cell, counts
