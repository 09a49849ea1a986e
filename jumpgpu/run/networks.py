"""Networks in a plate's run: checked and loaded before anything is written, and told what only the plate knows."""

import contextlib
import dataclasses

import numpy as np
import torch

from ..cli.options import Options
from ..features.embedding import check, resolved
from ..gpu.device import Device
from ..images.illumination import correct
from ..images.plate import Plate
from ..images.reader import read_fields
from ..networks.crops import count_fields, moments
from ..networks.models import load

Statistics = dict[str, tuple[float, float]]  # channel -> mean and deviation over the plate


def check_networks(plate: Plate, options: Options) -> None:
    """ValueError for what the plate has not: a channel, a pixel size."""
    embedding = options.config.features.embedding
    if options.config.steps and embedding.models:
        raise ValueError(
            f"{plate.barcode}: an imported pipeline ([[steps]]) measures its own columns; features.embedding.models has "
            f"{embedding.models[0].name!r}: leave one of them out"
        )
    check(embedding, plate.channels, plate.pixel_um)


def with_networks(plate: Plate, options: Options, illumination: torch.Tensor, device: Device) -> tuple[Options, Statistics]:
    """Options whose crops are in pixels and normalised by known numbers, and the plate's statistics where models want them.

    illumination : float32 [C, H, W] on the device
    """
    embedding = options.config.features.embedding
    if not embedding.models:
        return options, {}
    asking = [m for m in embedding.models if m.normalize == "plate"]
    names = sorted({c for m in asking for c in m.channels})
    statistics = plate_statistics(plate, names, embedding.plate_fields, illumination, device) if names else {}
    embedding = resolved(embedding, plate.pixel_um, statistics)
    for model in embedding.models:
        load(model, device.torch)
    features = dataclasses.replace(options.config.features, embedding=embedding)
    config = dataclasses.replace(options.config, features=features)
    return dataclasses.replace(options, config=config), statistics


def plate_statistics(
    plate: Plate, names: list[str], n_fields: int, illumination: torch.Tensor, device: Device
) -> Statistics:
    """Mean and deviation of corrected pixels of channels, over fields spread evenly over the plate, whichever wells are run.

    Of 16-bit counts, so that the sums are exact. ValueError where none of these fields can be read.
    """
    sites = plate.select()
    places = np.unique(np.linspace(0, len(sites) - 1, min(n_fields, len(sites))).round().astype(int))
    channel = device.tensor([plate.channels.index(c) for c in names], torch.int32)
    total = device.zeros(len(names), 3, dtype=torch.int64)
    problem = None
    for site in (sites[i] for i in places):
        fields = read_fields(plate, wells=[site.well], sites=[site.site], batch=1, workers=0, device=device)
        with contextlib.closing(fields):
            for batch in fields:
                problem = problem or next(iter(batch.quarantined), None)
                if len(batch.pixels):
                    pixels = correct(batch.pixels, illumination, device=device, scales=batch.scales)
                    total += count_fields(pixels, channel, device).sum(0)
    if not int(total[:, 0].min()):
        raise ValueError(
            f"{plate.barcode}: no field to normalise crops by (normalize = plate); the first problem is {problem}"
        )
    mean, deviation = (t.tolist() for t in moments(total))
    return dict(zip(names, zip(mean, deviation, strict=True), strict=True))
