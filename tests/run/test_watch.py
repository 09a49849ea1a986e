"""A plate that is still being written: wells are measured once, whole, in any order of arrival, and after restarts."""

from pathlib import Path

import pandas
import pytest

import jumpgpu
from jumpgpu.cli.options import Options
from jumpgpu.extract import main
from jumpgpu.run.watch import watch_plate
from jumpgpu.settings.config import Config, FeatureSettings
from jumpgpu.store.reader import open_plate
from tests.helpers.image_plates import NUMBERS, STAINS, image_name, index_xml
from tests.run.test_mixed_sizes import SMALL, write_wells

CONFIG = Config(features=FeatureSettings(families=("shape", "number", "intensity")))
WELLS = ["A01", "B01", "B02"]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Images of a plate that has been written."""
    return write_wells(tmp_path / "microscope", WELLS)


class Microscope:
    """Time that passes as the watch waits, a step of the microscope at each."""

    def __init__(self, steps: list[object]):
        self.now, self.steps, self.waits = 0.0, list(steps), 0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        assert self.waits < 500, "the watch does not end"
        if self.steps and self.waits % 10 == 0:  # slower than files settle
            self.steps.pop(0)()  # type: ignore[operator]


def start(tmp_path: Path, clock: Microscope, **more: object) -> list[tuple[int, int]]:
    """Watch until the end; wells and sites left out of each round."""
    options = Options(
        **{
            "images": str(tmp_path / "share"),
            "output": tmp_path / "out",
            "illumination": "none",
            "device": "cpu",
            "config": CONFIG,
            "quiet": True,
            **more,
        }
    )
    return [(done.wells, done.left_out) for done in watch_plate("P1", options, 8.0, clock.wait, lambda: clock.now)]


def arrive(drawn: Path, share: Path, *names: str) -> None:
    share.mkdir(parents=True, exist_ok=True)
    for name in names:
        (share / name).write_bytes((drawn / name).read_bytes())


def names_of(well: str, sites: tuple[int, ...] = (1, 2)) -> list[str]:
    return [image_name(well, site, n) for site in sites for n in NUMBERS.values()]


def check_same(tmp_path: Path, drawn: Path) -> None:
    """What was stored is what one run over the finished plate stores."""
    whole = jumpgpu.extract(
        "P1", drawn, output=tmp_path / "whole", config=CONFIG, illumination="none", device="cpu", quiet=True
    )
    pandas.testing.assert_frame_equal(
        open_plate(tmp_path / "out" / "P1.zarr").to_pandas(WELLS), whole.to_pandas(WELLS), check_exact=True
    )


def test_wells_are_measured_as_they_are_complete(tmp_path: Path, drawn: Path) -> None:
    """With an index, which lists all wells from the start; a file is cut short, and whole later."""
    share = tmp_path / "share" / "P1" / "Images"
    late = names_of("B02")[-1]

    def cut() -> None:
        (share / late).write_bytes((drawn / late).read_bytes()[:100])

    steps = [
        lambda: (share.mkdir(parents=True), (share / "Index.idx.xml").write_text("<EvaluationInputData><Pla")),
        lambda: (share / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL)),
        lambda: arrive(drawn, share, *names_of("B01")),
        lambda: arrive(drawn, share, *names_of("A01")[:-1]),
        lambda: arrive(drawn, share, names_of("A01")[-1]),
        lambda: arrive(drawn, share, *names_of("B02")[:-1]),
        lambda: arrive(drawn, share, late),
    ]
    rounds = start(tmp_path, Microscope(steps))
    assert rounds == [(1, 0), (1, 0), (1, 0)]
    check_same(tmp_path, drawn)
    assert open_plate(tmp_path / "out" / "P1.zarr").quarantine["used"].all()


def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path, drawn: Path) -> None:
    """A file that grows is never taken half, however long the others have been there."""
    share = tmp_path / "share" / "P1" / "Images"
    slow = names_of("B02")[-1]
    data = (drawn / slow).read_bytes()
    arrive(drawn, share, *[n for well in WELLS for n in names_of(well)][:-1])
    (share / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL))
    (share / slow).write_bytes(data[:10])
    clock = Microscope([])
    grown = [10]

    def wait(seconds: float) -> None:
        clock.now += seconds
        clock.waits += 1
        assert clock.waits < 500
        if grown[0] < len(data):
            grown[0] += max(1, len(data) // 20)
            (share / slow).write_bytes(data[: grown[0]])

    clock.wait = wait  # type: ignore[method-assign]
    rounds = start(tmp_path, clock)
    assert rounds == [(2, 0), (1, 0)]
    check_same(tmp_path, drawn)


def test_a_watch_goes_on_after_it_was_stopped(tmp_path: Path, drawn: Path) -> None:
    """Names alone, so it ends by a file; then with the wells chosen, by itself."""
    share = tmp_path / "share" / "P1" / "Images"
    arrive(drawn, share, *names_of("A01"))
    stop = tmp_path / "out" / "P1.stop"
    rounds = start(tmp_path, Microscope([lambda: arrive(drawn, share, *names_of("B01", (1,))), stop.touch]))
    assert rounds == [(1, 0)]  # B01 has one site, A01 two
    stop.unlink()
    arrive(drawn, share, *names_of("B01", (2,)))
    rounds = start(tmp_path, Microscope([lambda: arrive(drawn, share, *names_of("B02"))]), wells=tuple(WELLS))
    assert rounds == [(1, 0), (1, 0)]
    assert start(tmp_path, Microscope([]), wells=tuple(WELLS)) == []
    check_same(tmp_path, drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watch"], "--illumination auto may need all images"),
        (["--watch", "--illumination", "estimate"], "--illumination estimate may need all images"),
        (["--watch", "-1", "--illumination", "none"], "seconds must be above 0"),
        (["--watch", "--illumination", "none", "--overwrite"], "--overwrite measures wells again"),
        (["--watch", "--illumination", "none", "--plate", "P2"], "one plate at a time"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["--plate", "P1", "--images", str(tmp_path), *options])
    except SystemExit as error:
        status = int(str(error.code))
    assert status == 2
    said = capsys.readouterr().err
    assert message in said or "expected one argument" in said or "-1" in said


def test_the_command_watches(tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (drawn / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL))
    config = tmp_path / "c.toml"
    config.write_text('[features]\nfamilies = ["number"]\n')
    given = ["--plate", "P1", "--images", str(drawn), "--output", str(tmp_path / "out"), "--illumination", "none"]
    assert main([*given, "--config", str(config), "--device", "cpu", "--watch", "0.1"]) == 0
    assert list(open_plate(tmp_path / "out" / "P1.zarr").wells) == WELLS
    assert "3 wells" in capsys.readouterr().out


def test_a_watch_shares_its_wells_among_workers(tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (drawn / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL))
    config = tmp_path / "c.toml"
    config.write_text('[features]\nfamilies = ["number", "shape", "intensity"]\n')
    given = ["--plate", "P1", "--images", str(drawn), "--output", str(tmp_path / "out"), "--illumination", "none"]
    assert main([*given, "--config", str(config), "--device", "cpu", "--watch", "0.1", "--workers", "2"]) == 0
    check_same(tmp_path, drawn)


@pytest.mark.parametrize("kind", ["cut short", "room of zeros"])
def test_a_file_that_is_not_whole_is_waited_for(tmp_path: Path, drawn: Path, kind: str) -> None:
    """A copy that has stalled, or has its whole size and no content yet, is no file that has settled."""
    share = tmp_path / "share" / "P1" / "Images"
    arrive(drawn, share, *[n for well in WELLS for n in names_of(well)])
    (share / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL))
    slow = names_of("B02")[3]
    data = (drawn / slow).read_bytes()
    (share / slow).write_bytes(data[: len(data) // 2] if kind == "cut short" else bytes(len(data)))
    rounds = start(tmp_path, Microscope([lambda: None, lambda: arrive(drawn, share, slow)]))
    assert rounds == [(2, 0), (1, 0)]
    check_same(tmp_path, drawn)


def test_a_file_that_stays_broken_leaves_its_site_out(tmp_path: Path, drawn: Path) -> None:
    share = tmp_path / "share" / "P1" / "Images"
    arrive(drawn, share, *[n for well in WELLS for n in names_of(well)])
    (share / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1, 2), STAINS, "P1", shape=SMALL))
    broken = share / names_of("B02")[3]
    broken.write_bytes(broken.read_bytes()[:2000])
    clock = Microscope([])
    assert start(tmp_path, clock) == [(2, 0), (1, 1)]
    assert 80 <= clock.now < 120  # ten times the 8 s
