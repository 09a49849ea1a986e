"""What a command says while it runs: plain lines now and then, a bar on a terminal, JSON lines for programs."""

import io
import json
import os
import pty
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from jumpgpu.cli import progress as module
from jumpgpu.cli.progress import Progress, duration
from jumpgpu.extract import main
from jumpgpu.run import batch as measuring
from jumpgpu.segment import main as segment
from jumpgpu.synthetic import main as draw

KEYS = {  # what docs/command-line.md promises
    "start": {"total", "unit"},
    "note": {"message"},
    "warning": {"message"},
    "batch": {"done", "total", "unit", "per_second", "seconds_left"},
    "well": {"well"},
    "quarantine": {"well", "site", "channel", "file", "reason", "used"},
    "retry": {"message"},
    "summary": {"wells", "cells", "left_out", "flagged", "seconds"},
    "error": {"message", "status"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw(["--output", str(folder), "--plate", "DEMO", "--wells", "2", "--sites", "2", "--size", "160", "--cells", "6"])
    return folder


def events_of(text: str) -> list[dict]:
    """Every line is an event with the keys of its kind, and the time."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        wanted = KEYS[event["event"]] | {"event", "time"} | ({"plate"} if event["event"] != "error" else set())
        assert wanted <= set(event) <= wanted | {"message"}
        assert datetime.fromisoformat(event["time"]).utcoffset().total_seconds() == 0
    return events


def test_a_run_is_a_stream_of_events(images: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--plate", "DEMO", "--images", str(images), "--output", str(tmp_path), "--batch", "1", "--log-json"]
    assert main([*arguments, "--illumination", "flatfield"]) == 0
    out, err = capsys.readouterr()
    events = events_of(err)
    assert events[0] | {"time": ""} == {"event": "start", "time": "", "plate": "DEMO", "total": 4, "unit": "fields"}
    assert sorted(e["well"] for e in events if e["event"] == "well") == ["A01", "A02"]  # writers may end in any order
    batches = [e for e in events if e["event"] == "batch"]
    assert [(b["done"], b["total"]) for b in batches] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert batches[-1]["seconds_left"] == 0
    assert all(b["per_second"] > 0 for b in batches)
    assert events[-1]["event"] == "summary"
    assert (events[-1]["wells"], events[-1]["left_out"], events[-1]["plate"]) == (2, 0, "DEMO")
    assert out.startswith("DEMO  2 wells  ")


@pytest.mark.parametrize("late", [False, True], ids=["launching", "ending"])
def test_quarantine_retry_and_error_are_events(images: Path, tmp_path: Path, monkeypatch, capsys, late: bool) -> None:
    folder = next(images.glob("DEMO__*")) / "Images"
    broken = tmp_path / "images" / "DEMO" / "Images"
    broken.mkdir(parents=True)
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 500 if file.name.startswith("r01c01f02p01-ch1") else None])
    real, calls = measuring.launch, []

    def fails_once(raw, run):
        calls.append(len(raw.sites))
        if len(calls) > 1:
            return real(raw, run)
        if late:
            return fail
        return fail()

    def fail():
        raise RuntimeError("out of memory")

    monkeypatch.setattr(measuring, "launch", fails_once)
    arguments = ["--plate", "DEMO", "--images", str(broken.parents[1]), "--illumination", "none", "--log-json"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--batch", "4"]) == 3
    events = events_of(capsys.readouterr().err)
    left_out = next(e for e in events if e["event"] == "quarantine" and not e["used"])
    assert (left_out["well"], left_out["site"], left_out["file"]) == ("A01", 2, "r01c01f02p01-ch1sk1fk1fl1.tiff")
    assert "trying again" in next(e for e in events if e["event"] == "retry")["message"]
    assert events[-1]["left_out"] == 1
    assert calls == [3, 2, 1]
    assert main([*arguments, "--output", str(tmp_path / "x"), "--wells", "P24"]) == 2
    error = events_of(capsys.readouterr().err)[-1]
    assert (error["event"], error["status"]) == ("error", 2)
    assert "P24" in error["message"]


def test_segment_has_events_too(images: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--plate", "DEMO", "--images", str(images), "--output", str(tmp_path), "--illumination", "flatfield"]
    assert segment([*arguments, "--wells", "A01", "--log-json"]) == 0
    events = events_of(capsys.readouterr().err)
    kinds = [e["event"] for e in events if e["event"] != "note"]
    assert {*kinds[-3:-1]} <= {"batch", "well"}  # writers end in any order
    assert kinds[-1] == "summary"
    assert events[-1]["wells"] == 1


@pytest.mark.slow  # starts a scheduler and a worker
def test_workers_have_events_too(images: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--plate", "DEMO", "--images", str(images), "--output", str(tmp_path), "--illumination", "flatfield"]
    assert main([*arguments, "--workers", "1", "--log-json"]) == 0
    events = events_of(capsys.readouterr().err)
    assert sorted(e["well"] for e in events if e["event"] == "well") == ["A01", "A02"]
    assert (events[0]["event"], events[-1]["event"], events[-1]["plate"]) == ("start", "summary", "DEMO")
    assert [e["done"] for e in events if e["event"] == "batch"][-1] == 4


def test_without_a_terminal_lines_come_now_and_then(monkeypatch, capsys) -> None:
    clock = iter(float(t) for t in range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with Progress("P", 100) as progress:
        progress.advance(10, before=True)
        for _ in range(9):
            progress.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) < 9
    assert lines[0] == "P: 20 of 100 fields, 0.33 fields/s, 4 min left"
    with Progress("P", 10, quiet=True) as progress:
        progress.advance(5)
        progress.say("hello")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.6, "4 s"), (60, "1 min"), (719, "11 min"), (3661, "1 h 1 min"), (86400, "24 h 0 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_shows_a_bar() -> None:
    """Run on a pseudo-terminal: name, count, rate and time left are drawn, and a line that is said stays."""
    code = (
        "import time; from jumpgpu.cli.progress import Progress\n"
        "with Progress('BR1', 40) as p:\n"
        "    for i in range(4): p.advance(10); p.say(f'line {i}'); time.sleep(0.3)\n"
    )
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", code], stderr=follower, env=environment, timeout=60)
    os.close(follower)
    shown = io.BytesIO()
    try:
        while part := os.read(leader, 65536):
            shown.write(part)
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    text = shown.getvalue().decode()
    assert done.returncode == 0
    assert "BR1" in text
    assert "20/40" in text
    assert "fields" in text
    assert "/s" in text
    assert all(f"line {i}\r\n" in text for i in range(4))
