"""How commands end: interrupted, stopped, with nobody listening, with an output that cannot be."""

import contextlib
import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jumpgpu.__main__ import COMMANDS
from jumpgpu.cli.exit_status import command, explain
from jumpgpu.gpu.cpu import StaleLibrary
from jumpgpu.gpu.failures import DeviceLost
from jumpgpu.storage.faults import Unreachable
from tests.conftest import CHECKOUT
from tests.helpers.plates import write_images, write_plate

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "jumpgpu"]


@pytest.fixture
def demo(tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    write_plate(tmp_path, {"A01": [1]}, plate="P")
    return tmp_path


EXTRACT = "extract --plate DEMO --images images --masks masks --config small.toml --device cpu --illumination none"


def ended(arguments, folder, **more):
    given = {"cwd": folder, "env": ENVIRONMENT, "timeout": 300, "capture_output": True} | more
    return subprocess.run([*PROGRAM, *arguments.split()], **given)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["extract", "export", "profile", "report", "verify"])
def test_every_command_that_is_stopped_ends_with_75_and_leaves_nothing(demo, name, number):
    """Stopped where it opens its first input, by a file system that answers slowly: a module that waits there."""
    (demo / "slow.py").write_text(
        "import importlib, sys, time\n"
        "from jumpgpu.cli.exit_status import run_command\n"
        "import jumpgpu.storage.atomic as atomic, jumpgpu.profiles.files as files\n"
        "def wait(*a, **k):\n    print('at work', flush=True)\n    time.sleep(60)\n"
        "module = importlib.import_module(f'jumpgpu.{sys.argv[1]}')\n"
        "atomic.write_folder = atomic.move_into_place = wait\n"
        "if sys.argv[1] == 'verify': module.open_plate = wait\n"
        "sys.exit(run_command(module.main, sys.argv[2:]))\n"
    )
    arguments = {
        "extract": EXTRACT.removeprefix("extract ") + " --output out",
        "export": "P.zarr --format csv",
        "profile": "--plate P --output . --platemap map.txt",
        "report": "P.zarr",
        "verify": "P.zarr",
    }[name]
    (demo / "map.txt").write_text("well_position\tbroad_sample\tcontrol_type\nA01\t\tnegcon\n")
    before = {p for p in demo.rglob("*") if "out" not in p.parts}
    command = [sys.executable, "slow.py", name, *arguments.split()]
    with subprocess.Popen(command, cwd=demo, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while b"at work" not in (line := process.stdout.readline()):
                assert line, process.stderr.read().decode()
            stopped = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 75, said
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert time.monotonic() - stopped < 20
    left = {p for p in demo.rglob("*") if p.is_file() and p.name != ".jumpgpu.lock" and "profiles" not in p.parts}
    assert {p for p in left if "out" not in p.parts and "__pycache__" not in p.parts} <= before
    assert not [p for p in demo.rglob(".*") if p.is_dir() and p.name.startswith((".DEMO", ".P", ".staging"))]


def test_closed_streams_do_no_harm(demo):
    arguments = [*PROGRAM, *EXTRACT.split(), "--output", "out"]
    for closed in ("2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        shell = f'exec "$@" {closed}'
        process = subprocess.run(
            ["sh", "-c", shell, "sh", *arguments, "--overwrite"], cwd=demo, env=ENVIRONMENT, timeout=300
        )
        assert process.returncode == 0, closed
        assert ended("verify out/DEMO", demo).returncode == 0


def test_a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is(demo):
    process = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *PROGRAM, "columns"],
        cwd=demo,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0
    assert process.stderr == b""
    with open("/dev/full", "w") as full:
        process = ended("columns", demo, stdout=full, capture_output=False, stderr=subprocess.PIPE)
    assert process.returncode == 75
    assert b"No space left on device" in process.stderr
    reader, writer = os.pipe()
    os.close(reader)
    process = ended(EXTRACT + " --output out", demo, stderr=writer, capture_output=False, stdout=subprocess.DEVNULL)
    os.close(writer)
    assert process.returncode == 0


def test_an_output_that_is_a_file_is_bad_use(demo):
    (demo / "file").write_text("not a folder")
    for arguments in (
        EXTRACT + " --output file",
        "segment --plate DEMO --images images --illumination none --device cpu --output file",
        "export P.zarr --format csv --output file",
        "report P.zarr --output file",
        "synthetic --output file --plate X --wells 1 --sites 1 --size 64 --cells 1",
    ):
        process = ended(arguments, demo)
        assert process.returncode == 2, (arguments, process.stderr)
        assert b"Traceback" not in process.stderr
        assert b"file" in process.stderr
    assert (demo / "file").read_text() == "not a folder"


def test_warnings_of_libraries_are_events(demo):
    (demo / "warns.py").write_text(
        "import logging, sys, warnings\nfrom jumpgpu.cli.exit_status import run_command\nimport importlib\n"
        "extract = importlib.import_module('jumpgpu.extract')\n"
        "real = extract.extract_plates\n"
        "def noisy(*a):\n    warnings.warn('odd colours')\n    logging.getLogger('lib').warning('odd %s', 'shapes')\n"
        "    yield from real(*a)\n"
        "extract.extract_plates = noisy\nsys.exit(run_command(extract.main, sys.argv[1:]))\n"
    )
    command = [sys.executable, "warns.py", *EXTRACT.split()[1:], "--output", "out", "--log-json"]
    process = subprocess.run(command, cwd=demo, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    events = [json.loads(line) for line in process.stderr.splitlines()]
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any("odd colours" in m for m in told)
    assert "lib: odd shapes" in told


def test_quarantine_reasons_name_no_folder(demo):
    image = next((demo / "images").rglob("r01c01f01p01-ch1sk1fk1fl1.tiff"))
    image.unlink()
    image.symlink_to("/etc/passwd")
    other = next((demo / "images").rglob("r02c02f01p01-ch1sk1fk1fl1.tiff"))
    other.unlink()
    os.mkfifo(other)
    (demo / "masks" / "B02_s2_Cells.tiff").write_bytes(b"II*\0")
    assert ended(EXTRACT + " --output out", demo).returncode == 3
    table = (demo / "out" / "quarantine.csv").read_text()
    assert table.count("\n") == 4
    assert str(demo) not in table
    assert "/" not in "".join(line.split(",", 5)[5] for line in table.splitlines()[1:])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.EIO, "x", "f"), 75),
        (OSError(errno.ENOSPC, "x", "f"), 75),
        (OSError(errno.ESTALE, "x", "f"), 75),
        (OSError(errno.EMFILE, "x", "f"), 75),
        (OSError(errno.EDQUOT, "x", "f"), 75),
        (Unreachable("gone"), 75),
        (MemoryError(), 75),
        (BlockingIOError("another run"), 75),
        (KeyboardInterrupt(), 75),
        (PermissionError(errno.EACCES, "x", "f"), 2),
        (OSError(errno.EROFS, "x", "f"), 2),
        (NotADirectoryError(errno.ENOTDIR, "x", "f"), 2),
        (FileExistsError(errno.EEXIST, "x", "f"), 2),
        (IsADirectoryError(errno.EISDIR, "x", "f"), 2),
        (FileNotFoundError(errno.ENOENT, "x", "f"), 2),
        (OSError("no number: a library's word on content"), 2),
        (ValueError("bad"), 2),
        (RuntimeError("bad"), 2),
        (StaleLibrary("built from other sources"), 2),
        (NotImplementedError("not by this device"), 2),
        (OSError(errno.EFBIG, "x", "f"), 2),
        (OSError(errno.EOPNOTSUPP, "x", "f"), 2),
        (DeviceLost("CUDA error: an illegal memory access was encountered"), 75),
        (RuntimeError("CUDA out of memory"), 75),
    ],
)
def test_statuses(error, status, capsys):
    @command
    def main(arguments=None):
        raise error

    assert main([]) == status
    assert capsys.readouterr().err.startswith("error: ")
    assert explain(RuntimeError("a device failed"), "out")[1] == 75
    lasts = isinstance(error, StaleLibrary | NotImplementedError)
    assert not lasts or explain(error, "out")[1] == 2  # for extract and segment, too


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", [0.15, 0.5, 1.0])
def test_a_command_is_stopped_in_words_while_it_is_imported(tmp_path, number, wait):
    """The moment is counted from where Python runs `jumpgpu`; torch's import takes seconds."""
    (tmp_path / "told.py").write_text(
        "import os, sys\nimport jumpgpu.cli.exit_status as e\nreal = e.fill_descriptors\n"
        "def told():\n    real()\n    os.write(1, b'begun\\n')\n"
        "e.fill_descriptors = told\n"
        "from jumpgpu.__main__ import main\nsys.argv = ['jumpgpu', *sys.argv[1:]]\nsys.exit(main())\n"
    )
    command = [sys.executable, "told.py", "export", "none.zarr", "--output", "out"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode in (75, 2), said  # or it had found that there is no plate
    assert b"Traceback" not in said
    assert (b"interrupted" in said) == (process.returncode == 75)


def test_every_command_is_one_of_these():
    import importlib

    from jumpgpu.__main__ import module_of

    for name in COMMANDS:
        main = importlib.import_module(module_of(name)).main
        assert hasattr(main, "__wrapped__") or name in ("extract", "segment"), name


def pipes(folder):
    """Every option of every command that takes a file, with a pipe in its place."""
    (folder / "map.txt").write_text("well_position\tbroad_sample\tcontrol_type\nA01\t\tnegcon\n")
    (folder / "metadata" / "external").mkdir(parents=True)
    os.mkfifo(folder / "metadata" / "external" / "x_compound_metadata.tsv")
    for name in (
        "pipe.toml",
        "pipe.txt",
        "pipe.csv",
        "pipe.parquet",
        "pipe.json",
        "pipe.cppipe",
        "pipe.sqlite",
        "load_data.csv",
    ):
        os.mkfifo(folder / name)
    image = f"{EXTRACT} --output out"
    return [
        image.replace("small.toml", "pipe.toml"),
        image.replace("--images images", "--images load_data.csv"),
        f"{image} --pipeline pipe.cppipe",
        "segment --plate DEMO --images images --config pipe.toml",
        "profile P --recipe pipe.toml --platemap map.txt",
        "profile P --platemap pipe.txt",
        "profile P --platemap map.txt --treatments pipe.csv",
        "profile P --platemap map.txt --flag-cells pipe.toml",
        "profile pipe.parquet",
        "profile pipe.csv",
        "score replicating pipe.parquet",
        "score map pipe.csv",
        "score replicating P --recipe pipe.toml",
        "benchmark pipe.parquet pipe.parquet",
        "report P.zarr --scores pipe.json",
        "report P.zarr --metadata metadata",
        "export P.zarr --format csv --platemap pipe.txt",
        "export P.zarr --format csv --platemap map.txt --treatments pipe.csv",
        "export P.zarr --format csv --flag-cells pipe.toml",
        "compare P.zarr pipe.sqlite",
        "compare P.zarr pipe.csv",
        "check-plate DEMO --images images --config pipe.toml",
        "columns --config pipe.toml",
        "config pipe.toml",
        "tables --metadata metadata",
        "import-cppipe pipe.cppipe",
    ]


def test_no_command_waits_for_a_pipe(demo, monkeypatch, capsys):
    """In one process: each ends within seconds with bad use, or without the pipe where it need not read it."""
    monkeypatch.chdir(demo)
    for line in pipes(demo):
        name, *words = line.split()
        module = importlib.import_module(f"jumpgpu.{name.replace('-', '_')}")
        answer = []

        def run(module=module, words=words, answer=answer):
            try:
                answer.append(module.main(words))
            except SystemExit as end:
                answer.append(end.code)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
        said = capsys.readouterr()
        assert answer, f"{line}: still waiting"
        assert answer[0] == 2, (line, answer, said)
        assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "how",
    ["exec('raise KeyboardInterrupt')", "[again(0.2 + 0.003 * i) for i in range(60)]\n    while True: time.sleep(0.01)"],
    ids=["in exec", "often"],
)
def test_an_interrupt_ends_with_75_wherever_it_falls_and_however_often(tmp_path, how):
    """Python exits by SIGINT where one fell in text given to `exec`; some more come while the command says that it ends."""
    (tmp_path / "stopped.py").write_text(
        "import signal, sys, threading, time\nfrom jumpgpu.cli.exit_status import run_command\n"
        "def again(s):\n    threading.Timer(s, signal.raise_signal, [signal.SIGTERM]).start()\n"
        f"def main(arguments):\n    {how}\n    return 0\n"
        "sys.exit(run_command(main))\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr) == (75, "error: interrupted\n")
