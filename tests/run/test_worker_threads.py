"""Batches computed side by side: order, how many are in use at a time, and how a run ends when one fails."""

import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import FieldBatch, read_fields
from jumpgpu.run.worker_threads import held_by, in_threads, trailing
from tests.helpers.image_plates import NUMBERS, noise, write_plate
from tests.simulators.builds import compiler

ROOT = Path(__file__).resolve().parents[2]


class Items:
    """Items 0 .. n-1, which knows how many are in use: taken and not yet worked on to the end."""

    def __init__(self, n: int) -> None:
        self.n, self.lock, self.used, self.maximum, self.closed = n, threading.Lock(), 0, 0, False

    def __iter__(self) -> Generator[int, None, None]:
        try:
            for i in range(self.n):
                with self.lock:
                    self.used += 1
                    self.maximum = max(self.maximum, self.used)
                yield i
        finally:
            self.closed = True

    def done(self) -> None:
        with self.lock:
            self.used -= 1


def worker_thread_names() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("lane")]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 23])
def test_results_come_in_order_and_no_more_are_in_use_than_said(threads: int, n: int) -> None:
    items = Items(n)
    late = threading.Event()

    def work(i: int) -> int:
        if threads > 1 and n > 2:  # the first is the last to be ready
            if i == 0:
                late.wait(10)
            elif i == threads - 1:
                late.set()
        items.done()
        return i * i

    with in_threads(iter(items), work, threads) as results:
        assert list(results) == [i * i for i in range(n)]
    assert items.maximum <= held_by(threads)
    assert items.closed
    assert not worker_thread_names()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_in_its_place_and_ends_the_rest(threads: int) -> None:
    items = Items(40)
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 4:
            raise ValueError("the fourth")
        return i

    got: list[int] = []

    def run() -> None:
        with in_threads(iter(items), work, threads) as results:
            for i in results:
                got.append(i)

    with pytest.raises(ValueError, match="the fourth"):
        run()
    assert got == [0, 1, 2, 3]
    assert max(begun) <= 4 + threads
    assert items.closed
    assert not worker_thread_names()


def test_a_caller_that_stops_early_waits_for_what_has_begun_and_begins_no_more() -> None:
    items, ended = Items(40), []

    def work(i: int) -> int:
        ended.append(i)
        return i

    def run() -> None:
        with in_threads(iter(items), work, 2) as results:
            assert next(results) == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(ended) <= 3
    assert items.closed
    assert not worker_thread_names()


@pytest.mark.parametrize(("batch", "ahead", "threads"), [(1, 0, 2), (1, 2, 3), (2, 1, 2)])
def test_a_buffer_is_not_filled_again_while_a_lane_reads_it(tmp_path: Path, batch: int, ahead: int, threads: int) -> None:
    write_plate(tmp_path, wells=("A01", "A02", "B01"), sites=(1, 2, 3))
    plate = find_plate("BR00000001", tmp_path)
    turn = threading.Semaphore(0)

    def work(fields: FieldBatch) -> list[tuple[tuple[str, int], bool]]:
        turn.acquire(timeout=0.05)  # long enough for the decoders to run into the bound
        return [
            (site, all(np.array_equal(pixels[c], noise(*site, NUMBERS[name])) for c, name in enumerate(plate.channels)))
            for site, pixels in zip(fields.sites, fields.pixels.numpy(), strict=True)
        ]

    fields = read_fields(plate, batch=batch, ahead=ahead, held=held_by(threads), workers=2)
    with in_threads(fields, work, threads) as results:
        result = [f for batch_found in results for f in batch_found]
    assert result == [((w, s), True) for w in ("A01", "A02", "B01") for s in (1, 2, 3)]


def test_the_threads_share_the_cores_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jumpgpu.gpu.cpu.free_memory", lambda: 64 << 30)
    device = CpuDevice(workers=8)
    field = 5 * 1080 * 1080
    assert device.plan(100, field) == (1, 8)
    assert device.plan(3, field) == (1, 3)
    assert device.plan(100, field, 4) == (4, 8)
    assert device.plan(10_000, 5 * 100 * 100)[0] == 32
    assert device.plan(0, field) == (1, 1)
    assert device.plan(100, 64 << 30)[1] == 1  # a field that there is hardly memory for
    with device.divided(3):
        assert device.workers == 2
    assert device.workers == 8


DRIVER = r"""
#include "jg_host.h"
#include <thread>
#include <vector>
#include <stdio.h>
struct Sum { std::vector<unsigned> cell; unsigned grid; };
static void body(void* at) {
    Sum& s = *static_cast<Sum*>(at);
    s.cell[blockIdx.x] += gridDim.x == s.grid ? blockIdx.x + 1 : 1u << 30;
}
int main() {
    int wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) threads.emplace_back([t, &wrong] {
        int mine = 0;
        for (unsigned k = 0; k < 300; ++k) {
            const unsigned grid = 1 + (k * 7 + t) % 41;
            Sum s{std::vector<unsigned>(grid, 0), grid};
            jg::host::run_blocks(grid, 1 + (k + t) % 4, body, &s);
            for (unsigned b = 0; b < grid; ++b) mine += s.cell[b] != b + 1;
        }
        __atomic_fetch_add(&wrong, mine, __ATOMIC_RELAXED);
    });
    for (auto& t : threads) t.join();
    printf("%d\n", wrong);
    return wrong != 0;
}
"""


def test_launches_at_the_same_time_share_the_pool_without_a_race(tmp_path: Path) -> None:
    """The pool itself under ThreadSanitizer: every block once, with its own launch's grid."""
    (tmp_path / "driver.cpp").write_text(DRIVER)
    host = ROOT / "kernels" / "host"
    command = [compiler()[0], "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-pthread", f"-I{host}", f"-I{host.parent}"]
    subprocess.run([*command, tmp_path / "driver.cpp", host / "pool.cpp", "-o", tmp_path / "driver"], check=True)
    done = subprocess.run([tmp_path / "driver"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_trailing_hands_on_later_and_in_order():
    taken = []

    def items(n, fails=False):
        for k in range(n):
            taken.append(k)
            yield k
        if fails:
            raise OSError("no more")

    got = []
    for item in trailing(items(4), 1):
        got.append((item, len(taken)))
    assert got == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(trailing(items(3), 0)) == [0, 1, 2]
    behind = trailing(items(3, fails=True), 1)
    assert [next(behind) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no more"):
        next(behind)
