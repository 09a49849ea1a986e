"""A run of many fields in this process, with what its thread waits for apart: reading, launching, the device, writing.

    python -m benchmarks.gpu_parts --device cuda --images DIR --plate NAME --fields 64 --batch 8 --batch 32 --json FILE

The thread that launches asks the reader for a batch, launches it, waits for the count of the batch before and for the table
of the one before that, and hands this to the writers. Seconds of the wall clock per field in each; the rest is the program's
own. One run of a few fields warms up: kernels are compiled, files are in the page cache.
"""

import argparse
import dataclasses
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.host import SITES
from benchmarks.machine import write_json
from benchmarks.memory import repeat_plate
from jumpgpu.cli.options import options_from
from jumpgpu.gpu.open import open_device
from jumpgpu.images.locate import find_source
from jumpgpu.run import plate as plates


def parts(plate: Any, options: Any, device: Any) -> dict[str, float]:
    """Seconds of one run, and of it in each part."""
    spent = dict.fromkeys(("reading", "launching", "waiting", "writing"), 0.0)
    under = threading.local()  # the parts that a thread is in, one within another

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            around, start = getattr(under, "name", None), time.perf_counter()
            under.name = name
            try:
                return work(*arguments, **more)
            finally:
                took, under.name = time.perf_counter() - start, around
                spent[name] += took
                if around:
                    spent[around] -= took

        return run

    read, compute = plates.read, plates.compute

    def reading(*arguments: Any) -> Iterator[Any]:
        batches = read(*arguments)
        try:
            following = timed("reading", lambda: next(batches, None))
            while (fields := following()) is not None:
                yield fields
        finally:
            batches.close()

    def launching(fields: Any, run: Any) -> Any:
        fields, go_on = timed("launching", compute)(fields, run)
        return fields, timed("launching", go_on)

    fetch = device.fetch
    with (
        mock.patch.object(device, "fetch", lambda tensor: timed("waiting", fetch(tensor))),
        mock.patch.object(plates, "read", reading),
        mock.patch.object(plates, "compute", launching),
        mock.patch.object(plates.BackgroundWriter, "put", timed("writing", plates.BackgroundWriter.put)),
        mock.patch.object(plates.BackgroundWriter, "__exit__", timed("writing", plates.BackgroundWriter.__exit__)),
    ):
        start = time.perf_counter()
        plates.extract_plate(plate, options, device)
        return {"all": time.perf_counter() - start, **spent}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--plate", required=True)
    parser.add_argument("--illumination", default="flatfield")
    parser.add_argument("--config", default="cpjump1")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--fields", type=int, default=64)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    device = open_device(options.device)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeat_plate(str(options.images), options.plate, options.fields, folder / "images", SITES)
        given = {"images": folder / "images", "output": folder / "out", "config": options.config, "quiet": True}
        chosen = options_from({**given, "illumination": options.illumination})
        plate = find_source(options.plate, chosen.images_root, chosen.config.plate, None)
        first = [plate.select(None, None)[0].well]
        for batch in options.batch or (8, 32):
            for wells in (first, None):  # the first warms up
                spent = parts(plate, dataclasses.replace(chosen, batch=batch, wells=wells), device)
                shutil.rmtree(chosen.output)
            each = {k: v / options.fields for k, v in spent.items()}
            runs.append({"batch": batch, "fields_a_second": 1 / each["all"], "seconds_per_field": each})
    write_json(options.json, {"device": device.description, "fields": options.fields, "runs": runs})
    for run in runs:
        apart = ", ".join(f"{k} {1e3 * v:.1f}" for k, v in run["seconds_per_field"].items() if k != "all")
        print(f"batches of {run['batch']}: {run['fields_a_second']:.1f} fields/s; milliseconds a field: {apart}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
