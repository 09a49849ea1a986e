"""NVRTC compiles every kernel file for every architecture we name, without a device, and as CuPy will ask for it."""

import re
from pathlib import Path

import pytest

from benchmarks.gpu_model.compiled import ARCHITECTURES, resources
from jumpgpu.gpu.kernel_source import kernel_folder, kernel_sources, signatures

FILES = sorted(kernel_folder().rglob("*.cu"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_compiles_for_architecture(path: Path, architecture: str) -> None:
    """And keeps its registers: a spill goes to memory. A T4 (sm_75) has half the threads per SM, and may have some."""
    result = resources(path, architecture)
    assert sorted(result) == sorted(signatures(path.read_text())), f"{path.name}: not the kernels that it declares"
    spilled = {name: f"{r.spills} bytes" for name, r in result.items() if r.spills}
    assert not spilled or architecture == "sm_75", (
        f"{path.name} for {architecture} spills; give it __launch_bounds__ with fewer blocks"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_kernel_is_registered_once(path: Path) -> None:
    text = path.read_text()
    declared = re.findall(r"\b__global__\b", re.sub(r"//[^\n]*", "", text))
    assert len(declared) == len(signatures(text)), "a kernel's signature is not understood by kernel_source.signatures"
    assert sorted(re.findall(r"^JG_REGISTER\((\w+)\)", text, re.M)) == sorted(signatures(text))


def test_every_kernel_is_launched_by_name() -> None:
    """By the package or by a ways test; variants may be named by their stem ("histogram")."""
    tests = Path(__file__).parents[1]
    files = [*(tests.parent / "jumpgpu").rglob("*.py"), *(tests / "ways").rglob("test_*.py")]
    text = "".join(p.read_text() for p in files)
    missing = [n for n in kernel_sources() if f'"{n}"' not in text and f'"{n.rpartition("_")[0]}"' not in text]
    assert not missing, f"kernels that nothing launches: {missing}"


@pytest.mark.parametrize("path", sorted({*FILES, *kernel_folder().rglob("*.cuh")}), ids=lambda p: p.name)
def test_no_lambda_has_an_auto_parameter(path: Path) -> None:
    """NVRTC 12, which `make compilers` brings, takes one for a function of the host's and refuses it."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    found = re.finditer(r"\]\s*\([^()]*\bauto\b[^()]*\)\s*(->|mutable|\{)", text)
    lines = [text[: m.start()].count("\n") + 1 for m in found]
    assert not lines, f"{path.name}: lines {lines}; write the type, or a function object with a template"
