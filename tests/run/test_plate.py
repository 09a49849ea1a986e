"""The extract command and function: options, exit statuses, resuming, quarantine, and what a failing stage leaves."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import anndata
import numpy as np
import pytest
import tifffile

import jumpgpu
from jumpgpu.cli.options import options_from, parse
from jumpgpu.extract import main
from jumpgpu.features.families import columns
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.open import open_device
from jumpgpu.images.focus import check_image, count_image
from jumpgpu.images.locate import find_plate
from tests.conftest import CHECKOUT
from tests.helpers.plates import contents, write_images

CONFIG = '[features]\nfamilies = ["number", "texture"]\n'


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The arguments that extract a small plate into tmp_path/out; run from tmp_path."""
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return [
        "--plate",
        "DEMO",
        "--images",
        "images",
        "--masks",
        "masks",
        "--illumination",
        "none",
        "--config",
        "small.toml",
        "--device",
        "cpu",
        "--output",
        "out",
    ]


def test_assumed_channel_numbers_are_told_even_when_quiet(demo, capsys):
    assert main([*demo, "--quiet"]) == 0
    assert capsys.readouterr().err == (
        "DEMO: no index or load_data.csv says which channel is which; [plate.numbers] of the settings is assumed: DNA = 5, "
        "ER = 4, RNA = 3, AGP = 2, Mito = 1\n"
    )
    assert main([*demo, "--quiet", "--log-json", "--overwrite"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [e["message"][:11] for e in events if e["event"] == "warning"] == ["DEMO: no in"]


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_doubtful_function_is_told_even_when_quiet(demo, tmp_path, capsys, workers):
    (tmp_path / "f").mkdir()
    for channel in ("DNA", "ER", "RNA", "AGP", "Mito"):
        np.save(tmp_path / f"f/Illum{channel}.npy", np.full((56, 64), 100 if channel == "ER" else 1, np.float32))
    assert main([*demo, "--illumination", "f", "--quiet", *workers]) == 0
    assert "DEMO: ER: the illumination function's values are 100 to 100; one that is rescaled" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_plate_without_an_object_is_told_even_when_quiet(demo, tmp_path, capsys, workers):
    for path in (tmp_path / "images").rglob("*.tiff"):
        tifffile.imwrite(path, np.random.default_rng(3).integers(5, 9, (56, 64)).astype(np.uint16))
    at = demo.index("--masks")
    assert main([*demo[:at], *demo[at + 2 :], "--quiet", *workers]) == 0
    out, err = capsys.readouterr()
    assert "  0 cells  " in out
    assert "DEMO: no object in 4 fields of 2 wells; the brightest DNA pixel of A01 site 1 has 8 counts: is DNA" in err
    for path in (tmp_path / "masks").glob("*.tiff"):
        tifffile.imwrite(path, np.zeros((56, 64), np.uint16))
    assert main([*demo, "--quiet", "--overwrite", *workers]) == 0
    assert "DEMO: no object in 4 fields of 2 wells: the label images of masks have none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("threads", "said"), [(16, "16 threads wait for each other now and then; --workers 4 is faster"), (2, "")]
)
def test_many_threads_of_one_process_are_told_what_is_faster(demo, capsys, monkeypatch, threads, said):
    monkeypatch.setattr(CpuDevice, "plan", lambda *_: (1, threads))
    assert main([*demo, "--wells", "A01"]) == 0
    error = capsys.readouterr().err
    assert said in error
    assert said or "--workers" not in error


def test_the_command_makes_a_plate(demo, capsys):
    assert main(demo) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"DEMO  2 wells  16 cells  \d+\.\d s  out/DEMO\.zarr\n", out)
    assert "next: jumpgpu report out/DEMO.zarr" in err
    assert "channels DNA=ch5, ER=ch4, RNA=ch3, AGP=ch2, Mito=ch1" in err
    assert "cpu (" in err
    plate = jumpgpu.open_plate("out/DEMO")
    assert plate.wells == ["A01", "B02"]
    assert plate.verify() == []
    table = plate.to_pandas()
    np.testing.assert_array_equal(table["Nuclei_Number_Object_Number"], table["Metadata_ObjectNumber"])
    assert len(plate.columns) == 2340 + 9
    record = plate.record("B02")
    assert {i["channel"] for i in record["sites"][0]["inputs"]} >= {"DNA", "Cells labels"}
    assert all(i["bytes"] > 0 and not os.path.isabs(i["file"]) for i in record["sites"][0]["inputs"])


def test_a_batch_of_one_a_thread_of_one_and_another_folder_give_the_same_bits(demo, tmp_path):
    assert main(demo) == 0
    os.rename("images", "elsewhere")
    assert main([*demo, "--images", "elsewhere", "--output", "again", "--batch", "1", "--threads", "1", "--quiet"]) == 0
    assert contents(tmp_path / "out" / "DEMO.zarr") == contents(tmp_path / "again" / "DEMO.zarr")


def test_a_run_is_resumed(demo, capsys, tmp_path):
    assert main([*demo, "--wells", "B02"]) == 0
    assert main([*demo, "--output", "whole"]) == 0
    output = (tmp_path / "out/DEMO.zarr/B/02/zarr.json").stat()
    assert main(demo) == 0
    assert "1 of 2 wells are measured already" in capsys.readouterr().err
    assert (tmp_path / "out/DEMO.zarr/B/02/zarr.json").stat() == output
    assert contents(tmp_path / "out" / "DEMO.zarr") == contents(tmp_path / "whole" / "DEMO.zarr")
    assert main(demo) == 0
    assert re.match(r"DEMO  2 wells  16 cells", capsys.readouterr().out.splitlines()[-1])


def test_other_settings_and_changed_files_are_refused_until_overwritten(demo, capsys, tmp_path):
    assert main(demo) == 0
    before = contents(tmp_path / "out")
    assert main([*demo, "--sites", "1"]) == 2
    assert "sites: stored all, asked [1]" in capsys.readouterr().err
    (tmp_path / "small.toml").write_text(CONFIG + "[features.texture]\nscales = [3]\n")
    assert main(demo) == 2
    assert "config.features.texture.scales: stored [3, 5, 10], asked [3]" in capsys.readouterr().err
    assert main([*demo, "--wells", "A01", "--overwrite"]) == 2
    assert "holds 1 well not asked for" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert main([*demo, "--overwrite"]) == 0
    assert len(jumpgpu.open_plate("out/DEMO").columns) == 780 + 9
    file = next((tmp_path / "images").rglob("r01c01f02*ch3*"))
    tifffile.imwrite(file, np.arange(56 * 64, dtype=np.uint16).reshape(56, 64))
    assert main(demo) == 2
    assert re.search(
        r"A01 site 2 RNA: stored r01c01f02p01-ch3sk1fk1fl1.tiff \(\d+ bytes\), asked r01c01f02.*\(\d+ b",
        capsys.readouterr().err,
    )
    assert main([*demo, "--wells", "A01", "--overwrite"]) == 0
    assert main(demo) == 0


def break_images(tmp_path):
    folder = next((tmp_path / "images").rglob("Images"))
    (folder / "r01c01f01p01-ch2sk1fk1fl1.tiff").unlink()
    for channel in (3, 5):
        whole = (folder / f"r02c02f01p01-ch{channel}sk1fk1fl1.tiff").read_bytes()
        (folder / f"r02c02f01p01-ch{channel}sk1fk1fl1.tiff").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(folder / "r02c02f02p01-ch4sk1fk1fl1.tiff", np.zeros((10, 12), np.uint16))
    tifffile.imwrite(folder / "r01c01f02p01-ch4sk1fk1fl1.tiff", np.full((56, 64), 7, np.uint16))


def test_bad_images_leave_their_site_out_and_are_named(demo, capsys, tmp_path):
    break_images(tmp_path)
    assert main(demo) == 3
    out, err = capsys.readouterr()
    assert re.fullmatch(r"DEMO  2 wells  4 cells  \d+\.\d s  3 sites left out  1 image flagged  \S+DEMO.zarr\n", out)
    assert "3 sites were left out: see out/quarantine.csv" in err
    with open("out/quarantine.csv", newline="") as file:
        rows = {(r["well"], int(r["site"]), r["channel"]): r for r in csv.DictReader(file)}
    assert set(rows) == {("A01", 1, "AGP"), ("A01", 2, "ER"), ("B02", 1, "DNA"), ("B02", 1, "RNA"), ("B02", 2, "ER")}
    assert rows["A01", 1, "AGP"]["file"] == "r01c01f01p01-ch2sk1fk1fl1.tiff"
    assert "missing" in rows["A01", 1, "AGP"]["reason"]
    assert rows["A01", 2, "ER"]["used"] == "True"
    plate = jumpgpu.open_plate("out/DEMO")
    assert plate.wells == ["A01", "B02"]
    assert len(plate.to_pandas(wells=["B02"])) == 0
    assert plate.verify() == []
    assert main(demo) == 3  # there already, and still said


def test_strict_makes_a_bad_image_an_error(demo, capsys, tmp_path):
    break_images(tmp_path)
    assert main([*demo, "--strict", "--batch", "1"]) == 2
    assert "DEMO A01 site 1 AGP" in capsys.readouterr().err
    assert jumpgpu.open_plate("out/DEMO").wells == []


def test_a_dry_run_says_and_writes_nothing(demo, capsys, tmp_path):
    assert main([*demo, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for words in (
        "DEMO: 2 wells, 4 sites",
        "channels: DNA=ch5",
        "read: 32 files",
        "2349 features",
        "measured already: 0 wells",
    ):
        assert words in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--plate", "../x"], "not a plate barcode"),
        (["--plate", "NOPE"], "no plate NOPE in images"),
        (["--images", "nowhere"], "images root nowhere does not exist"),
        (["--wells", "Z99"], "no well at row 26, column 99"),
        (["--wells", "C03"], "DEMO has no images of well C03"),
        (["--sites", "7"], "DEMO has no site 7"),
        (["--sites", "x"], "'x' is not a site number"),
        (["--config", "absent.toml"], "absent.toml"),
        (["--config", "nopreset"], "unknown preset"),
        (["--masks", "images"], "DEMO: none of 4 sites has a label image of its nuclei, such as images/A01_s1_Nuclei"),
        (["--masks", "absent"], "masks folder absent does not exist"),
        (["--illumination", "absent"], "no DNA illumination function in absent"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--mask-pattern", "{well}_{object}.tiff"], "unknown {object}"),
    ],
)
def test_bad_use_ends_with_2_and_says_what_to_do(demo, capsys, change, message):
    assert main([*demo, *change]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_bad_options_end_with_2(demo, capsys):
    for arguments in ([*demo, "--nope"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "no plate was given" in capsys.readouterr().err
    assert main(["--plate", "DEMO", "--images", "ftp://elsewhere/x"]) == 2
    assert "only folders and s3://, gs:// and az:// URLs" in capsys.readouterr().err


def test_an_unknown_plate_stops_before_a_known_one_is_begun(demo, tmp_path):
    assert main([*demo, "--plate", "NOPE"]) == 2
    assert not (tmp_path / "out").exists()


def test_several_plates(demo, capsys, tmp_path):
    write_images(tmp_path, plate="DEMO2", wells=("A01",))
    assert main([*demo, "--plate", "DEMO2", "--wells", "A01", "--sites", "1,2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["DEMO", "DEMO2"]


def test_a_bad_mask_leaves_its_site_out_and_its_siblings_in(demo, capsys, tmp_path):
    assert main([*demo, "--output", "whole"]) == 0
    (tmp_path / "masks" / "B02_s1_Nuclei.tiff").unlink()
    assert main([*demo, "--strict"]) == 2
    assert "DEMO B02 site 1 Nuclei: no Nuclei label image: the file is missing" in capsys.readouterr().err
    assert main(demo) == 3
    assert "1 site left out" in capsys.readouterr().out
    with open("out/quarantine.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert [row[k] for k in ("plate", "well", "site", "channel")] == ["DEMO", "B02", "1", "Nuclei"]
    assert row["file"] == "B02_s1_Nuclei.tiff"
    whole, part = (jumpgpu.open_plate(f"{name}/DEMO").to_pandas() for name in ("whole", "out"))
    kept = (whole["Metadata_Well"] != "B02") | (whole["Metadata_Site"] != 1)
    assert whole[kept].reset_index(drop=True).equals(part.reset_index(drop=True))


def test_cells_with_doubtful_granularity_are_flagged(demo, tmp_path, monkeypatch):
    """A nucleus without intensity beside bright pixels: measured, and listed with its channel as used all the same."""
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["granularity"]\n')
    label = tifffile.imread("masks/B02_s1_Nuclei.tiff") == 1
    (file,) = (tmp_path / "images").rglob("r02c02f01*ch5*")
    image = np.where(label, 0, 40_000 + tifffile.imread(file) % 1000).astype(np.uint16)
    tifffile.imwrite(file, image, photometric="minisblack", metadata=None)
    assert main(demo) == 0
    with open("out/quarantine.csv", newline="") as listed:
        rows = [row for row in csv.DictReader(listed) if "Granularity" in row["reason"]]
    assert [(row["well"], row["site"], row["channel"], row["used"].lower()) for row in rows] == [("B02", "1", "DNA", "true")]
    assert rows[0]["reason"].startswith("1 cells with Granularity beyond 1000 %")
    table = jumpgpu.open_plate("out/DEMO").to_pandas()
    odd = (table.filter(regex="_Granularity_.*_DNA").abs() > 1000).any(axis=1)
    assert table[odd][["Metadata_Well", "Metadata_Site"]].values.tolist() == [["B02", 1]]


def test_the_library_does_the_same(demo, tmp_path):
    assert main(demo) == 0
    plate = jumpgpu.extract(
        "DEMO",
        images="images",
        wells=["A01"],
        output="library",
        config="small.toml",
        masks="masks",
        illumination="none",
        device="cpu",
        save_labels=True,
        quiet=True,
    )
    assert plate.wells == ["A01"]
    np.testing.assert_array_equal(
        plate.to_pandas().iloc[:, 4:], jumpgpu.open_plate("out/DEMO").to_pandas(["A01"]).iloc[:, 4:]
    )
    np.testing.assert_array_equal(plate.labels("A01", 2)["Cells"], tifffile.imread("masks/A01_s2_Cells.tiff"))
    assert plate.overview("A01", 2).shape == (5, 7, 8)
    raw = tifffile.imread(next((tmp_path / "images").rglob("r01c01f02*ch5*")))
    squares = raw.astype(int).reshape(7, 8, 8, 8).sum(axis=(1, 3))
    np.testing.assert_array_equal(plate.overview("A01", 2)[0], (squares + 32) // 64)  # no correction: DNA is ch5
    checks = plate.image_checks().set_index(["well", "site", "channel"])
    assert len(checks) == 2 * 5
    np.testing.assert_array_equal(
        checks.loc[("A01", 2, "DNA"), ["saturated", "sharpness"]].tolist(), check_image(count_image(raw))
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'ouput'"):
        jumpgpu.extract("DEMO", images="images", ouput="x")
    with pytest.raises(TypeError, match="wells and sites are lists"):
        jumpgpu.extract("DEMO", images="images", wells="A01")


def test_image_quality_is_stored_when_asked_for(demo, tmp_path):
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\nimage_quality = true\n')
    assert main([*demo, "--wells", "B02"]) == 0
    plate = jumpgpu.open_plate("out/DEMO")
    table = plate.image_quality()
    assert list(table.columns[:3]) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    assert table.Metadata_Site.to_list() == [1, 2]
    raw = tifffile.imread(next((tmp_path / "images").rglob("r02c02f02*ch5*")))
    assert table["Image_ImageQuality_MeanIntensity_DNA"][1] == pytest.approx(raw.mean() / 65535, rel=1e-6)
    assert anndata.read_zarr(plate.path / "tables" / "image").shape == (2, len(table.columns) - 2)  # and the count
    assert plate.verify() == []
    assert main([*demo, "--output", "without", "--config", "cpjump1", "--wells", "B02"]) == 0
    with pytest.raises(ValueError, match="has no image quality; set image_quality = true"):
        jumpgpu.open_plate("without/DEMO").image_quality()


def test_options_of_the_command_line_and_the_library_are_the_same():
    barcodes, options, dry_run = parse(
        ["--plate", "X1", "--plate", "X2", "--plate", "X1", "--wells", "A01,B02", "C03", "--sites", "1-3,7", "--save-labels"]
    )
    assert barcodes == ["X1", "X2"]
    assert not dry_run
    assert options == options_from(
        {"wells": ["A01", "B02", "C03"], "sites": [1, 2, 3, 7], "save_labels": True, "output": "."}
    )


@pytest.mark.parametrize(
    "program",
    [
        "import jumpgpu; f = jumpgpu.extract; assert callable(f); from jumpgpu import extract; assert extract is f",
        "from jumpgpu.extract import main; import jumpgpu, types; assert type(jumpgpu.extract) is types.FunctionType",
        "from jumpgpu import extract, open_plate; import jumpgpu.extract as module; assert module is extract; "
        "import inspect; assert list(inspect.signature(extract).parameters)[0] == 'plate'",
        "import jumpgpu, sys; assert not {'torch', 'zarr'} & set(sys.modules); assert 'extract' in dir(jumpgpu)",
        "import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_module('jumpgpu.extract', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0",
    ],
)
def test_the_name_is_a_function_and_a_command_in_any_order(program):
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)


def command(arguments, **keywords):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jumpgpu.extract", *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **keywords,
    )


def test_the_command_runs_without_warnings_and_says_its_status(demo):
    for arguments, status in ((demo, 0), ([*demo, "--wells", "C09"], 2)):
        process = command(arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, err
        assert "Warning" not in err
        assert out.startswith("DEMO  2 wells") == (status == 0)


def test_an_interrupted_run_ends_with_75_and_goes_on(demo, tmp_path):
    write_images(tmp_path, plate="LONG", wells=tuple(f"A{n:02d}" for n in range(1, 25)))
    arguments = [*demo, "--plate", "LONG", "--batch", "1"]
    arguments.remove("DEMO")
    arguments.remove("--plate")
    process = command(arguments)
    while not (tmp_path / "out/LONG.zarr/A/01/zarr.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "interrupted" in err
    assert not list((tmp_path / "out").glob(".LONG.run-*"))
    wells = jumpgpu.open_plate("out/LONG").wells
    assert 0 < len(wells) < 24
    assert main(arguments) == 0
    assert len(jumpgpu.open_plate("out/LONG").wells) == 24


def test_a_failing_batch_is_halved_and_gives_the_same_bits(demo, capsys, monkeypatch, tmp_path):
    assert main([*demo, "--output", "whole"]) == 0
    honest = sys.modules["jumpgpu.run.batch"].measure_batch

    def starved(batch, settings, device):
        if batch.pixels.shape[0] > 1:
            raise RuntimeError("out of memory")
        return honest(batch, settings, device)

    monkeypatch.setattr(sys.modules["jumpgpu.run.batch"], "measure_batch", starved)
    assert main(demo) == 0
    err = capsys.readouterr().err
    assert "DEMO A01 site 1 and 3 more fields: out of memory; trying again, 2 at a time" in err
    assert contents(tmp_path / "out" / "DEMO.zarr") == contents(tmp_path / "whole" / "DEMO.zarr")


def test_numbers_that_cannot_be_stop_the_run(demo, capsys, monkeypatch, tmp_path):
    honest = sys.modules["jumpgpu.run.batch"].measure_batch

    def broken(batch, settings, device):
        values = honest(batch, settings, device)
        values[
            0,
            [n.endswith("Number_Object_Number") for n in columns(channels=batch.channels, settings=settings)],
        ] = np.nan
        return values

    monkeypatch.setattr(sys.modules["jumpgpu.run.batch"], "measure_batch", broken)
    assert main(demo) == 75
    err = capsys.readouterr().err
    assert "trying again, 1 at a time" in err
    assert "error: DEMO A01 site 1: Cells_Number_Object_Number is not finite" in err
    assert jumpgpu.open_plate("out/DEMO").wells == []


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(28, "No space left on device"), 75, "No space left on device: out; finished wells are kept"),
        (PermissionError(13, "Permission denied", "x.zarr"), 2, "Permission denied: x.zarr; give an --output that can"),
        (MemoryError(), 75, "out of memory; finished wells are kept"),
    ],
)
def test_a_failing_disk_ends_the_run_and_leaves_whole_wells(demo, capsys, monkeypatch, error, status, message):
    honest, calls = sys.modules["jumpgpu.store.writer"].commit_folder, []

    def failing(files, target, staging, **options):
        calls.append(target.name)
        if "B" in target.parts:
            raise error
        honest(files, target, staging, **options)

    monkeypatch.setattr(sys.modules["jumpgpu.store.writer"], "commit_folder", failing)
    assert main([*demo, "--batch", "1"]) == status
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert jumpgpu.open_plate("out/DEMO").wells == ["A01"]
    assert not [t for t in threading.enumerate() if t.name.startswith(("store", "decode"))]
    monkeypatch.undo()


def test_a_second_run_on_the_same_wells_is_told_of_the_first(demo, capsys, monkeypatch):
    options = options_from(
        {
            "images": "images",
            "output": "out",
            "config": "small.toml",
            "masks": "masks",
            "illumination": "none",
            "device": "cpu",
        }
    )
    from jumpgpu.cli.progress import Progress
    from jumpgpu.run import plate as extract

    plate = find_plate("DEMO", "images", options.config.plate)
    device = open_device("cpu")
    with Progress("DEMO", 1, quiet=True) as progress:
        run = extract.prepare(plate, extract.chosen_wells(plate, options), options, device, progress)
        with extract.open_store(run):
            assert main(demo) == 75
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    assert main(demo) == 0


def test_real_fields_with_cellprofilers_label_images(shared, tmp_path):
    data = shared / "data"
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    plate = jumpgpu.extract(
        "BR00117010",
        images=data / "fields",
        masks=data / "cellprofiler",
        illumination=data / "cellprofiler" / "flatfield",
        output=tmp_path,
        config=tmp_path / "small.toml",
        device="cpu",
        quiet=True,
    )
    assert plate.wells == ["A21", "D08", "D14", "F10", "M02", "N09"]
    assert len(plate.to_pandas()) == 526


def test_a_run_starts_without_what_few_pipelines_need():
    """SciPy's image filters alone are 0.2 s of a start."""
    heavy = "{'scipy', 'skimage', 'sklearn', 'dask', 'anndata', 'pandas'}"
    program = f"import sys, jumpgpu.extract; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split() == []
