"""Small raw images of every kind as the device is given them, with the pixels that they stand for."""

from typing import Any

import numpy as np

from jumpgpu.images.decode import Loaded
from jumpgpu.images.strips import Strips
from tests.helpers.lzw_encoder import encode


def images(height: int, width: int) -> np.ndarray:
    """Two fields of four images [2, 4, H, W]: odd ones, copies, and two of the same range that differ in one pixel."""
    rng = np.random.default_rng([height, width])
    output = rng.poisson(900, (2, 4, height, width)).astype(np.uint16)
    output[0, 0] = 0
    output[0, 1, ::2] = 0
    output[0, 2] = 777
    output[0, 3, : height // 2 + 1] = 65535
    output[1, 2] = output[1, 0]
    output[1, 1] = output[1, 0]
    output[1, 1, -1, -1] ^= 1
    output[1, :3, 0, 0], output[1, :3, 0, width // 2] = 5, 60000
    return output


def loaded(pixels: np.ndarray, kinds: str, rows: int = 5) -> tuple[bytes, list[Loaded]]:
    """The images as bytes, and where each is: kinds "n" as they are, "l" LZW, "b" with bytes swapped, "p" of differences,
    "q" of both, in strips of so many rows, and "-" for one that was not loaded."""
    fields, channels, height, width = pixels.shape
    data, result = b"\x07" * 16, []
    for number, kind in zip(range(fields * channels), kinds, strict=True):
        image = pixels.reshape(-1, height, width)[number]
        if kind == "-":
            continue
        at, strips = len(data), None
        if kind == "n":
            data += image.astype("<u2").tobytes()
        else:
            if kind in "pq":
                image = np.diff(image, axis=1, prepend=np.zeros((height, 1), np.uint16))
            plain = image.astype(">u2" if kind in "bq" else "<u2").tobytes()
            places: list[list[Any]] = []
            for first in range(0, len(plain), 2 * rows * width):
                part = plain[first : first + 2 * rows * width]
                stream = encode(part, [50, 50, 50, 50, 50])
                places.append([len(data) - at, len(stream), first, len(part)])
                data += stream
            strips = Strips(np.array(places), kind in "bq", kind in "pq")
        result.append(Loaded(number, at, strips))
        data += b"\x07" * (-len(data) % 16)
    return data + bytes(16), result
