"""NVRTC compiles every kernel file for every architecture we name, without a device, and as CuPy will ask for it."""

import re
from pathlib import Path

import pytest

from jumpgpu.kernel_files import full_source, kernel_folder, kernel_sources, signatures
from tests.builds import CUPY_OPTIONS, cached
from tests.ptx import nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100")
FILES = sorted(kernel_folder().glob("*.cu"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_compiles_for_architecture(path: Path, architecture: str) -> None:
    source = full_source(path)

    def make(out: Path) -> None:
        out.write_bytes(nvrtc.compile_source(source, path.name, architecture, cubin=True, options=CUPY_OPTIONS))

    cubin = cached(f"{path.stem}-{architecture}.cubin", (source, *CUPY_OPTIONS, nvrtc.version()), make).read_bytes()
    assert cubin[:4] == b"\x7fELF"
    for name in signatures(path.read_text()):
        assert name.encode() in cubin, f"{path.name}: no kernel {name} in the cubin"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_kernel_is_registered_once(path: Path) -> None:
    text = path.read_text()
    declared = re.findall(r"\b__global__\b", re.sub(r"//[^\n]*", "", text))
    assert len(declared) == len(signatures(text)), "a kernel's signature is not understood by jumpgpu.device.signatures"
    assert sorted(re.findall(r"^JG_REGISTER\((\w+)\)", text, re.M)) == sorted(signatures(text))


def test_every_kernel_is_launched_by_name() -> None:
    """By the package or by a ways test; variants may be named by their stem ("histogram")."""
    tests = Path(__file__).parent
    files = [*(tests.parent / "jumpgpu").rglob("*.py"), *tests.glob("test_*_ways.py")]
    text = "".join(p.read_text() for p in files)
    missing = [n for n in kernel_sources() if f'"{n}"' not in text and f'"{n.rpartition("_")[0]}"' not in text]
    assert not missing, f"kernels that nothing launches: {missing}"
