"""Embeddings: what networks make of crops around cells, `Cells_Embedding_<model>_0001` and so on.

Crops are cut on the device (kernels/images/crops.cu) and handed to each network in batches. A cell without a pixel in the
compartment that the window is centred on, or that masks it, has nan. Between batch sizes and devices a network's values are
equal to rounding, not to the bit: its own library computes them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ..gpu.device import Device
from ..networks.crops import CropBatch, CropRule, count, count_fields, cut, moments, origins
from ..networks.models import Network, load, size_of, width
from ..settings.config import FeatureSettings
from ..settings.names import feature_name
from ..settings.networks import EmbeddingSettings, ModelSettings
from .objects import ObjectBatch
from .outline import areas

CELLS = "Cells"  # the compartment that has the columns


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment; the networks are loaded to know how many values they give."""
    if compartment != CELLS:
        return []
    return [name for model in settings.embedding.models for name in columns_of(model)]


def columns_of(model: ModelSettings) -> list[str]:
    n = width(model)
    words = [(model.name, group) if group else (model.name,) for group in model.groups]
    return [feature_name(CELLS, "Embedding", *word, f"{i:04d}") for word in words for i in range(1, n + 1)]


def places(names: Sequence[str]) -> dict[str, list[int]]:
    """Where each model's values (and channel's, where channels go by themselves) stand among columns."""
    result: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name.startswith(f"{CELLS}_Embedding_"):
            result.setdefault(name.removeprefix(f"{CELLS}_Embedding_").rpartition("_")[0], []).append(i)
    return result


def gaps(values: np.ndarray, where: dict[str, list[int]]) -> dict[str, tuple[int, bool]]:
    """By model, cells with a value that is not finite, and whether its network must have given it.

    A cell without a pixel in what centres or masks its crop has nan in all of a model's values, as any network may give.
    """
    result = {}
    for model, columns in where.items():
        own = values[:, columns]
        if n := int((lacking := ~np.isfinite(own).all(axis=1)).sum()):
            surely = n == len(own) > 1 or np.isinf(own).any() or not np.isnan(own[lacking]).all()
            result[model] = n, bool(surely)
    return result


def check(settings: EmbeddingSettings, channels: Sequence[str], pixel_um: float | None) -> None:
    """ValueError for a channel that the plate has not, or a crop whose size in pixels is not known."""
    for model in settings.models:
        model.side(pixel_um)
        if unknown := [c for c in model.channels if c not in channels]:
            raise ValueError(
                f"features.embedding: model {model.name!r}: channel {unknown[0]!r} is not of this plate, which has "
                f"{', '.join(channels)}"
            )


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: each model's values, channel by channel where channels go by themselves.

    Raises ValueError for what only a plate knows and `resolved` did not put in, and for networks that do not fit.
    """
    embedding = settings.embedding
    if CELLS not in batch.objects.compartments:
        raise ValueError(f"embeddings are of {CELLS}; the label images are of {', '.join(batch.objects.compartments)}")
    check(embedding, batch.channels, None)
    parts = [embed(batch, model, embedding.batch, device) for model in embedding.models]
    return torch.cat(parts, 1)


def embed(batch: ObjectBatch, model: ModelSettings, at_a_time: int, device: Device) -> torch.Tensor:
    """float64 [N, D], or [N, K * D] of K channels by themselves."""
    crops = Crops(batch, model, device)
    network = load(model, device.torch)
    parts = [crops_to_values(crops.part(i, i + at_a_time), network, model) for i in range(0, batch.objects.n, at_a_time)]
    wanted = width(model) * len(model.groups)
    if odd := next((p.shape[1] for p in parts if p.shape[1] != wanted), None):
        raise ValueError(f"model {model.name!r} gives {odd} values for some crops and {wanted} for others")
    values = torch.cat(parts) if parts else device.empty(0, len(columns_of(model)), dtype=torch.float32)
    return torch.where(crops.there[:, None], values.to(torch.float64), torch.nan)


def crops_to_values(crops: torch.Tensor, network: Network, model: ModelSettings) -> torch.Tensor:
    """float32 [N, D] or [N, K * D] of crops [N, K, S, S]."""
    if model.per_channel is None:
        return network(crops)
    n = model.per_channel
    return torch.cat([network(crops[:, k : k + 1].expand(-1, n, -1, -1)) for k in range(crops.shape[1])], 1)


class Crops:
    """The crops of all cells of a batch by a model's rule, cut a part at a time."""

    def __init__(self, batch: ObjectBatch, model: ModelSettings, device: Device) -> None:
        objects, names = batch.objects, batch.objects.compartments
        needed = [model.center] + ([model.mask] if model.mask != "none" else [])
        if lacking := [c for c in needed if c not in names]:
            raise ValueError(f"model {model.name!r} needs {lacking[0]}; the label images are of {', '.join(names)}")
        of = areas(batch, device).reshape(len(names), objects.n, 3)
        pixels, total_x, total_y = of[names.index(model.center)].unbind(1)
        side = model.side(None)
        self.model, self.device = model, device
        self.there = (of[[names.index(c) for c in needed], :, 0] > 0).all(0)
        self.rule = CropRule(
            side, size_of(model), model.resize, model.padding, model.mask != "none", model.precision == "float16"
        )
        self.channel = device.tensor([batch.channels.index(c) for c in model.channels], torch.int32)
        labels = batch.labels[needed[-1]].contiguous()
        corner = origins(torch.stack([total_y / pixels, total_x / pixels], 1), side)
        self.all = CropBatch(batch.pixels, labels, objects.field, objects.number, corner)
        self.of_fields = None
        if model.normalize == "field":
            self.of_fields = moments(count_fields(batch.pixels, self.channel, device))

    def part(self, start: int, stop: int) -> torch.Tensor:
        """Crops of the cells from `start` to `stop`: [n, K, S, S]."""
        batch = self.all.part(start, stop)
        mean, deviation = self.statistics(batch)
        return cut(batch, self.channel, mean, deviation, self.rule, self.device)

    def statistics(self, batch: CropBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """What each crop and channel is normalised by: float32 [n, K] each."""
        model, shape = self.model, (batch.field.numel(), self.channel.numel())
        if model.normalize == "crop":
            window = self.rule.window
            return moments(count(batch, self.channel, (window, window), self.rule.masked, self.device))
        if self.of_fields is not None:
            mean, deviation = (t[batch.field.long()].contiguous() for t in self.of_fields)
            return mean, deviation
        if model.normalize == "plate":
            raise ValueError(f"model {model.name!r}: normalize = plate is of a plate's run; give mean and std (fixed)")
        given = ((0.0,), (1.0,)) if model.normalize == "none" else (model.mean, model.std)
        rows = [self.device.tensor(values, torch.float32).expand(shape).contiguous() for values in given]
        return rows[0], rows[1]


def resolved(
    settings: EmbeddingSettings, pixel_um: float | None, plate: dict[str, tuple[float, float]] | None
) -> EmbeddingSettings:
    """The settings with what a plate knows put in: sides in pixels, and its channels' mean and deviation.

    plate : channel -> mean and deviation, where a model is normalised by them
    """
    models = []
    for model in settings.models:
        model = dataclasses.replace(model, size=size_of(model), crop=model.side(pixel_um), unit="pixels")
        if model.normalize == "plate":
            mean, std = zip(*((plate or {})[c] for c in model.channels), strict=True)
            model = dataclasses.replace(model, normalize="fixed", mean=mean, std=std)
        models.append(model)
    return dataclasses.replace(settings, models=tuple(models))
