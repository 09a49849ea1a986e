"""Embeddings against a plain loop: a cell at a time, sliced, padded, normalised and resized, then the network."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import jumpgpu
from jumpgpu.features.embedding import columns, measure, resolved
from jumpgpu.features.families import columns as all_columns
from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.images.locate import find_plate
from jumpgpu.networks.models import load
from jumpgpu.run.networks import plate_statistics
from jumpgpu.settings.config import Config, FeatureSettings, load_config
from jumpgpu.settings.networks import EmbeddingSettings, ModelSettings
from jumpgpu.settings.toml import as_toml
from jumpgpu.store.reader import StoredPlate
from tests.helpers.plates import write_images
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_scene

MODEL = ModelSettings(name="net", model="random_convolutions", channels=("RNA", "DNA", "Mito"), crop=24.0)
CASES = {
    "crop": MODEL,
    "field, masked": dataclasses.replace(MODEL, normalize="field", mask="Cells", center="Cells"),
    "cytoplasm alone": dataclasses.replace(MODEL, normalize="crop", mask="Cytoplasm"),
    "fixed": dataclasses.replace(MODEL, normalize="fixed", mean=(0.05, 0.1, 0.07), std=(0.2,), padding="reflect"),
    "none, odd": dataclasses.replace(MODEL, normalize="none", crop=19.0, padding="edge"),
    "resized": dataclasses.replace(MODEL, crop=32.0, size=16),
    "bilinear": dataclasses.replace(MODEL, crop=17.0, size=40, resize="bilinear", mask="Nuclei"),
    "per channel": dataclasses.replace(MODEL, per_channel=3),
    "float16": dataclasses.replace(MODEL, precision="float16"),
}


def looped(batch: ObjectBatch, model: ModelSettings) -> np.ndarray:
    """float64 [N, F] by slices."""
    pixels, labels = batch.pixels.numpy(), {c: v.numpy() for c, v in batch.labels.items()}
    places = [CHANNELS.index(c) for c in model.channels]
    side, size = int(model.crop), model.size or int(model.crop)
    network = load(model, torch.device("cpu"))
    rows = []
    for b, number in zip(batch.objects.field.tolist(), batch.objects.number.tolist(), strict=True):
        y, x = np.nonzero(labels[model.center][b] == number)
        mask = np.ones(labels["Cells"][b].shape, bool) if model.mask == "none" else labels[model.mask][b] == number
        if not len(y) or not mask.any():
            rows.append(np.full(128 * (3 if model.per_channel else 1), np.nan))
            continue
        top, left = (int(np.floor(v.mean() + 1 - side / 2)) for v in (y, x))
        mode = {"zero": "constant", "reflect": "reflect", "edge": "edge"}[model.padding]

        def window(plane: np.ndarray, mode: str, top: int = top, left: int = left) -> np.ndarray:
            return np.pad(plane, side, mode)[top + side : top + 2 * side, left + side : left + 2 * side]

        inside = window(np.ones(mask.shape, bool), "constant")
        own = window(mask, "constant")
        crop = []
        for k, c in enumerate(places):
            plane = window(pixels[b, c], mode)
            if model.normalize == "fixed":
                mean, std = model.mean[k], model.std[0]
            elif model.normalize == "none":
                mean, std = 0.0, 1.0
            else:
                values = pixels[b, c] if model.normalize == "field" else plane[inside & own]
                values = np.floor(values * np.float32(65535) + np.float32(0.5)) / 65535
                mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64) or 1.0
            plane = (plane - mean) / std
            keep = own if model.mask != "none" else inside if model.padding == "zero" else True
            crop.append(np.where(keep, plane, 0))
        tensor = torch.tensor(np.stack(crop), dtype=torch.float32)[None]
        if model.resize == "bilinear":
            tensor = functional.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
        elif size != side:
            tensor = functional.avg_pool2d(tensor, side // size)
        tensor = tensor.half() if model.precision == "float16" else tensor
        groups = [tensor] if not model.per_channel else [tensor[:, k : k + 1].repeat(1, 3, 1, 1) for k in range(3)]
        rows.append(np.concatenate([network(g)[0].double().numpy() for g in groups]))
    return np.stack(rows)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_a_loop_over_cells(device: Device, name: str) -> None:
    batch, model = drawn_scene(device), CASES[name]
    settings = FeatureSettings(embedding=EmbeddingSettings((model,), batch=7))
    ours, expected = measure(batch, settings, device).numpy(), looped(batch, model)
    assert np.isnan(expected).any(1).sum() >= (2 if "Nuclei" in (model.center, model.mask) else 0)  # cells without a nucleus
    # Crops differ in a last bit of float32, convolutions round by the size of the batch; float16 has 11 bits.
    tolerance = 5e-3 if model.precision == "float16" else 2e-5
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)
    assert len(columns("Cells", CHANNELS, settings)) == ours.shape[1]


def test_columns_stand_last_and_only_of_cells(device: Device) -> None:
    per_channel = dataclasses.replace(MODEL, name="one-by_one", per_channel=1, channels=("ER", "DNA"))
    settings = FeatureSettings(families=("number", "location"), embedding=EmbeddingSettings((MODEL, per_channel)))
    names = all_columns(("Cells", "Nuclei", "Cytoplasm"), CHANNELS, settings)
    own = [n for n in names if "_Embedding_" in n]
    assert own[0] == "Cells_Embedding_net_0001"
    assert own[128] == "Cells_Embedding_one-by_one_ER_0001"
    assert own[-1] == "Cells_Embedding_one-by_one_DNA_0128"
    assert len(own) == 3 * 128
    assert names.index(own[0]) == max(i for i, n in enumerate(names) if n.startswith("Cells_") and n not in own) + 1
    batch = drawn_scene(device)
    table = measure_batch(batch, settings, device).numpy()
    place = names.index(own[0])
    np.testing.assert_array_equal(table[:, place : place + 384], measure(batch, settings, device).numpy())


def test_fields_together_are_fields_alone(device: Device) -> None:
    settings = FeatureSettings(embedding=EmbeddingSettings((CASES["field, masked"],), batch=5))
    labels = drawn_labels()
    whole = measure(drawn_scene(device, labels), settings, device).numpy()
    pixels = drawn_scene(device, labels).pixels
    parts = []
    for b in range(3):
        own = {c: device.tensor(v[b : b + 1]) for c, v in labels.items()}
        parts.append(measure(make_batch(CHANNELS, pixels[b : b + 1], own, {}, device), settings, device).numpy())
    # The crops are equal bits; a library's convolutions round by the size of the batch they are in.
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_micrometres_become_pixels() -> None:
    model = dataclasses.replace(MODEL, crop=30.0, unit="um", size=48)
    (own,) = resolved(EmbeddingSettings((model,)), 0.6, None).models
    assert (own.crop, own.unit, own.size) == (50.0, "pixels", 48)
    with pytest.raises(ValueError, match="model 'net': crop = 30 um, and the plate does not say"):
        resolved(EmbeddingSettings((model,)), None, None)
    with pytest.raises(ValueError, match=r"30 um is 3000 pixels of 0.01 um; 1 to 1024"):
        resolved(EmbeddingSettings((model,)), 0.01, None)


def test_families_without_a_model(device: Device) -> None:
    with pytest.raises(ValueError, match=r"families has 'embedding', but no \[\[features.embedding.models\]\]"):
        all_columns(channels=CHANNELS, settings=FeatureSettings(families=("embedding",)))


def config(folder: Path, *models: str, more: str = "") -> Config:
    text = f'[features]\nfamilies = ["location", "number"]\n{more}'
    text += "".join(f"[[features.embedding.models]]\n{model}\n" for model in models)
    (folder / "my.toml").write_text(text)
    return load_config(folder / "my.toml")


def extract(root: Path, settings: Config, output: str, **given: object) -> StoredPlate:
    options = {"wells": None, **given}
    return jumpgpu.extract(
        "DEMO",
        root / "images",
        output=root / output,
        masks=root / "masks",
        illumination="none",
        config=settings,
        quiet=True,
        **options,  # type: ignore[arg-type]
    )


PLATE = 'name = "p"\nmodel = "random_convolutions"\nchannels = ["DNA", "AGP"]\ncrop = 16\nnormalize = "plate"'


def test_a_run_stores_columns_and_what_they_were_made_with(tmp_path: Path, device: Device) -> None:
    write_images(tmp_path)
    settings = config(
        tmp_path, PLATE, 'name = "q"\nmodel = "random_convolutions"\nchannels = ["RNA"]\ncrop = 20\nmask = "Cells"'
    )
    plate = extract(tmp_path, settings, "out")
    cells = plate.to_pandas()
    assert [c for c in cells if "_Embedding_p_" in c] == [f"Cells_Embedding_p_{i:04d}" for i in range(1, 129)]
    assert np.isfinite(cells.filter(like="_Embedding_").to_numpy()).all()
    stored = plate.settings
    assert stored["config"]["features"]["embedding"]["models"]["p"]["normalize"] == "plate"
    assert set(stored["plate_statistics"]) == {"AGP", "DNA"}
    import tifffile

    folder = next((tmp_path / "images").glob("*/Images"))
    images = np.stack([tifffile.imread(p) for p in sorted(folder.glob("*ch5*.tiff"))])
    mean, std = stored["plate_statistics"]["DNA"]
    np.testing.assert_allclose([mean, std], [images.mean() / 65535, images.std() / 65535], rtol=1e-6)
    # A run of one well, and one that goes on with a stopped plate, have the whole plate's statistics.
    one = extract(tmp_path, settings, "one", wells=["B02"])
    assert one.settings["plate_statistics"] == stored["plate_statistics"]
    np.testing.assert_array_equal(one.to_pandas().to_numpy(), cells[cells["Metadata_Well"] == "B02"].to_numpy())
    again = extract(tmp_path, settings, "one")
    assert again.to_pandas().equals(cells)


def test_a_plate_made_with_another_network_is_not_gone_on_with(tmp_path: Path) -> None:
    write_images(tmp_path)
    code = tmp_path / "net.py"
    code.write_text("def net():\n    return lambda crops: crops.mean((2, 3))\n")
    model = f'name = "n"\nmodel = "{code}:net"\nchannels = ["DNA"]\ncrop = 16'
    extract(tmp_path, config(tmp_path, model), "out", wells=["A01"])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "net.py").write_text(code.read_text())
    same = config(tmp_path, model.replace(str(code), str(moved / "net.py")))
    extract(tmp_path, same, "out")  # another place, the same file
    code.write_text("def net():\n    return lambda crops: crops.amax((2, 3))\n")
    with pytest.raises(ValueError, match=r"networks\.n\.net\.py: stored"):
        extract(tmp_path, config(tmp_path, model), "out")


def test_settings_are_printed_and_read_back(tmp_path: Path) -> None:
    settings = config(tmp_path, PLATE, more="[features.embedding]\nbatch = 8\n")
    (tmp_path / "again.toml").write_text(as_toml(settings))
    assert load_config(tmp_path / "again.toml") == settings


def test_a_channel_that_the_plate_has_not_is_named_before_anything_is_written(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(ValueError, match="model 'p': channel 'GFP' is not of this plate, which has DNA"):
        extract(tmp_path, config(tmp_path, PLATE.replace("AGP", "GFP")), "out")
    assert not (tmp_path / "out").exists()


def test_statistics_skip_fields_that_cannot_be_read(tmp_path: Path, device: Device) -> None:
    folder = write_images(tmp_path)
    plate = find_plate("DEMO", tmp_path / "images")
    ones = torch.ones(5, 56, 64)
    whole = plate_statistics(plate, ["DNA"], 64, ones, device)
    for broken in sorted(folder.glob("r01c01f01*ch5*")):
        broken.write_bytes(b"broken")
    assert plate_statistics(plate, ["DNA"], 64, ones, device) != whole
    for broken in folder.glob("*.tiff"):
        broken.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"no image can be read"):
        plate_statistics(plate, ["DNA"], 64, ones, device)


def test_odd_values_of_a_network_are_said_and_odd_rows_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path)
    code = tmp_path / "net.py"
    code.write_text(
        "import torch\n"
        "def inf():\n    return lambda crops: crops.mean((2, 3)) / 0\n"
        "def uneven():\n    return lambda crops: torch.zeros(len(crops), 2 + (len(crops) != 2))\n"
    )
    model = 'name = "n"\nmodel = "{}:{}"\nchannels = ["DNA"]\ncrop = 16'
    plate = extract(tmp_path, config(tmp_path, model.format(code, "inf")), "inf")
    n = len(plate.to_pandas())
    assert n > 0
    said = capsys.readouterr().err
    assert said.count("model 'n' has values that are not finite for") == 1  # of many fields
    assert "(its network gives nan or infinity)" in said
    with pytest.raises(ValueError, match="model 'n' gives 3 values for some crops and 2 for others"):
        extract(tmp_path, config(tmp_path, model.format(code, "uneven")), "uneven")
