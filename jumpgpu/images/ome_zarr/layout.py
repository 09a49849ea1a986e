"""How a zarr array's bytes lie: shape, chunks, shards and codecs of a .zarray or zarr.json that is not trusted."""

from collections.abc import Mapping
from typing import Any

PACKERS = ("blosc", "zstd", "gzip", "zlib", "lz4")  # what a chunk may be compressed with
IMAGE_PACKERS = ("imagecodecs_jpeg2k", "imagecodecs_jpegxl")  # each makes of a chunk of one plane an image, by imagecodecs


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, got {str(value)[:60]!r}")
    return value


def listed(value: Any, where: str, maximum: int) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= maximum:
        result = f"{len(value)} entries" if isinstance(value, list) else repr(str(value)[:60])
        raise ValueError(f"{where} must be a list of 1 to {maximum} entries, got {result}")
    return value


def whole_numbers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(n, int) and 0 < n < 1 << 40 for n in value):
        raise ValueError(f"{where} must be whole numbers, got {str(value)[:60]}")
    return tuple(value)


def layout_v2(declared: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Shape, chunks and compressor of a .zarray; ValueError for what is no plain uint16 array."""
    if declared.get("zarr_format") != 2 or declared.get("dtype") not in ("<u2", ">u2"):
        raise ValueError(f"{where}: {str(declared.get('dtype'))[:40]} pixels; expected uint16")
    filters, compressor = declared.get("filters") or [], declared.get("compressor")
    names = (
        [c.get("id") if isinstance(c, dict) else str(c)[:60] for c in filters] if isinstance(filters, list) else [filters]
    )
    packer = compressor.get("id") if isinstance(compressor, dict) else compressor
    if len(names) == 1 and names[0] in IMAGE_PACKERS and packer is None:
        packer, compressor = names[0], filters[0]
    elif names:
        raise ValueError(f"{where}: filters {str(filters)[:60]}; an image has none")
    if packer is not None and packer not in (*PACKERS, *IMAGE_PACKERS):
        raise ValueError(f"{where}: compressor {str(packer)[:40]!r}; one of {', '.join((*PACKERS, *IMAGE_PACKERS))} is read")
    shape, chunks = (whole_numbers(declared.get(key), f"{where}: {key}") for key in ("shape", "chunks"))
    if packer in IMAGE_PACKERS:
        check_lossless(packer, mapping(compressor, where), where)
        if declared.get("order", "C") != "C":
            raise ValueError(f"{where}: order {str(declared['order'])[:20]!r} of {packer}; C is read")
        declared = {**declared, "compressor": None, "filters": None, "dtype": "<u2"}
    return {"shape": shape, "chunks": chunks, "outer": chunks, "packer": packer, "index_bytes": 0, "declared": declared}


def layout_v3(declared: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same of a zarr.json."""
    if declared.get("node_type") != "array" or declared.get("data_type") != "uint16" or declared.get("storage_transformers"):
        raise ValueError(f"{where}: {str(declared.get('data_type'))[:40]} pixels; expected uint16")
    grid = mapping(declared.get("chunk_grid"), f"{where}: chunk_grid")
    if grid.get("name") != "regular":
        raise ValueError(f"{where}: chunk grid {str(grid.get('name'))[:40]!r}; expected 'regular'")
    shape = whole_numbers(declared.get("shape"), f"{where}: shape")
    outer = whole_numbers(mapping(grid.get("configuration"), f"{where}: chunk_grid").get("chunk_shape"), f"{where}: chunks")
    codecs = [mapping(codec, f"{where}: codecs") for codec in listed(declared.get("codecs"), f"{where}: codecs", 8)]
    chunks, index_bytes = outer, 0
    if sharding := next((c for c in codecs if c.get("name") == "sharding_indexed"), None):
        inner = mapping(sharding.get("configuration"), f"{where}: sharding")
        chunks = whole_numbers(inner.get("chunk_shape"), f"{where}: chunks of a shard")
        if inner.get("index_location", "end") != "end" or len(codecs) > 1:
            raise ValueError(f"{where}: shards with their index at the end and no codec around them are read")
        index_bytes = shard_index(inner, outer, chunks, where)
        codecs = [mapping(codec, f"{where}: codecs") for codec in listed(inner.get("codecs"), f"{where}: codecs", 8)]
    packer, codecs = packer_of(codecs, where)
    if packer in IMAGE_PACKERS:
        if sharding:
            codecs = [{**sharding, "configuration": {**sharding["configuration"], "codecs": codecs}}]
        declared = {**declared, "codecs": codecs}
    return {
        "shape": shape,
        "chunks": chunks,
        "outer": outer,
        "packer": packer,
        "index_bytes": index_bytes,
        "declared": declared,
    }


def shard_index(inner: Mapping[str, Any], outer: tuple[int, ...], chunks: tuple[int, ...], where: str) -> int:
    """Bytes of the index of a shard: two numbers for each chunk, and a checksum or none."""
    if len(chunks) != len(outer) or any(o % c for o, c in zip(outer, chunks, strict=True)):
        raise ValueError(f"{where}: shards of {outer} are not a whole number of chunks of {chunks}")
    codecs = [mapping(c, f"{where}: index_codecs") for c in listed(inner.get("index_codecs"), f"{where}: index_codecs", 8)]
    names = [c.get("name") for c in codecs]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        odd = next((n for n in names if n not in ("bytes", "crc32c")), names)
        raise ValueError(f"{where}: codec {str(odd)[:40]} of a shard's index")
    if (codecs[0].get("configuration") or {}).get("endian") != "little":
        raise ValueError(f"{where}: a shard's index of other than little-endian numbers")
    n = 16
    for o, c in zip(outer, chunks, strict=True):
        n *= o // c
    return n + 4 * (len(names) - 1)


def packer_of(codecs: list[Mapping[str, Any]], where: str) -> tuple[str | None, list[Mapping[str, Any]]]:
    """What a chunk is compressed with, and the codecs as zarr is given them; ValueError for one that is not read."""
    names = [str(codec.get("name")) for codec in codecs]
    names = [bare if (bare := name.removeprefix("numcodecs.")) in IMAGE_PACKERS else name for name in names]
    packer: str | None = None
    for name in names:
        if name in (*PACKERS, *IMAGE_PACKERS) and packer is None:
            packer = name
        elif name not in ("bytes", "transpose", "crc32c"):
            raise ValueError(f"{where}: codec {name[:40]!r}; one of {', '.join((*PACKERS, *IMAGE_PACKERS))} is read")
    if packer not in IMAGE_PACKERS:
        return packer, codecs
    if len(codecs) > 1:
        raise ValueError(f"{where}: codecs {', '.join(names)}; {packer} is read alone")
    check_lossless(packer, codecs[0].get("configuration") or {}, where)
    return packer, [{"name": "bytes", "configuration": {"endian": "little"}}]


def check_lossless(packer: str, configuration: Any, where: str) -> None:
    """ValueError where an image's codec was told to lose something. What it made is judged chunk by chunk."""
    said = mapping(configuration, f"{where}: {packer}")
    lossless = said.get("lossless")
    loss = {
        "lossless": lossless is False,
        "reversible": said.get("reversible") is False,
        "distance": bool(said.get("distance")) and not lossless,
        "level": bool(said.get("level")) and not lossless,
    }
    if told := [f"{key} = {str(said[key])[:20]}" for key, lost in loss.items() if lost]:
        raise ValueError(
            f"{where}: {packer} with {', '.join(told)}: not without loss, and counts are wanted as they were taken"
        )
