"""The frozen column lists: every family's names, in stored order."""

from pathlib import Path

import pytest
import torch

from jumpgpu.features import families as features
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings
from jumpgpu.settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS, stored_order

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    ("file", "channels"), [("columns.txt", CHANNELS), ("columns_8_channels.txt", CHANNELS + BRIGHTFIELD)]
)
def test_columns_in_stored_order(file: str, channels: tuple[str, ...]) -> None:
    wanted = (CONFIGS / file).read_text().split()
    assert features.columns(channels=channels) == wanted


def test_stored_order_is_a_fixed_point() -> None:
    stored = (CONFIGS / "columns.txt").read_text().split()
    assert stored_order(stored) == list(range(len(stored)))


def test_families_by_name() -> None:
    assert features.columns(["Nuclei"], ["DNA"], FeatureSettings(families=("number",))) == ["Nuclei_Number_Object_Number"]
    with pytest.raises(ValueError, match="unknown feature family 'colour'"):
        features.columns(settings=FeatureSettings(families=("colour",)))


def test_a_batch_without_objects_has_the_columns(device: Device) -> None:
    labels = {c: torch.zeros(2, 9, 12, dtype=torch.int32) for c in COMPARTMENTS}
    batch = make_batch(CHANNELS, torch.zeros(2, 5, 9, 12), labels, {}, device)
    table = features.measure_batch(batch, FeatureSettings(), device)
    assert table.shape == (0, len(features.columns(channels=CHANNELS)))
