"""An encoder of TIFF's LZW that clears its table when it is told to: for streams that other encoders do not write."""

from collections.abc import Iterable

CLEAR, END, FIRST, FULL = 256, 257, 258, 4093  # a code more, and a decoder's table would be full


def encode(plain: bytes, lengths: Iterable[int] = ()) -> bytes:
    """`plain` as codes, cleared after so many codes each, and after those when the table is full."""
    bits, n_bits = 0, 0
    lengths = iter(lengths)

    def put(code: int, width: int) -> None:
        nonlocal bits, n_bits
        bits, n_bits = bits << width | code, n_bits + width

    at, codes = 0, -1  # -1: to be cleared
    maximum = 0
    table: dict[bytes, int] = {}
    width = 9
    while at < len(plain):
        if codes in (-1, maximum):
            put(CLEAR, width)
            table, codes, width = {bytes([k]): k for k in range(256)}, 0, 9
            maximum = next(lengths, FULL - FIRST)
            continue
        end = at + 1
        while end < len(plain) and plain[at : end + 1] in table:
            end += 1
        put(table[plain[at:end]], width)
        table[plain[at : end + 1]] = FIRST + codes
        at, codes = end, codes + 1
        width = 9 if codes < 254 else 10 if codes < 766 else 11 if codes < 1790 else 12
    put(END, width)
    return (bits << -n_bits % 8).to_bytes(-(-n_bits // 8), "big")
