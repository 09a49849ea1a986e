"""TIFFs that attack their reader: all must cost their site and no more."""

import io
import struct
import zlib

import numpy as np
import tifffile

SHORT, LONG = 3, 4
Entry = tuple[int, int, int, int]


def tiff(entries: list[Entry], data: bytes = b"", next_ifd: int = 0, magic: bytes = b"II*\0") -> bytes:
    """A classic TIFF: header, directory at 8, then `data` from `8 + 2 + 12 n + 4`."""
    directory = struct.pack("<H", len(entries))
    for code, kind, count, value in sorted(entries):
        directory += struct.pack("<HHII", code, kind, count, value)
    return magic + struct.pack("<I", 8) + directory + struct.pack("<I", next_ifd) + data


def image(data: bytes, compression: int = 1, height: int = 40, width: int = 56, **changes: int) -> bytes:
    """A grey uint16 image of one strip; `changes` replace a tag's value, by its code as `tag_273=..`."""
    n = 10
    tags = {256: width, 257: height, 258: 16, 259: compression, 262: 1, 273: 8 + 2 + 12 * n + 4, 277: 1, 278: height}
    tags |= {279: len(data), 339: 1}
    tags |= {int(k.removeprefix("tag_")): v for k, v in changes.items()}
    return tiff([(code, LONG, 1, value) for code, value in tags.items()], data)


def lzw_bomb(n: int) -> bytes:
    """LZW of n zero bytes: as small as the code gets."""
    import imagecodecs

    return imagecodecs.lzw_encode(bytes(n))


def circular(other: int) -> bytes:
    pixels = bytes(40 * 56 * 2)
    good = image(pixels)
    at = 8 + 2 + 12 * 10
    return good[:at] + struct.pack("<I", other) + good[at + 4 :]


def two_directories_in_a_ring() -> bytes:
    first = image(bytes(40 * 56 * 2))
    second = len(first)
    at = 8 + 2 + 12 * 10
    ring = first[:at] + struct.pack("<I", second) + first[at + 4 :]
    return ring + struct.pack("<HHHII", 1, 256, LONG, 1, 56) + struct.pack("<I", 8)


def written(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **{"photometric": "minisblack", "metadata": None, **options})
    return buffer.getvalue()


def corpus() -> dict[str, bytes]:
    pixels = bytes(40 * 56 * 2)
    plain = image(pixels)
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
        'DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="9" SizeX="56" SizeY="40" SizeZ="1" Type="uint16"><TiffData '
        'FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="../../../../etc/passwd">urn:uuid:1</UUID></TiffData></Pixels>'
        "</Image></OME>"
    )
    return {
        "declares 4 billion squared": image(pixels, height=2**32 - 1, width=2**32 - 1),
        "declares 60000 squared": image(pixels, height=60000, width=60000),
        "declares 60000 squared, LZW": image(lzw_bomb(10**6), 5, height=60000, width=60000),
        "declares nothing": image(pixels, height=0, width=0),
        "directory at its own place": circular(8),
        "two directories in a ring": two_directories_in_a_ring(),
        "directory beyond the end": b"II*\0" + struct.pack("<I", 2**31),
        "directory in the header": b"II*\0" + struct.pack("<I", 0),
        "65535 entries": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(200),
        "tag of 4 billion values": tiff([(256, LONG, 2**32 - 1, 8), (257, LONG, 2**32 - 1, 8)]),
        "4 billion strips": tiff(
            [
                (256, LONG, 1, 56),
                (257, LONG, 1, 40),
                (258, SHORT, 1, 16),
                (273, LONG, 2**32 - 1, 8),
                (279, LONG, 2**32 - 1, 8),
            ]
        ),
        "strip beyond the end": image(pixels, tag_273=2**31),
        "strip longer than the file": image(pixels, tag_279=2**31),
        "strip of no bytes": image(pixels, tag_279=0),
        "strip at 0": image(pixels, tag_273=0),
        "cut in the pixels": plain[:-100],
        "cut in the tags": plain[:60],
        "LZW cut": image(lzw_bomb(40 * 56 * 2)[:-20], 5),
        "LZW of garbage": image(np.random.default_rng(0).bytes(4000), 5),
        "LZW that holds too little": image(lzw_bomb(1000), 5),
        "deflate of garbage": image(b"\x78\x9c" + bytes(200), 8),
        "deflate that holds too little": image(zlib.compress(bytes(1000)), 8),
        "zstd of garbage": image(b"\x28\xb5\x2f\xfd" + b"\xff" * 200, 50000),
        "PackBits that holds too little": image(b"\x81\x00" * 3, 32773),
        "JPEG": image(b"\xff\xd8\xff\xd9", 7),
        "unknown compression": image(pixels, 12345),
        "8 bits": image(pixels, tag_258=8),
        "4 bits": image(pixels, tag_258=4),
        "12 bits": image(pixels, tag_258=12),
        "64 bits": image(pixels, tag_258=64),
        "signed": written(np.zeros((40, 56), np.int16)),
        "floating point": written(np.zeros((40, 56), np.float16)),
        "three samples": written(np.zeros((40, 56, 3), np.uint16), photometric="rgb"),
        "65535 samples": image(pixels, tag_277=65535),
        "transposed": written(np.zeros((56, 40), np.uint16)),
        "a thousand pages": written(np.zeros((1000, 8, 8), np.uint16)),
        "a volume": written(np.zeros((40, 56), np.uint16), volumetric=False)[:8] + b"\xff" * 40,
        "OME-XML that names other files, two pages": written(np.zeros((2, 40, 56), np.uint16), description=ome),
        "BigTIFF with wild offsets": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + b"\xff" * 64,
        "another magic": b"II\x55\0" + bytes(100),
        "not a TIFF": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "empty": b"",
        "one byte": b"I",
        "5 MB of zeros": bytes(5_000_000),
    }


def harmless() -> dict[str, bytes]:
    """Wrong in a way that leaves no doubt about the pixels: read, and flagged as all zeros."""
    pixels = bytes(40 * 56 * 2)
    return {"next directory beyond the end": circular(2**31), "rows per strip 0": image(pixels, tag_278=0)}


def bombs() -> dict[str, bytes]:
    """Good sizes declared, and strips that decode to 100 MB: refused or decoded to the declared size, in bounded memory."""
    return {
        "deflate bomb": image(zlib.compress(bytes(100_000_000), 9), 8),
        "LZW bomb": image(lzw_bomb(3_000_000), 5),
        "PackBits bomb": image(b"\x81\x00" * 20_000, 32773),
    }
