"""What a command loads before it begins: torch is most of a start, and nothing heavy beside it may creep in."""

import json
import subprocess
import sys

import pytest

HEAVY = ("anndata", "dask", "distributed", "matplotlib", "pandas", "pycytominer", "rich", "scipy", "skimage", "zarr")
LOADED = f"""
import json, sys
import jumpgpu.extract
from jumpgpu.store.layout import Layout
Layout("P", ["Cells_AreaShape_Area"], ["DNA"])
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""
AS_COMMAND = """
import gc, sys
sys.argv = [{argv!r}]
import jumpgpu
print(gc.get_threshold()[0])
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_extract_loads_no_heavy_library_beside_torch() -> None:
    assert json.loads(run(LOADED)) == []


@pytest.mark.parametrize(("argv", "minimum"), [("-m", 100_000), ("/usr/bin/jumpgpu", 100_000), ("notebook.py", 0), ("", 0)])
def test_only_a_command_changes_when_garbage_is_collected(argv: str, minimum: int) -> None:
    assert int(run(AS_COMMAND.format(argv=argv))) == (minimum or int(run("import gc; print(gc.get_threshold()[0])")))
