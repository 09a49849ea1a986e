"""cp_measure on given fields and masks: seconds of processor a field, by module. Runs in its own environment.

With an accelerator (cp_measure_numba.py) a first pass over the first field compiles; its seconds are `cold_s`, apart.
"""

import importlib.metadata
import json
import sys
import time
import warnings

import cp_measure
import numpy as np
from cp_measure.bulk import get_core_measurements, get_correlation_measurements

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")


def measure(pixels, channels, labels, seconds):
    """One field; adds to `seconds` by module. pixels: float64 [C, H, W]; labels: compartment -> int32 [H, W]."""

    def timed(name, function, *arguments, **named):
        start = time.process_time()
        function(*arguments, **named)
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    for image in labels.values():
        for name, function in get_core_measurements().items():
            if name == "radial_zernikes":  # not among the 3515 columns
                continue
            scales = (3, 5, 10) if name == "texture" else (None,)
            once = name in ("sizeshape", "zernike", "feret")  # shape alone: no channel matters
            for c in range(1 if once else len(channels)):
                for scale in scales:
                    known = {"scale": scale} if scale else {}
                    timed(name, function, image, pixels[c], **known)
        for name, function in get_correlation_measurements().items():
            if "costes" in name:
                continue
            for i in range(len(channels)):
                for j in range(i + 1, len(channels)):
                    timed(name, function, pixels[i], pixels[j], image)


def main():
    warnings.simplefilter("ignore")
    fields = np.load(sys.argv[1], allow_pickle=False)
    pixels, channels = fields["pixels"].astype(np.float64), fields["channels"].tolist()
    labels = [{name: fields[name][b] for name in COMPARTMENTS} for b in range(len(pixels))]
    accelerator, cold, seconds = cp_measure._ACCELERATOR, {}, {}
    if accelerator:
        measure(pixels[0], channels, labels[0], cold)
    for b in range(len(pixels)):
        measure(pixels[b], channels, labels[b], seconds)
    modules = {name: s / len(pixels) for name, s in seconds.items()}
    tool = f"cp_measure with {accelerator}" if accelerator else "cp_measure"
    figures = {"tool": tool, "version": importlib.metadata.version("cp_measure"), "modules": modules}
    if accelerator:
        figures["cold_s"] = sum(cold.values())
    print(json.dumps({**figures, "cpu_s_a_field": sum(modules.values()), "fields": len(pixels)}))


if __name__ == "__main__":
    main()
