"""Nyxus on given fields and masks: seconds of processor a field, by group of its features. Runs in its own environment.

Nyxus has no family that is CellProfiler's in name or number; its groups stand beside ours by subject only, on one thread:
first-order statistics, basic shape with Zernike moments, and co-occurrence texture at one offset (ours are three). It has no
counterpart for granularity by opening, radial distribution in CellProfiler's bins, or two-channel correlation.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import time

import numpy as np
from nyxus import Nyxus

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")
GROUPS = {"intensity": ["*ALL_INTENSITY*"], "shape": ["*BASIC_MORPHOLOGY*", "ZERNIKE2D"], "texture": ["*ALL_GLCM*"]}
DEPTH = 256


@contextlib.contextmanager
def silenced():
    """The library prints from C++: send that elsewhere, so that the last line is ours."""
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def main():
    fields = np.load(sys.argv[1], allow_pickle=False)
    counts = np.round(fields["pixels"] * 65535).astype(np.uint32)  # Nyxus takes integers
    seconds, columns = {}, {}
    with silenced():
        for group, features in GROUPS.items():
            tool = Nyxus(features, n_feature_calc_threads=1, coarse_gray_depth=DEPTH)
            for b in range(len(counts)):
                for compartment in COMPARTMENTS:
                    labels = fields[compartment][b].astype(np.uint32)
                    for c in range(1 if group == "shape" else counts.shape[1]):
                        start = time.process_time()
                        result = tool.featurize(counts[b, c], labels)
                        seconds[group] = seconds.get(group, 0.0) + time.process_time() - start
                        columns[group] = result.shape[1]
    modules = {name: s / len(counts) for name, s in seconds.items()}
    figures = {"tool": "Nyxus", "version": importlib.metadata.version("nyxus"), "modules": modules, "columns": columns}
    print(json.dumps({**figures, "cpu_s_a_field": sum(modules.values()), "fields": len(counts)}))


if __name__ == "__main__":
    main()
