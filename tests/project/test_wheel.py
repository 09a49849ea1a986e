"""The wheel holds all that a run needs: built here for one level, installed aside, used without a compiler."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from jumpgpu.gpu.kernel_source import kernel_digest

CHECKOUT = Path(__file__).resolve().parents[2]
USE = """
import sys
sys.path[:0] = sys.argv[1:]  # the wheel's folder, then this environment's packages without the editable install's hook
import torch
import jumpgpu
from jumpgpu.features import families
from jumpgpu.gpu import kernel_source
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import config
assert jumpgpu.__file__.startswith(sys.argv[1]), jumpgpu.__file__
assert kernel_source.kernel_folder().as_posix().startswith(sys.argv[1])
assert config.load_config("cpjump1") == config.Config()
assert len(families.columns(channels=("DNA", "ER", "RNA", "AGP", "Mito"))) == 3515
cpu = open_device("cpu")
labels = torch.zeros(1, 40, 50, dtype=torch.int32)
labels[0, 10:20, 10:30] = 1
table = jumpgpu.measure(torch.rand(1, 1, 40, 50), {"Cells": labels}, channels=("DNA",), families=("texture",), device=cpu)
print(kernel_source.kernel_digest(), cpu.description, table.shape, jumpgpu.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("scikit_build_core", reason="scikit-build-core builds the wheel; it is in the extra [dev]")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    command += ["-C", "cmake.define.JUMPGPU_LEVELS=x86-64-v2", "-C", f"build-dir={folder}/build", "-w", folder, CHECKOUT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def test_the_wheel_works_without_a_compiler(wheel, tmp_path):
    assert "py3-none" in wheel.name  # no CPython ABI
    with zipfile.ZipFile(wheel) as files:  # what was built for it, and nothing that lay in the checkout
        libraries = [n for n in files.namelist() if n.startswith("jumpgpu/lib/")]
    assert libraries == ["jumpgpu/lib/kernels_x86-64-v2.so"]
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    without_compiler = {**os.environ, "CXX": "/nonexistent", "CC": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", USE, str(site), sysconfig.get_path("purelib")],
        cwd=tmp_path,
        env=without_compiler,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == kernel_digest()  # the same kernels as the checkout's
    assert "x86-64-v2" in done.stdout
    assert done.stdout.split()[-1] == wheel.name.split("-")[1]  # the tag's version, in the metadata and in the package


def test_a_checkout_without_git_has_the_fallback_version():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    fallback = project["tool"]["setuptools_scm"]["fallback_version"]
    source = (CHECKOUT / "jumpgpu" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{fallback}"' in source
    assert project["project"]["dynamic"] == ["version"]
