"""Fixtures shared by all tests."""

import faulthandler
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it once; two workers' threads wait for each other

import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.kernel_source import kernel_sources
from jumpgpu.gpu.open import open_device
from tests.helpers.buckets import Bucket
from tests.simulators.ways import Way

CHECKOUT = Path(__file__).resolve().parents[1]
ORACLES = {  # files elsewhere that hold numbers against a kept tool or CellProfiler's output
    "test_decode_numpy",
    "test_illumination_cellprofiler",
    "test_illumination_numpy",
    "test_lzw",
    "test_tiff",
    "test_math",
    "test_large_arrays",
    "test_export_pycytominer",
    "test_normalize",
    "test_select",
    "test_mean_average_precision",
    "test_percent_replicating",
    "test_common",
    "test_transfer",
    "test_parse",
}


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """No test asks a real bucket: what is not sent to a test's own server goes to a port where nobody listens."""
    kept = {name: value for name in list(os.environ) if name.startswith("AWS_") and (value := os.environ.pop(name))}
    closed = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    os.environ.update(closed, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    yield
    for name in (*closed, "AWS_SHARED_CREDENTIALS_FILE"):
        os.environ.pop(name, None)
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """With JUMPGPU_TEST_LIMIT_S, a test that takes longer ends the process, and says where it was: a hanging kernel too."""
    if limit := os.environ.get("JUMPGPU_TEST_LIMIT_S"):
        faulthandler.dump_traceback_later(float(limit), exit=True)
    yield
    if limit:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def server() -> Iterator[Bucket]:
    """An S3 server on the loopback device, for tests that empty it first."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    yield Bucket("http://{}:{}".format(*started.get_host_and_port()))
    started.stop()


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


@pytest.fixture(params=["fibers", "tsan", "asan", "ptx", pytest.param("cuda", marks=pytest.mark.gpu)])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way to run kernels in turn; tests/simulators/ways.py says how to use it."""
    return Way(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a test leans on, by its folder and fixtures; `slow` and `gpu` are said by the tests themselves."""
    for item in items:
        folder = item.path.relative_to(CHECKOUT).parts[1]
        if "way" in getattr(item, "fixturenames", ()):
            item.add_marker("ways")
        elif item.path.stem.endswith("_laws"):
            item.add_marker("property")
        elif folder in ("segmentation", "features") or item.path.stem in ORACLES:
            item.add_marker("oracle")
        else:
            item.add_marker("mechanics")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a parallel run tells the process that started it which kernels passed."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ways"] = {way: sorted(kernels) for way, kernels in Way.checked.items()}
    elif session.config.option.dist != "no" and (untested := untested_kernels(session)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nno tests/ways/test_*.py launches {', '.join(untested)}; add a work for each (tests/simulators/ways.py)")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for way, kernels in getattr(node, "workeroutput", {}).get("ways", {}).items():
        Way.checked.setdefault(way, set()).update(kernels)


def untested_kernels(session: pytest.Session) -> list[str]:
    """Kernels that no ways test launched, in a run of all tests."""
    options = session.config.option
    whole = not (
        options.keyword
        or getattr(options, "lf", False)
        or session.config.args_source is not session.config.ArgsSource.TESTPATHS
    )
    return sorted(kernel_sources().keys() - set().union(*Way.checked.values())) if whole and session.testsfailed == 0 else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many kernels passed in each way in this run, where any did."""
    if Way.checked:
        if not torch.cuda.is_available():
            Way.checked.pop("cuda", None)  # the stand-in's: nothing ran on a GPU
        passed = ", ".join(f"{way} {len(kernels)}" for way, kernels in sorted(Way.checked.items()))
        terminalreporter.write_line(f"kernels (of {len(kernel_sources())}) with equal bits, by way: {passed}")
        if os.environ.get("JUMPGPU_WAYS_RECORD"):
            missing = {way: sorted(kernel_sources().keys() - kernels) for way, kernels in Way.checked.items()}
            record = {
                "kernels": len(kernel_sources()),
                "passed": {w: sorted(k) for w, k in Way.checked.items()},
                "missing": missing,
            }
            Path(os.environ["JUMPGPU_WAYS_RECORD"]).write_text(json.dumps(record, indent=1))
