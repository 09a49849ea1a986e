"""A plate as SpatialData: its fields, labels and cells, each where the stage says (extra `spatial`)."""

import sys

import numpy as np
import pytest

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.synthetic import SyntheticSettings, draw_plate

sd = pytest.importorskip("spatialdata", reason="no spatialdata: pip install 'jumpgpu[spatial]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of spatialdata's own libraries
CONFIG = '[features]\nfamilies = ["shape", "location"]\n'


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    root = tmp_path_factory.mktemp("spatial")
    draw_plate(root / "images", "DEMO", SyntheticSettings(wells=2, sites=2, height=150, width=180, cells=7.0))
    (root / "small.toml").write_text(CONFIG)
    known = ["--plate", "DEMO", "--images", str(root / "images"), "--config", str(root / "small.toml"), "--device", "cpu"]
    assert main([*known, "--output", str(root / "out"), "--illumination", "none", "--save-labels", "--save-overview"]) == 0
    return jumpgpu.open_plate(root / "out/DEMO", images=root / "images")


def test_fields_labels_and_cells_are_linked(plate, tmp_path):
    output = plate.to_spatialdata()
    output.write(tmp_path / "plate.zarr")
    data = sd.read_zarr(tmp_path / "plate.zarr")
    names = [f"{well}_{site}" for well in plate.wells for site in (1, 2)]
    assert sorted(data.images) == names
    assert sorted(data.labels) == sorted(f"{n}_{c}" for n in names for c in ("Nuclei", "Cells", "Cytoplasm"))
    cells = data.tables["cells"]
    table = plate.to_pandas()
    assert len(cells) == len(table) > 10
    np.testing.assert_array_equal(np.asarray(cells.X), table[plate.columns])
    for name in names:
        well, site = name.split("_")
        rows = cells.obs[cells.obs["region"] == f"{name}_Cells"]
        label = data.labels[f"{name}_Cells"].data.compute()
        np.testing.assert_array_equal(label, plate.labels(well, int(site))["Cells"])
        assert set(rows["instance"]) == set(np.unique(label)) - {0}
        raw = data.images[name]
        assert list(raw.coords["c"].to_numpy()) == list(plate.channels)
        assert raw.shape == (5, 150, 180)
    _element, matched = sd.join_spatialelement_table(
        sdata=data, spatial_element_names=f"{names[0]}_Cells", table_name="cells"
    )
    assert len(matched) == (cells.obs["region"] == f"{names[0]}_Cells").sum()


def test_every_field_is_where_the_stage_was(plate):
    data = plate.to_spatialdata()
    size = plate.manifest["pixel_size_um"]
    pitch = 39120.0  # two wells: the smallest format
    for number, well in enumerate(plate.wells):
        for record in plate.record(well)["sites"]:
            x, y = record["position_um"]
            image, label = data.images[f"{well}_{record['site']}"], data.labels[f"{well}_{record['site']}_Nuclei"]
            for element in (image, label):
                systems = sd.transformations.get_transformation(element, get_all=True)
                assert set(systems) == {f"{well} site {record['site']}", well, "plate"}
                in_well = systems[well].to_affine_matrix(("x", "y"), ("x", "y"))
                np.testing.assert_allclose(in_well @ [90, 75, 1], [x, -y, 1], atol=1e-9)  # the field's centre
                np.testing.assert_allclose(in_well @ [91, 75, 1], [x + size, -y, 1], atol=1e-9)
                on_plate = systems["plate"].to_affine_matrix(("x", "y"), ("x", "y"))
                np.testing.assert_allclose(on_plate @ [90, 75, 1], [x + number * pitch, -y, 1], atol=1e-9)


def test_the_overview_stands_in_and_lies_where_the_field_does(plate, monkeypatch):
    monkeypatch.setattr(plate, "images", None)
    data = plate.to_spatialdata(wells=[plate.wells[0]], sites=[2], columns=["AreaShape"])
    image = data.images[f"{plate.wells[0]}_2"]
    np.testing.assert_array_equal(image.data.compute(), plate.overview(plate.wells[0], 2))
    own = sd.transformations.get_transformation(image, to_coordinate_system=f"{plate.wells[0]} site 2")
    np.testing.assert_allclose(own.to_affine_matrix(("x", "y"), ("x", "y")), np.diag([8, 8, 1]))
    assert set(data.tables["cells"].obs["Metadata_Site"]) == {2}
    assert all("AreaShape" in column for column in data.tables["cells"].var_names)


def test_what_is_not_there_is_named(plate, monkeypatch):
    with pytest.raises(ValueError, match="DEMO has no site 7"):
        plate.to_spatialdata(sites=[7])
    with pytest.raises(ValueError, match="has no well Z09"):
        plate.to_spatialdata(wells=["Z09"])
    monkeypatch.setitem(plate.manifest, "pixel_size_um", None)
    with pytest.warns(UserWarning, match="DEMO: no stage position of 4 fields"):
        data = plate.to_spatialdata()
    assert set(data.coordinate_systems) == {f"{w} site {s}" for w in plate.wells for s in (1, 2)}
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(ImportError, match=r"pip install 'jumpgpu\[spatial\]'"):
        plate.to_spatialdata()
