"""Systems other than Linux: what they lack is taken away, and the plate has the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.plates import contents, write_images

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
# What a library asks about its system it has asked by then; what follows is this package's own.
LIBRARIES = (
    "anndata, dask.array, distributed, filelock, imagecodecs, jinja2, pandas, psutil, pyarrow, rich, scipy.stats, tifffile, "
    "torch, zarr"
)
LACKS = {
    "win32": """
import fcntl
sys.modules["fcntl_of_linux"] = fcntl
sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["pwd"] = None
for name in ("sched_getaffinity", "sched_setaffinity", "O_DIRECTORY", "sysconf", "uname", "fork", "posix_fadvise", "getuid"):
    delattr(os, name)
import shutil
honest = os.open
def opens(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return honest(path, *arguments, **options)
os.open = opens
import fcntl_of_linux as fcntl
flush = os.fsync
def fsync(descriptor):
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    flush(descriptor)
os.fsync = fsync
shutil._use_fd_functions = False
shutil._win_path_needs_curdir = lambda command, mode: False  # asks Windows itself, from Python 3.12
""",
    "darwin": """
import fcntl
for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise"):
    delattr(os, name)
fcntl.F_FULLFSYNC = 51
fcntl.fcntl = lambda descriptor, command: print("synced", command)
""",
}
RUN = """
import os, sys
import {libraries}
{lacks}
sys.platform = {platform!r}
from jumpgpu.extract import main
known = ["--plate", "DEMO", "--images", "images", "--config", "small.toml", "--device", "cpu", "--masks", "masks"]
status = main([*known, "--output", {platform!r}, "--illumination", "estimate"])
from jumpgpu import doctor, verify
doctor.main(["--output", ".", "--no-speed"])
sys.exit(status or verify.main([{platform!r} + "/DEMO.zarr"]))
"""


@pytest.mark.parametrize("platform", LACKS)
def test_a_plate_is_made_without_what_other_systems_lack(platform: str, tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    output = {}
    for name, lacks in (("linux", ""), (platform, LACKS[platform])):
        code = RUN.format(libraries=LIBRARIES, lacks=lacks, platform=name)
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        output[name] = contents(tmp_path / name)
    assert output[platform] == output["linux"]
    assert len(output[platform]) > 20
    if platform == "darwin":
        assert done.stdout.count("synced 51") >= 4


def test_two_runs_on_the_same_wells_are_kept_apart_by_the_lock(tmp_path: Path) -> None:
    from jumpgpu.storage.claims import Claim, gate

    with gate(tmp_path):
        first = Claim(tmp_path, "DEMO", ["A01", "A02"])
    with gate(tmp_path), pytest.raises(BlockingIOError, match=r"process \d+ on .* 1 of these wells \(A02\)"):
        Claim(tmp_path, "DEMO", ["A02", "B07"])
    with gate(tmp_path):
        other = Claim(tmp_path, "DEMO", ["B07"])
    assert len(other.others) == 1
    other.release()
    first.release()
    assert [p.name for p in tmp_path.iterdir()] == [".jumpgpu.lock"]


def test_what_a_dead_run_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from jumpgpu.storage.claims import Claim, gate\n"
        "with gate(Path(sys.argv[1])): claim = Claim(Path(sys.argv[1]), 'DEMO', ['A01'])\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=ENVIRONMENT).returncode == 9
    assert list(tmp_path.glob(".DEMO.run-*"))
    from jumpgpu.storage.claims import Claim, gate

    with gate(tmp_path):
        claim = Claim(tmp_path, "DEMO", ["A01"])
    assert claim.others == []
    claim.release()
    assert [p.name for p in tmp_path.iterdir()] == [".jumpgpu.lock"]


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_said_and_no_obstacle(code: str, tmp_path: Path, monkeypatch) -> None:
    import errno
    import fcntl

    from jumpgpu.storage.claims import Claim, gate

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, code), "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with gate(tmp_path):
        first = Claim(tmp_path, "DEMO", ["A01"])
        second = Claim(tmp_path, "DEMO", ["A01"])
    assert second.others == ["process (unknown) on a file system without locks"]
    first.release()
    second.release()
    assert [p.name for p in tmp_path.iterdir() if p.name != ".jumpgpu.lock"] == []
