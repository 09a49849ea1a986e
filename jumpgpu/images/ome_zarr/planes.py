"""The pixels of an OME-Zarr plate: a plane of a field's array as an image file's stand-in, read by zarr and nothing else.

zarr sees only metadata that `plate.py` has judged, through the store of `store.py`.
"""

import collections
import contextlib
import os
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...settings.config import PlateSettings
from ...storage.buckets import Place, RemotePath
from ...storage.faults import patiently
from ...storage.local import ABSENT, Files, Local, Status
from ...storage.prefetch import RemoteFiles
from ..plate import Plate
from .plate import Field, Group, channel_indices, is_ome_zarr, plane_index, read_field, read_plate

if TYPE_CHECKING:
    import zarr

KEPT_FIELDS = 256  # whose metadata is remembered
KEPT_PIXELS = 4  # fields whose chunks hold several channels, kept while their channels are asked for


def open_planes(barcode: str, root: Place, settings: PlateSettings, cache: Path | None = None) -> Plate | None:
    """The OME-Zarr plate in a folder or bucket; None where there is none, ValueError where it cannot be read."""
    if isinstance(root, RemotePath):
        files: Files = RemoteFiles(root, (root,), cache)
    else:
        files = Local(root, (root.resolve(),))
    group = Group(root, lambda key, limit: files.read(f"{root}/{key}", limit))
    if not is_ome_zarr(group):
        return None
    result = read_plate(barcode, group, settings)
    planes = ZarrPlanes(barcode, group, files, settings, group.attributes("")[0])
    for site in result.sites:  # the first that is there; `read_plate` has found one
        with contextlib.suppress(FileNotFoundError):
            planes.check(site.files[0] or "")
            break
    return Plate(**{**vars(result), "source": planes})


class ZarrPlanes:
    """Planes of an OME-Zarr plate (`files.Planes`), named `<plate>/<field>#<index on the C axis>`, and `@<plane from 1>`."""

    def __init__(self, barcode: str, group: Group, files: Files, settings: PlateSettings, version: int):
        self.barcode, self.group, self.files, self.settings, self.version = barcode, group, files, settings, version
        self._fields: collections.OrderedDict[str, tuple[Field, Any]] = collections.OrderedDict()
        self._pixels: collections.OrderedDict[tuple[str, int], np.ndarray] = collections.OrderedDict()
        self._sizes: dict[str, Status] = {}
        self._lock = threading.Lock()

    def split(self, file: str) -> tuple[str, int, int]:
        """Field, channel index and plane of a name; plane 0 is the one to read of each field."""
        field, _, rest = file.removeprefix(f"{self.group.root}/").rpartition("#")
        index, _, plane = rest.partition("@")
        return field, int(index), int(plane or 0)

    def check(self, file: str) -> None:
        """ValueError where a plane's metadata does not serve."""
        self.reader(self.split(file)[0])

    def reader(self, path: str) -> "tuple[Field, zarr.Array[Any]]":
        """A field's metadata, judged, and its array; its channels must lie as the plate's do."""
        with self._lock:
            if path in self._fields:
                return self._fields[path]
        where = f"{self.barcode}: {self.group.root}"
        field = read_field(self.group, path, self.version, where)
        if not self.settings.planes and self.settings.projection == "none":
            plane_index(field, self.settings, where)
        if channel_indices(self.barcode, field, self.settings) != self._indices(field):
            raise ValueError(f"{where}/{path}: its channels lie in another order than the plate's first field's")
        from .store import open_array  # zarr takes a second to import

        pair = field, open_array(field, lambda key, limit: self.files.read(f"{self.group.root}/{key}", limit))
        with self._lock:
            self._fields[path] = pair
            while len(self._fields) > KEPT_FIELDS:
                self._fields.popitem(last=False)
        return pair

    def _indices(self, field: Field) -> dict[str, int]:
        if not hasattr(self, "_first"):
            self._first = channel_indices(self.barcode, field, self.settings)
        return self._first

    def plane_size(self, file: str) -> tuple[int, int]:
        field, _ = self.reader(self.split(file)[0])
        return field.extent("y"), field.extent("x")

    def read_plane(self, file: str, out: np.ndarray) -> None:
        path, channel, plane = self.split(file)
        field, array = self.reader(path)
        size = field.extent("y"), field.extent("x")
        if size != out.shape:
            raise ValueError(f"{size[0]} x {size[1]} pixels, expected {out.shape[0]} x {out.shape[1]}")
        if channel >= field.extent("c"):
            raise ValueError(f"{field.array} has {field.extent('c')} channels, and index {channel} is wanted")
        if plane > field.extent("z"):
            raise ValueError(f"{field.array} has {field.extent('z')} planes, and plane {plane} is wanted")
        if (time := self.settings.time or 1) > field.extent("t"):
            raise ValueError(f"{field.array} has {field.extent('t')} time points, and {time} is wanted")
        z = plane - 1 if plane else 0 if field.extent("z") == 1 else plane_index(field, self.settings, self.barcode)
        at = {"t": time - 1, "c": channel, "z": z}
        if "c" in field.axes and field.chunks[field.axes.index("c")] > 1:
            out[...] = self._together(path, field, array, at)[channel]
        else:
            out[...] = array[tuple(at.get(axis, slice(None)) for axis in field.axes)]

    def _together(self, path: str, field: Field, array: "zarr.Array[Any]", at: dict[str, int]) -> np.ndarray:
        """All channels of a field whose chunks hold several: unpacked once for all of them."""
        with self._lock:
            if (path, at["z"]) in self._pixels:
                return self._pixels[path, at["z"]]
        pixels = np.asarray(array[tuple(slice(None) if axis in "cyx" else at[axis] for axis in field.axes)])
        with self._lock:
            self._pixels[path, at["z"]] = pixels
            while len(self._pixels) > KEPT_PIXELS:
                self._pixels.popitem(last=False)
        return pixels

    def read(self, file: str, limit: int) -> bytes:
        raise ValueError(f"{file} is a plane of an array and no file")

    def read_with_status(self, file: str, limit: int) -> tuple[bytes, Status]:
        return self.read(file, limit), ABSENT

    def status(self, file: str) -> Status:
        """Bytes of the field's array as it is stored, all its channels together, and a mark of their change."""
        path = self.split(file)[0]
        if path not in self._sizes:
            try:
                place = self.group.root / self.reader(path)[0].array
                self._sizes[path] = patiently(lambda: stored(place), str(place))
            except (OSError, ValueError) as error:
                if isinstance(error, ConnectionError):
                    raise
                self._sizes[path] = ABSENT
        return self._sizes[path]

    def relative(self, file: str) -> str:
        return file.removeprefix(f"{self.group.root}/")

    def ahead(self, files: Iterable[str], limit: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def stored(folder: Place) -> Status:
    """Bytes of all files below a folder, and a mark that changes with them."""
    if isinstance(folder, RemotePath):
        files = folder.listing(deep=True).files
        return sum(size for size, _ in files.values()), str(zlib.crc32(repr(sorted(files.items())).encode()))
    total, newest = 0, 0
    for base, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(base, name))
            total, newest = total + status.st_size, max(newest, status.st_mtime_ns)
    return total, str(newest)
