"""Illumination functions of a plate as an imported pipeline makes them, by passes over the plate.

A pass does, field after field in the plate's order, the steps that lead to the images which are averaged. What the pipeline
does with a function afterwards (resizing) is done once. The functions are kept beside the plate, as estimates are.
"""

from collections.abc import Sequence

import torch

from ..gpu.device import Device
from ..images.illumination import correct, estimate_key, open_illumination
from ..images.illumination_files import Illumination, read_kept, save_illumination
from ..images.plate import Plate
from ..images.reader import field_size, read_fields
from ..settings import steps as kinds
from ..settings.config import Config
from ..settings.toml import step_table
from ..steps.illumination import PlateAverage
from ..steps.state import Image
from ..storage.buckets import Place


def open_functions(
    plate: Plate, config: Config, source: str, *, device: Device, folder: Place, batch: int, workers: int | None
) -> Illumination:
    """The functions that a run needs, of all the plate's channels: those of `config.functions`, unless `source` says where
    others are; the rest as `open_illumination` finds them; 1 for channels without one."""
    common = {"device": device, "batch": batch, "workers": workers}
    if not config.steps and not config.functions:
        return open_illumination(plate, source, settings=config.illumination, folder=folder, **common)  # type: ignore[arg-type]
    divides = not config.steps or any(isinstance(s, kinds.Illuminate) and s.method == "divide" for s in config.steps)
    loaded = {s.channel for s in config.steps if isinstance(s, kinds.Load) and s.function}
    needed = [c for c in plate.channels if c in loaded or not config.steps]
    output = [s.channel for s in config.functions if isinstance(s, kinds.KeepFunction)] if source == "auto" else []
    parts = []
    if output:
        parts.append(functions_by_steps(plate, config.functions, divides, folder, device, batch, workers))
    if rest := [c for c in needed if c not in output]:
        common |= {"settings": config.illumination, "folder": folder / "estimate" if output else folder, "divides": divides}
        parts.append(open_illumination(plate, source, channels=rest, **common))  # type: ignore[arg-type]
    height, width = field_size(plate)
    functions = torch.ones(len(plate.channels), height, width)
    for part in parts:
        for channel, function in zip(part.channels, part.functions, strict=True):
            functions[plate.channels.index(channel)] = function
    said = "; ".join(f"{', '.join(part.channels)} {part.source}" for part in parts)
    notes = tuple(note for part in parts for note in part.notes)
    return Illumination(plate.channels, functions, said or "none: 1 everywhere", notes, divides and bool(parts))


def functions_by_steps(
    plate: Plate,
    steps: Sequence[kinds.Step],
    divides: bool,
    folder: Place,
    device: Device,
    batch: int,
    workers: int | None,
) -> Illumination:
    """What the steps keep as functions; read back where it was made before of the same images by the same steps."""
    kept = {s.channel: s.image for s in steps if isinstance(s, kinds.KeepFunction)}
    channels = tuple(kept)
    key = estimate_key(plate, channels, [step_table(step) for step in steps])
    if (before := read_kept(folder, plate, channels, key, divides=divides)) is not None:
        return before
    images, n_fields, notes = passes(plate, steps, device, batch, workers)
    size = field_size(plate)
    functions = []
    for channel, name in kept.items():
        function = images[name].pixels.float().cpu()
        function = function[0] if function.ndim == 3 else function
        if tuple(function.shape) != size:
            raise ValueError(
                f"{plate.barcode} {channel}: the pipeline's function {name} has {list(function.shape)} pixels, the plate's "
                f"fields have {list(size)}"
            )
        if divides and not bool((function.isfinite() & (function > 0)).all()):
            raise ValueError(f"{plate.barcode} {channel}: the pipeline's function {name} has values that are not positive")
        functions.append(function)
    result = torch.stack(functions)
    save_illumination(folder, plate, channels, result, {"key": key, "fields": n_fields, "notes": list(notes)})
    return Illumination(channels, result, f"by the pipeline from {n_fields} fields", notes, divides)


def passes(
    plate: Plate, steps: Sequence[kinds.Step], device: Device, batch: int, workers: int | None
) -> tuple[dict[str, Image], int, tuple[str, ...]]:
    """The plate's images by name, of how many fields they are made, and what was left out."""
    from ..steps.run import run_steps  # with SciPy, which few runs need

    images: dict[str, Image] = {}
    notes: dict[str, None] = {}
    n_fields, todo = 0, list(steps)
    while True:
        averages = [s for s in todo if isinstance(s, kinds.Illumination) and s.plate]
        ready = [s for s in averages if not any(other in leading(todo, [s]) for other in averages)]
        if ready:
            output, n_fields, left_out = one_pass(plate, leading(todo, ready), ready, images, device, batch, workers)
            images |= output
            notes |= dict.fromkeys(left_out)
        todo = [s for s in todo if s not in ready]
        for step in [s for s in todo if not isinstance(s, kinds.Load) and s not in averages]:
            if set(needs(step)) <= images.keys():
                todo.remove(step)
                if not isinstance(step, kinds.KeepFunction):
                    images = run_steps([step], {}, {}, device, images=images).images
        if not ready:
            return images, n_fields, tuple(notes)


def one_pass(
    plate: Plate,
    before: Sequence[kinds.Step],
    averages: Sequence[kinds.Illumination],
    images: dict[str, Image],
    device: Device,
    batch: int,
    workers: int | None,
) -> tuple[dict[str, Image], int, list[str]]:
    """The averages' functions by name, of how many fields, and what was left out; `before` leads to what is averaged."""
    from ..steps.run import run_steps  # with SciPy, which few runs need

    loaded = {s.channel for s in before if isinstance(s, kinds.Load)}
    channels = [c for c in plate.channels if c in loaded]
    sums = [PlateAverage(s) for s in averages]
    n_fields, left_out = 0, []
    for fields in read_fields(plate, channels=channels, batch=batch, workers=workers, device=device):
        ones = torch.ones(fields.pixels.shape[1:], dtype=torch.float32, device=fields.pixels.device)
        pixels = correct(fields.pixels, ones, device=device, scales=fields.scales)
        state = run_steps(before, {c: pixels[:, k] for k, c in enumerate(channels)}, {}, device, images=images)
        for average in sums:
            average.add(state.images[average.step.image])
        n_fields += len(fields.sites)
        left_out += [f"left out of the illumination functions: {p}" for p in fields.quarantined]
    if not n_fields:
        raise ValueError(f"{plate.barcode}: no field to make illumination functions from: {left_out[0]}")
    output: dict[str, Image] = {}
    for average in sums:
        output |= average.function(device)
    return output, n_fields, left_out


def leading(steps: Sequence[kinds.Step], to: Sequence[kinds.Step]) -> list[kinds.Step]:
    """The steps that make what `to` read, in their order, without `to`."""
    wanted = {name for step in to for name in needs(step)}
    result: list[kinds.Step] = []
    for step in reversed(steps):
        if step not in to and makes(step) & wanted:
            result.append(step)
            wanted |= set(needs(step))
    return result[::-1]


def makes(step: kinds.Step) -> set[str]:
    """Images that a step makes."""
    names = ("image",) if isinstance(step, kinds.Load) else ("output", "average", "dilated")
    return {getattr(step, name, "") for name in names} - {""}


def needs(step: kinds.Step) -> list[str]:
    """Images that a step reads."""
    if isinstance(step, kinds.Load):
        return []
    names = [getattr(step, k, "") for k in ("image", "function", "mask", "like")] + list(getattr(step, "images", ()))
    return [n for n in names if n]
