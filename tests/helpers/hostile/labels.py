"""Label images that attack their reader: all must cost their site and no more."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers.hostile import tiffs

SIZE = 40, 56
READABLE = {"signed", "4 bits", "8 bits", "12 bits"}  # of the hostile fields: harmless integers as labels


class Shout:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def npy(shape: tuple[int, ...], dtype: str = "<i4", values: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + values


def arrays(mark: Path) -> dict[str, bytes]:
    """NPY files."""
    objects = io.BytesIO()
    np.save(objects, np.array([[Shout(mark)]], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(SIZE, np.int32))
    return {
        "a pickle": pickle.dumps(Shout(mark)),
        "an array of objects": objects.getvalue(),
        "objects declared as a field": npy(SIZE, "|O", objects.getvalue()),
        "10^12 values declared": npy((10**6, 10**6)),
        "10^18 values declared": npy((10**18,)),
        "negative sides": npy((-40, -56)),
        "too few values": npy(SIZE, values=bytes(100)),
        "floating point": npy(SIZE, "<f8", bytes(8 * SIZE[0] * SIZE[1])),
        "negative labels": npy(SIZE, "<i4", b"\xff" * (4 * SIZE[0] * SIZE[1])),
        "labels of 64 bits": npy(SIZE, "<u8", b"\xff" * (8 * SIZE[0] * SIZE[1])),
        "a header of code": b"\x93NUMPY\x01\x00\x46\x00" + b"__import__('os').mkdir('x')".ljust(69) + b"\n",
        "an archive": archive.getvalue(),
        "a file of 20 MB": npy(SIZE, values=bytes(20_000_000)),
        "empty": b"",
    }


def images() -> dict[str, bytes]:
    """TIFFs: those that attack the reader of fields."""
    both = {**tiffs.corpus(), "deflate bomb": tiffs.bombs()["deflate bomb"], "PackBits bomb": tiffs.bombs()["PackBits bomb"]}
    return {name: data for name, data in both.items() if name not in READABLE}


def zarrs(mark: Path) -> dict[str, Callable[[Path], None]]:
    """What writes a zarr array that attacks its reader into a folder."""
    import zarr
    from numcodecs import Pickle

    good = np.arange(SIZE[0] * SIZE[1], dtype=np.int32).reshape(SIZE)

    def old(folder: Path, **changes: object) -> None:
        zarr.create_array(folder, data=good, zarr_format=2, chunks=SIZE, compressors=None)
        described = json.loads((folder / ".zarray").read_text()) | changes
        (folder / ".zarray").write_text(json.dumps(described))

    def new(folder: Path, **changes: object) -> None:
        zarr.create_array(folder, data=good, zarr_format=3, chunks=SIZE)
        described = json.loads((folder / "zarr.json").read_text()) | changes
        (folder / "zarr.json").write_text(json.dumps(described))

    def pickled(folder: Path) -> None:
        old(folder, filters=[{"id": "pickle", "protocol": 5}], dtype="<i4")
        (folder / "0.0").write_bytes(Pickle().encode(np.array([Shout(mark)], dtype=object)))

    def linked(folder: Path) -> None:
        new(folder)
        (folder / "secret").symlink_to("/etc/passwd")

    grid = {"name": "regular", "configuration": {"chunk_shape": [10**6, 10**6]}}
    return {
        "a filter that unpickles": pickled,
        "objects": lambda f: old(f, dtype="|O", filters=[{"id": "pickle"}]),
        "10^12 values": lambda f: new(f, shape=[10**6, 10**6]),
        "chunks of 10^12 values": lambda f: new(f, chunk_grid=grid),
        "an unknown codec": lambda f: new(f, codecs=[{"name": "numcodecs.pickle"}]),
        "a codec inside another": lambda f: new(
            f, codecs=[{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "exec"}]}}]
        ),
        "a symlink to elsewhere": linked,
        "no metadata": lambda f: f.mkdir(),
        "10^5 brackets": lambda f: (f.mkdir(), (f / "zarr.json").write_text("[" * 10**5))[0],
        "metadata of 2 MB": lambda f: (f.mkdir(), (f / "zarr.json").write_text("[" + "0," * 10**6 + "0]"))[0],
    }
