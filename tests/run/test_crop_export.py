"""Crops of a stored plate: equal to slices of corrected images, in each format as its own library reads it, resumable."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import jumpgpu
from jumpgpu.export import main
from jumpgpu.outputs.crops import write_well
from jumpgpu.store.reader import StoredPlate
from tests.helpers.plates import write_images

WORDS = ["--illumination", "none", "--crop", "12", "--channels", "RNA", "DNA", "--quiet"]
NUMBERS = {"RNA": 3, "DNA": 5}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> StoredPlate:
    root = tmp_path_factory.mktemp("crops")
    write_images(root)
    (root / "my.toml").write_text('[features]\nfamilies = ["location", "number"]\n')
    return jumpgpu.extract(
        "DEMO",
        root / "images",
        output=root / "out",
        masks=root / "masks",
        illumination="none",
        save_labels=True,
        config=root / "my.toml",
        quiet=True,
    )


def root_of(plate: StoredPlate) -> Path:
    return Path(str(plate.path)).parents[1]


def export(plate: StoredPlate, folder: Path, format: str, *more: str) -> int:
    words = [str(plate.path), "--format", format, "--output", str(folder), "--images", str(root_of(plate) / "images")]
    return main([*words, *WORDS, *more])


def sliced(plate: StoredPlate, well: str, masked: bool = False) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """float32 [N, 2, 12, 12] by slices, and (site, number) of each."""
    crops, names = [], []
    for site in (1, 2):
        row, column = ord(well[0]) - 64, int(well[1:])
        images = root_of(plate) / "images" / "DEMO__2026-01-01-Measurement1" / "Images"
        labels = plate.labels(well, site)
        for n in range(1, labels["Cells"].max() + 1):
            y, x = (v.mean() for v in np.nonzero(labels["Nuclei"] == n))
            top, left = int(np.floor(y + 1 - 6)), int(np.floor(x + 1 - 6))
            planes = []
            for channel in ("RNA", "DNA"):
                name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{NUMBERS[channel]}sk1fk1fl1.tiff"
                image = tifffile.imread(images / name).astype(np.float32) / np.float32(65535)
                image = np.where(labels["Cells"] == n, image, 0) if masked else image
                planes.append(np.pad(image, 12)[top + 12 : top + 24, left + 12 : left + 24])
            crops.append(np.stack(planes))
            names.append((site, n))
    return np.stack(crops), names


def test_zarr_is_ome_zarr_and_holds_the_slices(plate: StoredPlate, tmp_path: Path) -> None:
    import zarr

    assert export(plate, tmp_path, "crops-zarr") == 0
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is not installed")
    for well in plate.wells:
        group = zarr.open_group(tmp_path / "DEMO_crops.zarr" / well, mode="r")
        assert type(models.open_ome_zarr(group)).__name__ == "Image"
        expected, names = sliced(plate, well)
        np.testing.assert_array_equal(group["0"][:], expected)
        assert list(zip(group["site"][:].tolist(), group["number"][:].tolist(), strict=True)) == names
        assert group.attrs["crops"]["channels"] == ["RNA", "DNA"]
        assert group.attrs["ome"]["omero"]["channels"] == [{"label": "RNA"}, {"label": "DNA"}]
        cells = plate.to_pandas([well])
        centers = cells[["Nuclei_Location_Center_Y", "Nuclei_Location_Center_X"]].to_numpy()
        np.testing.assert_allclose(group["center"][:], centers, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_webdataset_reads_its_shards(plate: StoredPlate, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    assert export(plate, tmp_path, "webdataset", "--precision", "float16", "--mask", "Cells") == 0
    for well in plate.wells:
        shard = tmp_path / f"DEMO_{well}.tar"
        rows = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
        expected, names = sliced(plate, well, masked=True)
        assert [(r["json"]["site"], r["json"]["number"]) for r in rows] == names
        np.testing.assert_array_equal(np.stack([r["npy"] for r in rows]), expected.astype(np.float16))
        assert rows[0]["__key__"] == f"DEMO_{well}_s1_00001"
        assert rows[0]["json"]["channels"] == ["RNA", "DNA"]


def test_h5sc_is_anndata_with_masks_first(plate: StoredPlate, tmp_path: Path) -> None:
    import anndata
    import h5py

    assert export(plate, tmp_path, "h5sc") == 0
    well = plate.wells[0]
    table = anndata.read_h5ad(tmp_path / f"DEMO_{well}.h5sc")
    expected, names = sliced(plate, well)
    assert table.obs["cell_id"].tolist() == [site * 1_000_000 + n for site, n in names]
    assert table.obs["cell_id"].dtype == np.uint64
    assert table.var["channels"].tolist() == ["Nuclei", "Cells", "RNA", "DNA"]
    assert table.var["channel_mapping"].tolist() == ["mask", "mask", "image_channel", "image_channel"]
    with h5py.File(tmp_path / f"DEMO_{well}.h5sc") as file:
        images = file["obsm/single_cell_images"]
        assert images.dtype == np.float16
        assert images.chunks == (1, 1, 12, 12)
        np.testing.assert_array_equal(images[:, 2:], expected.astype(np.float16))
        assert images.attrs["n_masks"] == 2
        assert [c.decode() for c in images.attrs["channel_names"]] == ["Nuclei", "Cells", "RNA", "DNA"]
        assert file["uns/single_cell_images/n_image_channels"][()] == 2
        for i, (site, n) in enumerate(names):
            labels = plate.labels(well, site)
            y, x = (v.mean() for v in np.nonzero(labels["Nuclei"] == n))
            box = (
                slice(int(np.floor(y - 5)) + 12, int(np.floor(y - 5)) + 24),
                slice(int(np.floor(x - 5)) + 12, int(np.floor(x - 5)) + 24),
            )
            for k, compartment in enumerate(("Nuclei", "Cells")):
                np.testing.assert_array_equal(images[i, k], np.pad(labels[compartment] == n, 12)[box])


def test_a_stopped_export_goes_on(plate: StoredPlate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import jumpgpu.run.crop_export as module

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert export(plate, whole, "webdataset") == 0
    written = []

    def stop(well, path, format):
        if written:
            next(well.parts)
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return write_well(well, path, format)

    monkeypatch.setattr(module, "write_well", stop)
    assert export(plate, stopped, "webdataset") != 0
    assert [p.name for p in stopped.glob("*.tar")] == ["DEMO_A01.tar"]
    before = (stopped / "DEMO_A01.tar").stat().st_mtime_ns
    monkeypatch.setattr(module, "write_well", write_well)
    assert export(plate, stopped, "webdataset") == 0
    assert (stopped / "DEMO_A01.tar").stat().st_mtime_ns == before
    for path in whole.glob("*.tar"):
        assert (stopped / path.name).read_bytes() == path.read_bytes()
    assert not [p for p in stopped.iterdir() if p.name.startswith(".")]
    capsys.readouterr()
    assert export(plate, stopped, "webdataset", "--mask", "Cells") == 2
    assert "holds crops of another kind" in capsys.readouterr().err
    assert export(plate, stopped, "webdataset", "--mask", "Cells", "--overwrite") == 0
    assert json.loads((stopped / "DEMO_crops.json").read_text())["mask"] == "Cells"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--illumination", "flatfield"], "FlatfieldProfile"),
        (["--channels", "GFP"], "channel 'GFP' is not of this plate"),
        (["--crop", "20", "--unit", "um", "--size", "32"], "does not say how large a pixel is"),
        (["--crop", "0.5"], "crop: expected a finite number"),
        (["--wells", "Z99"], "Z99"),
    ],
)
def test_what_cannot_be_cut_is_said(plate: StoredPlate, tmp_path: Path, capsys, more: list[str], message: str) -> None:
    assert export(plate, tmp_path / "out", "webdataset", *more) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.tar"))


def test_other_functions_and_missing_labels_are_refused(plate: StoredPlate, tmp_path: Path, capsys) -> None:
    functions = tmp_path / "illum"
    functions.mkdir()
    for channel in plate.channels:
        np.save(functions / f"Illum{channel}.npy", np.full((56, 64), 2, np.float32))
    assert export(plate, tmp_path / "out", "webdataset", "--illumination", str(functions)) == 2
    assert "gives other functions" in capsys.readouterr().err
    root = root_of(plate)
    bare = jumpgpu.extract(
        "DEMO",
        root / "images",
        output=tmp_path / "bare",
        masks=root / "masks",
        illumination="none",
        config=root / "my.toml",
        quiet=True,
    )
    assert export(bare, tmp_path / "out", "webdataset") == 2
    assert "has no label images; extract it with --save-labels" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["crops-zarr", "webdataset", "h5sc"])
def test_crops_of_two_kinds_never_stand_together(plate: StoredPlate, tmp_path: Path, capsys, format: str) -> None:
    first, second = plate.wells[0], plate.wells[1]
    assert export(plate, tmp_path, format) == 0
    assert export(plate, tmp_path, format, "--mask", "Cells", "--overwrite", "--wells", first) == 2
    assert "beside those asked for" in capsys.readouterr().err
    record = (tmp_path / "DEMO_crops.json").read_text()
    assert json.loads(record)["mask"] == "none"
    assert export(plate, tmp_path, format, "--mask", "Cells", "--overwrite") == 0
    assert export(plate, tmp_path, format, "--mask", "Cells", "--overwrite", "--wells", first) == 0  # of the same kind
    ending = {"crops-zarr": "", "webdataset": ".tar", "h5sc": ".h5sc"}[format]
    paths = [tmp_path / (f"DEMO_crops.zarr/{w}" if not ending else f"DEMO_{w}{ending}") for w in (first, second)]
    assert all(p.exists() for p in paths)


def test_a_killed_overwrite_leaves_no_crops_of_the_kind_before(plate, tmp_path, monkeypatch) -> None:
    assert export(plate, tmp_path, "webdataset") == 0
    second = tmp_path / f"DEMO_{plate.wells[1]}.tar"
    before = second.read_bytes()

    def killed(well, path, format):
        if well.well == plate.wells[1]:
            raise KeyboardInterrupt
        return write_well(well, path, format)

    with monkeypatch.context() as patch:
        patch.setattr("jumpgpu.run.crop_export.write_well", killed)
        assert export(plate, tmp_path, "webdataset", "--mask", "Cells", "--overwrite") != 0
    assert not second.exists()
    assert export(plate, tmp_path, "webdataset", "--mask", "Cells") == 0  # goes on, without --overwrite
    assert second.read_bytes() != before
