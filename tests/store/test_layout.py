"""A stored plate's images and labels as others read them: ome-zarr-models, ome-zarr's reader, anndata."""

import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

import jumpgpu
from tests.helpers.plates import COLUMNS, draw_site, write_plate

models = pytest.importorskip("ome_zarr_models", reason="no ome-zarr-models: pip install 'jumpgpu[test]'")
WELLS = {"A01": [1, 3], "B10": [1]}
PIXEL_UM = 0.6


@pytest.fixture(scope="module")
def plate(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("plate")
    write_plate(output, WELLS, images=True)
    return output / "BR00117010.zarr"


def read(path: Path):
    """What ome-zarr's reader gives for a path: its nodes, by what follows the plate's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dask and of the reader's own future
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        return list(Reader(parse_url(str(path)))())


@pytest.mark.parametrize(
    ("path", "kind"),
    [("", "HCS"), ("A/01", "Well"), ("A/01/3", "Image"), ("A/01/3/labels", "Labels"), ("A/01/3/labels/cells", "ImageLabel")],
)
def test_every_group_is_valid_ome_zarr_0_5(plate, path, kind):
    result = models.open_ome_zarr(zarr.open_group(plate / path, mode="r"))
    assert type(result).__name__ == kind
    assert type(result).__module__.startswith("ome_zarr_models.v05")
    if kind == "HCS":
        assert result.n_wells == 2
        assert {well.path for well in result.attributes.ome.plate.wells} == {"A/01", "B/10"}


def test_a_field_opens_as_an_image_with_its_labels(plate):
    nodes = {str(node.zarr).partition(".zarr/")[2].split(" ")[0]: node for node in read(plate / "A/01/3")}
    assert sorted(nodes) == ["A/01/3", *(f"A/01/3/labels{x}" for x in ("", "/cells", "/cytoplasm", "/nuclei"))]
    drawn = draw_site("A01", 3, labels=True, overview=True)
    image = nodes["A/01/3"]
    np.testing.assert_array_equal(np.asarray(image.data[0]), drawn.overview)
    assert image.metadata["channel_names"] == ["DNA", "ER"]
    assert image.metadata["contrast_limits"] == [[0, int(drawn.overview[c].max())] for c in range(2)]
    for compartment in ("Cells", "Cytoplasm", "Nuclei"):
        label = nodes[f"A/01/3/labels/{compartment.lower()}"]
        np.testing.assert_array_equal(np.asarray(label.data[0]), drawn.labels[compartment])
        assert label.metadata["coordinateTransformations"] == [[{"type": "scale", "scale": [PIXEL_UM, PIXEL_UM]}]]


def test_an_overviews_pixels_lie_on_the_squares_of_labels_that_they_stand_for(plate):
    def place(path: str, at: tuple[float, float]) -> list[float]:
        transforms = zarr.open_group(plate / path, mode="r").attrs["ome"]["multiscales"][0]["datasets"][0]
        scale, *rest = transforms["coordinateTransformations"]
        shift = rest[0]["translation"] if rest else [0.0] * len(scale["scale"])
        return [s * x + t for s, t, x in zip(scale["scale"][-2:], shift[-2:], at, strict=True)]

    for y, x in ((0, 0), (2, 1)):
        np.testing.assert_allclose(place("A/01/1", (y, x)), place("A/01/1/labels/cells", (8 * y + 3.5, 8 * x + 3.5)))


def test_the_whole_plate_opens_as_a_grid_of_its_wells(plate):
    (node,) = read(plate)
    assert node.metadata["name"] == "BR00117010"
    drawn = {well: draw_site(well, 1, overview=True).overview for well in WELLS}
    grid = np.asarray(node.data[0])
    assert grid.shape == (2, 2 * 3, 2 * 4)
    np.testing.assert_array_equal(grid[:, :3, :4], drawn["A01"])
    np.testing.assert_array_equal(grid[:, 3:, 4:], drawn["B10"])


def test_napari_opens_a_field(plate):
    """Through the function that napari's `open` calls for the plug-in napari-ome-zarr; no window is made."""
    reader = pytest.importorskip("napari_ome_zarr._reader", reason="no napari: pip install napari napari-ome-zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = reader.napari_get_reader(str(plate / "A/01/3"))(str(plate / "A/01/3"))
    kinds = [kind for _, _, kind in layers]
    assert kinds == ["image", "labels", "labels", "labels"]
    drawn = draw_site("A01", 3, labels=True, overview=True)
    np.testing.assert_array_equal(np.asarray(layers[0][0][0]), drawn.overview)
    assert layers[0][1]["channel_axis"] == 0
    assert [name.rpartition(": ")[2] for name in layers[0][1]["name"]] == ["DNA", "ER"]
    for (data, metadata, _), compartment in zip(layers[1:], ("Cells", "Cytoplasm", "Nuclei"), strict=True):
        np.testing.assert_array_equal(np.asarray(data[0]), drawn.labels[compartment])
        np.testing.assert_allclose(metadata["scale"], [PIXEL_UM, PIXEL_UM])


def test_anndata_opens_every_table(plate):
    whole = jumpgpu.open_plate(plate).to_pandas()
    for well in WELLS:
        table = anndata.read_zarr(plate / well[0] / well[1:] / "tables/cells")
        assert list(table.var_names) == COLUMNS
        rows = whole[whole.Metadata_Well == well]
        np.testing.assert_array_equal(table.X, rows[COLUMNS].to_numpy())
        np.testing.assert_array_equal(table.obs["Metadata_Site"], rows["Metadata_Site"])
        assert set(table.var["compartment"]) == {"Cells", "Cytoplasm", "Nuclei"}
