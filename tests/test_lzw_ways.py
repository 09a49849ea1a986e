"""LZW: the same bytes in all ways, of strips that decode and of strips that do not."""

import imagecodecs
import numpy as np
import torch

from jumpgpu.device import Device
from jumpgpu.lzw import decode_strips


def strips_of(plains: list[bytes], spoil: int = -1) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Streams one behind the other, the table of strips, and the bytes of all; stream `spoil` has a bit turned."""
    data, rows, at = b"\x01\x02\x03", [], 0
    for k, plain in enumerate(plains):
        stream = bytearray(imagecodecs.lzw_encode(plain))
        if k == spoil:
            stream[len(stream) // 2] ^= 0x10
        rows.append([len(data), len(stream), at, len(plain)])
        data += bytes(stream)
        at += len(plain)
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)), torch.tensor(rows), at


def reference(strips: torch.Tensor, data: torch.Tensor) -> dict[int, bytes]:
    """What imagecodecs makes of the strips, but for the spoilt one."""
    streams = {k: data[a : a + n].numpy().tobytes() for k, (a, n, _, _) in enumerate(strips.tolist()) if k != 4}
    return {k: imagecodecs.lzw_decode(s, out=int(strips[k, 3])) for k, s in streams.items()}


def scene() -> tuple[torch.Tensor, torch.Tensor, int]:
    rng = np.random.default_rng(3)
    camera = rng.poisson(300, 1500).astype("<u2").tobytes()
    return strips_of(
        [camera, bytes(900), b"x", rng.integers(0, 3, 1200, np.uint8).tobytes(), camera[:700], b"ab" * 150], spoil=4
    )


def test_lzw_strips_same_in_all_ways(way):
    data, strips, total = scene()

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        out, status = device.zeros(total, dtype=torch.uint8), device.zeros(len(strips), dtype=torch.int32)
        device.launch(
            "lzw_strips", len(strips), data=device.tensor(data), strips=device.tensor(strips), out=out, status=status
        )
        assert status.tolist()[:4] == [0, 0, 0, 0]
        assert status.tolist()[5] == 0
        spoilt = strips[4].tolist()
        if status[4]:
            out[spoilt[2] : spoilt[2] + spoilt[3]] = 0  # in any state
        return out, status

    way.check(work)


def test_lzw_segments_lengths_and_bytes_same_in_all_ways(way):
    data, strips, total = scene()
    expected = reference(strips, data)

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        out = device.zeros(total, dtype=torch.uint8)
        status = decode_strips(device.tensor(data), device.tensor(strips), out, device, 4)
        for k, plain in expected.items():
            at, n = strips[k, 2:].tolist()
            assert not status[k]
            assert out[at : at + n].cpu().numpy().tobytes() == plain
        return out, status

    way.check(work)
