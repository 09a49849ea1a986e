"""Steps that make object sets: CellProfiler's Identify modules, FilterObjects, ExpandOrShrinkObjects, RelateObjects."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..gpu.device import Device
from ..segmentation.label import apply_table, label_extents, label_maximum
from ..segmentation.label_sums import label_sums, shared_pixels
from ..segmentation.pipeline import eroded, identify_primary
from ..segmentation.secondary import identify_secondary
from ..segmentation.threshold import mean_of
from ..settings import steps as kinds
from ..settings.config import ThresholdSettings
from .image_tables import parted
from .state import Image, ObjectSet, State, thresholdable


def measured_threshold(state: State, settings: ThresholdSettings, measurement: str) -> ThresholdSettings:
    """A threshold that is an image measurement, as a manual one of a single field."""
    if not measurement:
        return settings
    value = state.image_measured[measurement]
    if len(value) > 1:
        raise ValueError("a threshold by measurement needs batches of one field")
    corrected = min(max(float(value[0]) * settings.correction, settings.lower), settings.upper)
    return replace(settings, method="manual", manual=corrected)


def primary(state: State, step: kinds.Primary, device: Device) -> None:
    image = thresholdable(state.images[step.image], step.image, step.settings.threshold.method)
    settings = replace(step.settings, threshold=measured_threshold(state, step.settings.threshold, step.measured_threshold))
    result, original, final = identify_primary(image.pixels, settings, device, valid=image.valid, queue=True)
    labels, counts = result.nuclei, result.counts
    not_small = torch.where(result.unfiltered > 0, result.unedited, 0)
    state.image_measured[f"Threshold_OrigThreshold_{step.objects}"] = original
    state.image_measured[f"Threshold_FinalThreshold_{step.objects}"] = final
    parted(state, step.objects, image, settings.threshold, result.above, device)
    locate(state, step.objects, state.add(step.objects, labels, result.unedited, not_small, counts), device, z=True)
    state.valid[step.objects] = image.valid


def secondary(state: State, step: kinds.Secondary, device: Device) -> None:
    image, seeds = state.images[step.image], state.objects[step.seeds]
    if step.settings.method != "distance":  # which takes no threshold
        image = thresholdable(image, step.image, step.settings.threshold.method)
    settings = replace(step.settings, threshold=measured_threshold(state, step.settings.threshold, step.measured_threshold))
    labels, every, original, final, above = identify_secondary(
        image.pixels, seeds.unedited, seeds.labels, settings, device, image.valid
    )
    if above is not None:
        state.image_measured[f"Threshold_OrigThreshold_{step.objects}"] = mean_of(original)
        state.image_measured[f"Threshold_FinalThreshold_{step.objects}"] = mean_of(final)
        parted(state, step.objects, image, settings.threshold, above, device)
    counts = torch.tensor(seeds.counts, dtype=torch.int32, device=labels.device)
    capacity = 1 + max(seeds.counts, default=0)
    if not settings.discard_border:
        family, new_seeds = seeds.family, None
    else:
        at_border = border_of(labels, capacity, image, device)
        labels = torch.where(at_border.gather(1, labels.flatten(1).long()).view(labels.shape), 0, labels)
        table, counts = numbered(label_maximum(seeds.labels, labels, capacity, device))
        labels, family = apply_table(labels, table, device), None
        new_seeds = apply_table(seeds.labels, table, device)
    produced = state.add(step.objects, labels, every, every, counts, family, whole=True)
    state.valid[step.objects] = image.valid
    locate(state, step.objects, produced, device, z=True)
    relate(state, step.seeds, step.objects, device)
    if new_seeds is not None and step.new_seeds:
        kept = state.add(step.new_seeds, new_seeds, seeds.unedited, seeds.not_small, counts, produced.family)
        state.valid[step.new_seeds] = state.valid.get(step.seeds)
        locate(state, step.new_seeds, kept, device, z=True)
        relate(state, step.seeds, step.new_seeds, device)
        relate(state, step.new_seeds, step.objects, device)


def border_of(labels: torch.Tensor, capacity: int, image: Image, device: Device) -> torch.Tensor:
    """bool [B, capacity]: which labels touch the image's border, or that of its mask."""
    if image.valid is None:
        result = label_extents(labels, capacity, device)[1] > 0
    else:
        edge = (image.valid & ~eroded(image.valid)).to(torch.int32)
        result = torch.zeros(len(labels), capacity, dtype=torch.int32, device=labels.device)
        result = result.scatter_reduce(1, labels.flatten(1).long(), edge.flatten(1), "amax") > 0
    result[:, 0] = False
    return result


def numbered(kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels that are kept (above 0 in int32 [B, capacity]) as 1 .. n in their order, the others 0; and n of each field."""
    there = kept > 0
    there[:, 0] = False
    table = torch.where(there, there.cumsum(1), 0).to(torch.int32)
    return table, there.sum(1).to(torch.int32)


def tertiary(state: State, step: kinds.Tertiary, device: Device) -> None:
    larger, smaller = state.objects[step.larger], state.objects[step.smaller]
    b, h, w = larger.labels.shape
    labels = device.empty(b, h, w, dtype=torch.int32)
    device.launch(
        "cytoplasm_of",
        b * h,
        nuclei=smaller.labels,
        cells=larger.labels,
        height=h,
        width=w,
        outline=int(step.shrink),
        cytoplasm=labels,
    )
    counts = highest(labels, larger.counts)
    locate(state, step.objects, state.add(step.objects, labels, labels, labels, counts, larger.family), device, z=False)
    children, parents = relation(larger, state.objects[step.objects], device)
    if step.shrink:
        relate(state, step.smaller, step.objects, device)
    else:
        _, of_smaller = relation(larger, smaller, device)
        commute(state, step, children, parents, of_smaller)
    record_relation(state, step.larger, step.objects, children, parents)


def highest(labels: torch.Tensor, counts: tuple[int, ...]) -> torch.Tensor:
    """The highest label of each field, which is how many objects CellProfiler counts: int32 [B]."""
    return labels.flatten(1).amax(1) if labels.numel() else torch.zeros(len(counts), dtype=torch.int32)


def commute(
    state: State, step: kinds.Tertiary, children: torch.Tensor, parents: torch.Tensor, of_smaller: torch.Tensor
) -> None:
    """Relations of smaller and tertiary objects that do not overlap, by way of the larger ones."""
    larger, smaller, produced = (state.objects[n] for n in (step.larger, step.smaller, step.objects))
    count = torch.zeros(smaller.n, dtype=torch.float64)
    parent = torch.zeros(produced.n, dtype=torch.float64)
    at_l = at_s = at_m = 0
    for n_l, n_s, n_m in zip(larger.counts, smaller.counts, produced.counts, strict=True):
        of = of_smaller[at_s : at_s + n_s].long()
        has = of > 0
        count[at_s : at_s + n_s][has] = children[at_l : at_l + n_l][of[has] - 1]
        back = torch.zeros(n_l + 1, dtype=torch.float64)
        back[of] = torch.arange(1, n_s + 1, dtype=torch.float64)
        back[0] = 0
        parent[at_m : at_m + n_m] = back[parents[at_m : at_m + n_m].long()]
        at_l, at_s, at_m = at_l + n_l, at_s + n_s, at_m + n_m
    record_relation(state, step.smaller, step.objects, count, parent)


def filter_objects(state: State, step: kinds.Filter, device: Device) -> None:
    source = state.objects[step.objects]
    capacity = 1 + max(source.counts, default=0)
    number = torch.arange(capacity, device=source.labels.device).expand(len(source.counts), -1)
    there = number <= torch.tensor(source.counts, device=number.device).view(-1, 1)
    if step.border:
        keep = there & ~border_of(source.labels, capacity, Image(source.labels), device)
        keep &= label_extents(source.labels, capacity, device)[0] > 0
    elif step.keep == "limits":
        keep = there & within(state, step, capacity)
    else:
        keep = there & extreme(state, step, capacity)
    keep = keep.clone()
    keep[:, 0] = False
    table, counts = numbered(keep.to(torch.int32))
    family = None
    for name, output in zip((step.objects, *step.others), (step.output, *step.other_outputs), strict=True):
        family = filtered(state, name, output, table, counts, device, family)
    if step.removed:
        gone = there & ~keep
        gone[:, 0] = False
        filtered(state, step.objects, step.removed, *numbered(gone.to(torch.int32)), device, None)


def filtered(
    state: State, name: str, output: str, table: torch.Tensor, counts: torch.Tensor, device: Device, family: int | None
) -> int:
    """A set with its numbers through a table; what goes is no neighbour any more."""
    source = state.objects[name]
    if max(source.counts, default=0) >= table.shape[1]:  # numbers beyond the deciding set's go
        table = torch.nn.functional.pad(table, (0, 1 + max(source.counts) - table.shape[1]))
    labels = apply_table(source.labels, table, device)
    others = torch.where((labels == 0) & (source.labels != 0), 0, source.not_small)
    produced = state.add(output, labels, source.unedited, others, counts, family, whole=source.whole)
    state.valid[output] = state.valid.get(name)
    locate(state, output, produced, device, z=True)
    relate(state, name, output, device)
    return produced.family


def within(state: State, step: kinds.Filter, capacity: int) -> torch.Tensor:
    """bool [B, capacity]: objects whose measurements all lie within the limits; NaN does not."""
    source = state.objects[step.objects]
    result = torch.zeros(len(source.counts), capacity, dtype=torch.bool)
    at = 0
    for b, n in enumerate(source.counts):
        result[b, 1 : n + 1] = True
        for name, low, high in zip(step.measurements, step.lowest, step.highest, strict=True):
            values = state.measured[step.objects][name][at : at + n].cpu()
            result[b, 1 : n + 1] &= ~values.isnan() & (values >= low) & (values <= high)
        at += n
    return result.to(source.labels.device)


def extreme(state: State, step: kinds.Filter, capacity: int) -> torch.Tensor:
    """bool [B, capacity]: the object with the minimal or maximal measurement, or that in each enclosing one."""
    source = state.objects[step.objects]
    result = torch.zeros(len(source.counts), capacity, dtype=torch.bool)
    at = 0
    for b, n in enumerate(source.counts):
        values = state.measured[step.objects][step.measurements[0]][at : at + n].cpu().numpy().astype(float)
        at += n
        best = -values if step.keep == "maximal" else values
        if not n:
            continue
        if not step.enclosing:
            result[b, 1 + int(np.argmin(best))] = True
            continue
        enclosing = state.objects[step.enclosing]
        labels, around = source.labels[b].cpu().numpy(), enclosing.labels[b].cpu().numpy()
        if labels.shape != around.shape:
            raise ValueError(f"objects {step.objects} and {step.enclosing} are of images of other sizes")
        each = (
            first_in_each(labels, around, values, step.keep) if not step.most_overlap else first_free(labels, around, best)
        )
        result[b, each] = True
    return result.to(source.labels.device)


def first_in_each(labels: NDArray[np.int32], around: NDArray[np.int32], values: NDArray[np.float64], keep: str) -> list[int]:
    """The object of extreme value in each of others; of equals SciPy says which."""
    numbers = np.arange(1, int(around.max()) + 1)
    outside, position = (np.inf, ndimage.minimum_position) if keep == "minimal" else (-np.inf, ndimage.maximum_position)
    places = position(np.concatenate([[outside], values])[labels], around, numbers) if len(numbers) else []
    return sorted({int(labels[tuple(map(int, p))]) for p in places} - {0})


def first_free(labels: NDArray[np.int32], around: NDArray[np.int32], values: NDArray[np.float64]) -> list[int]:
    """Objects by their values: each takes the enclosing object with most of its pixels that no other has taken."""
    both = (labels > 0) & (around > 0)
    pairs, area = np.unique(np.stack([labels[both], around[both]]), axis=1, return_counts=True)
    pairs = pairs[:, np.lexsort((-area, values[pairs[0] - 1]))]
    taken: dict[int, int] = {}
    placed = before = 0
    for child, parent in pairs.T.tolist():
        placed = placed if child == before else 0
        before = child
        if not placed and parent not in taken:
            taken[parent] = placed = child
    return sorted(taken.values())


def mask_objects(state: State, step: kinds.MaskObjects, device: Device) -> None:
    """CellProfiler keeps every object that was found beside those left, the small ones too."""
    source = state.objects[step.objects]
    if step.by_objects:
        mask = state.objects[step.by_objects].labels > 0
    else:
        pixels = state.images[step.mask].pixels
        mask = pixels if pixels.dtype == torch.bool else pixels > 0
    mask = ~mask if step.invert else mask
    capacity = 1 + max(source.counts, default=0)
    if step.overlap == "cut":
        labels = torch.where(mask, source.labels, 0)
    else:
        flat = source.labels.flatten(1).long()
        zero = torch.zeros(len(flat), capacity, dtype=torch.int64, device=flat.device)
        area = zero.scatter_add(1, flat, torch.ones_like(flat))
        inside = zero.scatter_add(1, flat, mask.flatten(1).long())
        if step.overlap == "any":
            keep = inside > 0
        else:
            keep = inside == area if step.overlap == "all" else inside.double() / area >= step.share
        keep[:, 0] = False
        labels = torch.where(keep.gather(1, flat).view(source.labels.shape), source.labels, 0)
    there = torch.zeros(len(labels), capacity, dtype=torch.int32, device=labels.device)
    there = there.scatter(1, labels.flatten(1).long(), 1)
    table, counts = numbered(there)
    numbers = torch.arange(capacity, device=there.device).expand_as(there)
    if step.renumber:
        labels = apply_table(labels.contiguous(), table, device)
        parent = numbers[table > 0]
    else:
        counts = highest(labels, source.counts)
        parent = numbers[(numbers > 0) & (numbers <= counts.view(-1, 1))]
    family = None if step.renumber else source.family
    produced = state.add(step.output, labels.contiguous(), source.unedited, source.unedited, counts, family)
    locate(state, step.output, produced, device, z=False)
    of_source = torch.cat([row[1 : n + 1] for row, n in zip(there, source.counts, strict=True)])
    record_relation(state, step.objects, step.output, of_source.double(), parent.double())


def relate_objects(state: State, step: kinds.Relate, device: Device) -> None:
    parents, children = state.objects[step.parent], state.objects[step.child]
    count, parent = relation(parents, children, device)
    record_relation(state, step.parent, step.child, count, parent)
    for name in (step.parent, *step.step_parents) if step.distances else ():
        distances(state, step, name)
    if step.means:
        means(state, step, parent)
    if step.saved:
        capacity = 1 + max(children.counts, default=0)
        inside = torch.where(parents.labels > 0, children.labels, 0)
        table, counts = numbered(label_maximum(inside, inside, capacity, device))
        filtered(state, step.child, step.saved, table, counts, device, None)


def distances(state: State, step: kinds.Relate, name: str) -> None:
    """From each child's centre to its parent's, and to the nearest pixel of its parent's edge; NaN without one.

    Where it is no parent by itself it is the parent's parent.
    """
    from skimage.segmentation import find_boundaries

    of = state.measured[step.child].get(f"Parent_{name}")
    parents, children = state.objects[name], state.objects[step.child]
    result = {kind: np.full(children.n, np.nan) for kind in step.distances}
    at_p = at_c = at_m = 0
    for b, (n_p, n_c) in enumerate(zip(parents.counts, children.counts, strict=True)):
        n_m = state.objects[step.parent].counts[b]
        if of is not None:
            parent = of[at_c : at_c + n_c].cpu().numpy().astype(int)
        else:
            nearest = state.measured[step.child][f"Parent_{step.parent}"][at_c : at_c + n_c].cpu().numpy().astype(int)
            further = state.measured[step.parent][f"Parent_{name}"][at_m : at_m + n_m].cpu().numpy().astype(int)
            parent = np.concatenate([[0], further])[nearest]
        labels = parents.labels[b].cpu().numpy()
        centres_p, centres_c = (
            np.stack([state.measured[o][f"Location_Center_{x}"][at : at + n].cpu().numpy() for x in "YX"], 1)
            for o, at, n in ((name, at_p, n_p), (step.child, at_c, n_c))
        )
        has = np.flatnonzero(parent > 0)
        if "centroid" in step.distances:
            gap = centres_c[has] - centres_p[parent[has] - 1]
            result["centroid"][at_c + has] = np.sqrt((gap**2).sum(1))
        if "minimum" in step.distances:
            edge = np.argwhere(find_boundaries(labels, mode="inner") & (labels > 0))
            number = labels[tuple(edge.T)]
            for child in has:
                gap = edge[number == parent[child]] - centres_c[child]
                result["minimum"][at_c + child] = np.sqrt((gap**2).sum(1)).min(initial=np.inf)
        at_p, at_c, at_m = at_p + n_p, at_c + n_c, at_m + n_m
    words = {"centroid": "Centroid", "minimum": "Minimum"}
    state.record(step.child, {f"Distance_{words[k]}_{name}": torch.from_numpy(v) for k, v in result.items()})


def means(state: State, step: kinds.Relate, parent: torch.Tensor) -> None:
    """The mean of every measurement over each parent's children; NaN without any, as a division by 0 gives."""
    parents, children = state.objects[step.parent], state.objects[step.child]
    row = torch.full((children.n,), -1, dtype=torch.int64)
    at_p = at_c = 0
    for n_p, n_c in zip(parents.counts, children.counts, strict=True):
        of = parent[at_c : at_c + n_c].long()
        row[at_c : at_c + n_c] = torch.where(of > 0, at_p + of - 1, -1)
        at_p, at_c = at_p + n_p, at_c + n_c
    has = row >= 0
    number = torch.bincount(row[has], minlength=parents.n).double()
    for name, values in list(state.measured[step.child].items()):
        if name.startswith(("Parent", "Mean")):
            continue
        total = torch.zeros(parents.n, dtype=torch.float64).index_add_(0, row[has], values.cpu()[has])
        state.record(step.parent, {f"Mean_{step.child}_{name}": total / number})


def relation(parents: ObjectSet, children: ObjectSet, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """How many children each parent has, and each child's parent (the one it overlaps most, of equals the first; 0 for
    none):
    float64 [parents], [children]. Of sets of images of other sizes the part that both have counts."""
    count, parent = [], []
    h, w = (min(a, b) for a, b in zip(parents.labels.shape[1:], children.labels.shape[1:], strict=True))
    rows, columns = 1 + max(children.counts, default=0), 1 + max(parents.counts, default=0)
    of_children, of_parents = (o.labels[:, :h, :w].contiguous() for o in (children, parents))
    shared = shared_pixels(of_children, of_parents, rows, columns, device)
    for overlap, n_p, n_c in zip(shared, parents.counts, children.counts, strict=True):
        of = overlap[1 : n_c + 1, : n_p + 1].argmax(1)
        parent.append(of.double())
        count.append(torch.bincount(of, minlength=n_p + 1)[1:].double())
    return torch.cat(count), torch.cat(parent)


def relate(state: State, parent: str, child: str, device: Device) -> None:
    record_relation(state, parent, child, *relation(state.objects[parent], state.objects[child], device))


def record_relation(state: State, parent: str, child: str, count: torch.Tensor, of: torch.Tensor) -> None:
    state.record(parent, {f"Children_{child}_Count": count})
    state.record(child, {f"Parent_{parent}": of})


def locate(state: State, name: str, produced: ObjectSet, device: Device, *, z: bool) -> None:
    """Centres and numbers, as every module that makes objects records them."""
    sums = label_sums(produced.labels, 1 + max(produced.counts, default=0), device).double()
    parts = []
    for b, n in enumerate(produced.counts):
        area, x, y = sums[b, 1 : n + 1].T
        parts.append(torch.stack([x / area, y / area, torch.arange(1, n + 1, device=area.device).double()]))
    result = torch.cat(parts, 1)
    columns = {"Location_Center_X": result[0], "Location_Center_Y": result[1]}
    if z:
        columns["Location_Center_Z"] = torch.zeros_like(result[0])
    state.record(name, columns | {"Number_Object_Number": result[2]})
