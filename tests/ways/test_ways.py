"""The ways' own machinery: what they compare, and that each says what is wrong."""

from pathlib import Path

import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.kernel_source import kernel_sources
from tests.simulators.ways import PtxDevice, Way, assert_equal_bits


def logs(device: Device, out: torch.Tensor, entries: int = 5) -> torch.Tensor:
    device.launch("texture_logs", 1, entries=entries, logs=out)
    return out


def past_the_end(device: Device) -> torch.Tensor:
    return logs(device, device.zeros(5, dtype=torch.int64), entries=6)


@pytest.mark.parametrize(("way", "message"), [("asan", "heap-buffer-overflow"), ("ptx", "memcheck: outside every array")])
def test_a_write_past_the_end(way, message):
    with pytest.raises(AssertionError, match=message):
        Way(way).check(past_the_end, want=torch.zeros(5))


def test_memory_that_nobody_wrote():
    def work(device: Device) -> torch.Tensor:
        arguments = {name: device.zeros(16, dtype=torch.int64) for name in ("start", "stop", "spot_start")}
        arguments["stop"] = device.empty(16, dtype=torch.int64)
        pixel, box, spot = (device.zeros(64, dtype=torch.int32) for _ in range(3))
        device.launch("texture_spots", 1, pixel=pixel, box=box, pad=1, spot=spot, **arguments)
        return spot

    with pytest.raises(AssertionError, match=r"initcheck \(global\)"):
        work(PtxDevice(32))


def test_bits_are_compared_not_values():
    zero, nan = torch.tensor([0.0, 1.0]), torch.tensor([float("nan")])
    assert_equal_bits({"a": [nan]}, {"a": [-nan]}, "nan")
    assert_equal_bits(torch.empty(0), torch.empty(0), "empty")
    assert_equal_bits(torch.tensor(2), torch.tensor(2), "scalar")
    with pytest.raises(AssertionError, match=r"result\[1\] differs in 1 of 2; first at \(0,\)"):
        assert_equal_bits((zero, -zero), (zero, torch.tensor([0.0, -1.0])), "negative zero")
    with pytest.raises(AssertionError, match="result"):
        assert_equal_bits(zero, zero.double(), "dtype")
    with pytest.raises(AssertionError, match="no tensor"):
        assert_equal_bits(None, None, "nothing")


def test_the_interpreter_checks_what_it_is_given():
    with pytest.raises(TypeError, match=r"logs must be torch.int64"):
        logs(PtxDevice(32), torch.zeros(5))
    with pytest.raises(ValueError, match="unknown kernel"):
        PtxDevice(32).launch("nothing", 1)


def test_every_kernel_has_a_ways_test(request: pytest.FixtureRequest) -> None:
    """In a run of all ways tests, this one near their end: a kernel that no work launched is named."""
    files = {p for p in Path(__file__).parent.rglob("test_*.py") if "way.check(" in p.read_text()}
    collected = {item.path for item in request.session.items}
    if (
        files - collected
        or request.config.option.keyword
        or getattr(request.config.option, "lf", False)
        or hasattr(request.config, "workerinput")
    ):
        pytest.skip("not all ways tests are in this run")
    untested = sorted(kernel_sources().keys() - set().union(*Way.checked.values()))
    assert not untested, (
        f"no tests/ways/test_*.py launches {', '.join(untested)}; add a work for each (tests/simulators/ways.py)"
    )
