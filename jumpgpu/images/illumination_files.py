"""Illumination functions in files: CellProfiler's, the gallery's, and an estimate that is kept to be used again."""

import io
import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch

from ..storage.atomic import read_file, write_whole
from ..storage.buckets import Place, RemotePath
from ..storage.faults import patiently
from ..storage.local import open_regular
from .plate import Plate
from .reader import field_size

NOT_ONE = 0.01  # what the least value of a function may be from 1
UNEVEN = 20.0  # times its least value: from six fields of CPJUMP1, too few for a function, the greatest is 13
FAULTS = 1  # version of the rule by which faults of the system end a run and leave no field out of an estimate
HEADER_BYTES = 1 << 16  # of an .npy file beside its values; NumPy writes 128


@dataclass(frozen=True)
class Illumination:
    """A plate's illumination functions.

    functions : float32 [C, H, W] on the CPU; smoothed brightness over its 2nd percentile, its least value 1
    source : where they come from, one line
    notes : what a reader of the log should know
    divides : images are divided by them, so that they are positive; else they are subtracted
    warnings : functions that are not what CellProfiler makes, by plate and channel
    """

    channels: tuple[str, ...]
    functions: torch.Tensor
    source: str
    notes: tuple[str, ...] = ()
    divides: bool = True

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"{channel}: {wrong}"
            for channel, function in zip(self.channels, self.functions, strict=True)
            if self.divides and (wrong := doubt(float(function.min()), float(function.max())))
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


def load_illumination(folder: Path, plate: Plate, channels: Sequence[str], *, divides: bool = True) -> Illumination:
    """Functions from files; FileNotFoundError for an absent channel, ValueError for one that does not fit the plate.

    divides : whether their values must be positive
    """
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
        functions = list(pool.map(read_function, paths, [size] * len(paths), wheres, [divides] * len(paths)))
    return Illumination(tuple(channels), torch.from_numpy(np.stack(functions)), f"files in {folder}", divides=divides)


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
                f"{plate.barcode}: {file} cannot be used: {error}; --illumination estimate makes new ones"
            ) from error
    return Illumination(tuple(channels), torch.from_numpy(np.stack(functions)), f"files in {plate.illumination}")


def read_function(path: Place, size: tuple[int, int], where: str, divides: bool = True) -> np.ndarray:
    """A function from .npy or .npz, float32 [H, W]; its shape and type are checked before its values are read."""
    limit = 8 * size[0] * size[1] + HEADER_BYTES
    try:
        data = path.read_bytes(limit) if isinstance(path, RemotePath) else patiently(lambda: array_bytes(path, limit), path)
    except ConnectionError:
        raise
    except KeyError as error:
        raise ValueError(f"{where}: no array 'illum' in the archive") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{where}: cannot be read ({error})") from error
    if len(data) > limit:
        raise ValueError(f"{where}: larger than a float64 array of {size[0]} x {size[1]}")
    return parse_npy(data, size, where, divides)


def array_bytes(path: Path, limit: int) -> bytes:
    """An array's .npy bytes, from its file or the archive that has it as `illum`; not much more than `limit` of them."""
    with open_regular(path) as file:
        if path.suffix != ".npz":
            return file.read(limit + 1)
        with zipfile.ZipFile(file) as archive, archive.open("illum.npy") as member:
            return member.read(limit + 1)


def parse_npy(data: bytes, size: tuple[int, int], where: str, divides: bool = True) -> np.ndarray:
    """An .npy file's array: finite float32 or float64 [H, W], positive where it divides, as float32. Never a pickle."""
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
    if not divides and not np.isfinite(array).all():
        raise ValueError(f"{where}: has values that are not finite numbers")
    if divides and not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{where}: has values that are not positive numbers; images are divided by them")
    return array


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
    write_whole(record_path, json.dumps({**record, "channels": list(channels), "faults": FAULTS}, indent=1).encode())


def read_kept(
    folder: Place, plate: Plate, channels: Sequence[str], key: str, *, divides: bool = True
) -> Illumination | None:
    """An earlier estimate of the same key, or None."""
    try:
        record = json.loads(read_file(folder / f"{plate.barcode}_estimate.json", HEADER_BYTES << 8))
        if record["key"] != key or (record["notes"] and record.get("faults") != FAULTS):
            return None
        size = field_size(plate)
        arrays = [
            read_function(p, size, str(p), divides) for c in channels if (p := function_path(folder, plate.barcode, c))
        ]
        source = f"estimated from {int(record['fields'])} fields (kept in {folder})"
        return Illumination(tuple(channels), torch.from_numpy(np.stack(arrays)), source, tuple(map(str, record["notes"])))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
