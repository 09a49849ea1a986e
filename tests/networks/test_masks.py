"""Masks by networks in a run: stub networks whose labels are known, and Cellpose and StarDist where they are installed."""

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import jumpgpu
from jumpgpu.gpu.device import Device
from jumpgpu.images.masks import pair
from jumpgpu.networks.masks import as_labels, find_labels
from jumpgpu.segmentation.pipeline import primary_of, segment, segment_from
from jumpgpu.settings.config import Config, NetworkMaskSettings, SegmentationSettings, load_config
from jumpgpu.store.reader import StoredPlate
from jumpgpu.synthetic import SyntheticSettings, draw_plate

CODE = """
import numpy as np
import torch
from scipy import ndimage

seen = []

def components(fields, channels, name, least):
    seen.append((type(fields), fields.dtype, tuple(fields.shape), tuple(channels)))
    image = fields[:, list(channels).index(name)].numpy()
    return np.stack([ndimage.label(ndimage.gaussian_filter(i, 2) > least)[0] for i in image])

def nuclei(fields, channels):
    return components(fields, channels, "DNA", 0.02)

def cells(fields, channels):
    return torch.from_numpy(components(fields, channels, "RNA", 0.01).astype(np.int16))

class Own:
    def __init__(self, array):
        self.array = array
    def __dlpack__(self, *a, **k):
        return self.array.__dlpack__(*a, **k)
    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

def both(fields, channels):
    return {"Nuclei": Own(nuclei(fields, channels)), "Cells": cells(fields, channels)}

def floats(fields, channels):
    return fields[:, 0]

def small(fields, channels):
    return nuclei(fields, channels)[:, 1:]

def broken(fields, channels):
    return fields["DNA"]

def divides(fields, channels):
    return 1 / 0

def halves(fields, channels):
    labels = nuclei(fields, channels)
    fields.mul_(0.5)
    return labels

def halves_array(fields, channels):
    labels = nuclei(fields, channels)
    fields.numpy()[:] /= 2
    return labels

def binary(fields, channels):
    return (nuclei(fields, channels) > 0).astype(np.uint8)

def learns(fields, channels):
    assert not torch.is_grad_enabled()
    return nuclei(fields, channels)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    draw_plate(folder / "images", "DEMO", SyntheticSettings(wells=2, sites=1, height=240, width=300, cells=9, seed=2))
    (folder / "nets.py").write_text(CODE)
    return folder


def config(root: Path, network: str, more: str = "", method: str = "module") -> Config:
    text = f'[segmentation]\nmethod = "{method}"\n[segmentation.network]\n{network}\n{more}\n'
    (root / "my.toml").write_text(text + '[features]\nfamilies = ["location", "number", "intensity"]\n')
    return load_config(root / "my.toml")


def extract(root: Path, settings: Config, output: str) -> StoredPlate:
    return jumpgpu.extract(
        "DEMO", root / "images", output=root / output, illumination="none", config=settings, save_labels=True, quiet=True
    )


def test_nuclei_and_cells_of_networks_are_paired_as_given_masks_are(root: Path) -> None:
    code = root / "nets.py"
    apart = extract(root, config(root, f'nuclei = "{code}:nuclei"\ncells = "{code}:cells"'), "apart")
    together = extract(root, config(root, f'nuclei = "{code}:both"'), "together")
    n = 0
    for well in apart.wells:
        labels = apart.labels(well, 1)
        for compartment, image in together.labels(well, 1).items():
            np.testing.assert_array_equal(image, labels[compartment])
        again, notes = pair(labels["Nuclei"], labels["Cells"])
        assert notes == [] or all("reach beyond" in note for note in notes)
        for compartment, image in again.items():
            np.testing.assert_array_equal(image, labels[compartment])
        n += labels["Cells"].max()
    assert n > 3
    assert len(apart.to_pandas()) == n
    assert set(apart.settings["networks"]["segmentation"]) == {"nets.py"}
    assert apart.settings["config"]["segmentation"]["network"]["nuclei"].endswith("nets.py:nuclei")
    assert "/" not in apart.settings["config"]["segmentation"]["network"]["nuclei"]


def test_cells_are_grown_from_a_networks_nuclei(root: Path, device: Device) -> None:
    plate = extract(root, config(root, f'nuclei = "{root / "nets.py"}:nuclei"'), "grown")
    for well in plate.wells:
        labels = plate.labels(well, 1)
        nuclei, cells = labels["Nuclei"], labels["Cells"]
        numbers = np.arange(1, nuclei.max() + 1)
        assert nuclei.max() == cells.max() > 2
        assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
        assert (
            ndimage.sum_labels(cells > 0, cells, numbers) > 1.3 * ndimage.sum_labels(nuclei > 0, nuclei, numbers)
        ).mean() > 0.8


def test_grown_cells_are_the_pipelines_own(device: Device) -> None:
    """Given the nuclei that the pipeline finds and keeps, the cells grown from them are the pipeline's."""
    from tests.helpers.numbers_drawn import SMALL, corrected

    pixels, settings = corrected(SMALL, 5), SegmentationSettings(filter_border_nuclei=False)
    settings = dataclasses.replace(
        settings, nuclei=dataclasses.replace(settings.nuclei, discard_border=False, discard_size=False)
    )
    channels = ("DNA", "ER", "RNA", "AGP", "Mito")
    whole = segment(pixels, channels, settings, device)
    grown = segment_from(primary_of(whole.labels["Nuclei"], device), pixels, channels, settings, device, {})
    assert int(whole.counts.max()) > 5
    for compartment, image in whole.labels.items():
        torch.testing.assert_close(grown.labels[compartment], image, rtol=0, atol=0)


def test_segment_writes_the_same_labels(root: Path) -> None:
    settings = config(root, f'nuclei = "{root / "nets.py"}:nuclei"')
    plate = extract(root, settings, "extracted")
    jumpgpu.segment("DEMO", root / "images", output=root / "segmented", illumination="none", config=settings, quiet=True)
    other = jumpgpu.open_plate(root / "segmented" / "DEMO.zarr")
    for well in plate.wells:
        for compartment, image in plate.labels(well, 1).items():
            np.testing.assert_array_equal(other.labels(well, 1)[compartment], image)


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        ("", "", "network.nuclei: expected the network that finds nuclei"),
        ('nuclei = "CODE:nuclei"\ndiameter = 20.0', "", "network.diameter: method = module does not take it"),
        ('nuclei = "model.pt"', "", "network.nuclei: expected FILE.py:FUNCTION"),
        (
            'nuclei = "CODE:nuclei"',
            "[segmentation.nuclei]\nmin_diameter = 20",
            r"segmentation.nuclei.min_diameter: .* leave it out",
        ),
        ('nuclei = "CODE:floats"', "", r"CODE:floats \(Nuclei\) gives torch.float32; expected whole numbers"),
        ('nuclei = "CODE:small"', "", r"gives \[\d, 239, 300\]; expected \[B, H, W\] = \[\d, 240, 300\]"),
        ('nuclei = "CODE:broken"', "", r"segmentation.network.nuclei .* fails"),
        ('nuclei = "CODE:nosuch"', "", "has no function 'nosuch'"),
        ('nuclei = "gone.py:f"', "", "gone.py"),
    ],
)
def test_what_cannot_be_meant_is_said(root: Path, network: str, more: str, message: str, tmp_path: Path) -> None:
    code = str(root / "nets.py")
    with pytest.raises((ValueError, FileNotFoundError), match=message.replace("CODE", code)):
        extract(root, config(root, network.replace("CODE", code), more), str(tmp_path / "out"))


def test_a_network_without_its_method_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"network\.nuclei: method = cellprofiler does not take it"):
        config(root, 'nuclei = "a.py:f"', method="cellprofiler")


def test_labels_of_any_kind(device: Device) -> None:
    pixels = torch.zeros(2, 3, 5, 7)
    for dtype in (np.uint8, np.uint16, np.int32, np.uint32, np.int64):
        values = np.arange(70, dtype=dtype).reshape(2, 5, 7)
        np.testing.assert_array_equal(as_labels(values, pixels, "net", device).numpy(), values)
    for bad in (np.ones((2, 5, 7), bool), np.full((2, 5, 7), -1), np.full((2, 5, 7), 2**31)):
        with pytest.raises(ValueError, match="net gives"):
            as_labels(bad, pixels, "net", device)


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    parent, module = types.ModuleType(name), types.ModuleType(f"{name}.models")
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, parent)
    monkeypatch.setitem(sys.modules, f"{name}.models", module)


def test_cellpose_is_called_as_its_page_says(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class CellposeModel:
        def __init__(self, **given: object) -> None:
            calls.append(given)

        def eval(self, image: np.ndarray, **given: object) -> tuple[np.ndarray, None, None]:
            calls.append((image.shape, given))
            return (image if image.ndim == 2 else image[..., 0]) > 0.5, None, None

    stub(monkeypatch, "cellpose", CellposeModel=CellposeModel)
    network = NetworkMaskSettings(nuclei="stub-nuclei", cells="stub-cells", diameter=20.0, probability=-1.0)
    settings = SegmentationSettings(method="cellpose", network=network)
    pixels = torch.rand(2, 5, 9, 11)
    labels = find_labels(pixels, ("DNA", "ER", "RNA", "AGP", "Mito"), settings, device)
    np.testing.assert_array_equal(labels["Nuclei"].numpy(), pixels[:, 0].numpy() > 0.5)
    np.testing.assert_array_equal(labels["Cells"].numpy(), pixels[:, 2].numpy() > 0.5)
    assert calls[0] == {"gpu": False, "pretrained_model": "stub-nuclei", "device": device.torch}
    assert calls[1] == ((9, 11), {"channels": [0, 0], "diameter": 20.0, "cellprob_threshold": -1.0})
    assert calls[-1] == ((9, 11, 3), {"channels": [1, 2], "cellprob_threshold": -1.0})


def test_stardist_is_called_as_its_page_says(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class StarDist2D:
        def __init__(self, config: None, name: str, basedir: str) -> None:
            assert (config, name, basedir) == (None, "mine", str(tmp_path))

        def predict_instances(self, image: np.ndarray, prob_thresh: float) -> tuple[np.ndarray, dict[str, object]]:
            assert prob_thresh == 0.4
            assert np.percentile(image, 1) == pytest.approx(0, abs=1e-6)
            assert np.percentile(image, 99.8) == pytest.approx(1, abs=1e-6)
            return (image > 0.5).astype(np.int32), {}

    stub(monkeypatch, "stardist", StarDist2D=StarDist2D)
    (tmp_path / "mine").mkdir()
    network = NetworkMaskSettings(nuclei=str(tmp_path / "mine"), probability=0.4)
    pixels = torch.rand(2, 5, 9, 11)
    labels = find_labels(
        pixels, ("DNA", "ER", "RNA", "AGP", "Mito"), SegmentationSettings(method="stardist", network=network), device
    )
    assert labels.keys() == {"Nuclei"}
    assert labels["Nuclei"].shape == (2, 9, 11)


@pytest.mark.parametrize("method", ["cellpose", "stardist"])
def test_a_library_that_is_absent_is_named(device: Device, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setitem(sys.modules, f"{method}.models", None)
    settings = SegmentationSettings(method=method, network=NetworkMaskSettings(nuclei=f"absent-{method}"))
    with pytest.raises(ValueError, match=rf"needs {method}: pip install 'jumpgpu\[{method}\]'"):
        find_labels(torch.zeros(1, 5, 8, 8), ("DNA", "ER", "RNA", "AGP", "Mito"), settings, device)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_cellpose_at_random_weights(device: Device, tmp_path: Path) -> None:
    """The real architecture, its weights drawn: whatever it finds is a label image of the field."""
    models = pytest.importorskip("cellpose.models", reason="cellpose is not installed", exc_type=Exception)
    from cellpose.resnet_torch import CPnet

    torch.manual_seed(0)
    net = CPnet([2, 32, 64, 128, 256], 3, 3, mkldnn=False)
    net.save_model(str(tmp_path / "random"))
    assert models
    settings = SegmentationSettings(
        method="cellpose", network=NetworkMaskSettings(nuclei=str(tmp_path / "random"), diameter=30.0)
    )
    labels = find_labels(torch.rand(2, 5, 96, 80), ("DNA", "ER", "RNA", "AGP", "Mito"), settings, device)
    assert labels["Nuclei"].shape == (2, 96, 80)
    assert labels["Nuclei"].dtype == torch.int32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_stardist_at_random_weights(device: Device, tmp_path: Path) -> None:
    """The real architecture, its weights drawn: the labels are those that the library finds in the image by itself."""
    models = pytest.importorskip("stardist.models", reason="stardist is not installed", exc_type=Exception)
    import tensorflow

    tensorflow.keras.utils.set_random_seed(0)
    small = models.Config2D(n_rays=16, grid=(2, 2), unet_n_depth=2, unet_n_filter_base=8, net_conv_after_unet=16)
    model = models.StarDist2D(small, name="random", basedir=str(tmp_path))
    model.keras_model.save_weights(str(tmp_path / "random" / "weights_best.h5"))
    (tmp_path / "random" / "thresholds.json").write_text('{"prob": 0.5, "nms": 0.4}')
    pixels = torch.rand(2, 5, 96, 80, generator=torch.Generator().manual_seed(0))
    network = NetworkMaskSettings(nuclei=str(tmp_path / "random"), probability=0.3)
    settings = SegmentationSettings(method="stardist", network=network)
    labels = find_labels(pixels, ("DNA", "ER", "RNA", "AGP", "Mito"), settings, device)["Nuclei"]
    assert labels.dtype == torch.int32
    assert labels.max() > 2  # random weights find something, such as it is
    for field, found in zip(pixels[:, 0].numpy(), labels.numpy(), strict=True):
        low, high = np.percentile(field, [1, 99.8])
        expected = model.predict_instances((field - low) / (high - low + 1e-20), prob_thresh=0.3)[0]
        np.testing.assert_array_equal(found, expected)


DEEPSEA = """
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from deepsea.model import DeepSeaSegmentation
from scipy import ndimage


@cache
def net():
    with (files("deepsea") / "trained_models" / "segmentation.pth").open("rb") as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    model = DeepSeaSegmentation(n_channels=1, n_classes=2)
    model.load_state_dict(weights)
    return model.eval()


@torch.inference_mode()
def nuclei(fields, channels):
    image = fields[:, list(channels).index("DNA")][:, None]
    least, most = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    inside = net()((image - least) / (most - least) * 2 - 1)[0].argmax(1)
    return np.stack([ndimage.label(i)[0] for i in inside.numpy()])
"""


@pytest.mark.slow
def test_a_package_that_ships_its_weights(root: Path, device: Device) -> None:
    """DeepSea (pip install --no-deps deepsea) has trained weights in its wheel: images to cells by them, in one run."""
    pytest.importorskip("deepsea", reason="deepsea is not installed")
    (root / "deepsea_nets.py").write_text(DEEPSEA)
    settings = config(root, f'nuclei = "{root / "deepsea_nets.py"}:nuclei"')
    plate = extract(root, settings, "deepsea")
    cells = plate.to_pandas()
    assert len(cells) > 3
    assert set(plate.settings["networks"]["segmentation"]) == {"deepsea_nets.py"}
    for well in plate.wells:
        labels = plate.labels(well, 1)
        assert labels["Nuclei"].max() == labels["Cells"].max() == (cells["Metadata_Well"] == well).sum()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divides", r"segmentation.network.nuclei \(.*:divides\) fails: ZeroDivisionError: division by zero"),
        ("halves", r"\(.*:halves\) changes the fields it is given, .* work on a copy"),
        ("halves_array", "changes the fields it is given"),
    ],
)
def test_a_function_that_fails_or_changes_the_fields_is_named(root: Path, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        extract(root, config(root, f'nuclei = "{root / "nets.py"}:{name}"'), str(tmp_path / "out"))


def test_a_binary_mask_in_place_of_labels_is_said(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract(root, config(root, f'nuclei = "{root / "nets.py"}:binary"'), str(tmp_path / "out"))
    assert "site 1: Nuclei: label 1 in" in (said := capsys.readouterr().err)
    assert "separate parts, as in a binary mask" in said
    extract(root, config(root, f'nuclei = "{root / "nets.py"}:learns"'), str(tmp_path / "learns"))
    assert "binary" not in capsys.readouterr().err
