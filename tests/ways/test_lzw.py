"""LZW: the same bytes in all ways, of strips that decode and of strips that do not."""

import imagecodecs
import numpy as np
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.images.lzw import decode_strips
from tests.helpers.lzw_encoder import encode


def strips_of(parts: list[tuple[bytes, bytes]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Streams one behind the other, the table of strips, and the bytes of all, of pairs of bytes and a stream for them."""
    data, rows, at = b"\x01\x02\x03", [], 0
    for plain, stream in parts:
        rows.append([len(data), len(stream), at, len(plain)])
        data += stream
        at += len(plain)
    return torch.from_numpy(np.frombuffer(bytearray(data + bytes(8)), np.uint8)), torch.tensor(rows), at


def turned(stream: bytes) -> bytes:
    """A bit in the middle is another."""
    output = bytearray(stream)
    output[len(output) // 2] ^= 0x10
    return bytes(output)


RNG = np.random.default_rng(3)
CAMERA = RNG.poisson(300, 500).astype("<u2").tobytes()
GOOD = [
    (CAMERA, encode(CAMERA)),
    (bytes(900), imagecodecs.lzw_encode(bytes(900))),
    (b"x", encode(b"x")),
    (b"ab" * 150, encode(b"ab" * 150, [90])),
    (CAMERA, encode(CAMERA, [120] * 9)),  # segments of one length
    (CAMERA, encode(CAMERA, [100, 100, 40, 100, 260, 90, 90, 90])),  # of several
]
BAD = [(CAMERA, turned(encode(CAMERA))), (CAMERA, encode(CAMERA, [40] * 99)), (CAMERA, encode(CAMERA, [119, 60, 58, 119]))]


def test_lzw_strips_same_in_all_ways(way):
    data, strips, total = strips_of([*GOOD, BAD[0]])

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        out, status = device.zeros(total, dtype=torch.uint8), device.zeros(len(strips), dtype=torch.int32)
        device.launch(
            "lzw_strips", len(strips), data=device.tensor(data), strips=device.tensor(strips), out=out, status=status
        )
        assert status.tolist()[:-1] == [0] * len(GOOD)
        if status[-1]:
            out[-len(CAMERA) :] = 0  # in any state
        return out, status

    way.check(work)


def test_lzw_segments_lengths_places_and_bytes_same_in_all_ways(way):
    data, strips, total = strips_of([*GOOD, *BAD])

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        out = device.zeros(total, dtype=torch.uint8)
        status = device.empty(len(strips), dtype=torch.int64)
        decode_strips(device.tensor(data), strips.numpy(), out, status, device)
        assert status.tolist()[: len(GOOD)] == [0] * len(GOOD)
        assert status.tolist()[-2:] == [1, 1]  # more segments than room; a clear within a segment that was guessed
        plain = b"".join(p for p, _ in GOOD)
        assert out[: len(plain)].cpu().numpy().tobytes() == plain
        return out, status

    way.check(work)
