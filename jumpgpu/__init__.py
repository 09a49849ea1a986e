"""jumpgpu: single-cell Cell Painting features from images, at the speed of the disk."""

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extract import extract as extract
    from .opened import open_plate as open_plate
    from .transfer import pairs as pairs

__version__ = "0.1.0"
# name -> its module, imported when first asked for
PUBLIC = {"extract": ".extract", "open_plate": ".opened", "pairs": ".transfer"}
__all__ = ["extract", "open_plate", "pairs"]

if os.path.basename((sys.argv or [""])[0]) in ("-m", "jumpgpu"):
    # A command is being loaded. Looking through torch's 400,000 objects for garbage, again and again while they are made
    # and once more at the end, takes 0.6 s of a run.
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(PUBLIC[name], __name__)
    return module if name == "extract" else getattr(module, name)  # extract: the module is the function (docs/design)


def __dir__() -> list[str]:
    return sorted(__all__)
