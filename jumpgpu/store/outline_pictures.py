"""Pictures of fields, to look at and for talks: channels in grey or colours, outlines, a scale bar; as PNG or SVG."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .render import boundary, composite, limits_of, scale_bar

NUCLEUS, CELL = (255, 64, 255), (64, 255, 64)  # colours of outlines
GAP = 8  # pixels between panels
FORMATS = ("png", "svg")


@dataclass(frozen=True)
class PictureStyle:
    """What a picture shows.

    channels : the cells' channel in grey where empty; one in grey, several as colours added up
    panels : every channel in grey beside the next, and all as colours last
    format : "png", or "svg" with outlines as paths and the words as text
    """

    channels: tuple[str, ...] = ()
    panels: bool = False
    format: str = "png"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"unknown picture format {self.format!r}; expected one of {', '.join(FORMATS)}")

    def check(self, barcode: str, channels: Sequence[str]) -> None:
        """ValueError for a channel that a plate has not."""
        if unknown := [c for c in self.channels if c not in channels]:
            raise ValueError(f"{barcode} has no channel {unknown[0]!r} to show; it has {', '.join(channels)}")


def draw(
    field: np.ndarray,
    channels: Sequence[str],
    labels: Mapping[str, np.ndarray],
    style: PictureStyle,
    pixel_um: float | None = None,
    usual: str = "RNA",
) -> bytes:
    """A field as a PNG's or an SVG's bytes.

    Parameters
    ----------
    field : float [C, H, W]
    labels : compartment -> int32 [H, W]; nuclei are outlined in magenta, cells in green, what is absent is not
    usual : the channel shown where the style names none
    """
    shown = list(style.channels) or [usual]
    images = {c: field[list(channels).index(c)] for c in shown}
    panels = [(c, grey(image)) for c, image in images.items()] if style.panels or len(shown) == 1 else []
    if len(shown) > 1:
        stack = np.stack(list(images.values()))
        panels.append(("composite" if style.panels else ", ".join(shown), composite(stack, shown, limits_of(stack))))
    bar = scale_bar(field.shape[2], pixel_um)
    return as_svg(panels, labels, bar) if style.format == "svg" else as_png(panels, labels, bar)


def grey(image: np.ndarray) -> np.ndarray:
    """float [H, W] to uint8 [H, W, 3], from 0 to its 99.8 % quantile."""
    top = float(np.quantile(image, 0.998)) or 1.0
    return np.repeat((np.clip(image / top, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def outlined(image: np.ndarray, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 [H, W, 3] with the outlines drawn, nuclei last."""
    drawn = image.copy()
    for compartment, colour in (("Cells", CELL), ("Nuclei", NUCLEUS)):
        if compartment in labels:
            drawn[boundary(labels[compartment])] = colour
    return drawn


def as_png(panels: Sequence[tuple[str, np.ndarray]], labels: Mapping[str, np.ndarray], bar: tuple[float, str]) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    height, width = panels[0][1].shape[:2]
    sheet = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), "white")
    size = max(8, height // 36)
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(sheet)
    for i, (name, image) in enumerate(panels):
        sheet.paste(Image.fromarray(outlined(image, labels)), (i * (width + GAP), 0))
        if len(panels) > 1:
            pen.text((i * (width + GAP) + size // 2, size // 3), name, "white", font, stroke_width=1, stroke_fill="black")
    right, low = sheet.width - 0.03 * width, 0.96 * height
    pen.rectangle((right - bar[0], low, right, low + max(2, height // 200)), "white")
    middle = right - bar[0] / 2
    pen.text((middle, low - 2), bar[1], "white", font, anchor="mb", stroke_width=1, stroke_fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "png")
    return buffer.getvalue()


def as_svg(panels: Sequence[tuple[str, np.ndarray]], labels: Mapping[str, np.ndarray], bar: tuple[float, str]) -> bytes:
    from PIL import Image

    height, width = panels[0][1].shape[:2]
    size, whole = max(8, height // 36), len(panels) * (width + GAP) - GAP
    style = f'font-family="sans-serif" font-size="{size}" fill="white" stroke="black" stroke-width="2" paint-order="stroke"'
    paths = "".join(
        f'<path id="{compartment}{{i}}" d="{outline_path(labels[compartment])}" fill="none" stroke="rgb{colour}"/>'
        for compartment, colour in (("Cells", CELL), ("Nuclei", NUCLEUS))
        if compartment in labels
    )
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{height}" viewBox="0 0 {whole} {height}">']
    for i, (name, image) in enumerate(panels):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<g transform="translate({i * (width + GAP)} 0)">')
        parts.append(f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/>')
        parts.append(paths.format(i=i + 1))
        parts.append(f'<text x="{size // 2}" y="{size + 2}" {style}>{escape(name)}</text></g>')
    right, low = whole - 0.03 * width, 0.96 * height
    parts.append(
        f'<rect x="{right - bar[0]:.1f}" y="{low:.1f}" width="{bar[0]:.1f}" height="{max(2, height // 200)}" fill="white"/>'
    )
    parts.append(
        f'<text x="{right - bar[0] / 2:.1f}" y="{low - 4:.1f}" text-anchor="middle" {style}>{escape(bar[1])}</text></svg>'
    )
    return "\n".join(parts).encode()


def outline_path(labels: np.ndarray) -> str:
    """The outlines of every object of int32 [H, W] as an SVG path, along the middle of its outer pixels' edges."""
    from scipy.ndimage import find_objects
    from skimage.measure import find_contours

    moves = []
    for number, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        inside = np.pad((labels[box] == number).astype(float), 1)
        for contour in find_contours(inside, 0.5):
            points = contour - 0.5 + [box[0].start, box[1].start]  # of pixel centres; SVG counts from their corners
            moves.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points) + "Z")
    return "".join(moves)
