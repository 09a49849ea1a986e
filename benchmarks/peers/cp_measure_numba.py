"""cp_measure with numba, its accelerator: prints `cpu_s_a_field` and the rest as cp_measure.py does. Its own environment."""

import runpy
from pathlib import Path

import cp_measure

if __name__ == "__main__":
    cp_measure.set_accelerator("numba")
    runpy.run_path(str(Path(__file__).with_name("cp_measure.py")), run_name="__main__")
