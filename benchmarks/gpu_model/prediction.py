"""From counts, resources and a GPU's numbers to a time: an interval, and the floor beneath it. Never a measurement.

For one launch, in seconds on one GPU:

  issue     machine instructions of warps / (4 a clock on each SM that has a block)
  integer   integer ones / (64 lanes a clock)
  fp64      those of the FP64 unit / (its lanes a clock)
  shared    cycles of shared memory's banks, or the most lanes on one address of an atomic, / (1 a clock)
  l1        sectors of all requests / (64 bytes a clock)
  l2        sectors that a block touches for the first time / (64 bytes a clock)
  dram      the distinct bytes of each array / memory bandwidth
  atomic    global atomics, the most lanes on one address of each request, one a clock and SM
  path      the slowest block's critical path, or that of a mean block times the rounds of resident blocks

`minimum` is the largest of these, `maximum` the sum of path, dram and the rest's largest three; both with the launch itself.
The floor is what no rewriting of the same work gets round: the larger of dram and the useful lanes' share of issue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu_model.counting import Counted
from benchmarks.gpu_model.devices import GPUS, ISSUES, L1_BYTES, LAUNCH_S, Gpu

TERMS = ("issue", "integer", "fp64", "shared", "l1", "l2", "dram", "atomic", "path")


@dataclass(frozen=True)
class Prediction:
    """Seconds of a kernel's launches together. `terms` in the order of TERMS; `launches` their number."""

    minimum: float
    maximum: float
    floor: float
    terms: tuple[float, ...]
    launches: int

    @property
    def bound(self) -> str:
        """The term that is largest."""
        return TERMS[self.terms.index(max(self.terms))]

    @property
    def ratio(self) -> float:
        """Of the prediction's upper end, without the launches themselves, to the floor."""
        return (self.maximum - self.launches * LAUNCH_S) / self.floor if self.floor else float("inf")


def terms_of(counted: Counted, gpu: Gpu, blocks_an_sm: int, scale: float = 1.0) -> dict[str, float]:
    """Seconds of each term of one launch; `scale` more blocks of the same kind."""
    g = GPUS.index(gpu)
    grid = counted.grid * scale
    used = min(float(gpu.sms), grid)
    resident = min(grid, float(gpu.sms * blocks_an_sm))
    clocks = used * gpu.clock
    rounds = grid / resident
    return {
        "issue": counted.slots[g] * scale / (ISSUES * clocks),
        "integer": counted.integer[g] * scale * 32 / (gpu.int_lanes * clocks),
        "fp64": counted.fp64[g] * scale * 32 / (gpu.fp64_lanes * clocks),
        "shared": counted.shared_cycles * scale / clocks,
        "l1": counted.sectors * scale * 32 / (L1_BYTES * clocks),
        "l2": (counted.read + counted.written) * scale / (L1_BYTES * clocks),
        "dram": counted.min_bytes * scale / gpu.dram,
        "atomic": counted.atomics * scale / clocks,
        "path": max(counted.longest[g], counted.path[g] * rounds) / gpu.clock,
    }


def floor_of(counted: Counted, gpu: Gpu, scale: float = 1.0) -> float:
    """Seconds that the launch's bytes, or its useful lanes' instructions, take a whole GPU at its full rates."""
    g = GPUS.index(gpu)
    useful = counted.lanes / (32 * counted.warps) if counted.warps else 1.0
    issue = counted.slots[g] * useful / (ISSUES * gpu.sms * gpu.clock)
    fp64 = counted.fp64[g] * useful * 32 / (gpu.fp64_lanes * gpu.sms * gpu.clock)
    return scale * max(counted.min_bytes / gpu.dram, issue, fp64)


def predict(launches: Sequence[Counted], gpu: Gpu, blocks_an_sm: int, scale: float = 1.0) -> Prediction:
    """All launches of one kernel, one after the other; grids `scale` times as large."""
    totals = dict.fromkeys(TERMS, 0.0)
    minimum = maximum = floor = 0.0
    for counted in launches:
        terms = terms_of(counted, gpu, blocks_an_sm, scale)
        rest = sorted((terms[t] for t in TERMS if t not in ("path", "dram")), reverse=True)
        minimum += max(terms.values()) + LAUNCH_S
        maximum += terms["path"] + terms["dram"] + sum(rest[:3]) + LAUNCH_S
        floor += floor_of(counted, gpu, scale)
        for t in TERMS:
            totals[t] += terms[t]
    return Prediction(minimum, maximum, floor, tuple(totals[t] for t in TERMS), len(launches))
