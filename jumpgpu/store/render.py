"""Pictures of fields: channels as colours, outlines of the objects on top."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

from ..settings.names import BRIGHTFIELD

COLOURS = {  # light added to red, green and blue by a channel at full brightness
    "DNA": (0.1, 0.3, 0.9),
    "ER": (0.0, 0.5, 0.2),
    "RNA": (0.3, 0.3, 0.0),
    "AGP": (0.7, 0.3, 0.0),
    "Mito": (0.6, 0.0, 0.3),
}
SPARE = ((0.0, 0.6, 0.6), (0.7, 0.6, 0.0), (0.5, 0.2, 0.8), (0.9, 0.2, 0.2))  # for channels of other names
DIMMED = 0.6
OUTLINES = {"Nuclei": (90, 190, 255), "Cells": (255, 255, 255)}  # drawn in this order


def composite(field: np.ndarray, channels: Sequence[str], limits: np.ndarray | None = None) -> np.ndarray:
    """Channels as colours, added up.

    Parameters
    ----------
    field : real [C, H, W]
    channels : names of its C axis
    limits : float [C, 2]
        What becomes black and full brightness; each channel's 1 % and 99.7 % where None.

    Returns
    -------
    uint8 [H, W, 3]
    """
    light = np.zeros((*field.shape[1:], 3))
    known = colours(channels)
    for image, channel, limit in zip(field, channels, limits_of(field) if limits is None else limits, strict=True):
        scaled = np.clip((image - limit[0]) / max(limit[1] - limit[0], 1e-12), 0, 1)
        light += scaled[..., None] * np.array(known[channel])
    light /= np.maximum(light.max(axis=2, keepdims=True), 1)  # where channels add up to more than white, the hue stays
    return np.rint(light * 255).astype(np.uint8)


def colours(channels: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Channel -> the light that it adds; brightfield is white, names that are none of the five take spare colours in turn.

    Beside DNA the others are dimmed, so that nuclei stay blue where every stain is bright.
    """
    others = [c for c in channels if c not in COLOURS and c not in BRIGHTFIELD]
    spare = {c: SPARE[i % len(SPARE)] for i, c in enumerate(others)}
    lights: dict[str, tuple[float, ...]] = {c: COLOURS.get(c) or spare.get(c, (1.0, 1.0, 1.0)) for c in channels}
    if "DNA" in lights and len(lights) > 1:
        lights = {c: light if c == "DNA" else tuple(DIMMED * v for v in light) for c, light in lights.items()}
        lights["DNA"] = (0.1, 0.35, 1.0)
    return lights


def fluorescent(channels: Sequence[str]) -> list[str]:
    """The channels that are shown where nobody chose: all but brightfield, or brightfield where there is no other."""
    return [c for c in channels if c not in BRIGHTFIELD] or list(channels)


def limits_of(field: np.ndarray) -> np.ndarray:
    """Each channel's 1 % and 99.7 %, float [C, 2]."""
    return np.percentile(field.reshape(len(field), -1), [1, 99.7], axis=1).T


def scale_bar(width: float, pixel_um: float | None) -> tuple[float, str]:
    """A bar of a fifth of an image's width or less: its length in pixels, and what it says; pixels where um are unknown."""
    unit = pixel_um or 1.0
    maximum = 0.2 * width * unit
    power = 10.0 ** np.floor(np.log10(maximum))
    length = next(step * power for step in (5, 2, 1) if step * power <= maximum)
    return length / unit, f"{length:g} {'µm' if pixel_um else 'px'}"


def outline(image: np.ndarray, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 [H, W, 3] with the inner boundary of every nucleus and cell drawn; labels int32 [H, W]."""
    drawn = image.copy()
    for compartment, colour in OUTLINES.items():
        if compartment in labels:
            drawn[boundary(labels[compartment])] = colour
    return drawn


def boundary(labels: np.ndarray) -> np.ndarray:
    """bool [H, W]: labelled pixels beside a pixel of another label (4 neighbours)."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (labels != 0)


def outlines_url(labels: Mapping[str, np.ndarray], size: tuple[int, int]) -> str:
    """The outlines alone, as a PNG of `size` that is transparent elsewhere; labels int32 [H, W] of any size."""
    from PIL import Image

    drawn = np.zeros(size, np.uint8)
    for number, compartment in enumerate(OUTLINES, 1):
        if compartment in labels:
            drawn[boundary(resampled(labels[compartment], size))] = number
    picture = Image.fromarray(drawn)  # with a palette its numbers are those of colours
    picture.putpalette([0, 0, 0, *(value for colour in OUTLINES.values() for value in colour)])
    buffer = io.BytesIO()
    picture.save(buffer, "png", transparency=0, bits=2, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def resampled(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [H, W] at another size: of each pixel the label nearest to its centre."""
    rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows.astype(int), columns.astype(int))]


def enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [h, w, 3] at another size, smoothly."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def data_url(image: np.ndarray, kind: str = "webp", quality: int = 72) -> str:
    """A picture as text that a page can hold: uint8 [H, W] or [H, W, 3] as WebP or PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"quality": quality, "method": 4} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
