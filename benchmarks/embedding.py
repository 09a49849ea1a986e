"""What crops, masks, normalisation and bookkeeping cost beside the network that they are for.

    python -m benchmarks.embedding [--repeats 15] [--json FILE]

A small network (three 3 x 3 convolutions of 16 channels, their maps' means) on crops of 96 x 96 in five channels, 64 at a
time: most networks take longer, so that the share is smaller. Both take the same cells of a drawn field; the network alone
gets crops that are there already. CPU seconds, interleaved, medians; one thread.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.kernels import Setting
from benchmarks.machine import machine, seconds, write_json
from jumpgpu.features.embedding import Crops, measure
from jumpgpu.features.objects import ObjectBatch
from jumpgpu.features.outline import areas
from jumpgpu.gpu.open import open_device
from jumpgpu.networks.models import load
from jumpgpu.settings.config import FeatureSettings
from jumpgpu.settings.names import CHANNELS
from jumpgpu.settings.networks import EmbeddingSettings, ModelSettings

CODE = """
import torch

def net():
    torch.manual_seed(0)
    layers = []
    for channels in (5, 16, 16):
        layers += [torch.nn.Conv2d(channels, 16, 3), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
"""
VARIANTS = {
    "by the plate": {"normalize": "fixed", "mean": (0.01,), "std": (0.01,)},
    "by the crop": {},
    "by the crop, masked": {"mask": "Cells"},
    "by the field": {"normalize": "field"},
    "by the crop, from 160 pixels": {"crop": 160.0, "size": 96},
}


def own_batch(batch: ObjectBatch) -> ObjectBatch:
    """The batch with what other families have made of it by then: outlines, which every run with shape or location needs."""
    return dataclasses.replace(batch, derived={k: v for k, v in batch.derived.items() if k in ("outlines", "areas")})


def figures(repeats: int, size: int, cells: int) -> list[dict[str, float | str | int]]:
    device = open_device("cpu", 1)
    batch = Setting(device, size, cells).batch(("Cells", "Nuclei", "Cytoplasm"), CHANNELS)
    areas(batch, device)
    rows: list[dict[str, float | str | int]] = []
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "net.py"
        code.write_text(CODE)
        base = ModelSettings(name="net", model=f"{code}:net", channels=CHANNELS)
        for name, change in VARIANTS.items():
            model = dataclasses.replace(base, **change)  # type: ignore[arg-type]
            settings = FeatureSettings(embedding=EmbeddingSettings((model,)))
            network, n = load(model, device.torch), batch.objects.n
            crops = [Crops(batch, model, device).part(i, i + 64) for i in range(0, n, 64)]
            alone, whole = [], []
            for _ in range(repeats):
                alone.append(seconds(lambda: [network(c) for c in crops], 1, warm_up=0).median)  # noqa: B023
                whole.append(seconds(lambda: measure(own_batch(batch), settings, device), 1, warm_up=0).median)  # noqa: B023
            ratio = statistics.median(w / a for w, a in zip(whole[1:], alone[1:], strict=True))
            rows.append(
                {
                    "crops": name,
                    "cells": n,
                    "network_s": statistics.median(alone[1:]),
                    "family_s": statistics.median(whole[1:]),
                    "overhead_percent": 100 * (ratio - 1),
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", type=int, default=1080, help="pixels a side of the drawn field")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = figures(max(2, args.repeats), args.size, max(2, args.size**2 * 150 // 1080**2))
    for row in rows:
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print("  ".join(f"{k} {v}" for k, v in values.items()))
    if args.json:
        write_json(args.json, {"machine": machine(), "size": args.size, "rows": rows})
    return 0 if np.isfinite([float(r["overhead_percent"]) for r in rows]).all() else 1


if __name__ == "__main__":
    raise SystemExit(main())
