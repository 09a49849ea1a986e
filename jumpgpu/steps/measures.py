"""Steps that measure: a feature family of `jumpgpu.features` over the object sets and images that a module names."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from ..features import families, radial_centres
from ..features import skeleton as skeletons
from ..features.intensity import count_brightest
from ..features.neighbors import MEASUREMENTS as NEIGHBORS
from ..features.neighbors import contacts_and_nearest
from ..features.objects import ObjectBatch, gathered, make_batch
from ..features.radial_distribution import MEASUREMENTS as RINGS
from ..gpu.device import Device
from ..segmentation.label import apply_table, label_extents
from ..segmentation.label_sums import shared_pixels
from ..segmentation.ranks import order_by_quicksort
from ..settings import steps as kinds
from ..settings.config import (
    CorrelationSettings,
    FeatureSettings,
    GranularitySettings,
    RadialSettings,
    ShapeSettings,
    TextureSettings,
)
from .among import neighbors_among
from .state import ObjectSet, State

MAX_TOGETHER = 4  # object sets of one batch
OF_OBJECTS = ("outlines", "areas", "depths")  # what batches of other images of the same sets share
ALIAS = re.compile(r"~(\d{3})~")
METRICS = {
    "correlation": ("Correlation",),
    "manders": ("Manders",),
    "rwc": ("RWC",),
    "overlap": ("Overlap", "K"),
    "costes": ("Costes",),
}


def alias(i: int) -> str:
    """What image number i is called within a batch: names in the order of the module's list."""
    return f"~{i:03d}~"


def batch_of(state: State, images: Sequence[str], names: Sequence[str], device: Device) -> ObjectBatch:
    """An object batch of sets that share numbers, of these images; kept for the next module that asks for the same."""
    key = tuple(images), tuple(names)
    if key not in state.batches:
        sets = [state.objects[n] for n in names]
        planes = [state.images[i].pixels.float() for i in images]
        shape = sets[0].labels.shape
        for name, plane in zip(images, planes, strict=True):
            if plane.shape != shape:
                raise ValueError(f"image {name} is {list(plane.shape[1:])}, objects {names[0]} are {list(shape[1:])} pixels")
        pixels = (
            torch.stack(planes, 1) if planes else sets[0].labels.new_zeros((shape[0], 1, *shape[1:]), dtype=torch.float32)
        ).contiguous()
        channels = tuple(alias(i) for i in range(max(1, len(images))))
        if listed := batches_of(state, names):
            batch = gathered(replace(listed[0], channels=channels, pixels=pixels, values=pixels, derived={}), device)
        else:
            batch = make_batch(channels, pixels, {f"{k}": s.labels for k, s in enumerate(sets)}, {}, device)
        batch.derived["levels"] = state.levels(images)
        batch.derived["costes"] = state.costes.setdefault(tuple(images), {})
        state.batches[key] = batch
    result = state.batches[key]
    for other in batches_of(state, names):
        for what in OF_OBJECTS:
            if what in other.derived:
                result.derived.setdefault(what, other.derived[what])
    return result


def batches_of(state: State, names: Sequence[str]) -> list[ObjectBatch]:
    """Batches of these object sets, of whatever images: their objects are listed once."""
    return [batch for (_, of), batch in state.batches.items() if of == tuple(names)]


def together(state: State, names: Sequence[str]) -> list[list[str]]:
    """Object sets in groups that one batch can hold: those that share numbers, whole cells first, in which the others lie.

    The rest of a family comes along where there is room: a set whose numbers have gaps needs one in which there are none,
    and modules that ask for several of them have one batch.
    """
    groups: dict[int, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(state.objects[name].family, []).append(name)
    result = []
    for family, members in groups.items():
        every = sorted((n for n, s in state.objects.items() if s.family == family), key=lambda n: not state.objects[n].whole)
        for at in range(0, len(members), MAX_TOGETHER - 1):
            part = members[at : at + MAX_TOGETHER - 1]
            part += [n for n in every if n not in part][: MAX_TOGETHER - len(part)]
            result.append([n for n in every if n in part])
    return result


def rows_of(objects: ObjectSet, per_field: Sequence[int]) -> torch.Tensor:
    """Rows of a batch's cells that are the set's objects: numbers above its highest are no objects of it."""
    at = 0
    rows: list[int] = []
    for n, total in zip(objects.counts, per_field, strict=True):
        rows += range(at, at + min(n, total))
        at += total
    return torch.tensor(rows, dtype=torch.int64)


def measure_family(
    state: State, name: str, settings: FeatureSettings, images: Sequence[str], objects: Sequence[str], device: Device
) -> dict[str, dict[str, torch.Tensor]]:
    """What a family measures, by object set and column; columns are in the module's order and bear its images' names."""
    result: dict[str, dict[str, torch.Tensor]] = {n: {} for n in objects}
    module = families.family(name)
    for group in together(state, [n for n in objects if state.objects[n].n]):
        batch = batch_of(state, images, group, device)
        table = module.measure(batch, settings, device)
        at = 0
        for k, member in enumerate(group):
            columns = module.columns(f"{k}", batch.channels if images else (), settings)
            if member in result:
                rows = rows_of(state.objects[member], batch.objects.n_cells).to(table.device)
                values = table[:, at : at + len(columns)].index_select(0, rows).unbind(1)
                result[member] |= {named(c, tuple(images)): v for c, v in zip(columns, values, strict=True)}
            at += len(columns)
        assert at == table.shape[1], name
    for n in objects:
        if not state.objects[n].n:
            columns = module.columns("0", [alias(i) for i in range(len(images))], settings)
            result[n] = {named(c, tuple(images)): torch.empty(0, dtype=torch.float64) for c in columns}
    return result


@lru_cache(maxsize=1 << 14)
def named(column: str, images: tuple[str, ...]) -> str:
    """A column of a batch without its object set, its aliases replaced by the images' names."""
    return ALIAS.sub(lambda match: images[int(match[1])], column.split("_", 1)[1])


def record(state: State, result: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, columns in result.items():
        state.record(name, columns)


def intensity(state: State, step: kinds.MeasureIntensity, device: Device) -> None:
    record(state, measure_family(state, "intensity", FeatureSettings(), step.images, step.objects, device))
    places = measure_family(state, "location", FeatureSettings(), step.images, step.objects, device)
    for name, columns in places.items():
        state.record(name, {c: v for c, v in columns.items() if not c.startswith("Location_Center_")})
    for group in together(state, [n for n in step.objects if state.objects[n].n]):
        batch = batch_of(state, step.images, group, device)
        brightest = count_brightest(batch, device).view(len(group), batch.objects.n, len(step.images)).cpu()
        for name in set(group) & set(step.objects):
            several = brightest[group.index(name), rows_of(state.objects[name], batch.objects.n_cells)] > 1
            for i, image in enumerate(step.images):
                if bool(several[:, i].any()):
                    last_brightest(state, name, image, several[:, i], device)


def last_brightest(state: State, name: str, image: str, several: torch.Tensor, device: Device) -> None:
    """Of several brightest pixels of an object CellProfiler's place is that which its sort of the field's objects puts last.
    Of masked images it stays the first. `several`: bool [n], objects that have several in single precision."""
    output, of = state.objects[name], state.images[image]
    columns = [state.measured[name][f"Location_MaxIntensity_{axis}_{image}"] for axis in "YX"]
    if of.valid is not None or of.pixels.ndim != 3:
        return
    at = 0
    for labels, plane, n in zip(output.labels, of.pixels, output.counts, strict=True):
        chosen = several[at : at + n].nonzero()[:, 0].to(labels.device)
        if len(chosen):
            inside = labels > 0
            place = inside.flatten().nonzero()[:, 0]
            number, values = labels.masked_select(inside).long(), plane.masked_select(inside)
            if values.dtype == torch.float32 and bool((values >= 0).all()):
                ranks = (values + 0.0).view(torch.int32)  # bits are in the order of values
            else:
                ranks = torch.unique(values, return_inverse=True)[1].to(torch.int32)
            highest = ranks.new_full((n + 1,), -1).scatter_reduce(0, number, ranks, "amax")
            wanted = torch.zeros(n + 1, dtype=torch.bool, device=labels.device)
            wanted[chosen + 1] = True
            order = order_by_quicksort(ranks[None], device, torch.unique(highest[wanted]))[0]
            brightest = ranks == torch.where(wanted, highest, -1).index_select(0, number)
            taken = order.masked_select(brightest.index_select(0, order)).long().cpu().numpy()
            last = np.full(n + 1, -1)
            last[number.cpu().numpy()[taken]] = taken  # in the sort's order: the last one stays
            pixel = place[torch.from_numpy(last).to(place.device)[chosen + 1]]
            for column, coordinate in zip(columns, (pixel // plane.shape[-1], pixel % plane.shape[-1]), strict=True):
                column[at + chosen.to(column.device)] = coordinate.to(column)
        at += n


def shape(state: State, step: kinds.MeasureShape, device: Device) -> None:
    settings = FeatureSettings(shape=ShapeSettings(step.zernike, step.advanced, convex_area=True))
    record(state, measure_family(state, "shape", settings, (), step.objects, device))


def correlation(state: State, step: kinds.MeasureCorrelation, device: Device) -> None:
    order = tuple(alias(i) for i in range(len(step.images)))
    settings = FeatureSettings(
        correlation=CorrelationSettings(step.threshold, "costes" in step.metrics, order, step.costes_mode)
    )
    wanted = tuple(f"Correlation_{m}_" for metric in step.metrics for m in METRICS[metric])
    result = measure_family(state, "correlation", settings, step.images, step.objects, device)
    record(state, {n: {c: v for c, v in columns.items() if c.startswith(wanted)} for n, columns in result.items()})


def granularity(state: State, step: kinds.MeasureGranularity, device: Device) -> None:
    settings = GranularitySettings(step.subsampling, step.background_subsampling, step.radius, step.spectrum)
    result = measure_family(state, "granularity", FeatureSettings(granularity=settings), step.images, step.objects, device)
    record(state, result)


def texture(state: State, step: kinds.MeasureTexture, device: Device) -> None:
    settings = FeatureSettings(texture=TextureSettings(step.scales, step.levels))
    record(state, measure_family(state, "texture", settings, step.images, step.objects, device))


def radial(state: State, step: kinds.MeasureRadial, device: Device) -> None:
    if step.center == "self":
        settings = FeatureSettings(radial=RadialSettings(step.bins))
        result = measure_family(state, "radial", settings, step.images, step.objects, device)
        if step.overflow:  # of rings that are scaled, nothing lies beyond
            for columns in result.values():
                for image in step.images:
                    share = columns[f"RadialDistribution_FracAtD_{image}_1of{step.bins}"]
                    nothing = torch.where(share.isnan(), torch.nan, 0.0)
                    for measure, value in zip(RINGS, (nothing, nothing, torch.zeros_like(nothing)), strict=True):
                        columns[f"RadialDistribution_{measure}_{image}_Overflow"] = value
        record(state, result)
        return
    for name in step.objects:
        record(state, {name: around_others(state, step, name, device)})


def around_others(state: State, step: kinds.MeasureRadial, name: str, device: Device) -> dict[str, torch.Tensor]:
    """Rings around the centres, or edges, of other objects; see features/radial_centres.py."""
    output = state.objects[name]
    names = [f"{ring}of{step.bins}" for ring in range(1, step.bins + 1)] + ["Overflow"] * step.overflow
    columns = [f"RadialDistribution_{m}_{i}_{ring}" for i in step.images for m in RINGS for ring in names]
    state.of_other_centres |= {(name, c) for c in columns}
    if not output.n:
        return {c: torch.empty(0, dtype=torch.float64) for c in columns}
    key = name, step.of, step.center
    if key not in state.centres:
        edges = step.center == "edges"
        state.centres[key] = radial_centres.find_centres(output.labels, state.objects[step.of].labels, device, edges=edges)
    group = next(g for g in together(state, [name]) if name in g)
    batch = batch_of(state, step.images, group, device)
    result = radial_centres.measure(batch, state.centres[key], step.bins, step.max_radius, device)
    result = result.view(len(group), batch.objects.n, len(step.images), len(RINGS), step.bins + 1)[group.index(name)]
    result = result[rows_of(output, batch.objects.n_cells).to(result.device)][..., : len(names)].flatten(1)
    return {c: result[:, i] for i, c in enumerate(columns)}


def radial_zernike(state: State, step: kinds.MeasureZernike, device: Device) -> None:
    wanted = "magnitudes_and_phase" if step.phase else "magnitudes"
    settings = FeatureSettings(radial=RadialSettings(1, wanted))
    result = measure_family(state, "radial", settings, step.images, step.objects, device)
    record(state, {n: {c: v for c, v in columns.items() if "_Zernike" in c} for n, columns in result.items()})


def neighbors(state: State, step: kinds.MeasureNeighbors, device: Device) -> None:
    """Of `step.objects` among themselves; see features/neighbors.py."""
    if step.objects != step.among:
        neighbors_among(state, step, device)
        return
    output = state.objects[step.objects]
    scale = {"adjacent": "Adjacent", "expanded": "Expanded"}.get(step.method, str(step.distance))
    columns = [f"Neighbors_{m}_{scale}" for m in NEIGHBORS]
    if not output.n:
        state.record(step.objects, {c: torch.empty(0, dtype=torch.float64) for c in columns})
        return
    not_small = output.not_small if step.discarded else torch.where(output.labels > 0, output.not_small, 0)
    around = beyond(not_small, output, device)
    group = next(g for g in together(state, [step.objects]) if step.objects in g)
    k = group.index(step.objects)
    batch, contacts, nearest = touching(
        state, group, k, output.labels, around, [step.distance if step.method == "within" else 1], device
    )
    if step.method == "expanded":
        wide = expanded(around, device)
        _, contacts, _ = touching(state, group, k, torch.where(wide <= count_image(output), wide, 0), wide, [1], device)
    percent = contacts[:, 2] * 100.0 / contacts[:, 0].clamp(min=1)
    table = torch.cat([torch.stack([contacts[:, 1], percent], dim=1), nearest], dim=1)
    table = table[rows_of(output, batch.objects.n_cells).to(table.device)]
    few_neighbors(table, output, around, not_small, device)
    state.record(step.objects, {c: table[:, i] for i, c in enumerate(columns)})


def touching(
    state: State, group: Sequence[str], k: int, own: torch.Tensor, around: torch.Tensor, distances: list[int], device: Device
) -> tuple[ObjectBatch, torch.Tensor, torch.Tensor]:
    """What features/neighbors.py counts of set k of a group, whose labels are `own`, among those `around`."""
    if own is state.objects[group[k]].labels:
        batch = (batches_of(state, group) or [batch_of(state, (), group, device)])[0]
        highest = {f"{k}": int(around.max())}
        batch = replace(batch, objects=replace(batch.objects, unfiltered=highest))
    else:
        pixels = own.new_zeros((own.shape[0], 1, *own.shape[1:]), dtype=torch.float32)
        labels = {f"{j}": own if j == k else state.objects[n].labels for j, n in enumerate(group)}
        batch = make_batch(["~"], pixels, labels, {f"{k}": around}, device)
    return batch, *contacts_and_nearest(batch, k, around.contiguous(), distances, device)


def beyond(every: torch.Tensor, output: ObjectSet, device: Device) -> torch.Tensor:
    """`every` object under the number of the one in `output` that overlaps it most, and above the field's count where
    there is none:
    int32 [B, H, W]. Of several that a kept object overlaps the one with most pixels has its number."""
    capacity = int(every.max()) + 1
    area, _ = label_extents(every, capacity, device)
    shared = shared_pixels(output.labels, every, 1 + max(output.counts, default=0), capacity, device)
    tables = torch.zeros(len(every), capacity, dtype=torch.int32, device=every.device)
    for b, n in enumerate(output.counts):
        overlap = shared[b, : n + 1]
        table = torch.zeros(capacity, dtype=torch.int64, device=every.device)
        of = overlap.argmax(1)
        numbers = torch.arange(n + 1, device=every.device)
        has = (overlap.amax(1) > 0) & (numbers > 0)
        table[of[has]] = numbers[has]
        rest = (area[b] > 0) & (table == 0)
        rest[0] = False
        tables[b] = torch.where(rest, n + rest.cumsum(0), table)
    return apply_table(every.contiguous(), tables, device)


def few_neighbors(
    table: torch.Tensor, output: ObjectSet, around: torch.Tensor, not_small: torch.Tensor, device: Device
) -> None:
    """Where a field has fewer than three objects CellProfiler counts numbers that no object has, whose centres are NaN."""
    at = 0
    names = list(NEIGHBORS)
    area, _ = label_extents(around, int(around.max()) + 1, device)
    for b, n in enumerate(output.counts):
        there = int((area[b, 1:] > 0).sum())
        highest = int(not_small[b].max())
        rows = slice(at, at + n)
        if there < 2 <= highest:
            table[rows, names.index("FirstClosestDistance")] = torch.nan
        if there < 3 <= highest:
            for column in ("SecondClosestDistance", "AngleBetweenNeighbors"):
                table[rows, names.index(column)] = torch.nan
        at += n


def count_image(output: ObjectSet) -> torch.Tensor:
    return torch.tensor(output.counts, dtype=torch.int32, device=output.labels.device).view(-1, 1, 1)


def expanded(labels: torch.Tensor, device: Device) -> torch.Tensor:
    """Every pixel with the label of the nearest object's pixel, int32 [B, H, W]; SciPy says which of equals."""
    from scipy.ndimage import distance_transform_edt

    result = []
    for plane in labels.cpu().numpy():
        if not plane.any():
            result.append(plane)
            continue
        y, x = distance_transform_edt(plane == 0, return_distances=False, return_indices=True)
        result.append(plane[y, x])
    return device.tensor(torch.stack([torch.from_numpy(p) for p in result]))


def skeleton(state: State, step: kinds.MeasureSkeleton, device: Device) -> None:
    """See features/skeleton.py."""
    image, output = state.images[step.image], state.objects[step.objects]
    lines = image.pixels if image.pixels.dtype == torch.bool else image.pixels > 0
    lines = lines if image.valid is None else lines & image.valid
    result = skeletons.measure(lines, output.labels, step.hole_size if step.fill_holes else None, device)
    rows = torch.cat([result[b, 1 : n + 1] for b, n in enumerate(output.counts)])
    columns = {f"ObjectSkeleton_{m}_{step.image}": rows[:, i] for i, m in enumerate(skeletons.MEASUREMENTS)}
    state.record(step.objects, columns)


def classify(state: State, step: kinds.Classify, device: Device) -> None:
    values = state.measured[step.objects][step.measurement]
    for name, low, high in zip(step.names, step.edges, step.edges[1:], strict=False):
        inside = (values > low) & (values <= high)
        state.record(step.objects, {f"Classify_{name}": inside.double()})
        n = [part.sum() for part in inside.cpu().split(state.objects[step.objects].counts)]
        of = zip(n, state.objects[step.objects].counts, strict=True)
        state.image_measured[f"Classify_{name}_NumObjectsPerBin"] = torch.stack(n).double()
        state.image_measured[f"Classify_{name}_PctObjectsPerBin"] = torch.tensor(
            [100.0 * float(k) / total if total else 0.0 for k, total in of], dtype=torch.float64
        )
