"""The commands as one tool, and the doctor."""

import importlib
import subprocess
import sys

import pytest

from jumpgpu import __main__ as tool
from jumpgpu import doctor


@pytest.mark.parametrize("name", sorted(tool.COMMANDS))
def test_every_command_exists_and_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.main([name, "--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
    assert callable(importlib.import_module(tool.module_of(name)).main)


def test_usage_names_every_command(capsys):
    assert tool.main([]) == 2
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in tool.COMMANDS)
    assert tool.main(["--help"]) == 0


def test_an_unknown_command_is_bad_use(capsys):
    assert tool.main(["extrakt"]) == 2
    assert "unknown command 'extrakt'" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-W", "error", "-m", "jumpgpu", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:8], done.stderr) == (0, "jumpgpu ", "")


def test_the_doctor_finds_what_a_run_needs(tmp_path, capsys):
    assert doctor.main(["--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "host library" in said
    assert "MB/s written and synced" in said
    assert "GPU" in said


def test_the_doctor_says_what_is_missing(tmp_path, capsys, monkeypatch):
    def no_library(*_):
        raise RuntimeError("no host library here: build it")

    monkeypatch.setattr("jumpgpu.device.open_device", no_library)
    assert doctor.main(["--output", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().out
    assert "MISSING  host library   no host library here: build it" in said
    assert "MISSING  disk" in said
