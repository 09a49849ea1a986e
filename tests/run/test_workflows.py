"""The examples of docs/clusters.md, run: a Snakefile, a job array of Slurm, and a batch system's cluster on this machine."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from distributed.security import Security

from jumpgpu.extract import main
from tests.conftest import CHECKOUT
from tests.helpers.plates import contents, write_images

EXAMPLES = CHECKOUT / "docs" / "examples"
WELLS = tuple(f"{row}{column:02d}" for row in "AB" for column in (1, 2))


@pytest.fixture
def demo(tmp_path):
    """Two small plates and the options that extract them."""
    for plate in ("ONE", "TWO"):
        write_images(tmp_path, plate=plate, wells=WELLS)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number", "texture"]\n')
    return f"--masks {tmp_path}/masks --config {tmp_path}/small.toml --device cpu --illumination estimate"


def same_as_one_process(demo, tmp_path, output):
    plates = ["--plate", "ONE", "--plate", "TWO"]
    assert main([*plates, *demo.split(), "--images", str(tmp_path / "images"), "--output", str(tmp_path / "one")]) == 0
    for plate in ("ONE.zarr", "TWO.zarr"):
        assert contents(output / plate) == contents(tmp_path / "one" / plate)


def run(command, tmp_path, **environment):
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_snakemake_makes_the_plates_row_by_row(demo, tmp_path):
    snakemake = os.environ.get("SNAKEMAKE") or shutil.which("snakemake")
    if not snakemake:
        pytest.skip("no snakemake on the path; pip install snakemake, or set SNAKEMAKE")
    config = ["plates=ONE TWO", "rows=A B", "columns=2", f"images={tmp_path}/images", f"output={tmp_path}/out"]
    config += [f"python={sys.executable}", f"options={demo}"]
    run([snakemake, "--snakefile", EXAMPLES / "Snakefile", "--cores", "2", "--config", *config], tmp_path)
    same_as_one_process(demo, tmp_path, tmp_path / "out")
    again = run([snakemake, "--snakefile", EXAMPLES / "Snakefile", "--cores", "2", "--config", *config], tmp_path)
    assert "Nothing to be done" in again


@pytest.mark.slow
def test_slurm_makes_the_plates_by_a_job_array(demo, tmp_path):
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm answers here")
    settings = {"ROWS": "A B", "COLUMNS": "2", "CORES": "1", "JUMPGPU": f"{sys.executable} -m jumpgpu"}
    for plate in ("ONE", "TWO"):
        command = ["bash", EXAMPLES / "plate.slurm", plate, "--images", f"{tmp_path}/images", "--output", f"{tmp_path}/out"]
        said = run([*command, *demo.split()], tmp_path, **settings)
        last = re.search(r"(\d+) the end", said)[1]
        for _ in range(300):  # seconds
            state = subprocess.check_output(["scontrol", "show", "job", last], text=True)
            if "JobState=COMPLETED" in state or "JobState=FAILED" in state or "DependencyNeverSatisfied" in state:
                break
            time.sleep(1)
        logs = "".join(log.read_text() for log in tmp_path.glob("slurm-*.out"))
        assert "JobState=COMPLETED" in state, state + logs
    same_as_one_process(demo, tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_a_batch_systems_jobs_make_the_plates_over_tls(demo, tmp_path):
    pytest.importorskip("dask_jobqueue", reason="no dask-jobqueue: pip install dask-jobqueue")
    secret, environment = Security.temporary(), {}
    for name, text in (("ca", secret.tls_ca_file), ("cert", secret.tls_client_cert), ("key", secret.tls_client_key)):
        (tmp_path / f"{name}.pem").write_text(text)
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        for name in ("CERT", "KEY"):
            environment[f"DASK_DISTRIBUTED__COMM__TLS__{role}__{name}"] = str(tmp_path / f"{name.lower()}.pem")
    environment["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(tmp_path / "ca.pem")
    command = [sys.executable, EXAMPLES / "batch_cluster.py", "--kind", "local", "--jobs", "2", "--cores", "1"]
    command += ["--memory", "4GB", "--interface", "lo", "--", "--plate", "ONE", "--plate", "TWO", *demo.split()]
    said = run([*command, "--images", "images", "--output", "out"], tmp_path, **environment)
    assert said.count("4 wells  32 objects") == 2
    same_as_one_process(demo, tmp_path, tmp_path / "out")
