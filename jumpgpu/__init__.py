"""jumpgpu: single-cell Cell Painting features from images, at the speed of the disk."""

import atexit
import gc
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cellprofiler.convert import import_cppipe as import_cppipe
    from .features.dataframe import measure as measure
    from .outputs.export import export as export
    from .outputs.plate_page import report as report
    from .profiles.make import profile as profile
    from .run.plates import extract as extract
    from .run.plates import segment as segment
    from .scores.benchmark import benchmark as benchmark
    from .scores.mean_average_precision import mean_average_precision as mean_average_precision
    from .scores.percent_matching import percent_matching as percent_matching
    from .scores.percent_replicating import percent_replicating as percent_replicating
    from .scores.transfer import pairs as pairs
    from .store.reader import open_plate as open_plate

try:
    from ._version import __version__ as __version__  # written into the wheel, from the git tag
except ImportError:
    __version__ = "0.1.0"  # a checkout that nobody installed
# The public functions, in the order of a plate's way through them; each is imported when it is first asked for.
PUBLIC = {
    "extract": ".run.plates",
    "segment": ".run.plates",
    "measure": ".features.dataframe",
    "open_plate": ".store.reader",
    "profile": ".profiles.make",
    "percent_replicating": ".scores.percent_replicating",
    "percent_matching": ".scores.percent_matching",
    "mean_average_precision": ".scores.mean_average_precision",
    "pairs": ".scores.transfer",
    "benchmark": ".scores.benchmark",
    "report": ".outputs.plate_page",
    "export": ".outputs.export",
    "import_cppipe": ".cellprofiler.convert",
}
__all__ = [
    "benchmark",
    "export",
    "extract",
    "import_cppipe",
    "mean_average_precision",
    "measure",
    "open_plate",
    "pairs",
    "percent_matching",
    "percent_replicating",
    "profile",
    "report",
    "segment",
]

if os.path.basename((sys.argv or [""])[0]) in ("-m", "jumpgpu"):
    # A command is being loaded. Looking through torch's 400,000 objects for garbage, again and again while they are made
    # and once more at the end, takes 0.6 s of a run.
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(PUBLIC[name], __name__), name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted(__all__)


class _Face(types.ModuleType):
    """`jumpgpu.extract` stays the function when the command's module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in PUBLIC or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
