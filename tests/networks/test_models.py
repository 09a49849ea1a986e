"""Networks of every kind give what the same module gives in torch; what would run code or does not fit is refused."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from jumpgpu.features.embedding import gaps, places
from jumpgpu.networks.models import RandomConvolutions, identity, load, width
from jumpgpu.settings.config import Config, build
from jumpgpu.settings.networks import EmbeddingSettings, ModelSettings

CPU = torch.device("cpu")
CODE = """
import torch

def net():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )

def plain():
    return lambda crops: crops.mean((2, 3))

def maps():
    return torch.nn.Conv2d(3, 4, 3)

number = 3
"""


def module() -> torch.nn.Module:
    space: dict[str, object] = {}
    exec(CODE, space)
    torch.manual_seed(3)
    output = space["net"]()  # type: ignore[operator]
    assert isinstance(output, torch.nn.Module)
    return output.eval()


def settings(model: str, **given: object) -> ModelSettings:
    return dataclasses.replace(
        ModelSettings(name="net", model=model, channels=("DNA", "ER", "RNA"), crop=20.0),
        **given,  # type: ignore[arg-type]
    )


@pytest.fixture
def code(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return str(path)


def saved(kind: str, folder: Path, code: str) -> ModelSettings:
    """The module, saved as each kind of file."""
    output, crops = module(), torch.zeros(2, 3, 20, 20)
    if kind == "script":
        torch.jit.trace(output, crops).save(str(folder / "net.pt"))
        return settings(str(folder / "net.pt"))
    if kind == "export":
        batch = torch.export.Dim("batch", min=1, max=4096)
        torch.export.save(torch.export.export(output, (crops,), dynamic_shapes=({0: batch},)), folder / "net.pt2")
        return settings(str(folder / "net.pt2"))
    if kind == "safetensors":
        library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
        library.save_file(output.state_dict(), folder / "net.safetensors")
        return settings(f"{code}:net", weights=str(folder / "net.safetensors"))
    assert kind == "pth"
    torch.save(output.state_dict(), folder / "net.pth")
    return settings(f"{code}:net", weights=str(folder / "net.pth"))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", ["script", "export", "safetensors", "pth"])
def test_every_kind_gives_what_the_module_gives(kind: str, tmp_path: Path, code: str) -> None:
    model = saved(kind, tmp_path, code)
    crops = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module()(crops)
    # The same operations of one library; a traced or exported graph may fuse two of them.
    torch.testing.assert_close(load(model, CPU)(crops), expected, rtol=1e-6, atol=1e-7)
    assert width(model) == 4
    (record,) = identity(EmbeddingSettings(models=(model,))).values()
    assert set(record) == {Path(f).name for f in model.files}
    assert all(len(digest) == 64 for digest in record.values())


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    output = module()
    weight, bias = (p.detach().numpy() for p in output[0].parameters())  # type: ignore[index]
    make = onnx.helper
    nodes = [
        make.make_node("Conv", ["crops", "w", "b"], ["c"]),
        make.make_node("Relu", ["c"], ["r"]),
        make.make_node("GlobalAveragePool", ["r"], ["p"]),
        make.make_node("Flatten", ["p"], ["out"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("crops", kind, ["n", 3, 20, 20])],
        [make.make_tensor_value_info("out", kind, ["n", 4])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    file = tmp_path / "net.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), file)
    crops = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = output(crops)
    # Two libraries' convolutions of 27 terms in float32.
    torch.testing.assert_close(load(settings(str(file)), CPU)(crops), expected, rtol=1e-5, atol=1e-6)
    file.write_bytes(b"no onnx")
    with pytest.raises(ValueError, match=r"model 'net': .*net\.onnx cannot be read as ONNX"):
        load(settings(str(file)), CPU)


def test_timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed", exc_type=(ImportError, RuntimeError))
    model = settings("timm:resnet10t", weights="random", crop=32.0)
    first = load(model, CPU)(torch.ones(2, 3, 32, 32))
    assert first.shape == (2, width(model))
    assert identity(EmbeddingSettings(models=(model,)))["net"]["weights"]  # random weights are the same in every process
    with pytest.raises(ValueError, match="timm has no 'nosuchnet'"):
        load(settings("timm:nosuchnet", weights="random"), CPU)


def test_a_callable_that_is_no_module(code: str) -> None:
    crops = torch.rand(3, 3, 20, 20)
    torch.testing.assert_close(load(settings(f"{code}:plain"), CPU)(crops), crops.mean((2, 3)))


def test_random_bank_is_fixed() -> None:
    model = settings("random_convolutions")
    crops = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(2))
    network = load(model, CPU)
    assert network(crops).shape == (2, 128)
    random = np.random.default_rng(20201104)
    expected = (random.standard_normal((64, 3, 5, 5)) / np.sqrt(75)).astype(np.float32)
    np.testing.assert_array_equal(RandomConvolutions(3).filter_0.numpy(), expected)
    float16 = load(dataclasses.replace(model, precision="float16"), CPU)(crops.half())
    torch.testing.assert_close(float16, network(crops), rtol=2e-2, atol=2e-3)  # eleven bits, sums of up to 576 terms


class Harm:
    """A pickle of it makes a file when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pt2", "whole.pth"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_no_pickle_is_run(name: str, tmp_path: Path, code: str) -> None:
    done, file = tmp_path / "done", tmp_path / name
    if name == "whole.pth":
        torch.save({"state": Harm(done)}, file)
    else:
        file.write_bytes(pickle.dumps(Harm(done)))
    model = settings(f"{code}:net", weights=str(file)) if name.endswith("pth") else settings(str(file))
    with pytest.raises(ValueError, match="model 'net'"):
        load(model, CPU)
    assert not done.exists()


def test_an_exported_file_with_pickled_constants_is_refused(tmp_path: Path) -> None:
    import zipfile

    output, crops = module(), torch.zeros(2, 3, 20, 20)
    torch.export.save(torch.export.export(output, (crops,)), tmp_path / "good.pt2")
    done = tmp_path / "done"
    with zipfile.ZipFile(tmp_path / "good.pt2") as old, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as new:
        for item in old.namelist():
            harm = "weight" in item and not item.endswith(".json")
            new.writestr(item, pickle.dumps(Harm(done)) if harm else old.read(item))
    with pytest.raises(ValueError, match=r"cannot be read as a torch\.export file"):
        load(settings(str(tmp_path / "bad.pt2")), CPU)(crops)
    assert not done.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "lacks 0.weight"),
        ({"more": torch.zeros(1)}, "has too much with more"),
        ({"0.bias": torch.zeros(5)}, "has another shape of 0.bias"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, object], message: str, tmp_path: Path, code: str) -> None:
    state = {k: v for k, v in (module().state_dict() | change).items() if v is not None}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=message):
        load(settings(f"{code}:net", weights=str(tmp_path / "net.pth")), CPU)


def test_a_network_that_does_not_fit_its_crops(code: str) -> None:
    with pytest.raises(ValueError, match=r"gives \[2, 4, 18, 18\] for 2 crops; expected \[2, D\]"):
        width(settings(f"{code}:maps"))
    with pytest.raises(ValueError, match=r"model 'net' does not take crops \[2, 2, 20, 20\]"):
        width(settings(f"{code}:net", channels=("DNA", "ER")))
    with pytest.raises(ValueError, match="has no function 'number'"):
        width(settings(f"{code}:number"))
    with pytest.raises(FileNotFoundError, match=r"model 'net': gone.py does not exist"):
        width(settings("gone.py:net"))
    with pytest.raises(FileNotFoundError, match=r"model 'net': gone.pt does not exist"):
        width(settings("gone.pt"))


GOOD = {"name": "n", "model": "random_convolutions", "channels": ["DNA"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name: expected letters"),
        ({"name": "a__b"}, "name: expected letters"),
        ({"name": "../x"}, "name: expected letters"),
        ({"model": "net.pkl"}, "model: expected timm:NAME"),
        ({"model": "timm:resnet18"}, "weights: expected a file for timm"),
        ({"model": "a.py:f", "weights": "w.pkl"}, "weights: expected a .safetensors"),
        ({"model": "a.py:f", "weights": "random"}, "weights: 'random' is for timm"),
        ({"weights": "a.safetensors"}, "weights: random_convolutions has its own"),
        ({"channels": []}, "channels: expected names"),
        ({"channels": ["DNA", "DNA"]}, "channels: expected each once"),
        ({"crop": 0.5}, "crop: expected a finite number and at least 1"),
        ({"crop": 20.5}, "size: expected pixels"),
        ({"unit": "um"}, "size: expected pixels"),
        ({"unit": "mm"}, "unit: expected one of pixels, um"),
        ({"normalize": "fixed"}, "mean: expected 1 or 1 values"),
        ({"normalize": "fixed", "mean": [0.1], "std": [0.0]}, "std: expected a finite number and above 0"),
        ({"mean": [0.1]}, "mean: only normalize = fixed"),
        ({"precision": "bfloat16"}, "precision: expected one of"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_settings_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    table = {"features": {"embedding": {"models": [GOOD | {"name": "m"}, GOOD | change]}}}
    with pytest.raises(ValueError, match=f"models 2: {message}"):
        build(Config, table, "my.toml")


def test_two_models_of_one_name() -> None:
    table = {"features": {"embedding": {"models": [GOOD, GOOD | {"crop": 64}]}}}
    with pytest.raises(ValueError, match="models: expected each name once, got 'n' 2 times"):
        build(Config, table, "my.toml")


ODD = """
import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.given = forward
    def forward(self, crops):
        return self.given(crops)

def fails(error):
    def forward(crops):
        raise error
    return lambda: Net(forward)

key, zero, disk = fails(KeyError("k")), fails(ZeroDivisionError("z")), fails(OSError("d"))
assertion = fails(AssertionError("odd side"))
memory = fails(RuntimeError("CUDA out of memory"))
complex_ = lambda: Net(lambda c: torch.zeros(len(c), 2, dtype=torch.complex64))
none = lambda: Net(lambda c: c.mean((2, 3))[:, :0])
array = lambda: lambda c: c.numpy().mean((2, 3))
needy = lambda size: None

def refuses():
    raise RuntimeError("no weights")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("key", "does not take crops .*: KeyError: 'k'"),
        ("assertion", "does not take crops .*: AssertionError: odd side"),
        ("zero", "ZeroDivisionError: z"),
        ("disk", "OSError: d"),
        ("complex_", r"gives torch.complex64; expected real numbers"),
        ("none", r"gives \[2, 0\] for 2 crops; expected \[2, D\]"),
        ("needy", r"needy\(\) fails: TypeError: .*missing 1 required"),
        ("refuses", r"refuses\(\) fails: no weights"),
    ],
)
def test_what_a_users_code_raises_is_an_error_that_names_the_model(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    with pytest.raises(ValueError, match=rf"model 'net'.*{message}"):
        width(settings(f"{tmp_path / 'odd.py'}:{name}"))


def test_want_of_memory_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory$"):
        width(settings(f"{tmp_path / 'odd.py'}:memory"))


def test_a_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    for text, message in (("def f(:\n", "SyntaxError"), ("import no_such_library\n", "No module named 'no_such_library'")):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ValueError, match=rf"model 'net': .*bad.py cannot be run: .*{message}"):
            width(settings(f"{tmp_path / 'bad.py'}:f"))


def test_arrays_are_rows_too(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    crops = torch.rand(3, 3, 20, 20)
    torch.testing.assert_close(load(settings(f"{tmp_path / 'odd.py'}:array"), CPU)(crops), crops.mean((2, 3)))


def test_gaps_are_told_once_a_model_and_networks_nan_apart_from_absent_pixels() -> None:
    names = ["Cells_AreaShape_Area", *(f"Cells_Embedding_a_000{i}" for i in (1, 2)), "Cells_Embedding_b_DNA_0001"]
    where = places(names)
    assert where == {"a": [1, 2], "b_DNA": [3]}
    nan, inf = np.nan, np.inf
    assert gaps(np.array([[nan, 1, 2, 3], [1, 1, 2, 3.0]]), where) == {}
    assert gaps(np.array([[1, nan, nan, 3], [1, 1, 2, 3.0]]), where) == {"a": (1, False)}
    assert gaps(np.array([[1, nan, 2, 3], [1, 1, 2, inf]]), where) == {"a": (1, True), "b_DNA": (1, True)}
    assert gaps(np.array([[1, nan, nan, 3], [1, nan, nan, 3.0]]), where) == {"a": (2, True)}
