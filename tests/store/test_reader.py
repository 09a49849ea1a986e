"""Laws of the store: what is stored is what is read, for any numbers; no changed byte is ever read as if it were right."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

import jumpgpu
from jumpgpu.store.arrays import array_files, read_array
from jumpgpu.store.layout import Layout, SiteTable
from jumpgpu.store.writer import PlateWriter
from tests.helpers.plates import CHANNELS, COLUMNS, SETTINGS, contents, write_plate

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
TABLES = drawn.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(len(COLUMNS))), elements=st.floats(width=64))


@settings(max_examples=25, **QUIET)
@given(tables=st.lists(TABLES, max_size=3))
def test_any_table_is_read_back_as_float32(tables, tmp_path_factory):
    output = tmp_path_factory.mktemp("plate")
    sites = list(range(1, len(tables) + 1)) or [1]
    with PlateWriter(output, Layout("DEMO", COLUMNS, CHANNELS), SETTINGS, {"A01": sites}) as writer:
        for site, values in zip(sites, tables, strict=False):
            writer.append(SiteTable("A01", site, np.arange(1, len(values) + 1), values))
    plate = jumpgpu.open_plate(output / "DEMO")
    if not tables:
        assert plate.wells == []
        return
    with np.errstate(over="ignore", under="ignore"):
        wanted = np.concatenate(tables).astype(np.float32)
    table = plate.to_pandas()
    np.testing.assert_array_equal(table[COLUMNS].to_numpy().view(np.int32), wanted.view(np.int32))
    np.testing.assert_array_equal(table["Metadata_Site"], np.repeat(sites, [len(t) for t in tables]))
    assert plate.verify() == []
    assert plate.nonfinite.to_numpy().sum() == (~np.isfinite(wanted)).sum()


@settings(max_examples=40, **QUIET)
@given(
    array=st.one_of(
        drawn.arrays(np.int32, drawn.array_shapes(min_dims=1, max_dims=3, min_side=0)),
        drawn.arrays(np.uint16, drawn.array_shapes(min_dims=3, max_dims=3)),
        drawn.arrays(np.float32, drawn.array_shapes(min_dims=2, max_dims=2, min_side=0)),
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=9).map(
            lambda texts: np.array(texts, dtype=object)
        ),
    )
)
def test_any_array_is_read_back(array):
    back = read_array(array_files("a/b", array, {}), "a/b")
    np.testing.assert_array_equal(back, array)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    output = tmp_path_factory.mktemp("stored")
    write_plate(output, {"A01": [1], "B02": [1, 2]}, images=True)
    return output / "BR00117010.zarr"


def damage(whole, how, at):
    return {
        "flip": whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :],
        "cut": whole[:at],
        "grow": whole + whole[: at + 1],
        "zero": bytes(len(whole)),
    }[how]


def notices(stored, name, damaged):
    """Damage a file, and see that verify names something, and that what is read is refused or unchanged."""
    whole, table = (stored / name).read_bytes(), jumpgpu.open_plate(stored).to_pandas()
    (stored / name).write_bytes(damaged)
    try:
        plate = jumpgpu.open_plate(stored)
        assert plate.verify() or damaged == whole, f"{name} was not noticed"
        assert plate.to_pandas().equals(table)
    except (ValueError, OSError):
        return  # refused, as it should be
    finally:
        (stored / name).write_bytes(whole)


def test_a_flipped_byte_in_any_file_of_the_store_is_noticed(stored):
    names = sorted(contents(stored))
    assert len({name.rsplit("/", 1)[-1] for name in names}) > 3
    for k, name in enumerate(names):
        whole = (stored / name).read_bytes()
        notices(stored, name, damage(whole, "flip", k * 7919 % len(whole)))


@settings(max_examples=150, **QUIET)
@given(data=st.data())
def test_no_changed_byte_is_read_as_right(stored, data):
    name = data.draw(st.sampled_from(sorted(contents(stored))))
    whole = (stored / name).read_bytes()
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "zero"]))
    notices(stored, name, damage(whole, how, data.draw(st.integers(0, len(whole) - 1))))


def test_what_lies_beside_the_wells_is_named(stored):
    for name, wrong in (
        ("extra.txt", "is of no well"),
        ("A/extra.txt", "is of no well"),
        ("C/zarr.json", "is not as it was written"),
    ):
        (stored / name).parent.mkdir(exist_ok=True)
        (stored / name).write_text("{}")
        assert jumpgpu.open_plate(stored).verify() == [f"BR00117010: {name} {wrong}"]
        (stored / name).unlink()
    (stored / "C").rmdir()


def test_a_row_whose_run_ended_before_its_first_well_is_right(stored):
    (stored / "C").mkdir()
    shutil.copy(stored / "A/zarr.json", stored / "C/zarr.json")
    assert jumpgpu.open_plate(stored).verify() == []
    shutil.rmtree(stored / "C")
