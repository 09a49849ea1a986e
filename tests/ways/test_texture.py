"""Texture's kernels give the same bits in every way there is to run them, whole matrices and row tiles alike."""

import pytest
import torch

from jumpgpu.features import texture
from jumpgpu.features.objects import make_batch
from jumpgpu.settings.config import FeatureSettings, TextureSettings


def work(device, *, levels, spread, channels=1):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(2, channels, 15, 19, generator=generator) * spread + 0.2
    labels = torch.zeros(2, 15, 19, dtype=torch.int32)
    labels[0, 0:9, 2:12] = 1
    labels[0, 9:14, 5:19] = 2
    labels[1, 3 : 3 + channels, 3 : 3 + channels] = 1  # two channels: boxes and margins of an odd total of pixels
    labels[1, 4:14, 8:17] = 2
    pixels[1, 0, 4:14, 8:17] = 0.5
    names = ("DNA", "RNA")[:channels]
    batch = make_batch(names, device.tensor(pixels), {"Cells": device.tensor(labels)}, {}, device)
    return texture.measure(batch, FeatureSettings(texture=TextureSettings(scales=(1, 3), levels=levels)), device)


def test_texture_with_whole_matrices(way):
    way.check(lambda device: work(device, levels=256, spread=0.06))


def test_texture_of_two_channels_stores_aligned_words(way):
    way.check(lambda device: work(device, levels=256, spread=0.06, channels=2))


def test_texture_with_one_direction_at_a_time(way):
    way.check(lambda device: work(device, levels=256, spread=0.2))


def test_texture_with_row_tiles(way):
    way.check(lambda device: work(device, levels=256, spread=0.8))


def nested(device, size=(26, 31), spread=(0.03, 0.05)):
    """Cells with nuclei in them, one without cytoplasm, one whose masks do not nest, one that leaves no pixel to count."""
    height, width = size
    generator = torch.Generator().manual_seed(8)
    pixels = torch.rand(2, len(spread), height, width, generator=generator) * torch.tensor(spread)[:, None, None] + 0.1
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells, nuclei = (torch.zeros(2, height, width, dtype=torch.int32) for _ in range(2))
    outline = torch.zeros(2, height, width, dtype=torch.bool)
    for field, number, cy, cx, wide, narrow in (
        (0, 1, height // 3, width // 3, height // 3, height // 6),
        (0, 2, height - 5, width - 6, 5, 5),
        (1, 1, height // 2, 4, 6, 3),
        (1, 2, height // 2, width - 7, 7, 4),
    ):
        far = (y - cy) ** 2 + (x - cx) ** 2
        cells[field][(far < wide**2) & (cells[field] == 0)] = number
        nuclei[field][far < narrow**2] = number
        outline[field] |= (far < narrow**2) & (far >= (narrow - 1) ** 2)
    nuclei[1, 0, 20:24] = 2  # outside its cell
    pixels[0, 0, cells[0] == 2] = 0.0
    pixels[1, :, nuclei[1] > 0] *= 1.5
    cytoplasm = torch.where((nuclei > 0) & ~outline, 0, cells)
    labels = {"Cells": cells, "Cytoplasm": cytoplasm, "Nuclei": nuclei}
    return make_batch(
        [f"C{c}" for c in range(len(spread))],
        device.tensor(pixels),
        {k: device.tensor(v) for k, v in labels.items()},
        {},
        device,
    )


@pytest.mark.parametrize("together", [True, False])
def test_texture_of_the_compartments_of_cells(way, together):
    settings = TextureSettings(scales=(1, 3))

    def work(device):
        batch = nested(device)
        counts = texture.count(batch, settings, device, together=together)
        return counts.totals, counts.moment, counts.highest, texture.finish(batch, counts, device)

    way.check(work)


@pytest.mark.parametrize(("levels", "size"), [(256, (130, 150)), (64, (130, 150)), (256, (330, 360))])
def test_one_count_a_cell_sums_what_one_count_an_object_sums(device, levels, size):
    settings = TextureSettings(scales=(3, 5), levels=levels)
    batch = nested(device, size=size, spread=(0.005, 0.1, 0.4, 0.9))
    if size[0] > 300:  # its counts need more than 16 bits
        assert batch.objects.largest >= 1 << 15
    one, other = (texture.count(batch, settings, device, together=together) for together in (True, False))
    for name in ("totals", "moment", "highest"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
