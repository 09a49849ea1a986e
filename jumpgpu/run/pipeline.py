"""An imported pipeline's steps over a plate: which tables there are, and a batch's fields as rows of them.

A row of the table of cells holds the object sets that share numbers with the cells (the set `Cells`, or the last
secondary one);
every other set has a table of its own. Fields are done one after another: a measured threshold is a field's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..gpu.device import Device
from ..images.illumination import correct
from ..settings import steps as kinds
from ..settings.names import COMPARTMENTS
from ..steps.state import State
from ..store.layout import ObjectTable, SiteTable
from .batch import Begun, Raw, Run, Tables, position_of, shrink
from .provenance import inputs_of


@dataclass(frozen=True)
class PipelineTables:
    """What a pipeline's tables hold.

    cells    object sets of a cell's row, in the order of their columns
    columns  set -> its columns, without the set's name
    image    columns of the image table
    """

    cells: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    image: tuple[str, ...]

    @property
    def of_cells(self) -> list[str]:
        return [f"{name}_{column}" for name in self.cells for column in self.columns[name]]

    @property
    def of_others(self) -> dict[str, list[str]]:
        return {name: [f"{name}_{c}" for c in result] for name, result in self.columns.items() if name not in self.cells}


def check_pipeline(steps: Sequence[kinds.Step], channels: Sequence[str]) -> None:
    """ValueError for an image that the plate has no channel for."""
    for step in steps:
        if isinstance(step, kinds.Load) and step.channel not in channels:
            raise ValueError(
                f"the pipeline's image {step.image!r} is channel {step.channel!r}; the plate's channels are "
                f"{', '.join(channels)}. Say in [plate.stains] what your files call it, or rename it in [[steps]]"
            )


def tables_of(steps: Sequence[kinds.Step], channels: Sequence[str], size: tuple[int, int], device: Device) -> PipelineTables:
    """What the steps give, found by running them over a blank field of the plate's size."""
    from ..steps.run import run_steps  # with SciPy, which few runs need

    blank = device.zeros(1, *size, dtype=torch.float32)
    one = torch.ones(size, dtype=torch.float32, device=device.torch)
    state = run_steps(steps, dict.fromkeys(channels, blank), dict.fromkeys(channels, one), device, skip=False)
    cells = cells_of(steps, state)
    image = tuple(f"Image_{name}" for name in state.image_measured if name != "Count_Cells")
    return PipelineTables(cells, {name: tuple(result) for name, result in state.measured.items()}, image)


def cells_of(steps: Sequence[kinds.Step], state: State) -> tuple[str, ...]:
    """The object sets of a cell's row: those whose numbers are the cells'."""
    grown = [step.objects for step in steps if isinstance(step, kinds.Secondary)]
    names = list(state.objects)
    lead = "Cells" if "Cells" in names else grown[-1] if grown else names[0]
    family = state.objects[lead].family
    result = [name for name in names if state.objects[name].family == family]
    return tuple(sorted(result, key=lambda n: (COMPARTMENTS.index(n) if n in COMPARTMENTS else len(COMPARTMENTS), n)))


def launch_steps(raw: Raw, run: Run) -> Begun:
    """A batch's tables, as `batch.launch` gives those of the presets; its steps ask the device, so all comes at once."""
    return lambda: tables_of_steps(raw, run)


def tables_of_steps(raw: Raw, run: Run) -> Tables:
    """Run an imported pipeline's steps over a batch, field by field."""
    from ..steps.run import run_steps  # with SciPy, which few runs need

    plate, options = run.plate, run.options
    assert run.pipeline is not None
    ones = torch.ones_like(run.illumination)
    pixels = correct(raw.pixels, ones, device=run.device, scales=raw.scales)
    functions = dict(zip(plate.channels, run.illumination, strict=True))
    tables = []
    for b, (well, site) in enumerate(raw.sites):
        planes = {c: pixels[b : b + 1, k] for k, c in enumerate(plate.channels)}
        scales = dict(zip(plate.channels, raw.scales[b], strict=True)) if raw.scales else None
        state = run_steps(options.config.steps, planes, functions, run.device, scales, site=site)
        labels = {name: s.labels[0].cpu().numpy() for name, s in state.objects.items()} if options.save_labels else {}
        overview = None
        if options.save_overview or options.save_labels:
            overview = shrink(pixels[b : b + 1])[0].cpu().numpy().astype(np.uint16)
        numbers, values = rows_of_cells(state, run.pipeline)
        image = [measured(state, name.removeprefix("Image_")) for name in run.pipeline.image]
        tables.append(
            SiteTable(
                well,
                site,
                numbers=numbers,
                values=values,
                inputs=inputs_of(plate, run.wells[well][site], options),
                labels=labels,
                overview=overview,
                image=np.array(image),
                flags={"": state.skipped} if state.skipped else {},
                objects={name: own_table(state, name, run.pipeline) for name in run.pipeline.of_others},
                position_um=position_of(run.wells[well][site]),
            )
        )
    return lambda: tables


def rows_of_cells(state: State, tables: PipelineTables) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and values of a field's cells; NaN where a set has no object of a number."""
    n = max(state.objects[name].n if name in state.objects else 0 for name in tables.cells)
    parts = []
    for name in tables.cells:
        part = np.full((n, len(tables.columns[name])), np.nan)
        own = own_table(state, name, tables)
        part[: len(own.numbers)] = own.values
        parts.append(part)
    return np.arange(1, n + 1, dtype=np.int32), np.concatenate(parts, axis=1)


def own_table(state: State, name: str, tables: PipelineTables) -> ObjectTable:
    """A set's rows in a field; of a field that was skipped what had been measured."""
    n, columns = state.objects[name].n if name in state.objects else 0, tables.columns[name]
    known = state.measured.get(name, {})
    absent = torch.full((n,), torch.nan)
    values = [known.get(column, absent).double().cpu().numpy() for column in columns]
    return ObjectTable(np.arange(1, n + 1, dtype=np.int32), np.stack(values, 1) if values else np.zeros((n, 0)))


def measured(state: State, name: str) -> float:
    """An image measurement of a field; NaN where the field was skipped before."""
    return state.image_measured[name][0].item() if name in state.image_measured else float("nan")
