"""Which steps are about the plate's illumination functions, and which about each field.

A function over all images needs a pass over the plate before any field can be divided by it. Steps that lead to one, and
what becomes of it afterwards, are done in that pass; the fields' steps load what comes out.
"""

from collections.abc import Collection, Sequence

from ..settings import steps as kinds
from ..settings.config import STEP_KINDS

IMAGE_STEPS = tuple(kind for kind in STEP_KINDS.values() if kind.makes == "image")
MAKING = tuple(kind for kind in STEP_KINDS.values() if kind.makes)  # some of them measure something too


def split(steps: Sequence[kinds.Step], saved: Collection[str]) -> tuple[list[kinds.Step], list[kinds.Step]]:
    """Steps of the plate's functions, each ending in a `KeepFunction`, and steps of each field.

    saved : images that the pipeline writes; of several that come from a channel the last written one is its function.
    """
    output = plate_images(steps)
    if not output:
        return [], list(steps)
    fields: list[kinds.Step] = []
    used: list[str] = []
    for step in steps:
        if outputs_of(step) & output.keys():
            continue
        for name in sorted(inputs_of(step) & output.keys()):
            if name not in used:
                used.append(name)
                fields.append(kinds.Load(name, output[name], function=True))
        fields.append(step)
    inner = {name for step in steps if outputs_of(step) & output.keys() for name in inputs_of(step)}
    leaves = [name for name in output if name not in inner]
    kept: dict[str, str] = {}
    for name in [*leaves, *(n for n in output if n in saved), *used]:  # the last of a channel counts
        kept[output[name]] = name
    keep = [kinds.KeepFunction(name, channel) for channel, name in kept.items()]
    before = [step for step in steps if isinstance(step, MAKING)]
    return pruned([*before, *keep], MAKING), fields


def plate_images(steps: Sequence[kinds.Step]) -> dict[str, str]:
    """Images that are the plate's, not a field's, and the channel that each comes from."""
    output: dict[str, str] = {}
    channels: dict[str, str] = {}
    for step in steps:
        if isinstance(step, kinds.Load):
            channels[step.image] = step.channel
            continue
        inputs, outputs = inputs_of(step), outputs_of(step)
        channel = next((channels[n] for n in inputs if n in channels), "")
        channels |= dict.fromkeys(outputs, channel)
        over_all = isinstance(step, kinds.Illumination) and step.plate
        of_objects = getattr(step, "objects", "")  # which only a field has
        if over_all or (isinstance(step, MAKING) and inputs and inputs <= output.keys() and not of_objects):
            output |= dict.fromkeys(outputs, channel)
    return output


def pruned(steps: Sequence[kinds.Step], droppable: tuple[type[kinds.Step], ...] = IMAGE_STEPS) -> list[kinds.Step]:
    """The steps without images that nothing needs."""
    needed: set[str] = set()
    result = []
    for step in reversed(steps):
        if isinstance(step, droppable) and not outputs_of(step) & needed:
            continue
        needed |= inputs_of(step)
        result.append(step)
    return result[::-1]


def outputs_of(step: kinds.Step) -> set[str]:
    """Images that a step makes; nothing of steps that make none."""
    if isinstance(step, kinds.Load):
        return {step.image}
    if not isinstance(step, MAKING):
        return set()
    result: set[str] = {step.output}
    return result | {getattr(step, name, "") for name in ("average", "dilated")} - {""}


def inputs_of(step: kinds.Step) -> set[str]:
    """Images and image measurements that a step reads."""
    result: set[str] = set()
    if isinstance(step, kinds.Load):
        return result
    for name in ("image", "images", "function", "mask", "like", "measurements", "measured_threshold"):
        value = getattr(step, name, "")
        result |= {value} if isinstance(value, str) else set(value)
    return result - {""}
