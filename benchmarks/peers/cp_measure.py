"""cp_measure on given fields and masks: seconds of processor a field, by module. Runs in its own environment."""

import importlib.metadata
import json
import sys
import time
import warnings

import numpy as np
from cp_measure.bulk import get_core_measurements, get_correlation_measurements

COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")


def main():
    warnings.simplefilter("ignore")
    fields = np.load(sys.argv[1], allow_pickle=False)
    pixels, channels = fields["pixels"].astype(np.float64), fields["channels"].tolist()
    seconds = {}

    def timed(name, function, *arguments, **named):
        start = time.process_time()
        function(*arguments, **named)
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    for b in range(len(pixels)):
        for compartment in COMPARTMENTS:
            labels = fields[compartment][b]
            for name, function in get_core_measurements().items():
                if name == "radial_zernikes":  # not among the 3515 columns
                    continue
                scales = (3, 5, 10) if name == "texture" else (None,)
                once = name in ("sizeshape", "zernike", "feret")  # shape alone: no channel matters
                for c in range(1 if once else len(channels)):
                    for scale in scales:
                        known = {"scale": scale} if scale else {}
                        timed(name, function, labels, pixels[b, c], **known)
            for name, function in get_correlation_measurements().items():
                if "costes" in name:
                    continue
                for i in range(len(channels)):
                    for j in range(i + 1, len(channels)):
                        timed(name, function, pixels[b, i], pixels[b, j], labels)
    modules = {name: s / len(pixels) for name, s in seconds.items()}
    figures = {"tool": "cp_measure", "version": importlib.metadata.version("cp_measure"), "modules": modules}
    print(json.dumps({**figures, "cpu_s_a_field": sum(modules.values()), "fields": len(pixels)}))


if __name__ == "__main__":
    main()
