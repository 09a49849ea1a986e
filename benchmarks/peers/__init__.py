"""Peers: other tools on the same fields, each in a virtual environment of its own.

    benchmarks/peers/setup cp_measure         makes build/peers/cp_measure once (pip must reach a package index)
    benchmarks/peers/setup openhcs            and nyxus, cp_measure_numba; cellprofiler too, with
                                              Python 3.9 and a JDK (the script says more)

A peer is a script `benchmarks/peers/<peer>.py` that its environment's Python runs with one argument, an .npz file of
`pixels` (float32 [B, C, H, W], corrected), `channels`, and int32 [B, H, W] label images `Cells`, `Cytoplasm`, `Nuclei`;
it prints a JSON object with `cpu_s_a_field`, `modules` (seconds of processor a field by module), `tool` and `version`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import run_command
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings.config import load_config

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / "build" / "peers"
PEERS = ("cellprofiler", "cp_measure", "cp_measure_numba", "nyxus", "openhcs")


def run_peer(peer: str, images: str, plate_name: str, illumination: str, n_fields: int) -> dict[str, Any]:
    """The peer's figures on the plate's first fields; FileNotFoundError where its environment was not made."""
    python = ENVIRONMENTS / peer / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError(f"no environment for {peer}; run benchmarks/peers/setup {peer}")
    config, device = load_config("cpjump1"), open_device("cpu")
    plate = find_plate(plate_name, images, config.plate)
    with tempfile.TemporaryDirectory() as folder:
        functions = open_illumination(
            plate, illumination, device=device, settings=config.illumination, folder=Path(folder), batch=4, workers=None
        )
        pixels, labels = [], {}
        for fields in read_fields(plate, batch=4):
            corrected = correct(fields.pixels, torch.as_tensor(functions.functions), device=device)
            pixels.append(corrected.numpy())
            for name, image in segment(corrected, plate.channels, config.segmentation, device).labels.items():
                labels.setdefault(name, []).append(image.numpy())
        path = Path(folder) / "fields.npz"
        np.savez(
            path,
            pixels=np.concatenate(pixels)[:n_fields],
            channels=np.array(plate.channels),
            **{k: np.concatenate(v)[:n_fields] for k, v in labels.items()},
        )
        return json.loads(run_command([python, "-I", HERE / f"{peer}.py", path]).output.splitlines()[-1])
