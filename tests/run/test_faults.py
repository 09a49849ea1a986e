"""Faults that pass while images are read: they cost no data; those that stay end the run, and nothing is stored."""

import errno
import os
import shutil

import pytest
import tifffile

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.storage import faults, local
from jumpgpu.verify import main as verify
from tests.helpers.plates import contents, write_images

PASSING = [errno.ESTALE, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EAGAIN]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The arguments that extract a small plate, its illumination estimated, into tmp_path/out."""
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(faults, "PAUSES_S", (0.0, 0.0, 0.0))
    return [
        "--plate",
        "DEMO",
        "--images",
        "images",
        "--masks",
        "masks",
        "--config",
        "small.toml",
        "--device",
        "cpu",
        "--output",
        "out",
        "--quiet",
    ]


class Failing:
    """The os module, whose `call` fails with an errno `times` times, from the `first` time it is about `of`."""

    def __init__(self, call, number, times, of="", first=1):
        self.call, self.number, self.first, self.last, self.of = call, number, first, first + times - 1, of
        self.count = 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name != self.call:
            return real

        def fails(path, *rest, **more):
            if self.of in str(path):
                self.count += 1
                if self.first <= self.count <= self.last:
                    raise OSError(self.number, os.strerror(self.number), str(path))
            return real(path, *rest, **more)

        return fails


@pytest.fixture
def whole(demo, tmp_path):
    """What an undisturbed run stores."""
    assert main([*demo, "--output", "whole"]) == 0
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("call", ["open", "stat"])
def test_a_fault_that_passes_costs_nothing(demo, whole, monkeypatch, tmp_path, number, call):
    for of, first in (("-ch5sk1", 1), ("-ch2sk1", 5), ("Nuclei", 1)):
        monkeypatch.setattr(local, "os", Failing(call, number, 1, of, first))
        assert main(demo) == 0
        assert contents(tmp_path / "out") == whole
        shutil.rmtree("out")


@pytest.mark.parametrize("number", [*PASSING, errno.EACCES])
def test_a_fault_that_stays_ends_the_run_with_nothing_stored(demo, whole, monkeypatch, tmp_path, capsys, number):
    for of, first in (("f01p01-ch5sk1", 1), ("r02c02f02p01-ch1sk1", 2), ("B02_s2_Cells", 1)):
        with monkeypatch.context() as broken:
            broken.setattr(local, "os", Failing("open", number, 10**6, of, first))
            assert main(demo) == 75
        said = capsys.readouterr().err
        assert of in said
        assert os.strerror(number) in said
        plate = jumpgpu.open_plate("out/DEMO") if os.path.exists("out/DEMO.zarr") else None
        assert plate is None or plate.quarantine.empty
        assert main(demo) == 0
        assert {k: v for k, v in contents(tmp_path / "out").items() if "illum" not in k} == {
            k: v for k, v in whole.items() if "illum" not in k
        }
        assert verify(["out/DEMO"]) == 0
        shutil.rmtree("out")


def test_an_estimate_without_fields_for_such_a_reason_is_not_kept(demo, monkeypatch, tmp_path):
    monkeypatch.setattr(local, "os", Failing("open", errno.EIO, 10**6, "f02p01-ch3sk1"))
    assert main(demo) == 75
    assert not list(tmp_path.glob("out/illum/**/*.npy"))


@pytest.mark.parametrize("gone", ["folder", "files"])
def test_a_share_that_is_gone_leaves_no_empty_wells(tmp_path, monkeypatch, capsys, gone):
    write_images(tmp_path, wells=("A01", "A02", "B01", "B02"), sites=(1,))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\nimage_quality = false\n')
    options = "--plate DEMO --images images --masks masks --config small.toml --device cpu --illumination none --output out"
    options = [*options.split(), "--quiet", "--batch", "1", "--threads", "1"]
    real, images = local.read_inside, next((tmp_path / "images").rglob("Images"))

    def read(file, roots, limit):
        if "r02" in str(file) and images.exists() and (tmp_path / "out" / "DEMO.zarr").exists():
            if gone == "folder":
                images.rename(tmp_path / "away")
            else:
                shutil.copytree(images, tmp_path / "away")
                for path in images.iterdir():
                    path.unlink()
        return real(file, roots, limit)

    monkeypatch.setattr(local, "read_inside", read)
    assert main(options) == 75
    assert "is the share that held" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    stored = jumpgpu.open_plate("out/DEMO")
    assert stored.quarantine.empty
    assert set(stored.wells) <= {"A01", "A02"}
    shutil.rmtree(images, ignore_errors=True)
    (tmp_path / "away").rename(images)
    assert main(options) == 0
    assert len(jumpgpu.open_plate("out/DEMO").wells) == 4


def test_well_after_well_without_an_image_ends_the_run(tmp_path, monkeypatch, capsys):
    wells = tuple(f"A{n:02d}" for n in range(1, 9))
    folder = write_images(tmp_path, wells=wells, sites=(1,))
    monkeypatch.chdir(tmp_path)
    for path in folder.iterdir():
        if path.name[3:6] not in ("c01", "c03"):
            path.write_bytes(b"II*\0 a copy that is under way")
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    options = "--plate DEMO --images images --masks masks --config small.toml --device cpu --illumination none --output out"
    assert main([*options.split(), "--quiet"]) == 75
    said = capsys.readouterr().err
    assert "no site of 5 wells in a row can be used, A04 to A08" in said
    assert "the first is A04 site 1 DNA: unreadable DNA image" in said
    assert set(jumpgpu.open_plate("out/DEMO").wells) <= {"A01", "A02", "A03"}
    assert main([*options.split(), "--quiet", "--wells", "A04", "A05"]) == 3


def test_quarantined_sites_are_tried_again_when_asked(demo, whole, tmp_path):
    image = next(tmp_path.rglob("r01c01f02p01-ch4sk1fk1fl1.tiff"))
    kept = image.with_suffix(".kept")
    os.rename(image, kept)
    options = [*demo, "--illumination", "none"]
    assert main([*options, "--output", "other"]) == 3
    os.rename(kept, image)
    assert main([*options, "--output", "other"]) == 3
    assert main([*options, "--output", "other", "--retry-quarantined"]) == 0
    assert main([*options, "--output", "never"]) == 0
    assert contents(tmp_path / "other") == contents(tmp_path / "never")


def test_the_record_is_of_the_file_that_was_read(demo, monkeypatch, tmp_path, capsys):
    real, other = local.read_inside, tmp_path / "other.tiff"
    image = next(tmp_path.rglob("r01c01f01p01-ch5sk1fk1fl1.tiff"))
    before, reads = image.stat(), []

    def run(output: str, replace_after: int) -> None:
        """Read the image often enough, its header too; then another takes its place."""
        reads.clear()

        def read(file, roots, limit):
            data = real(file, roots, limit)
            if str(file).endswith(image.name):
                reads.append(file)
                if len(reads) == replace_after:
                    tifffile.imwrite(other, tifffile.imread(image) + 1)
                    os.replace(other, image)
            return data

        with monkeypatch.context() as swapping:
            swapping.setattr(local, "read_inside", read)
            assert main([*options, "--output", output]) == 0

    options = [*demo, "--illumination", "none", "--wells", "A01"]
    run("first", replace_after=0)
    run("out", replace_after=len(reads))
    options = [*options, "--output", "out"]
    inputs = jumpgpu.open_plate("out/DEMO").record("A01")["sites"][0]["inputs"]
    known = next(i for i in inputs if i["file"] == image.name)
    assert (known["bytes"], known["mark"]) == (before.st_size, str(before.st_mtime_ns))
    assert main(options) == 2
    assert image.name in capsys.readouterr().err


def test_files_of_the_same_size_that_were_changed_are_told(demo, tmp_path, capsys):
    options = [*demo, "--illumination", "none", "--wells", "A01"]
    assert main(options) == 0
    image = next(tmp_path.rglob("r01c01f01p01-ch5sk1fk1fl1.tiff"))
    os.utime(image, (1, 1))
    assert main(options) == 0
    assert "1 image files were changed or copied since their wells were measured" in capsys.readouterr().err


def test_a_dry_run_that_cannot_look_is_worth_trying_again(demo, monkeypatch, capsys):
    def judge(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "out/DEMO.zarr/zarr.json")

    monkeypatch.setattr("jumpgpu.run.plate.judge", judge)
    assert main([*demo, "--illumination", "none", "--dry-run"]) == 75
    assert "out/DEMO.zarr/zarr.json" in capsys.readouterr().err
