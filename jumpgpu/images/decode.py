"""Raw images from what their files hold, on the device: LZW strips decoded, pixels put in their place, all of them counted.

What `image_files.load` took of the files of a batch goes in; pixels come out, and in whole numbers what `focus.py` judges
by, equal to the host's. Nothing here waits for the device: `read_results` is for when the caller has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..gpu.device import Device
from .focus import EVERY, FULL, Counts
from .lzw import decode_strips
from .strips import Strips

COUNTS = 9  # of an image (decode.cu)
SWAP, PREDICT = 1, 2
IN_PLACE = -1


@dataclass(frozen=True)
class Loaded:
    """One image's bytes in a batch's.

    image : its number in pixels [B, C]
    at : its first byte
    strips : its LZW strips, by their places from there; None where they are pixels, lowest byte first
    top : count from which a pixel is saturated
    """

    image: int
    at: int
    strips: Strips | None
    top: int = FULL


@dataclass(frozen=True)
class Results:
    """What is known of a batch's images once the device has come so far.

    decoded : numbers of the images whose strips gave exactly their pixels, or that had none
    counts : of those, by number
    same : of pairs of images of a field whose least and greatest counts agree, those that are equal: (field, d, c), d < c
    """

    decoded: frozenset[int]
    counts: dict[int, Counts]
    same: frozenset[tuple[int, int, int]]


def make_images(
    data: torch.Tensor, images: Sequence[Loaded], shape: tuple[int, int, int, int], device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and results of a batch's images, launched and not waited for.

    Parameters
    ----------
    data : uint8 [D], on the device, `lzw.BEYOND` bytes longer than the last image's end
    shape : B, C, H, W

    Returns
    -------
    pixels : uint16 [B, C, H, W]; undefined where no image was loaded, and where one is not among `Results.decoded`
    results : int64, one after the other: counts [B * C, 9], pairs that differ [B, C * (C - 1) / 2], status [S] of the strips
    """
    fields, channels, height, width = shape
    pixels = device.empty(*shape, dtype=torch.uint16)
    strips = strips_of(images, 2 * height * width)
    n_counts, n_pairs = fields * channels * COUNTS, fields * (channels * (channels - 1) // 2)
    results = device.zeros(n_counts + n_pairs + len(strips), dtype=torch.int64)
    decode_strips(data, strips, pixels.view(torch.uint8), results[n_counts + n_pairs :], device)
    size = {"height": height, "width": width}
    groups = -(-height // EVERY)
    if len(places := places_of(images)):
        device.launch("raw_place", len(places) * groups, data=data, places=device.tensor(places), pixels=pixels, **size)
    if images:
        given = device.tensor(np.array([(i.image, i.top) for i in images], np.int64))
        counts = results[:n_counts].view(torch.uint64)
        device.launch("raw_counts", len(images) * groups, given=given, pixels=pixels, counts=counts, **size)
        differs = results[n_counts : n_counts + n_pairs]
        device.launch("raw_same", n_pairs * groups, pixels=pixels, counts=counts, channels=channels, differs=differs, **size)
    return pixels, results


def strips_of(images: Sequence[Loaded], n_bytes: int) -> np.ndarray:
    """All strips, int64 [S, 4] as `lzw.decode_strips` takes them; an image has so many bytes of pixels."""
    given = [(i.strips.places, i.at, i.image * n_bytes) for i in images if i.strips]
    result = np.concatenate([np.zeros((0, 4), np.int64), *(places for places, _, _ in given)])
    moved = np.array([place for _, *place in given], np.int64).reshape(-1, 2)
    result[:, [0, 2]] += moved.repeat([len(places) for places, _, _ in given], axis=0)
    return result


def places_of(images: Sequence[Loaded]) -> np.ndarray:
    """What raw_place has to do, int64 [M, 3]: nothing for an image of strips that give its pixels as they are."""
    rows = []
    for i in images:
        todo = SWAP * i.strips.swap + PREDICT * i.strips.predict if i.strips else 0
        if todo or not i.strips:
            rows.append((i.image, IN_PLACE if i.strips else i.at, todo))
    return np.array(rows, np.int64).reshape(-1, 3)


def read_results(results: np.ndarray, images: Sequence[Loaded], shape: tuple[int, int, int, int]) -> Results:
    """`make_images`'s results, as they are on the host."""
    fields, channels, height, width = shape
    n_counts, pairs = fields * channels * COUNTS, channels * (channels - 1) // 2
    status = results[n_counts + fields * pairs :]
    decoded, end = set(), 0
    for i in images:
        begin, end = end, end + (len(i.strips.places) if i.strips else 0)
        if not status[begin:end].any():
            decoded.add(i.image)
    counts = {}
    table = results[:n_counts].reshape(-1, COUNTS).tolist()
    tops = {i.image: i.top for i in images}
    for n in decoded:
        below, high, zero_rows, full, a, b, c, ab, ac = table[n]
        low = FULL - below
        counts[n] = Counts((height, width), low, high, zero_rows * (low == 0 < high), full, (a, b, c, ab, ac), tops[n])
    differs = results[n_counts : n_counts + fields * pairs].reshape(fields, pairs)
    numbers = [(d, c) for c in range(channels) for d in range(c)]
    same = {(int(f), *numbers[p]) for f, p in np.argwhere(differs == 0)}
    return Results(frozenset(decoded), counts, frozenset(same))
