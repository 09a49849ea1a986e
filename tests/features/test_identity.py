"""One number, one cell: stored label images and table rows name the same objects, segmented or given."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import jumpgpu
from jumpgpu.store.reader import StoredPlate
from jumpgpu.synthetic import SyntheticSettings, draw_plate

SETTINGS = SyntheticSettings(wells=2, sites=2, height=230, width=310, cells=9.0, seed=3)
CONFIG = '[features]\nfamilies = ["number", "shape"]\n'


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn plate, its truth, and its true labels under shuffled numbers with gaps in `shuffled`."""
    folder = tmp_path_factory.mktemp("identities")
    draw_plate(folder, "DEMO1", SETTINGS)
    (folder / "small.toml").write_text(CONFIG)
    (folder / "shuffled").mkdir()
    for seed, path in enumerate(sorted((folder / "truth/DEMO1").glob("*.tiff"))):
        labels = tifffile.imread(path)
        numbers = 1 + np.random.default_rng(seed).permutation(3 * int(labels.max()) + 1)  # nuclei and cells apart
        tifffile.imwrite(folder / "shuffled" / path.name, np.where(labels > 0, numbers[labels], 0).astype(np.uint16))
    return folder


def extract(drawn: Path, output: Path, masks: Path | None) -> StoredPlate:
    return jumpgpu.extract(
        "DEMO1",
        images=drawn,
        output=output,
        config=drawn / "small.toml",
        masks=masks,
        illumination=drawn / "truth/DEMO1",
        device="cpu",
        save_labels=True,
        quiet=True,
    )


def check_site(labels: dict[str, np.ndarray], numbers: np.ndarray, areas: dict[str, np.ndarray]) -> None:
    nuclei, cells, cytoplasm = (labels[c] for c in ("Nuclei", "Cells", "Cytoplasm"))
    n = len(numbers)
    np.testing.assert_array_equal(numbers, np.arange(1, n + 1))
    for image in (nuclei, cells):
        np.testing.assert_array_equal(np.unique(np.append(image, 0)), np.arange(n + 1))
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    np.testing.assert_array_equal(cells[cytoplasm > 0], cytoplasm[cytoplasm > 0])
    for compartment, image in labels.items():  # the row of a number measures the object of that number
        np.testing.assert_array_equal(areas[compartment], np.bincount(image.ravel(), minlength=n + 1)[1:], compartment)


@pytest.mark.parametrize("given", [False, True], ids=["segmented", "masks"])
def test_labels_and_rows_name_the_same_cells(drawn: Path, tmp_path: Path, given: bool) -> None:
    plate = extract(drawn, tmp_path, drawn / "shuffled" if given else None)
    table = plate.to_pandas()
    assert len(plate.wells) == SETTINGS.wells
    assert len(table) > 8
    for well in plate.wells:
        for site in range(1, SETTINGS.sites + 1):
            rows = table[(table["Metadata_Well"] == well) & (table["Metadata_Site"] == site)]
            labels = plate.labels(well, site)
            areas = {c: rows[f"{c}_AreaShape_Area"].to_numpy() for c in labels}
            check_site(labels, rows["Metadata_ObjectNumber"].to_numpy(), areas)
            if given:
                truth = tifffile.imread(drawn / f"truth/DEMO1/{well}_s{site}_Nuclei.tiff")
                pairs = np.unique(np.stack([labels["Nuclei"], truth])[:, labels["Nuclei"] > 0], axis=1)
                assert pairs.shape[1] == len(rows) == len(np.unique(pairs[1]))  # whole nuclei, each once
