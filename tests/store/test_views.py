"""A stored plate in a notebook: its card, pictures and heat maps, selections of columns, and what AnnData reads when."""

import numpy as np
import pytest

import jumpgpu
from jumpgpu.store import render, views
from jumpgpu.store.layout import Layout, Quarantined
from jumpgpu.store.reader import StoredPlate
from jumpgpu.store.writer import PlateWriter
from tests.helpers.image_plates import noise
from tests.helpers.image_plates import write_plate as write_images
from tests.helpers.plates import COLUMNS, draw_site, write_plate

WELLS = {"A02": [1, 3], "B10": [1, 2], "C01": [2]}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    write_plate(folder, WELLS, images=True)
    write_plate(folder, {"A01": [1]}, plate="PLAIN")
    return folder


@pytest.fixture
def plate(output):
    return jumpgpu.open_plate(output / "BR00117010")


@pytest.fixture
def reads(monkeypatch):
    """(well, prefix) of everything read from a store's wells."""
    result = []
    read = StoredPlate.files_of

    def counted(self, well, record, prefix):
        result.append((well, prefix))
        return read(self, well, record, prefix)

    monkeypatch.setattr(StoredPlate, "files_of", counted)
    return result


def test_anndata_reads_a_wells_features_when_they_are_used(plate, reads):
    table = plate.to_anndata(columns=["Texture", COLUMNS[0]])
    assert table.shape == (len(plate.to_pandas(columns=[])), 4)
    reads.clear()
    table = plate.to_anndata(columns=["Texture", COLUMNS[0]])
    assert not [r for r in reads if r[1].startswith("tables/cells/X")]
    reads.clear()
    part = table[(table.obs.Metadata_Well == "B10").to_numpy()].to_memory()
    assert reads == [("B10", "tables/cells/X/zarr.json")], "and of the chunks those alone that hold the columns"
    drawn = np.concatenate([draw_site("B10", site).values for site in (1, 2)]).astype(np.float32)
    textures = [i for i, c in enumerate(COLUMNS) if "_Texture_" in c]
    np.testing.assert_array_equal(part.X, drawn[:, [*textures, 0]])
    assert part.var.family.to_list() == ["Texture"] * 3 + ["AreaShape"]
    assert plate.to_anndata(wells=[]).shape == (0, len(COLUMNS))


def test_columns_are_chosen_by_name_family_and_pattern(plate):
    assert plate.choose(["Texture"]) == [c for c in COLUMNS if "_Texture_" in c]
    assert plate.choose(["Nuclei_*_DNA*", COLUMNS[0]]) == [
        *[c for c in COLUMNS if c.startswith("Nuclei_") and "_DNA" in c],
        COLUMNS[0],
    ]
    assert plate.choose(["Granularity", "Cells_Granularity_3_ER"]) == plate.choose(["Granularity"])
    assert list(plate.to_polars(["A02"], ["Granularity"]).columns[4:]) == plate.choose(["Granularity"])
    with pytest.raises(TypeError, match=r"columns=\['Texture'\]"):
        plate.to_pandas(columns="Texture")


@pytest.mark.parametrize("wrong", ["Cells_AreaShape_Aera", "Cell_AreaShape_Area"])
def test_a_misspelled_feature_names_the_nearest(plate, wrong):
    with pytest.raises(ValueError, match=f"no column '{wrong}'; the nearest are .*Cells_AreaShape_Area"):
        plate.heatmap(wrong)


def test_the_card_says_what_the_plate_is(plate, output):
    card = plate._repr_html_()
    cells = sum(len(draw_site(w, s).numbers) for w, sites in WELLS.items() for s in sites)
    for words in ("BR00117010", '<td style="text-align:left">3<', f">{cells}<", plate.fingerprint[:12], "DNA, ER"):
        assert words in card
    assert "0 sites left out, 0 images flagged" in card
    assert "B10 site 1" in card  # its picture
    assert card.count("<img") == 2
    assert jumpgpu.open_plate(output / "PLAIN")._repr_html_().count("<img") == 1  # the map of counts alone


def test_a_heat_map_has_the_wells_where_they_lie(plate):
    figure = plate.heatmap(COLUMNS[0])
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == list("ABCDEFGH")
    assert [t.get_text() for t in axis.get_xticklabels()] == [str(c) for c in range(1, 13)]
    shown = axis.images[0].get_array()
    assert shown.count() == 3
    drawn = np.concatenate([draw_site("B10", site).values[:, 0] for site in (1, 2)])
    assert shown[1, 9] == pytest.approx(drawn.mean(), rel=1e-6)
    median = plate.heatmap(COLUMNS[0], "median").axes[0].images[0].get_array()
    assert median[1, 9] == pytest.approx(np.median(drawn), rel=1e-6)
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="unknown statistic 'max'"):
        plate.heatmap("cells", "max")


def test_a_site_is_shown_from_the_store(plate, output):
    axis = plate.show("B10", 2).axes[0]
    n = len(draw_site("B10", 2).numbers)
    assert axis.get_title(loc="left") == f"BR00117010 B10 site 2: {n} cells"
    assert {t.get_text() for t in axis.texts} == {"DNA", "ER", "2 µm"}  # of 32 pixels of 0.6 um a fifth or less
    bar = axis.lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(2 / 0.6)
    assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0
    outlined = axis.images[0].get_array()
    assert (outlined == 255).all(axis=2).any()  # cells' outlines are white
    assert not (plate.show("B10", 2, outlines=False).axes[0].images[0].get_array() == 255).all(axis=2).any()
    with pytest.raises(ValueError, match="no channel 'RNA'; it has DNA, ER"):
        plate.show("B10", 2, channels=["RNA"])
    with pytest.raises(ValueError, match=r"PLAIN A01 site 1 has no picture; extract with --save-overview .*images=FOLDER"):
        jumpgpu.open_plate(output / "PLAIN").show("A01", 1)


def test_colours_keep_their_hue_where_channels_add_up():
    """All five at full brightness are not white: blue leads, as in a nucleus; one channel alone is its own colour."""
    channels = ("DNA", "ER", "RNA", "AGP", "Mito")
    full, limits = np.ones((5, 1, 1)), np.tile([0.0, 1.0], (5, 1))
    red, green, blue = render.composite(full, channels, limits)[0, 0].astype(int)
    assert (blue, max(red, green) < 225) == (255, True)
    others = render.composite(np.array([0, 1, 1, 1, 1.0]).reshape(5, 1, 1), channels, limits)[0, 0]
    assert others[0] > others[1] > others[2]
    lights = render.colours(("DNA", "GFP", "Brightfield", "mCherry"))
    assert lights["Brightfield"] == (0.6, 0.6, 0.6)
    assert lights["GFP"] != lights["mCherry"]
    assert render.fluorescent(("DNA", "Brightfield")) == ["DNA"]
    assert render.fluorescent(("Brightfield",)) == ["Brightfield"]


@pytest.mark.parametrize(
    ("width", "pixel_um", "expected"),
    [(1080, 0.6, (100 / 0.6, "100 µm")), (1080, None, (200, "200 px")), (96, 0.65, (10 / 0.65, "10 µm"))],
)
def test_a_scale_bar_is_a_round_number_of_a_fifth_or_less(width, pixel_um, expected):
    length, said = render.scale_bar(width, pixel_um)
    assert said == expected[1]
    assert length == pytest.approx(expected[0])


def test_a_site_is_shown_from_its_images(tmp_path):
    write_images(tmp_path / "images", wells=("A01",), sites=(2,))
    plate = jumpgpu.extract(
        "BR00000001", tmp_path / "images", output=tmp_path, illumination="none", device="cpu", quiet=True
    )
    figure = plate.show("A01", 2, channels=["DNA"])
    axis = figure.axes[0]
    assert axis.get_xlabel() == views.NO_OUTLINES
    blue = axis.images[0].get_array()[..., 2].ravel()
    assert np.corrcoef(blue, noise("A01", 2, 5).ravel())[0, 1] > 0.99  # DNA is ch5
    again = jumpgpu.open_plate(tmp_path / "BR00000001")
    with pytest.raises(ValueError, match="has no picture"):
        again.show("A01", 2)
    assert again.show("A01", 2, images=tmp_path / "images").axes[0].images[0].get_array().shape == (40, 56, 3)
    assert again.heatmap("sharpness DNA").axes[0].images[0].get_array().shape == (2, 3)
    with pytest.raises(ValueError, match="A01 has no site 9; the well has 2"):
        again.show("A01", 9, images=tmp_path / "images")


def test_a_site_that_was_left_out_says_why_and_an_empty_plate_has_a_card(tmp_path):
    layout = Layout("BAD", COLUMNS, ("DNA", "ER"))
    with PlateWriter(tmp_path, layout, {}, {"A01": [1]}) as writer:
        assert jumpgpu.open_plate(tmp_path / "BAD")._repr_html_().count("<img") == 0
        writer.leave_out([Quarantined("BAD", "A01", 1, "DNA", "x.tiff", "truncated: 3 bytes")])
    plate = jumpgpu.open_plate(tmp_path / "BAD")
    with pytest.raises(ValueError, match="BAD A01 has no site 1; it was left out: truncated: 3 bytes"):
        plate.show("A01", 1)
    assert "1 sites left out" in plate._repr_html_()
    assert plate.heatmap(COLUMNS[0]).axes[0].images[0].get_array().count() == 0
