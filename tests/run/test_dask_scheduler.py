"""Wells over Dask workers: the bits of one process, workers that die, wells that do harm, who may connect."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time

import dask
import distributed
import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.run import dask_scheduler as cluster
from jumpgpu.run import dask_workers as workers
from tests.conftest import CHECKOUT
from tests.helpers.plates import contents, write_images

WELLS = tuple(f"A{n:02d}" for n in range(1, 8))


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The arguments that extract two small plates; run from tmp_path."""
    for plate in ("ONE", "TWO"):
        write_images(tmp_path, plate=plate, wells=WELLS)
    (tmp_path / "small.toml").write_text('batch = 2\n[features]\nfamilies = ["number", "texture"]\n')
    monkeypatch.chdir(tmp_path)
    paths = {"--images": "images", "--masks": "masks", "--config": "small.toml", "--illumination": "none"}
    return ["--plate", "ONE", "--plate", "TWO", "--device", "cpu", *(w for pair in paths.items() for w in pair)]


@contextlib.contextmanager
def workers_in_threads(n=1, **options):
    """A cluster whose workers are threads of this process: quick to start, and nobody can kill them."""
    options = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None, **options}
    with LocalCluster(n_workers=n, threads_per_worker=1, processes=False, silence_logs=50, **options) as output:
        yield output


def stored(folder):
    return {plate: contents(folder / f"{plate}.zarr") for plate in ("ONE", "TWO") if (folder / f"{plate}.zarr").exists()}


def test_two_workers_make_the_bits_of_one_process_and_a_broken_image_is_named(demo, capsys, tmp_path):
    file = next((tmp_path / "images").rglob("TWO*/Images/r01c03f01*ch2*"))
    file.write_bytes(file.read_bytes()[:100])
    assert main([*demo, "--output", "one", "--threads", "1"]) == 3
    alone, said_alone = capsys.readouterr()
    assert main([*demo, "--output", "two", "--workers", "2"]) == 3
    out, said = capsys.readouterr()
    assert stored(tmp_path / "two") == stored(tmp_path / "one")
    assert (tmp_path / "two/quarantine.csv").read_bytes() == (tmp_path / "one/quarantine.csv").read_bytes()
    without_seconds = [re.sub(r"\d+\.\d s|one/|two/", "", text) for text in (alone, out)]
    assert sorted(without_seconds[0].splitlines()) == sorted(without_seconds[1].splitlines())
    for line in ("left out: TWO A03 site 1 AGP", "1 site was left out: see"):
        assert line in said_alone
        assert line in said
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        ".jumpgpu.lock", "ONE.zarr", "TWO.zarr", "quarantine.csv",
    ]  # fmt: skip


def test_a_killed_worker_costs_its_task_and_a_poisoned_well_itself_alone(demo, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "TASKS", "tests.helpers.poisoned_tasks")
    monkeypatch.setenv("JUMPGPU_POISON", "A02 kills A07 kills-once")
    monkeypatch.syspath_prepend(CHECKOUT)
    demo = [*demo[2:], "--wells", *WELLS]  # plate TWO alone
    assert main([*demo, "--output", "out", "--workers", "2"]) == 3
    out, said = capsys.readouterr()
    assert "2 sites left out" in out
    assert "left out: TWO A02: the well failed 3 times, last: its worker was killed" in said
    with open("out/quarantine.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["plate"], r["well"], r["site"], r["used"]) for r in rows] == [
        ("TWO", "A02", "1", "False"), ("TWO", "A02", "2", "False"),
    ]  # fmt: skip
    assert {r["reason"] for r in rows} == {"the well failed 3 times, last: its worker was killed"}
    plate = jumpgpu.open_plate("out/TWO")
    assert plate.wells == list(WELLS)
    assert plate.verify() == []
    assert plate.record("A02")["cells"] == 0
    assert main([*demo, "--output", "one"]) == 0
    whole = jumpgpu.open_plate("one/TWO")
    assert all(plate.record(w)["files"] == whole.record(w)["files"] for w in WELLS if w != "A02")
    asked = (tmp_path / "out/asked.txt").read_text().splitlines()
    assert sum("A02" in line.split() for line in asked) == 3
    assert sum("A07" in line.split() for line in asked) == 2


def test_wells_that_raise_are_left_out_after_three_tries(demo, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "TASKS", "tests.helpers.poisoned_tasks")
    monkeypatch.setenv("JUMPGPU_POISON", "A03 raises")
    with workers_in_threads() as here:
        assert main([*demo, "--output", "out", "--scheduler", here.scheduler_address]) == 3
    said = capsys.readouterr().err
    reason = "the well failed 3 times, last: IndexError: no such thing in A03"
    for name in ("ONE", "TWO"):
        assert said.count(f"left out: {name} A03: {reason}") == 1
    for name in ("ONE", "TWO"):
        plate = jumpgpu.open_plate(f"out/{name}")
        assert plate.wells == list(WELLS)
        assert [plate.record(w)["cells"] for w in WELLS] == [0 if w == "A03" else 8 for w in WELLS]
        assert set(plate.quarantine["reason"]) == {reason}
    assert main([*demo, "--output", "out", "--wells", "A03", "--overwrite"]) == 0
    assert jumpgpu.open_plate("out/ONE").record("A03")["cells"] == 8


def test_a_fault_of_every_well_ends_the_run_and_quarantines_none(demo, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "TASKS", "tests.helpers.poisoned_tasks")
    with workers_in_threads() as here:
        elsewhere = [*demo, "--output", "out", "--scheduler", here.scheduler_address]
        for wells in (WELLS, WELLS[:2]):
            monkeypatch.setenv("JUMPGPU_POISON", " ".join(f"{well} raises" for well in wells))
            assert main([*elsewhere, "--wells", *wells]) == 75
            assert "well after well fails, so the wells are not at fault; A0" in capsys.readouterr().err
        assert jumpgpu.open_plate("out/ONE").wells == []
        monkeypatch.setenv("JUMPGPU_POISON", "")
        assert main(elsewhere) == 0


def test_a_library_user_may_name_a_scheduler(demo, tmp_path):
    assert main([*demo, "--output", "one"]) == 0
    options = {"masks": "masks", "config": "small.toml", "illumination": "none", "device": "cpu", "quiet": True}
    with workers_in_threads() as here:
        for plate in ("ONE", "TWO"):
            jumpgpu.extract(plate, images="images", output="two", scheduler=here.scheduler_address, **options)
    assert stored(tmp_path / "two") == stored(tmp_path / "one")


def test_strict_other_settings_and_a_claimed_well_end_the_run_as_in_one_process(demo, capsys, monkeypatch, tmp_path):
    file = next((tmp_path / "images").rglob("ONE*/Images/r01c03f01*ch2*"))
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with workers_in_threads() as here:
        elsewhere = [*demo, "--output", "out", "--scheduler", here.scheduler_address]
        assert main([*elsewhere, "--strict"]) == 2
        assert "ONE A03 site 1 AGP" in capsys.readouterr().err
        file.write_bytes(whole)
        assert main([*elsewhere, "--sites", "1"]) == 2
        assert "stored all, asked [1]" in capsys.readouterr().err
        monkeypatch.setattr(cluster, "BUSY", 0.0)
        with jumpgpu.store.writer.gate(tmp_path / "out"):
            claim = jumpgpu.store.writer.Claim(tmp_path / "out", "ONE", ["A05"])
        assert main(elsewhere) == 75
        assert "is already at work on 1 of these wells (A05)" in capsys.readouterr().err
        claim.release()
        assert main(elsewhere) == 0
    assert main([*demo, "--output", "one"]) == 0
    assert stored(tmp_path / "out") == stored(tmp_path / "one")


def test_tls_is_needed_off_this_machine_and_serves(demo, capsys, tmp_path):
    for address in ("tcp://10.1.2.3:8786", "tls://cluster.example.org:8786", "tcp://[2001:db8::1]:8786"):
        assert main([*demo, "--scheduler", address]) == 2
        assert "is not on this machine" in capsys.readouterr().err
    secret = Security.temporary()
    tls = {"ca-file": secret.tls_ca_file, "client.cert": secret.tls_client_cert, "client.key": secret.tls_client_key}
    with dask.config.set({f"distributed.comm.tls.{key}": value for key, value in tls.items()}):
        workers.check(jumpgpu.cli.options.Options(scheduler="tls://cluster.example.org:8786"))
        with workers_in_threads(protocol="tls://", security=secret) as here:
            assert here.scheduler_address.startswith("tls://127.0.0.1:")
            assert main([*demo, "--output", "out", "--scheduler", here.scheduler_address]) == 0
    assert main(["--plate", "ONE", *demo[4:], "--output", "one"]) == 0
    assert stored(tmp_path / "out")["ONE"] == stored(tmp_path / "one")["ONE"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--workers", "0"], 2, "workers must be at least 1"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2, "give one of them"),
        (["--scheduler", "tcp://127.0.0.1:1"], 75, "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_meant(demo, capsys, monkeypatch, words, status, message):
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    assert main([*demo, *words]) == status
    assert message in capsys.readouterr().err


def test_each_worker_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert workers.visible_gpus("cuda") == ["0", "1", "2", "3"]
    assert workers.visible_gpus("cpu") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert workers.visible_gpus("auto") == ["3", "5"]
    with pytest.raises(ValueError, match="there are 2 GPUs, and a GPU serves one worker"):
        workers.check(jumpgpu.cli.options.Options(workers=3))
    with pytest.raises(ValueError, match="use --device cuda"):
        workers.check(jumpgpu.cli.options.Options(workers=2, device="cuda:1"))


def test_an_interrupted_run_ends_its_workers_and_listens_to_this_machine_only(demo, tmp_path):
    write_images(tmp_path, plate="LONG", wells=tuple(f"A{n:02d}" for n in range(1, 25)), sites=tuple(range(1, 7)))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jumpgpu.extract", "--plate", "LONG", *demo[4:], "--output", "out",
         "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "out/LONG.zarr/A/01/zarr.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert len(family) > 2
    assert set(listening) == {"127.0.0.1"}
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.splitlines()[-1].startswith("error: interrupted; finished wells are kept")
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    assert not list((tmp_path / "out").glob(".LONG.run-*"))
    plate = jumpgpu.open_plate("out/LONG")
    assert plate.verify() == []
    assert 0 < len(plate.wells) < 24


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_started_anew(demo, tmp_path, monkeypatch):
    """SIGSTOP to the one worker, as a batch system or a debugger does: the run goes on without it and ends as ever."""
    monkeypatch.setattr(workers, "SILENT", 45.0)
    start, stopped = workers.LocalWorkers._start, []

    def stop(self, i):
        process = start(self, i)
        if not stopped:  # the first there is, before it has done anything
            stopped.append(process)
            os.kill(process.pid, signal.SIGSTOP)
        return process

    monkeypatch.setattr(workers.LocalWorkers, "_start", stop)
    assert main([*demo[2:], "--output", "out", "--workers", "1", "--threads", "1"]) == 0
    assert stopped[0].returncode == -signal.SIGKILL
    assert main([*demo[2:], "--output", "one", "--threads", "1"]) == 0
    assert stored(tmp_path / "out") == stored(tmp_path / "one")


@pytest.mark.parametrize("here", [None, "2023.3.0"])
def test_another_version_of_dask_is_refused_by_name(demo, capsys, monkeypatch, here):
    """A scheduler of 2023.3, as it is, answers this process with a TypeError."""
    there = distributed.__version__
    with workers_in_threads() as cluster:
        monkeypatch.setattr(distributed, "__version__", here or there)
        address = cluster.scheduler_address
        status = main([*demo, "--output", "out", "--scheduler", address, "--quiet"])
    said = capsys.readouterr().err
    assert status == (2 if here else 0), said
    worker = f"the scheduler has {there}, worker tcp://127.0.0.1:"
    words = f"error: --scheduler {address}: this process has Dask (distributed) 2023.3.0, {worker}"
    assert said.startswith(words) == bool(here)
    assert not here or said.count("\n") == 1
