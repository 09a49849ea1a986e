"""51 plates of 384 wells and 5792 features go through profile and score within 20 minutes and 8 GiB on two cores."""

import os
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profiles.files import write_table
from jumpgpu.settings.names import well_name
from tests.helpers.profiles_drawn import feature_names, write_metadata

PLATES = [f"P{k:02d}" for k in range(51)]
MINUTES, BYTES = 20, 8 << 30


@pytest.mark.slow
@pytest.mark.parametrize("level", ["plate", "batch"])
def test_51_plates_in_20_minutes_and_8_gib(tmp_path, level):
    """Profiles are noise: five-plate conditions replicate by chance, and nearly every feature survives selection."""
    samples = [f"G{i:03d}-a" for i in range(320)]
    layout = {well_name(1 + i // 24, 1 + i % 24): (samples[i] if i < 320 else None) for i in range(384)}
    write_metadata(tmp_path / "metadata", layout, PLATES)
    experiments = {"Batch": "b", "Assay_Plate_Barcode": PLATES, "Condition": [f"C{k // 5:02d}" for k in range(51)]}
    experiments["Condition"][-1] = "C09"  # no condition of one plate
    pd.DataFrame(experiments).to_csv(tmp_path / "metadata" / "experiment-metadata.tsv", sep="\t", index=False)
    features = feature_names(5792)
    for k, plate in enumerate(PLATES):
        values = pd.DataFrame(np.random.default_rng(k).normal(size=(384, 5792)), columns=features)
        wells = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": list(layout), "Metadata_Object_Count": 1000})
        write_table(pd.concat([wells, values], axis=1), tmp_path / "wells" / f"{plate}.parquet")
    run = [sys.executable, "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    start = time.perf_counter()
    wells = [a for p in PLATES for a in ("--plate", str(tmp_path / "wells" / f"{p}.parquet"))]
    profile = [*run, "jumpgpu.profile", *wells, "--output", str(tmp_path), "--level", level]
    subprocess.run(profile, check=True, env=environment, stdout=subprocess.DEVNULL)
    profiled = time.perf_counter() - start
    plates = [a for p in PLATES for a in ("--plate", p)]
    score = [*run, "jumpgpu.score", "replicating", *plates, "--output", str(tmp_path), "--by", "Condition"]
    done = subprocess.run(score, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{level}: profile {profiled:.0f} s, score {seconds - profiled:.0f} s, peak {peak / 2**30:.2f} GiB")
    assert len(done.stdout.splitlines()) == 10
    percents = [float(line.split("  ")[2].split()[0]) for line in done.stdout.splitlines()]
    assert max(percents) < 10  # noise does not replicate
    assert seconds < MINUTES * 60
    assert peak < BYTES
