"""Blurred fields: flagged beside the plate's other images, and only they."""

import shutil

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from scipy.stats import median_abs_deviation

import jumpgpu
from jumpgpu import synthetic
from jumpgpu.store.blur import LEAST_SPREAD, blurred, robust_z

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")


def records(sharpness: np.ndarray) -> list[dict]:
    """Records of wells with sites with a sharpness per channel, float [wells, sites, channels]."""
    return [
        {
            "well": f"A{w + 1:02d}",
            "sites": [
                {
                    "site": s + 1,
                    "checks": {c: (0.0, float(v)) for c, v in zip(CHANNELS, site, strict=False)},
                    "inputs": [{"channel": c, "file": f"{c}.tiff"} for c in CHANNELS],
                }
                for s, site in enumerate(well)
            ],
        }
        for w, well in enumerate(sharpness)
    ]


def usual(wells=12, sites=2, spread=0.1):
    return 0.02 * np.exp(np.random.default_rng(1).normal(0, spread, (wells, sites, 5)))


def result(sharpness) -> set[tuple[str, int, str]]:
    return {(r["well"], r["site"], r["channel"]) for r in blurred(records(sharpness), "P")}


def test_robust_z_is_that_of_the_logarithms():
    values = usual(spread=0.3)[..., 0].ravel()
    logs = np.log(values)
    expected = (logs - np.median(logs)) / median_abs_deviation(logs, scale="normal")
    np.testing.assert_allclose(robust_z(values), expected, rtol=1e-4)  # 1.4826 is rounded
    values[3] = np.nan
    assert np.isnan(robust_z(values)).tolist() == [i == 3 for i in range(len(values))]
    assert np.isnan(robust_z(values[:7])).all()
    alike = np.full(20, 0.02)
    alike[0] = 0.02 * np.exp(-1)
    assert robust_z(alike)[0] == pytest.approx(-1 / LEAST_SPREAD)


def test_a_blurred_field_is_flagged_in_its_channels():
    assert result(usual()) == set()
    field = usual()
    field[4, 1] /= 4
    assert result(field) == {("A05", 2, c) for c in CHANNELS}
    rows = blurred(records(field), "P")
    assert rows[0].keys() == {"plate", "well", "site", "channel", "file", "reason", "used"}
    assert all(r["used"] and r["file"] == f"{r['channel']}.tiff" and "robust z -" in r["reason"] for r in rows)


def test_one_channel_out_of_focus_is_flagged_and_a_treatment_is_not():
    image = usual()
    image[4, 1, 2] /= 4
    assert result(image) == {("A05", 2, "RNA")}
    treatment = usual()
    treatment[4, :, 4] /= 4  # a treatment that smooths Mito, at both sites
    assert result(treatment) == set()
    whole = usual()
    whole[4] /= 4  # a well out of focus, at both sites
    assert result(whole) == {("A05", s, c) for s in (1, 2) for c in CHANNELS}


def test_a_blurred_field_of_drawn_images_is_flagged_and_stays_measured(tmp_path, capsys):
    assert synthetic.main(["--output", str(tmp_path), "--plate", "P", "--wells", "8", "--size", "270", "--sites", "1"]) == 0
    folder = next(tmp_path.glob("P__*/Images"))
    for path in folder.glob("r01c03f01*"):
        image = gaussian_filter(tifffile.imread(path).astype(float), 6)
        tifffile.imwrite(path, np.rint(image).astype(np.uint16))
    options = {"illumination": "none", "device": "cpu", "output": tmp_path / "out"}
    plate = jumpgpu.extract("P", images=tmp_path, **options)
    said = capsys.readouterr().err
    assert "P: 1 field looks blurred and was measured all the same: A03 site 1 (" in said
    flagged = plate.quarantine
    assert set(flagged.well) == {"A03"}
    assert len(flagged) >= 3
    assert flagged.used.all()
    assert plate.record("A03")["cells"] == len(plate.to_pandas(["A03"]))
    csv = (tmp_path / "out" / "quarantine.csv").read_text()
    assert csv.count("blurred: sharpness") == len(flagged)
    z = plate.image_checks().set_index(["well", "channel"]).sharpness_z
    assert (z["A03"] < -2.5).all()
    shutil.rmtree(tmp_path / "out")
