"""Networks from what settings name: timm, TorchScript, torch.export, ONNX, a Python file's function, a fixed random bank.

No pickle is read: weights are safetensors or tensors alone (torch's `weights_only`).
"""

import contextlib
import hashlib
import importlib
import importlib.util
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..settings.networks import RANDOM, EmbeddingSettings, ModelSettings

EXTRA = "embeddings"  # of pyproject.toml
FILTERS = 64  # of the last layer of the random bank; it gives their means and deviations
MAX_KEPT = 16  # networks that stay loaded
DTYPES = {"float32": torch.float32, "float16": torch.float16}

Forward = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Network:
    """A network on its device.

    forward  [N, K, S, S] of its precision to [N, D]
    state    digest of its weights, where they are torch's
    """

    name: str
    forward: Forward
    dtype: torch.dtype
    state: str = ""

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """float32 [N, D] of crops [N, K, S, S]; ValueError for a network that gives anything else."""
        with (
            code_of(f"model {self.name!r} does not take crops {list(crops.shape)} of {crops.dtype}"),
            torch.inference_mode(),
        ):
            output = self.forward(crops)
            if not isinstance(output, torch.Tensor) and hasattr(output, "__dlpack__"):
                output = torch.utils.dlpack.from_dlpack(output).to(crops.device)
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(crops) or not output.shape[1]:
            given = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(
                f"model {self.name!r} gives {given} for {len(crops)} crops; expected [{len(crops)}, D], a row per crop: end "
                "it with a pooling, in a function of FILE.py:FUNCTION"
            )
        if output.is_complex():
            raise ValueError(f"model {self.name!r} gives {output.dtype}; expected real numbers")
        return output.to(torch.float32)


@contextlib.contextmanager
def code_of(where: str) -> Iterator[None]:
    """What a user's code raises, as a ValueError that says where; want of memory and a lost device stay what they are."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if isinstance(error, RuntimeError) and ("out of memory" in text.lower() or "CUDA error" in text):
            raise
        kind = "" if type(error) in (RuntimeError, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{where}: {kind}{text}") from error


class RandomConvolutions(torch.nn.Module):
    """Two layers of convolutions with fixed random weights; mean and deviation of each map: [N, 2 * FILTERS].

    The baseline of `jumpgpu.benchmark` that knows nothing of cells: what any network must beat.
    """

    filter_0: torch.Tensor
    filter_1: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        random = np.random.default_rng(20201104)
        shapes = ((FILTERS, channels, 5, 5), (FILTERS, FILTERS, 3, 3))
        for i, shape in enumerate(shapes):
            values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            self.register_buffer(f"filter_{i}", torch.tensor(values, dtype=torch.float32))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(torch.nn.functional.conv2d(crops, self.filter_0, stride=2))
        maps = torch.relu(torch.nn.functional.conv2d(maps, self.filter_1, stride=2))
        deviation, mean = torch.std_mean(maps.float(), (2, 3), correction=0)
        return torch.cat([mean, deviation], 1)


def inputs_of(model: ModelSettings) -> int:
    """Input channels that a network gets."""
    return model.per_channel or len(model.channels)


def size_of(model: ModelSettings) -> int:
    """Pixels along a crop's side."""
    return model.size or int(model.crop)


_kept: dict[Any, Any] = {}
_lock = threading.RLock()


def once(key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept under a key; networks are loaded by one thread at a time."""
    with _lock:
        if key not in _kept:
            if len(_kept) >= MAX_KEPT:
                _kept.clear()
            _kept[key] = make()
        return _kept[key]


def load(model: ModelSettings, device: torch.device) -> Network:
    """The network of a model, on a device, loaded at the first call.

    Raises FileNotFoundError and ValueError (a file that holds no such network, weights that do not fit, a library that is
    not installed), each naming the model and what to do.
    """
    named = model.model, model.weights, inputs_of(model), size_of(model), model.precision, model.name
    files = tuple((f, Path(f).stat().st_mtime_ns, Path(f).stat().st_size) for f in model.files if Path(f).is_file())
    return once((named, files, str(device)), lambda: _load(model, device))


def width(model: ModelSettings) -> int:
    """Values per crop (and channel, where channels go by themselves): found by running it on two blank crops on the CPU."""
    network = load(replace(model, precision="float32"), torch.device("cpu"))
    size = size_of(model)
    blank = torch.zeros(2, inputs_of(model), size, size)
    return once((network.name, network.state, model.files, blank.shape, model), lambda: network(blank).shape[1])


def identity(settings: EmbeddingSettings) -> dict[str, dict[str, str]]:
    """What is known of each model's network, for the plate's record: digests of its files, or of its weights.

    Two runs share a plate only where these agree.
    """
    result = {}
    for model in settings.models:
        result[model.name] = {Path(file).name: file_digest(file, model) for file in model.files}
        if model.model.startswith("timm:"):
            result[model.name]["weights"] = load(replace(model, precision="float32"), torch.device("cpu")).state
    return result


def file_digest(file: str, model: ModelSettings | None = None) -> str:
    """SHA-256 of a file."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        where = f"model {model.name!r}: " if model else ""
        raise FileNotFoundError(f"{where}{file}: {error.strerror}") from error


def _load(model: ModelSettings, device: torch.device) -> Network:
    for file in model.files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"model {model.name!r}: {file} does not exist")
    dtype = DTYPES[model.precision]
    if model.model.endswith(".onnx"):
        return Network(model.name, _onnx(model, device), dtype)
    if model.model.endswith((".pt", ".ts")):
        output: Any = _torch_script(model, device)
    elif model.model.endswith(".pt2"):
        output = _exported(model)
    elif model.model.startswith("timm:"):
        output = _timm(model)
    elif model.model == RANDOM:
        output = RandomConvolutions(inputs_of(model))
    else:
        output = _from_function(model)
    if not isinstance(output, torch.nn.Module):
        if not callable(output):
            raise ValueError(f"model {model.name!r}: {model.model} gives {type(output).__name__}; expected a torch module")
        return Network(model.name, output, dtype)
    if not model.model.endswith(".pt2"):  # an exported program is in the mode that it was exported in
        output.eval()
    state = state_digest(output)
    output.to(device=device, dtype=dtype)
    return Network(model.name, output, dtype, state)


def state_digest(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode() + bits.numpy().tobytes())
    return digest.hexdigest()


def library(name: str, what: str, extra: str = EXTRA) -> Any:
    """An optional library; ValueError that names the extra."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision that does not fit torch raises the second
        raise ValueError(f"{what} needs {name.partition('.')[0]}: pip install 'jumpgpu[{extra}]' ({error})") from error


def _torch_script(model: ModelSettings, device: torch.device) -> Any:
    try:
        return torch.jit.load(model.model, map_location=device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"model {model.name!r}: {model.model} is not TorchScript: {str(error).splitlines()[0]}. A pickled module is not "
            "read, since a pickle runs code: save it by torch.jit.script or torch.export, or its state_dict as .safetensors "
            "and give FILE.py:FUNCTION"
        ) from error


def _exported(model: ModelSettings) -> Any:
    """A torch.export file, refused where it brings Python objects of its own, which torch would unpickle."""
    try:
        with zipfile.ZipFile(model.model) as archive:
            names = archive.namelist()
        if any("custom_obj" in n for n in names if "config" not in n):
            raise ValueError("it holds pickled objects, which run code when they are read")
        with _tensors_alone():
            return torch.export.load(model.model).module()
    except (RuntimeError, ValueError, KeyError, OSError, AssertionError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"model {model.name!r}: {model.model} cannot be read as a torch.export file: {reason}") from error


class _tensors_alone:
    """Within it, torch.load reads tensors alone, whatever its caller asks for."""

    def __enter__(self) -> None:
        self.load = torch.load

        def load(*arguments: Any, **options: Any) -> Any:
            return self.load(*arguments, **(options | {"weights_only": True}))

        torch.load = load

    def __exit__(self, *error: object) -> None:
        torch.load = self.load


def _timm(model: ModelSettings) -> torch.nn.Module:
    timm = library("timm", f"model {model.name!r}: {model.model}")
    name = model.model.removeprefix("timm:")
    options = {"num_classes": 0, "in_chans": inputs_of(model), "pretrained": model.weights == "pretrained"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output: torch.nn.Module = timm.create_model(name, img_size=size_of(model), **options)
        except TypeError:  # of an architecture that takes any size
            torch.manual_seed(0)
            output = timm.create_model(name, **options)
        except RuntimeError as error:
            raise ValueError(f"model {model.name!r}: timm has no {name!r}: {error}") from error
    if model.weights not in ("random", "pretrained"):
        known: Any = getattr(output, "default_cfg", {})
        head = known.get("classifier") or ()
        fill(output, model, ignored=(head,) if isinstance(head, str) else tuple(head))
    return output


def _from_function(model: ModelSettings) -> Any:
    function = function_of(model.model, f"model {model.name!r}")
    with code_of(f"model {model.name!r}: {model.model}() fails"):
        output = function()
    if model.weights:
        if not isinstance(output, torch.nn.Module):
            raise ValueError(
                f"model {model.name!r}: weights are for a torch module, and {model.model} gives {type(output).__name__}"
            )
        fill(output, model)
    return output


def function_of(place: str, where: str) -> Callable[..., Any]:
    """`FILE.py:FUNCTION`, the file run as a module of its own."""
    file, _, name = place.rpartition(":")
    if not Path(file).is_file():
        raise FileNotFoundError(f"{where}: {file} does not exist")
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"jumpgpu_user_{digest}", file)
    assert spec is not None
    assert spec.loader is not None
    module: types.ModuleType = importlib.util.module_from_spec(spec)
    with code_of(f"{where}: {file} cannot be run"):
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{where}: {file} has no function {name!r}")
    result: Callable[..., Any] = function
    return result


def read_state(file: str, where: str) -> dict[str, torch.Tensor]:
    """Tensors by name, from .safetensors or a .pth of tensors alone."""
    try:
        if file.endswith(".safetensors"):
            state: Any = library("safetensors.torch", where).load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        if "pip install" in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"{where}: {file} does not hold tensors alone, by name: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{where}: {file} is not a state_dict, which has a tensor for each name")
    return state


def fill(output: torch.nn.Module, model: ModelSettings, ignored: tuple[str, ...] = ()) -> None:
    """Give a module a file's weights; every one of the module's must be there, and none be over but a classifier's."""
    assert model.weights is not None
    where = f"model {model.name!r}"
    state = read_state(model.weights, where)
    state = {k: v for k, v in state.items() if not k.startswith(tuple(f"{head}." for head in ignored))}
    own = output.state_dict()
    for problem, names in (
        ("lacks", sorted(set(own) - set(state))),
        ("has too much with", sorted(set(state) - set(own))),
        ("has another shape of", [k for k in own if k in state and own[k].shape != state[k].shape]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{where}: {model.weights} {problem} {names[0]}{more}, as {model.model} has it")
    output.load_state_dict(state)


def _onnx(model: ModelSettings, device: torch.device) -> Forward:
    runtime = library("onnxruntime", f"model {model.name!r}: {model.model}", "onnx")
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise ValueError(f"model {model.name!r}: this onnxruntime has no {provider}: pip install onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(model.model, options, providers=[(provider, {"device_id": device.index or 0})])
    except Exception as error:
        raise ValueError(
            f"model {model.name!r}: {model.model} cannot be read as ONNX: {str(error).splitlines()[0]}"
        ) from error
    if len(session.get_inputs()) != 1:
        raise ValueError(
            f"model {model.name!r}: {model.model} takes {len(session.get_inputs())} inputs; expected one, the crops"
        )
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name

    def forward(crops: torch.Tensor) -> torch.Tensor:
        crops, binding = crops.contiguous(), session.io_binding()
        kind = np.float16 if crops.dtype == torch.float16 else np.float32
        place = (device.type, device.index or 0)
        binding.bind_input(source, *place, kind, tuple(crops.shape), crops.data_ptr())
        binding.bind_output(target)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            raise ValueError(str(error)) from error
        return torch.from_numpy(binding.copy_outputs_to_cpu()[0]).to(device)

    return forward
