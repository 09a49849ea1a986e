"""Runs of `profile` in one folder: one at a time for a plate, side by side for others, and no table of one in another's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profile import main
from jumpgpu.profiles.outputs import LOCK, ProfileOutputs
from tests.conftest import CHECKOUT
from tests.helpers.plates import contents

pytestmark = pytest.mark.mechanics
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def write_wells(path: Path, plate: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": [f"{r}{c:02d}" for r in "ABCD" for c in range(1, 7)]})
    table["Metadata_broad_sample"] = [""] * 8 + [f"S{i // 2}" for i in range(16)]
    table["Metadata_control_type"] = ["negcon"] * 8 + [""] * 16
    for column in ("Cells_AreaShape_Area", "Nuclei_AreaShape_Area", "Cells_Texture_A"):
        table[column] = rng.normal(size=24)
    table.to_parquet(path)


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jumpgpu", "profile", *words, "--output", "out", "--overwrite", "--quiet"]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_runs_on_one_plate_leave_the_tables_of_one(tmp_path: Path) -> None:
    """Other recipes at once: one may be told to wait (75); what is in place is of one run, record and all."""
    write_wells(tmp_path / "P.parquet", "P", 0)
    runs = [start(tmp_path, "P.parquet", "--reference", "all"), start(tmp_path, "P.parquet", "--reference", "negcon")]
    said = [run.communicate(timeout=300)[1] for run in runs]
    statuses = [run.returncode for run in runs]
    assert set(statuses) <= {0, 75}, said
    assert 0 in statuses
    for status, text in zip(statuses, said, strict=True):
        assert status == 0 or "another run of profile is at work" in text
    assert not [p for p in (tmp_path / "out").rglob(".*") if p.name != LOCK]
    home = tmp_path / "out/profiles/P"
    tables = set(json.loads((home / "P_recipe.json").read_text())["tables"])
    if statuses.count(75):  # of one run alone, and that one whole
        assert {f"P_{name}.parquet" for name in tables | {"augmented"}} == {p.name for p in home.glob("*.parquet")}
        assert len({"negcon" in name for name in tables if "normalized" in name}) == 1


def test_runs_on_two_plates_go_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for n, plate in enumerate(("P", "Q")):
        write_wells(tmp_path / f"{plate}.parquet", plate, n)
        assert main([f"{plate}.parquet", "--output", "one", "--quiet"]) == 0
    runs = [start(tmp_path, f"{plate}.parquet") for plate in ("P", "Q")]
    said = [run.communicate(timeout=300)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


def write_two(folder: Path) -> None:
    with ProfileOutputs(folder) as outputs:
        outputs.path("Q", "Q_augmented.parquet").write_bytes(b"second")
        outputs.path("P", "P_augmented.parquet")


def test_a_plate_that_is_being_written_is_refused_and_named(tmp_path: Path) -> None:
    with ProfileOutputs(tmp_path / "profiles") as first:
        first.path("P", "P_augmented.parquet").write_bytes(b"first")
        with pytest.raises(BlockingIOError, match="P: another run of profile is at work"):
            write_two(tmp_path / "profiles")
        assert not (tmp_path / "profiles/P/P_augmented.parquet").exists()
    assert (tmp_path / "profiles/P/P_augmented.parquet").read_bytes() == b"first"
    assert not list((tmp_path / "profiles").rglob("Q_*")), "the second run came into place in part"
    assert not [p for p in (tmp_path / "profiles").rglob(".*") if p.name != LOCK]
