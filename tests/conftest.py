"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

from jumpgpu.device import Device, open_device
from tests.ways import Way

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def device() -> Device:
    """The CPU backend on this machine's cores."""
    return open_device("cpu")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real fields and reference outputs beside the checkout; the test is skipped where it is absent."""
    folder = CHECKOUT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no reference data: {folder / 'data'} is absent")
    return folder


@pytest.fixture(params=["fibers", "tsan", "asan", "ptx"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way to run kernels in turn; tests/ways.py says how to use it."""
    return Way(request.param)
