"""The model's figures as one JSON: what was counted and compiled, and the predictions made of it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_model import workloads
from benchmarks.gpu_model.compiled import ARCHITECTURES, Resources, all_resources, blocks_per_sm
from benchmarks.gpu_model.counting import Counted
from benchmarks.gpu_model.devices import GPUS, LAUNCH_S, PCIE_SHARE, Gpu
from benchmarks.gpu_model.prediction import Prediction, predict
from benchmarks.machine import RESULTS
from jumpgpu.gpu.kernel_source import full_source, kernel_sources
from tests.simulators.standin_cuda import standin

NOT_ON_A_GPU = {
    "cross_entropy_32": "the CPU's way of entropy_rounds",
    "cross_entropy_64": "the CPU's way of entropy_rounds",
    "lzw_strips": "a strip per thread: the host's way to decode",
    "sort_values": "torch sorts on a GPU",
    "sort_pixels": "torch sorts on a GPU",
    "sort_counts": "torch sorts on a GPU",
    "granularity_erode": "the CPU's way of granularity_erode_tile",
    "granularity_raise": "the CPU's way of granularity_rise and granularity_sink",
    "texture_parts": "the CPU's way of texture_count",
    **dict.fromkeys(
        ("flood_in_queue", "spread_in_queue", "order_by_quicksort", "running_variance", "thin_in_order", "thin_in_turns"),
        "one thread's work: a core of the host does it beside a GPU",
    ),
}
THROUGHPUT, HOST = RESULTS / "throughput.json", RESULTS / "host.json"
FREE_OPERATORS = {"empty", "empty_like"}


@dataclass
class Batch:
    """The standard batch: fields, cells, pixels [B, C, H, W]; torch's operators (times, bytes) and the host's waits; bytes
    that are copied to the device for its images."""

    fields: int
    cells: int
    shape: list[int]
    operators: dict[str, list[float]]
    waits: dict[str, int]
    copied: float = 0.0


@dataclass
class Figures:
    """All that the page is made of. `launches`: by kernel, of the workload that `workload` names; `digests` of sources.

    cpu : seconds of CPU a field and fields a second of the CPU backend, measured, where throughput.json has them
    host : by fields a batch, seconds of CPU a field, and of them under Python's lock, of the host beside a GPU, where
        host.json has them
    """

    plate: str = ""
    batch: Batch | None = None
    digests: dict[str, str] = field(default_factory=dict)
    workload: dict[str, str] = field(default_factory=dict)
    fields: dict[str, int] = field(default_factory=dict)
    launches: dict[str, list[Counted]] = field(default_factory=dict)
    resources: dict[str, dict[str, Resources]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    host: dict[str, list[float]] = field(default_factory=dict)

    @property
    def standard(self) -> list[str]:
        """Kernels of the standard batch."""
        return [k for k, w in self.workload.items() if w == "standard"]


def digest(kernel: str) -> str:
    """Of a kernel's file and what it includes."""
    return hashlib.sha256(full_source(kernel_sources()[kernel][0]).encode()).hexdigest()[:16]


def outdated(figures: Figures) -> set[str]:
    """Kernels whose source is another than the one counted, or that were never counted."""
    return {k for k in kernel_sources() if figures.digests.get(k) != digest(k)} - set(NOT_ON_A_GPU)


def update(figures: Figures, given: workloads.Fields, kernels: Iterable[str] | None = None) -> Figures:
    """Count the outdated kernels (or those named) anew; the others keep their figures. Kernels that are gone are dropped."""
    wanted = set(outdated(figures) if kernels is None else kernels)
    figures.plate = given.plate
    with standin():
        for name in ("standard", *workloads.OTHERS):
            if name != "standard" and wanted <= {k for k, w in figures.workload.items() if w == "standard"}:
                break
            taken = {k for k, w in figures.workload.items() if w != name}
            done = workloads.record(name, given, lambda k, taken=taken: k in wanted and k not in taken)  # type: ignore[misc]
            fresh: dict[str, list[Counted]] = {}
            for counted in done.recording.launches:
                fresh.setdefault(counted.kernel, []).append(counted)
            figures.launches |= fresh
            figures.workload |= dict.fromkeys(fresh, name)
            figures.fields[name] = done.fields
            if name == "standard":
                r = done.recording
                figures.batch = Batch(
                    done.fields, done.cells, list(done.shape), dict(r.operators), dict(r.waits), done.copied
                )
    figures.digests |= {k: digest(k) for k in wanted if k in kernel_sources()}
    for book in (figures.digests, figures.workload, figures.launches):
        for k in set(book) - set(kernel_sources()) | set(book) & set(NOT_ON_A_GPU):
            del book[k]  # type: ignore[attr-defined]
    figures.resources = {a: all_resources(a) for a in ARCHITECTURES}
    if THROUGHPUT.exists():
        raw = json.loads(THROUGHPUT.read_text())
        figures.cpu = [raw["cpu_s_a_field"]["median"], raw["fields_a_s"]]
    if HOST.exists():
        raw = json.loads(HOST.read_text())
        figures.host = {
            n: [batch["cpu_s_per_field"]["median"], batch["gil_s_per_field"]["median"]]
            for n, batch in raw["batches"].items()
        }
    return figures


def predictions(figures: Figures, gpu: Gpu, fields: int) -> dict[str, Prediction]:
    """Of every kernel that was counted, for a batch of so many fields."""
    output = {}
    for kernel, launches in figures.launches.items():
        needs = figures.resources[gpu.architecture][kernel]
        scale = fields / figures.fields[figures.workload[kernel]]
        output[kernel] = predict(launches, gpu, blocks_per_sm(gpu, needs, launches[0].block), scale)
    return output


@dataclass(frozen=True)
class Totals:
    """Seconds of a standard batch on one GPU: its kernels, least, most and floor; torch's operators; the images' copy."""

    minimum: float
    maximum: float
    floor: float
    operators: float
    copy: float
    launches: int
    operator_calls: int
    fields: int


def totals(figures: Figures, gpu: Gpu, fields: int) -> Totals:
    batch = figures.batch
    assert batch is not None
    output = predictions(figures, gpu, fields)
    mine = [output[k] for k in figures.standard]
    scale = fields / batch.fields
    calls, bytes_ = 0, 0.0
    for name, (times, moved) in batch.operators.items():
        if name in FREE_OPERATORS or name == "to the device":
            continue
        calls += int(times)
        bytes_ += moved
    return Totals(
        sum(p.minimum for p in mine),
        sum(p.maximum for p in mine),
        sum(p.floor for p in mine),
        calls * LAUNCH_S + bytes_ * scale / gpu.dram,
        batch.copied * scale / (gpu.pcie * PCIE_SHARE),
        sum(p.launches for p in mine),
        calls,
        fields,
    )


def save(figures: Figures, path: Path, extra: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    output = {g.name: by_field(figures, g) for g in GPUS} if figures.batch else {}
    text = json.dumps(short({**extra, "predicted": output, **dataclasses.asdict(figures)}), separators=(",", ":"))
    path.write_text(text.replace('],"', '],\n"') + "\n")


def by_field(figures: Figures, gpu: Gpu) -> dict[str, list[float]]:
    """Least, most and floor of each kernel of the batch as counted, seconds per field: what `make gpu` compares with."""
    n = figures.fields["standard"]
    output = predictions(figures, gpu, n)
    return {k: [output[k].minimum / n, output[k].maximum / n, output[k].floor / n] for k in figures.standard}


def short(value: Any) -> Any:
    """Numbers with six digits that count."""
    if isinstance(value, dict):
        return {k: short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [short(v) for v in value]
    if isinstance(value, float):
        return int(value) if value == int(value) else float(f"{value:.6g}")
    return value


def load(path: Path) -> Figures:
    """What `save` wrote; empty figures where there is no file."""
    if not path.exists():
        return Figures()
    raw = json.loads(path.read_text())
    return Figures(
        plate=raw["plate"],
        batch=Batch(**raw["batch"]) if raw["batch"] else None,
        digests=raw["digests"],
        workload=raw["workload"],
        fields=raw["fields"],
        launches={k: [Counted(**c) for c in v] for k, v in raw["launches"].items()},
        cpu=raw.get("cpu", []),
        host=raw.get("host", {}),
        resources={a: {k: Resources(**r) for k, r in v.items()} for a, v in raw["resources"].items()},
    )


__all__ = ["GPUS", "Batch", "Figures", "Totals", "load", "outdated", "predictions", "save", "totals", "update"]
