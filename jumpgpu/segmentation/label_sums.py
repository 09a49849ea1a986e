"""Whole-number sums over label images: pixels and places of every object, and what objects of two sets share."""

import torch

from ..gpu.device import Device


def label_sums(labels: torch.Tensor, capacity: int, device: Device) -> torch.Tensor:
    """Pixels, sum of x and sum of y of each label 0 .. capacity - 1 of int32 [B, H, W]: int64 [B, capacity, 3], 0 of
    label 0."""
    b, h, w = labels.shape
    sums = device.zeros(b, capacity, 3, dtype=torch.int64)
    device.launch(
        "label_sums",
        b * h,
        labels=labels.contiguous(),
        height=h,
        width=w,
        capacity=capacity,
        sums=sums.view(torch.uint64),
    )
    return sums


def shared_pixels(first: torch.Tensor, second: torch.Tensor, rows: int, columns: int, device: Device) -> torch.Tensor:
    """Pixels of each pair of labels of two int32 [B, H, W] images, 0 .. rows - 1 and 0 .. columns - 1: int64 [B, rows,
    columns]; 0 where either is 0."""
    b, h, w = first.shape
    shared = device.zeros(b, rows, columns, dtype=torch.int32)
    device.launch(
        "shared_pixels",
        b * h,
        first=first.contiguous(),
        second=second.contiguous(),
        height=h,
        width=w,
        rows=rows,
        columns=columns,
        shared=shared.view(torch.uint32),
    )
    return shared.long()
