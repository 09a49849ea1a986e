"""docs/features.md: its example runs, and its options exist and add as many columns as it says."""

import re
import tomllib
from pathlib import Path

from jumpgpu.features import families as features
from jumpgpu.features import image_quality as quality
from jumpgpu.settings.config import Config, build
from jumpgpu.settings.names import CHANNELS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "features.md").read_text()


def block(kind: str) -> str:
    result = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert result
    return result[1]


def test_the_example_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(block("python"), "docs/features.md", "exec"), names)
    table = names["table"]
    assert table["Objects_AreaShape_Area"].tolist() == [220]
    assert table.shape[1] > 100


def test_the_options_add_what_it_says() -> None:
    settings = build(Config, tomllib.loads(block("toml")), "docs/features.md").features
    usual = len(features.columns(channels=CHANNELS))
    assert len(features.columns(channels=CHANNELS, settings=settings)) - usual == 60 + 900 + 159 + 3
    assert len(quality.columns(("DNA",))) == 17
