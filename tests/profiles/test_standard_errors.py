"""The bootstrap of cells against SciPy's and closed forms."""

import numpy as np
import pytest
from scipy.stats import bootstrap

import jumpgpu
from jumpgpu.profile import main as profile
from jumpgpu.profiles.aggregate import aggregate
from jumpgpu.profiles.standard_errors import standard_error, standard_errors
from tests.helpers.profiles_drawn import feature_names, write_store


@pytest.mark.parametrize(("statistic", "function"), [("mean", np.mean), ("median", np.median)])
def test_as_scipys_bootstrap(statistic, function):
    values = np.random.default_rng(0).gamma(2.0, size=(150, 3))
    ours = standard_error(values, statistic, 3000, np.random.default_rng(1))
    scipys = [
        bootstrap((v,), function, n_resamples=3000, method="percentile", rng=np.random.default_rng(2)).standard_error
        for v in values.T
    ]
    np.testing.assert_allclose(ours, scipys, rtol=0.08)  # both have 1.3 % of their own
    if statistic == "mean":
        np.testing.assert_allclose(ours, values.std(axis=0) / np.sqrt(150), rtol=0.06)


def test_missing_cells_do_not_count():
    values = np.random.default_rng(0).normal(size=(400, 2))
    values[100:, 1] = np.nan
    for statistic in ("mean", "median"):
        error = standard_error(values, statistic, 500, np.random.default_rng(0))
        assert error[1] == pytest.approx(2 * error[0], rel=0.3)  # a quarter of the cells
    assert np.isnan(standard_error(values[:1], "mean", 10, np.random.default_rng(0))).all()
    values[:, 1] = np.nan
    assert np.isnan(standard_error(values, "median", 10, np.random.default_rng(0))[1])


def test_a_wells_errors_do_not_depend_on_other_wells(tmp_path):
    names, random = feature_names(8), np.random.default_rng(0)
    wells = {w: random.normal(size=(60, 8)) for w in ("A01", "A02", "B01")}
    write_store(tmp_path / "a", "P1", wells, names)
    write_store(tmp_path / "b", "P1", {w: wells[w] for w in ("A02", "B01")}, names)
    first, second = (standard_errors(jumpgpu.open_plate(tmp_path / k / "P1.zarr"), resamples=50) for k in "ab")
    np.testing.assert_array_equal(first.set_index("Metadata_Well").loc[["A02", "B01"], names], second[names])
    assert not np.array_equal(
        second[names], standard_errors(jumpgpu.open_plate(tmp_path / "b/P1.zarr"), "mean", 50, 1)[names]
    )
    table = aggregate(jumpgpu.open_plate(tmp_path / "a" / "P1.zarr"))
    assert list(first["Metadata_Well"]) == list(table["Metadata_Well"])
    assert list(first["Metadata_Object_Count"]) == [60, 60, 60]
    with pytest.raises(ValueError, match="resamples must be 2"):
        standard_errors(jumpgpu.open_plate(tmp_path / "a" / "P1.zarr"), resamples=1)
    with pytest.raises(ValueError, match="unknown statistic 'mode'"):
        standard_errors(jumpgpu.open_plate(tmp_path / "a" / "P1.zarr"), "mode")


def test_profile_writes_them_on_request(tmp_path, capsys):
    names, random = feature_names(8), np.random.default_rng(0)
    write_store(tmp_path, "P1", {w: random.normal(size=(30, 8)) for w in ("A01", "A02")}, names)
    (tmp_path / "map.txt").write_text("well_position\tbroad_sample\nA01\tX\nA02\tY\n")
    arguments = ["--plate", "P1", "--output", str(tmp_path), "--platemap", str(tmp_path / "map.txt"), "--reference", "all"]
    assert profile([*arguments, "--metadata", str(tmp_path), "--standard-errors", "20"]) == 0, capsys.readouterr().err
    assert (tmp_path / "profiles" / "P1" / "P1_standard_errors.parquet").is_file()
