"""The seeded watershed in the order (value, raster index): kernels/segmentation/watershed.cu over basins."""

import torch

from ..gpu.device import Device
from .basins import FOREST_BLOCK, bands, check_plane, find_basins, tall_bands

LARGEST_RANK = 1 << 24  # integers that float32 holds


def watershed(
    values: torch.Tensor, mask: torch.Tensor, seeds: torch.Tensor, device: Device, connectivity: int = 8
) -> torch.Tensor:
    """Flood every field from its seeds, lowest values first; equal values in raster order.

    Parameters
    ----------
    values : float32 or float64 [B, H, W]
        Height; no NaN. float64 values are replaced by their dense ranks within the mask of the batch, which costs a sort.
    mask : bool [B, H, W]
        What may be flooded; seeds outside it do not count.
    seeds : int32 [B, H, W]
        Labels to start from, positive; 0 is none. Several pixels may have the same label.
    connectivity : int
        4 or 8 neighbours.

    Returns
    -------
    int32 [B, H, W]
        The seeds' labels; 0 outside the mask and where no seed reaches.

    Notes
    -----
    scikit-image's `watershed` with the same markers, mask and connectivity differs only where values are equal: there it
    takes the pixel that entered its queue first, this the first in raster order.
    """
    fields, height, width = values.shape
    check_plane(height, width)
    for name, tensor in (("mask", mask), ("seeds", seeds)):
        if tensor.shape != values.shape:
            raise ValueError(f"watershed: {name} is {tuple(tensor.shape)}, values are {tuple(values.shape)}")
    key = device.empty(fields, height + 2, width + 2, dtype=torch.uint32)
    if values.dtype == torch.float64:
        values = ranks(values, mask)
    device.launch(
        "watershed_keys",
        bands(fields, height + 2),
        values=values.contiguous(),
        mask=mask.contiguous().view(torch.uint8),
        height=height,
        width=width,
        key=key,
    )
    return flood(key, seeds, device, connectivity)


def flood(key: torch.Tensor, seeds: torch.Tensor, device: Device, connectivity: int = 8) -> torch.Tensor:
    """`watershed` of framed keys, uint32 [B, H + 2, W + 2]: 0xffffffff in the frame and outside the mask."""
    fields, height, width = seeds.shape
    check_plane(height, width)
    basins = find_basins(key, connectivity, device)
    size = {"height": height, "width": width}
    reached = torch.full((fields, basins.capacity), -1, dtype=torch.int64, device=device.torch).view(torch.uint64)
    seeds = seeds.contiguous()
    device.launch(
        "watershed_seed",
        bands(fields, height),
        key=key,
        basin=basins.basin,
        seeds=seeds,
        **size,
        capacity=basins.capacity,
        reached=reached,
    )
    device.launch(
        "watershed_flood",
        fields,
        block=FOREST_BLOCK,
        **basins.forest(),
        capacity=basins.capacity,
        reached=reached,
    )
    link = device.empty(fields, height + 2, width + 2, dtype=torch.int32)
    device.launch(
        "watershed_link",
        bands(fields, height),
        key=key,
        basin=basins.basin,
        seeds=seeds,
        reached=reached,
        **size,
        connectivity=connectivity,
        capacity=basins.capacity,
        link=link,
    )
    labels = device.empty(fields, height, width, dtype=torch.int32)
    grid, rows = tall_bands(fields, height, device)
    device.launch("watershed_settle", grid, **size, **rows, link=link, labels=labels)
    return labels


def ranks(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """float32 [B, H, W]: the dense rank of each float64 value within its field's mask; 0 outside."""
    if values[0].numel() > LARGEST_RANK:
        raise ValueError(
            f"float64 values of {tuple(values.shape[1:])} pixels have too many ranks for float32; pass float32 values"
        )
    out = torch.zeros(values.shape, dtype=torch.float32, device=values.device)
    for field, inside in enumerate(mask):
        ordered = torch.sort(values[field][inside])
        steps = torch.zeros(ordered.indices.shape, dtype=torch.float64, device=values.device)
        steps[1:] = ordered.values[1:] != ordered.values[:-1]
        rank = torch.empty_like(steps)
        rank[ordered.indices] = torch.cumsum(steps, 0)
        out[field][inside] = rank.float()
    return out
