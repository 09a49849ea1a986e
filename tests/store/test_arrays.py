"""Arrays and tables as bytes: those of zarr itself, read back whole and by columns, and no changed byte read as right."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, TransposeCodec

from jumpgpu.store.arrays import COLUMNS_PER_CHUNK, array_files, read_array, read_chunks, table_files

SEPARATOR = {"name": "default", "separator": "."}


def as_zarr_writes(array, **options):
    """The files of an array that zarr itself makes, and their metadata without attributes."""
    files: dict[str, object] = {}
    strings = array.dtype == object
    created = zarr.create_array(
        zarr.storage.MemoryStore(files),
        name="x",
        shape=array.shape,
        dtype="string" if strings else array.dtype,
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle" if strings else "shuffle"),
        chunk_key_encoding=SEPARATOR,
        zarr_format=3,
        **options,
    )
    created[...] = array
    return {key: data.to_bytes() for key, data in files.items() if key.startswith("x/")}


def same_files(ours, theirs):
    assert sorted(ours) == sorted(theirs)
    for key, data in theirs.items():
        if key.endswith(".json"):
            assert {**json.loads(ours[key]), "attributes": {}} == json.loads(data)
        else:
            assert ours[key] == data


@pytest.mark.parametrize(
    "array",
    [
        np.arange(88, dtype=np.int32),
        np.arange(5 * 13 * 17, dtype=np.uint16).reshape(5, 13, 17) * 59,
        np.arange(120000, dtype=np.int32).reshape(300, 400) // 997,
        np.arange(35, dtype=np.float32).reshape(7, 5) ** 1.5,
        np.arange(9, dtype=np.int8),
        np.linspace(0, 1, 7),
        np.array(["", "b", "cd\u00e4"] * 30, dtype=object),
        np.zeros(0, np.int32),
    ],
    ids=["column", "overview", "labels", "floats", "bytes", "doubles", "text", "empty"],
)
def test_arrays_are_encoded_as_zarr_encodes_them(array):
    theirs = as_zarr_writes(array, chunks=tuple(max(1, n) for n in array.shape))
    with ThreadPoolExecutor(1) as pool:  # Blosc takes another path off the main thread
        for ours in (array_files("x", array, {}), pool.submit(array_files, "x", array, {}).result()):
            same_files(ours, theirs)
    np.testing.assert_array_equal(read_array(ours, "x"), array)
    with pytest.raises(ValueError, match="x cannot be read"):
        read_array({**ours, "x/zarr.json": b"{}"}, "x")


@pytest.mark.parametrize("shape", [(7, 500), (0, 500), (3, 5), (1, 16), (5, 64), (4, 0), (88, 3515)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_are_encoded_as_zarr_encodes_them(shape, dtype):
    values = np.random.default_rng(1).normal(size=shape).astype(dtype)
    n, n_columns = shape
    wide = max(1, -(-n_columns // COLUMNS_PER_CHUNK)) * COLUMNS_PER_CHUNK
    chunks = {"shards": (max(1, n), wide), "chunks": (max(1, n), COLUMNS_PER_CHUNK)}
    theirs = as_zarr_writes(values, filters=[TransposeCodec(order=(1, 0))], **chunks)
    ours = table_files("x", [values[: n // 3], values[n // 3 :]], n_columns, dtype)
    same_files(ours, theirs)
    np.testing.assert_array_equal(read_array(ours, "x"), values)
    assert read_array(ours, "x").dtype == dtype


def test_a_column_is_read_from_its_chunk_alone():
    values = np.random.default_rng(2).normal(size=(6, 50)).astype(np.float32)
    files = table_files("x", [values], 50)
    chunks = read_chunks(files["x/zarr.json"], "x")
    assert len(chunks.sizes) == 4
    for i in range(4):
        chunk = files["x/c.0.0"][chunks.offsets[i] : chunks.offsets[i + 1]]
        result, wanted = chunks.decode(i, chunk), values[:, 16 * i : 16 * (i + 1)].T
        np.testing.assert_array_equal(result[: len(wanted)], wanted)
        for at in range(0, len(chunk), 7):
            with pytest.raises(
                ValueError, match=rf"x/c\.0\.0 is not as it was written \(columns {16 * i} to {16 * i + 15}\)"
            ):
                chunks.decode(i, chunk[:at] + bytes([chunk[at] ^ 4]) + chunk[at + 1 :])


def test_any_changed_byte_of_a_table_is_refused():
    files = table_files("x", [np.arange(96, dtype=np.float32).reshape(4, 24)], 24)
    whole = files["x/c.0.0"]
    for at in range(len(whole)):
        with pytest.raises(ValueError, match=r"x/c\.0\.0 is not as it was written"):
            read_array({**files, "x/c.0.0": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]}, "x")
    for other in (whole[:-1], whole + b"\0", b""):
        with pytest.raises(ValueError, match="x"):
            read_array({**files, "x/c.0.0": other}, "x")


def test_an_array_that_declares_more_than_its_files_hold_is_refused():
    for files in (array_files("x", np.arange(6, dtype=np.int32).reshape(2, 3), {}), table_files("x", [np.ones((2, 3))], 3)):
        metadata = json.loads(files["x/zarr.json"])
        metadata["shape"] = [1 << 20, 1 << 20]
        grid = metadata["chunk_grid"]["configuration"]
        grid["chunk_shape"] = [1 << 20, 1 << 20]
        if (codec := metadata["codecs"][0])["name"] == "sharding_indexed":
            codec["configuration"]["chunk_shape"] = [1 << 20, COLUMNS_PER_CHUNK]
        with pytest.raises(ValueError, match="x cannot be read: declares 4398046511104 bytes, more than its files can hold"):
            read_array({**files, "x/zarr.json": json.dumps(metadata).encode()}, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "float16"},
        {"data_type": 3},
        {"shape": [2, -3]},
        {"shape": None},
        {"codecs": []},
        {"fill_value": 1},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3]}}},
        {"attributes": {}},
        {"attributes": {"jumpgpu": {"bytes": [1], "sha256": "0"}}},
        {"attributes": {"jumpgpu": {"bytes": [-1], "sha256": 64 * "0"}}},
    ],
)
def test_metadata_of_other_kinds_are_refused(change):
    files = table_files("x", [np.ones((2, 3))], 3)
    changed = json.dumps(json.loads(files["x/zarr.json"]) | change).encode()
    with pytest.raises(ValueError, match="x cannot be read: "):
        read_array({**files, "x/zarr.json": changed}, "x")
