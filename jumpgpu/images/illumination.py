"""Illumination functions: estimated over a plate, from Harmony's flat fields, from files; and the division by them.

The estimate is CellProfiler's CorrectIlluminationCalculate ('Regular', all images, median filter, rescaled) between two
Resize modules. Resizing is linear, so the raw counts are summed first, as integers, and resized once: the mean is exact,
whatever the order of the fields, and memory does not grow with the plate.
"""

import hashlib
import io
import json
import math
import warnings
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch

from ..gpu.device import Device, blocks
from ..settings.config import IlluminationSettings
from ..storage.atomic import write_whole
from ..storage.buckets import Place, RemotePath
from .harmony import Flatfield
from .plate import Plate
from .reader import field_size, read_fields
from .site import Problem
from .tiff_tags import FULL_SCALE

SOURCES = ("auto", "estimate", "flatfield", "none")  # anything else is a folder
MAX_SCALES = 8  # different full scales among a plate's fields
NOT_ONE = 0.01  # what the least value of a function may be from 1
UNEVEN = 20.0  # times its least value: from six fields of CPJUMP1, too few for a function, the greatest is 13
HEADER_BYTES = 1 << 16  # of an .npy file beside its values; NumPy writes 128


@dataclass(frozen=True)
class Illumination:
    """A plate's illumination functions.

    functions : float32 [C, H, W] on the CPU; smoothed brightness over its 2nd percentile, its least value 1
    source : where they come from, one line
    notes : what a reader of the log should know
    warnings : functions that are not what CellProfiler makes, by plate and channel
    """

    channels: tuple[str, ...]
    functions: torch.Tensor
    source: str
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"{channel}: {wrong}"
            for channel, function in zip(self.channels, self.functions, strict=True)
            if (wrong := doubt(float(function.min()), float(function.max())))
        )


def doubt(minimum: float, greatest: float) -> str:
    """Why a function of these values is doubtful, '' where it is not.

    CellProfiler's, rescaled, have 1 where the light is weakest, and no more than a few times that where it is strongest.
    """
    values = f"the illumination function's values are {minimum:.4g} to {greatest:.4g}"
    if abs(minimum - 1) > NOT_ONE:
        bright = f"images come out {1 / minimum:.3g} times as bright"
        return f"{values}; one that is rescaled, as CellProfiler's are, has 1 as its least: {bright}"
    if greatest > UNEVEN:
        return (
            f"{values}: the light would fall off to 1 / {greatest:.0f}; was the function made from images of this channel?"
        )
    return ""


def correct(
    pixels: torch.Tensor,
    illumination: torch.Tensor,
    *,
    device: Device,
    scales: Sequence[Sequence[float]] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Divide raw fields by their channel's illumination function.

    Parameters
    ----------
    pixels : uint16 [B, C, H, W]
        Raw camera counts, on `device`.
    illumination : float32 [C, H, W]
        On `device`.
    scales : [B][C]
        What each image's counts are divided by (`FieldBatch.scales`); 65535 where None.
    out : float32 [B, C, H, W]
        Written and returned where given. On the CPU a fresh one costs five times the division: keep it over batches.

    Returns
    -------
    float32 [B, C, H, W]
        Counts / scale / illumination, each division rounded to float32 as CellProfiler does; clipped to 0..1, NaN to 0.
    """
    if pixels.ndim != 4 or illumination.shape != pixels.shape[1:]:
        raise ValueError(
            f"pixels {tuple(pixels.shape)} and illumination {tuple(illumination.shape)} must be [B, C, H, W] and [C, H, W]"
        )
    if out is None:
        out = device.empty(*pixels.shape, dtype=torch.float32)
    elif out.shape != pixels.shape:
        raise ValueError(f"out must be {tuple(pixels.shape)}, is {tuple(out.shape)}")
    n_values = illumination.numel()
    grid = pixels.shape[0] * blocks(n_values)
    said = [[FULL_SCALE] * pixels.shape[1]] * pixels.shape[0] if scales is None else scales
    full = torch.tensor(said, dtype=torch.float32).reshape(-1, pixels.shape[1])
    if full.shape != pixels.shape[:2]:
        raise ValueError(f"scales of {tuple(full.shape)} images, pixels are {tuple(pixels.shape)}")
    device.launch(
        "correct",
        grid,
        pixels=pixels,
        illumination=illumination,
        scales=device.tensor(full),
        n_values=n_values,
        n_pixels=illumination[0].numel(),
        corrected=out,
    )
    return out


def open_illumination(
    plate: Plate,
    source: str = "estimate",
    *,
    device: Device,
    settings: IlluminationSettings | None = None,
    channels: Sequence[str] | None = None,
    folder: Place | None = None,
    batch: int = 8,
    workers: int | None = None,
) -> Illumination:
    """The functions that `--illumination` asks for.

    Parameters
    ----------
    source : 'estimate' from the plate's own images, all of them; 'auto' is that, unless the gallery has functions of all
        its channels; 'flatfield' from its Harmony index; 'none' (1 everywhere);
        or a folder with `<plate>_Illum<channel>` or `Illum<channel>` as `.npy`, or `.npz` with key `illum`.
    folder : where an estimate is kept (`<output>/illum/<plate>`); one made with the same settings from the same images is
        read back from there.

    Raises ValueError or FileNotFoundError naming plate and channel where the source does not serve.
    """
    settings = settings or IlluminationSettings()
    names = tuple(plate.channels if channels is None else channels)
    if source == "none":
        return Illumination(names, torch.ones(len(names), *field_size(plate)), "none: 1 everywhere")
    if source == "flatfield":
        return flatfield_illumination(plate, names, settings.quantile)
    if source == "auto" and (given := gallery_illumination(plate, names)):
        return given
    if source not in ("auto", "estimate"):
        return load_illumination(Path(source).expanduser(), plate, names)
    key = estimate_key(plate, names, settings)
    if folder and (kept := read_kept(folder, plate, names, key)):
        return kept
    functions, n_fields, bad = estimate_illumination(
        plate, settings, channels=names, device=device, batch=batch, workers=workers
    )
    notes = tuple(f"left out of the illumination estimate: {p}" for p in bad)
    if folder:
        save_illumination(folder, plate, names, functions, {"key": key, "fields": n_fields, "notes": list(notes)})
    return Illumination(names, functions, f"estimated from {n_fields} fields", notes)


def estimate_illumination(
    plate: Plate,
    settings: IlluminationSettings,
    *,
    device: Device,
    channels: Sequence[str] | None = None,
    batch: int = 8,
    workers: int | None = None,
) -> tuple[torch.Tensor, int, tuple[Problem, ...]]:
    """Illumination functions of the whole plate in one pass over its images.

    Returns float32 [C, H, W], the number of fields averaged, and the problems of the sites that were left out. ValueError
    where no field can be read.
    """
    names = tuple(plate.channels if channels is None else channels)
    height, width = field_size(plate)
    sums: dict[tuple[float, ...], torch.Tensor] = {}  # by what counts are divided by, as plates have one
    n_fields = 0
    bad: list[Problem] = []
    for fields in read_fields(plate, channels=names, batch=batch, workers=workers, device=device):
        for scales in dict.fromkeys(fields.scales):
            if scales not in sums:
                if len(sums) == MAX_SCALES:
                    said = sorted({s for each in (*sums, scales) for s in each})
                    raise ValueError(
                        f"{plate.barcode}: its images give {len(said)} numbers and more to divide by ({said[0]:g} to "
                        f"{said[-1]:g}, MaxSampleValue); set [plate] scale in the config to the one that is right"
                    )
                sums[scales] = device.zeros(len(names), height, width, dtype=torch.int64)
            rows = [row for row, result in enumerate(fields.scales) if result == scales]
            pixels = fields.pixels if len(rows) == len(fields.scales) else device.take(fields.pixels, rows)
            sizes = {"fields": len(rows), "n_values": sums[scales].numel()}
            device.launch("accumulate_fields", blocks(sizes["n_values"]), pixels=pixels, **sizes, sums=sums[scales])
        device.synchronize()
        n_fields += fields.pixels.shape[0]
        bad += fields.quarantined
    if not n_fields:
        raise ValueError(f"{plate.barcode}: no field to estimate illumination from; the first problem is {bad[0]}")
    means = sum(
        result.cpu().numpy() / (np.array(scales) * n_fields)[:, None, None] for scales, result in sorted(sums.items())
    )
    functions = np.stack([smooth(mean, settings) for mean in means])
    return torch.from_numpy(functions), n_fields, tuple(bad)


def smooth(mean: np.ndarray, settings: IlluminationSettings) -> np.ndarray:
    """The illumination function of a channel's mean image, float64 [H, W] on the 0..1 scale; float32 [H, W].

    Reduced, median filtered on 16 bits, rescaled, enlarged. The radius and the truncation to 16 bits are CellProfiler's.
    """
    from skimage.filters import median  # half a second to import, and only an estimate needs it
    from skimage.morphology import disk
    from skimage.transform import resize

    height, width = mean.shape
    small = tuple(max(1, round(side * settings.resize)) for side in mean.shape)
    reduced = resize(mean, small, order=1, mode="symmetric", anti_aliasing=min(small) < min(mean.shape))
    radius = min(max(1, int(settings.filter_size / 2.35 + 0.5)), math.ceil(math.hypot(*small)))  # no farther than the image
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Bad rank filter performance")  # a twentieth of a second per channel
        smoothed = median((reduced * 65535).astype(np.uint16), disk(radius), behavior="rank")
    rescaled = rescale(smoothed.astype(np.float32) / np.float32(65535), settings.quantile)
    return resize(rescaled, (height, width), order=1, mode="symmetric").astype(np.float32)


def rescale(function: np.ndarray, quantile: float) -> np.ndarray:
    """Divide by the value at position int(n * quantile) of the n sorted positive pixels; what is below it becomes 1.

    A function without positive pixels is returned as ones: there is nothing to divide by.
    """
    positive = np.sort(function[function > 0])
    if not positive.size:
        return np.ones_like(function)
    minimum = positive[min(int(positive.size * quantile), positive.size - 1)]
    return np.maximum(function, minimum) / minimum


def flatfield_illumination(plate: Plate, channels: Sequence[str], quantile: float) -> Illumination:
    """The Background polynomials of the plate's Harmony index, rescaled as an estimate is; needs no pass over the images."""
    if absent := [c for c in channels if c not in plate.flatfields]:
        raise ValueError(
            f"{plate.barcode}: no FlatfieldProfile for {absent[0]} ({plate.channel_source}); choose --illumination "
            "estimate, none or a folder"
        )
    size = field_size(plate)
    profiles = [plate.flatfields[c] for c in channels]
    if unread := [(c, p.problem) for c, p in zip(channels, profiles, strict=True) if p.problem]:
        raise ValueError(
            f"{plate.barcode} {unread[0][0]}: the FlatfieldProfile cannot be read: {unread[0][1]}; choose --illumination "
            "estimate, none or a folder"
        )
    notes = tuple(
        f"{plate.barcode} {c}: the FlatfieldProfile has coefficients that are no numbers; taken as 1 everywhere"
        for c, profile in zip(channels, profiles, strict=True)
        if not profile.usable
    )
    functions = np.stack([polynomial(profile, size, quantile) for profile in profiles])
    return Illumination(tuple(channels), torch.from_numpy(functions), f"FlatfieldProfile of {plate.channel_source}", notes)


def polynomial(profile: Flatfield, size: tuple[int, int], quantile: float) -> np.ndarray:
    """A flat field over a field's pixels, float32 [H, W]; ones for an Identity profile or unusable coefficients."""
    if not profile.coefficients or not profile.usable:
        return np.ones(size, np.float32)
    (height, width), (columns, rows) = size, profile.dims
    x = (np.arange(width) + 0.5) * (columns / width) - 0.5  # the profile's own grid, should the images be binned
    y = (np.arange(height) + 0.5) * (rows / height) - 0.5
    u = ((x - profile.origin[0]) * profile.scale[0])[None, :]
    v = ((y - profile.origin[1]) * profile.scale[1])[:, None]
    value = np.zeros(size)
    for degree, row in enumerate(profile.coefficients):
        for j, coefficient in enumerate(row):
            value += coefficient * u ** (degree - j) * v**j
    return rescale(value, quantile).astype(np.float32)


def load_illumination(folder: Path, plate: Plate, channels: Sequence[str]) -> Illumination:
    """Functions from files; FileNotFoundError for an absent channel, ValueError for one that does not fit the plate."""
    size = field_size(plate)
    paths = []
    for channel in channels:
        stems = f"{plate.barcode}_Illum{channel}", f"Illum{channel}"
        places = [f / f"{s}{end}" for f in (folder, folder / plate.barcode) for s in stems for end in (".npy", ".npz")]
        path = next((p for p in places if p.is_file()), None)
        if not path:
            raise FileNotFoundError(
                f"{plate.barcode}: no {channel} illumination function in {folder}; expected {stems[0]}.npy or "
                f"{stems[1]}.npy (or .npz with key 'illum')"
            )
        paths.append(path)
    with ThreadPoolExecutor(len(paths)) as pool:  # inflating an .npz takes 0.04 s per channel
        wheres = [f"{path}: {plate.barcode} {channel}" for path, channel in zip(paths, channels, strict=True)]
        functions = list(pool.map(read_function, paths, [size] * len(paths), wheres))
    return Illumination(tuple(channels), torch.from_numpy(np.stack(functions)), f"files in {folder}")


def gallery_illumination(plate: Plate, channels: Sequence[str]) -> Illumination | None:
    """The functions that lie beside the plate's images in a bucket; None where it has not all of them.

    Raises ValueError for one that does not fit the plate.
    """
    files = [str(function_path(plate.illumination, plate.barcode, c)) for c in channels] if plate.illumination else []
    if not files or any(plate.images.status(file)[0] < 0 for file in files):
        return None
    size = field_size(plate)
    limit = 8 * size[0] * size[1] + HEADER_BYTES
    functions = []
    for file in files:
        try:
            functions.append(parse_npy(plate.images.read(file, limit), size, file))
        except ValueError as error:
            raise ValueError(
                f"{plate.barcode}: {file} does not serve: {error}; --illumination estimate makes others"
            ) from error
    return Illumination(tuple(channels), torch.from_numpy(np.stack(functions)), f"files in {plate.illumination}")


def read_function(path: Place, size: tuple[int, int], where: str) -> np.ndarray:
    """A function from .npy or .npz, float32 [H, W]; its shape and type are checked before its values are read."""
    limit = 8 * size[0] * size[1] + HEADER_BYTES
    try:
        if isinstance(path, RemotePath):
            data = path.read_bytes(limit)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive, archive.open("illum.npy") as member:
                data = member.read(limit + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(limit + 1)
    except ConnectionError:
        raise
    except KeyError as error:
        raise ValueError(f"{where}: no array 'illum' in the archive") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{where}: cannot be read ({error})") from error
    if len(data) > limit:
        raise ValueError(f"{where}: larger than a float64 array of {size[0]} x {size[1]}")
    return parse_npy(data, size, where)


def parse_npy(data: bytes, size: tuple[int, int], where: str) -> np.ndarray:
    """An .npy file's array: finite, positive float32 or float64 [H, W], as float32. Pickles are never loaded."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, EOFError, TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: not an .npy file ({' '.join(str(error).split())[:100]})") from error
    if shape != size or dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ValueError(f"{where}: {dtype} of shape {shape}; expected float32 or float64 of shape {size}")
    values = stream.read()
    if len(values) != dtype.itemsize * size[0] * size[1]:
        raise ValueError(f"{where}: {len(values)} bytes of values, expected {dtype.itemsize * size[0] * size[1]}")
    array = np.frombuffer(values, dtype).reshape(size, order="F" if fortran else "C").astype(np.float32, order="C")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{where}: has values that are not positive numbers; images are divided by them")
    return array


def estimate_key(plate: Plate, channels: Sequence[str], settings: IlluminationSettings) -> str:
    """Names all an estimate depends on: settings, channels, and each image by path, size and time of change."""
    said = [plate.barcode, list(channels), asdict(settings), *([plate.scale] if plate.scale else [])]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    order = [plate.channels.index(c) for c in channels]
    for site in plate.sites:
        for c in order:
            file = site.files[c] or ""
            size, mark = plate.images.status(file)
            digest.update(f"{site.well} {site.site} {file} {size} {mark}\n".encode())
    return digest.hexdigest()


def function_path(folder: Place, barcode: str, channel: str) -> Place:
    return folder / f"{barcode}_Illum{channel}.npy"


def save_illumination(
    folder: Place, plate: Plate, channels: Sequence[str], functions: torch.Tensor, record: dict[str, object]
) -> None:
    """Write `<plate>_Illum<channel>.npy` into the folder, and last the record that makes them an estimate to reuse."""
    record_path = folder / f"{plate.barcode}_estimate.json"
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / record_path.name).unlink(missing_ok=True)
    else:
        folder.remove([record_path.name])
    for channel, function in zip(channels, functions.numpy(), strict=True):
        buffer = io.BytesIO()
        np.save(buffer, function, allow_pickle=False)
        write_whole(function_path(folder, plate.barcode, channel), buffer.getvalue())
    write_whole(record_path, json.dumps({**record, "channels": list(channels)}, indent=1).encode())


def read_kept(folder: Place, plate: Plate, channels: Sequence[str], key: str) -> Illumination | None:
    """An earlier estimate of the same key, or None."""
    try:
        record = json.loads((folder / f"{plate.barcode}_estimate.json").read_bytes())
        if record["key"] != key:
            return None
        size = field_size(plate)
        arrays = [read_function(p, size, str(p)) for c in channels if (p := function_path(folder, plate.barcode, c))]
        source = f"estimated from {int(record['fields'])} fields (kept in {folder})"
        return Illumination(tuple(channels), torch.from_numpy(np.stack(arrays)), source, tuple(map(str, record["notes"])))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
