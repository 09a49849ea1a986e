"""The throughput page and its peers: ratios over what both tools measure, and every peer with its script and environment."""

import argparse
from pathlib import Path

import pytest

from benchmarks import peers, scaling, throughput
from benchmarks.machine import spread

STAGES_MS = {"decode": 60.0, "texture": 80.0, "intensity": 10.0, "shape": 12.0}


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_peer_has_a_script_and_an_environment(peer: str) -> None:
    folder = Path(peers.__file__).parent
    assert "cpu_s_a_field" in (folder / f"{peer}.py").read_text()
    assert f"    {peer})" in (folder / "setup").read_text()


def test_a_peer_without_its_environment_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="benchmarks/peers/setup nyxus"):
        peers.run_peer("nyxus", "images", "P", "none", 1)


def test_the_ratio_is_over_the_stages_that_both_have(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((9.0, 1.8, 3.6))

    def run(name: str, *_: object) -> dict[str, object]:
        s = next(seconds)
        modules = {"texture": s * 2 / 3, "sizeshape": s / 3}
        return {"tool": "T", "version": "1", "modules": modules, "cpu_s_a_field": s, "fields": 1}

    monkeypatch.setattr(throughput, "run_peer", run)
    options = argparse.Namespace(peer=["cp_measure"], images="", plate="", illumination="", peer_fields=1, peer_runs=3)
    (peer,) = throughput.beside(options, STAGES_MS)
    assert peer["cpu_s_a_field"].median == 3.6
    assert peer["ratio"] == pytest.approx(3.6 / 0.092)  # texture and shape, neither decoding nor intensity


def test_the_page_has_a_column_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    one = spread([1.0, 2.0, 3.0])
    figures = {
        **dict.fromkeys(("cpu_s_a_field", "cpu_s_a_field_parallel", "wall_s_a_field_one_thread", "wall_s_a_field"), one),
        **dict.fromkeys(("start_up_s", "whole_s_one_thread", "whole_s"), one),
        **dict.fromkeys(("fields", "cells", "threads"), 2),
        **dict.fromkeys(("speed_up", "speed_up_with_start_up", "fields_a_s"), 1.5),
        **dict.fromkeys(("cells_a_s", "megabytes_a_s", "peak_memory_mb"), 1.5),
        "stages": {"stages_ms": STAGES_MS, "total_ms": sum(STAGES_MS.values()), "kernels_ms": {"k": 1.0}},
        "peers": [
            {"tool": "A", "version": "1", "modules": {"texture": 8.0}, "cpu_s_a_field": one, "ratio": 100.0, "fields": 1},
            {"tool": "B", "version": "2", "modules": {"shape": 6.0}, "cpu_s_a_field": one, "ratio": 50.0, "fields": 1},
        ],
    }
    on = {"processor": "p", "cores": 2, "memory_bytes": 2**34, "python": "3", "packages": {"torch": "2"}, "commit": "c" * 40}
    lines = throughput.page(figures, on).splitlines()
    assert "| speed-up by 2 threads, start-up left out | 1.50 |" in lines
    assert "| stage | ms | share | A, ms | ratio | B, ms | ratio |" in lines
    assert "| texture | 80.0 | 49.4% | 8000 | 100 | | |" in lines
    assert "| shape | 12.0 | 7.4% | | | 6000 | 500 |" in lines


def test_growth_is_a_slope_and_its_page_names_every_size() -> None:
    assert scaling.exponent([1, 2, 4], [3.0, 6.0, 12.0]) == pytest.approx(1)
    assert scaling.exponent([1, 10], [5.0, 5.0]) == pytest.approx(0)
    figures = {
        "cells": {"rows": [{"cells": 24, "cpu_s": 0.25}, {"cells": 817, "cpu_s": 1.0}], "exponent": 0.4},
        "fields": {"rows": [{"fields": 6, "cpu_s": 4.0, "peak_mb": 1009.0}], "exponent": 0.9},
        "channels": {"rows": [{"channels": 5, "cpu_s": 0.5}], "exponent": 0.6},
        "threads": {"rows": [{"threads": 1, "wall_s": 4.0}, {"threads": 2, "wall_s": 2.0}], "speed_up": 2.0},
    }
    on = {"processor": "p", "cores": 2, "memory_bytes": 2**34}
    lines = scaling.page(figures, "images/scaling.png", on).splitlines()
    assert "| cells per field | 24, 817 | 0.25, 1 | exponent 0.40 |" in lines
    assert "| threads | 1, 2 | 4, 2 | 2.00 times |" in lines
    assert "| peak memory by fields, MB | 6 | 1009 | |" in lines
