"""Pictures of fields: channels as colours, outlines of the objects on top."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = {  # light added to red, green and blue by a channel at full brightness
    "DNA": (0.1, 0.3, 0.9),
    "ER": (0.0, 0.5, 0.2),
    "RNA": (0.3, 0.3, 0.0),
    "AGP": (0.7, 0.3, 0.0),
    "Mito": (0.6, 0.0, 0.3),
}
OUTLINES = {"Nuclei": (90, 190, 255), "Cells": (255, 255, 255)}  # drawn in this order


def composite(field: np.ndarray, channels: Sequence[str], limits: np.ndarray | None = None) -> np.ndarray:
    """Channels as colours, added up.

    Parameters
    ----------
    field : real [C, H, W]
    channels : names of its C axis; those without a colour of their own are left out
    limits : float [C, 2]
        What becomes black and full brightness; each channel's 1 % and 99.7 % where None.

    Returns
    -------
    uint8 [H, W, 3]
    """
    light = np.zeros((*field.shape[1:], 3))
    for image, channel, limit in zip(field, channels, limits_of(field) if limits is None else limits, strict=True):
        if channel in COLOURS:
            scaled = np.clip((image - limit[0]) / max(limit[1] - limit[0], 1e-12), 0, 1)
            light += scaled[..., None] * np.array(COLOURS[channel])
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)


def limits_of(field: np.ndarray) -> np.ndarray:
    """Each channel's 1 % and 99.7 %, float [C, 2]."""
    return np.percentile(field.reshape(len(field), -1), [1, 99.7], axis=1).T


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
