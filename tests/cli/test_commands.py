"""The commands as one tool, and the doctor."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jumpgpu import __main__ as tool
from jumpgpu import doctor


@pytest.mark.parametrize("name", sorted(tool.COMMANDS))
def test_every_command_exists_and_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: jumpgpu {name}")
    assert "Example" in said
    assert f"    jumpgpu {name} " in said
    assert "Exit status: 0 " in said
    assert callable(importlib.import_module(tool.module_of(name)).main)


def test_usage_names_every_command(capsys):
    assert tool.main([]) == 2
    said = capsys.readouterr().err
    assert all(f"  {name} " in said for name in tool.COMMANDS)
    assert tool.main(["--help"]) == 0


def test_an_unknown_command_is_bad_use(capsys):
    assert tool.main(["extrakt"]) == 2
    assert capsys.readouterr().err == "jumpgpu: unknown command 'extrakt'; did you mean extract?\n"
    assert tool.main(["xyz"]) == 2
    assert "jumpgpu --help lists them" in capsys.readouterr().err


def test_help_of_a_command_is_the_commands_own(capsys):
    with pytest.raises(SystemExit):
        tool.main(["help", "verify"])
    assert capsys.readouterr().out.startswith("usage: jumpgpu verify")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["extrakt"], []])
def test_the_tool_itself_imports_nothing_heavy(words):
    """Help costs what Python costs: neither torch nor NumPy is imported, and 0.3 s of processor are not used."""
    code = (
        "import sys, time; from jumpgpu.__main__ import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'pandas', 'argparse', 'rich'} & set(sys.modules); "
        "print(heavy, time.process_time() < 0.3, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set() True"


@pytest.mark.parametrize(
    "words", [["extract", "--help"], ["segment", "--help"], ["extract", "--plat"], ["segment", "--masks", "x"]]
)
def test_help_and_bad_use_of_extract_do_not_wait_for_torch(words):
    code = (
        "import atexit, sys; from jumpgpu.__main__ import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in words else 2)
    assert done.stderr.splitlines()[-1] == "False"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m jumpgpu columns | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    for name in ("extract", "profile", "score", "export"):
        with pytest.raises(SystemExit):
            tool.main([name, "--help"])
        said = capsys.readouterr().out
        prose = [line for line in said.splitlines() if not line.startswith("    jumpgpu ")]
        assert max(map(len, prose)) <= min(int(columns), 100)


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-W", "error", "-m", "jumpgpu", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:8], done.stderr) == (0, "jumpgpu ", "")


def test_the_doctor_says_in_ten_lines_what_there_is_how_fast_and_what_is_faster(tmp_path, capsys):
    assert doctor.main(["--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    subjects = [line[9:23].split()[0] for line in lines]
    assert subjects == ["jumpgpu", "processors", "memory", "torch", "GPU", "TIFF", "packages", "disk", "speed", "faster"]
    assert "MB/s written and synced" in lines[7]
    assert "LZW, DEFLATE" in lines[5]
    rate, minutes = re.search(
        r"about ([\d.e+]+) fields/s, .* a plate of 3456 fields of 1080 x 1080 in (\d+) min", lines[8]
    ).groups()
    assert float(rate) > 0.05
    assert abs(3456 / float(rate) / 60 - int(minutes)) <= 1 + 0.06 * int(minutes)  # two digits of the rate are printed
    assert list(tmp_path.iterdir()) == []


def test_the_speed_is_no_faster_than_the_disk(monkeypatch):
    monkeypatch.setattr(doctor, "measure_seconds", lambda _: 0.25)  # one field in quarters: four a second
    assert "about 4 fields/s" in doctor.expected(1000)[2]
    assert "as fast as the disk reads" in doctor.expected(2.5)[2]
    assert "about 2.5 fields/s" in doctor.expected(2.5)[2]


def test_what_is_loaded_once_does_not_count_as_speed(monkeypatch, tmp_path):
    """The first run of a process loads kernels and more; beside it five fields looked free: it said 76 a second."""
    clock, used = [0.0], iter([5.0, 0.5, 1.5])

    def extract(plates, options):
        clock[0] += next(used)
        return []

    monkeypatch.setattr("jumpgpu.run.plates.extract_plates", extract)
    monkeypatch.setattr("jumpgpu.gpu.machine.usable_cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor.time, "process_time", lambda: clock[0])
    assert doctor.measure_seconds(tmp_path / "a") == 0.5
    used = iter([5.0, 0.5, 0.5])
    with pytest.raises(RuntimeError, match="5 fields took no longer than one"):
        doctor.measure_seconds(tmp_path / "b")


def test_the_doctor_speaks_json(tmp_path, capsys):
    assert doctor.main(["--output", str(tmp_path), "--json", "--no-speed"]) == 0
    result = {f["subject"]: f for f in json.loads(capsys.readouterr().out)}
    assert result["TIFF codecs"]["state"] == "ok"
    assert set(result["processors"]) == {"state", "subject", "found"}
    assert "speed" not in result


def test_the_one_command_depends_on_what_is_missing(monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr("jumpgpu.gpu.machine.usable_cores", lambda: max(16, os.cpu_count()))
    processes = max(16, os.cpu_count()) // 4
    assert re.fullmatch(rf"threads of one process wait .*jumpgpu extract --workers {processes}", doctor.faster())
    monkeypatch.setattr("jumpgpu.gpu.machine.processes_for", lambda threads: None)
    monkeypatch.setattr("jumpgpu.gpu.machine.usable_cores", lambda: os.cpu_count())
    assert doctor.faster() == "nothing on this machine; on one with an NVIDIA GPU: pip install 'jumpgpu[cuda13]'"
    monkeypatch.setattr("jumpgpu.gpu.machine.usable_cores", lambda: 0)
    assert re.search(r"may use 0 of \d+ processors: taskset", doctor.faster())
    monkeypatch.setattr("jumpgpu.gpu.cpu.library_folder", lambda: tmp_path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert "make lib LEVELS=x86-64-v4" in doctor.faster()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.faster() == "pip install 'jumpgpu[cuda12]' lets the GPU do the work"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "pip install --force-reinstall torch" in doctor.faster()


def test_what_the_doctor_says_to_install_exists():
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    for package, (_, extra) in doctor.EXTRAS.items():
        assert not extra or any(need.startswith(package) for need in extras[extra])


def test_a_missing_extra_is_a_note(monkeypatch):
    there, absent = doctor.EXTRAS["copairs"], {"no-such": ("nothing", "umap"), "none-such": ("all", "")}
    monkeypatch.setattr(doctor, "EXTRAS", {"copairs": there, **absent})
    state, subject, text = doctor.extras()
    assert (state, subject) == ("note", "packages")
    assert text.startswith("copairs ")
    assert text.endswith("; no no-such (nothing), none-such (all): pip install 'jumpgpu[umap]' none-such")
    monkeypatch.setattr(doctor, "EXTRAS", {"copairs": there})
    assert doctor.extras()[0] == "ok"


def test_the_doctor_says_what_is_missing(tmp_path, capsys, monkeypatch):
    def no_library(*_):
        raise RuntimeError("no host library here: build it")

    monkeypatch.setattr("jumpgpu.gpu.open.open_device", no_library)
    assert doctor.main(["--output", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().out
    assert re.search(r"MISSING  processors     \d+ usable of \d+; no host library here: build it", said)
    assert "MISSING  disk" in said
