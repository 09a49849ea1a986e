"""The little of a cubin that is needed: the machine code of each kernel. A cubin is an ELF file."""

import struct

WORD = 16  # bytes of one machine instruction, since compute capability 7.0


def code(cubin: bytes) -> dict[str, bytes]:
    """The machine code of every kernel in a cubin, by name; ValueError where it is no ELF file of 64 bits."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("not an ELF file of 64 bits")
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    size, number, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, start + k * size) for k in range(number)]
    table = headers[names][4]
    result = {}
    for name, _, _, _, offset, length in headers:
        text = cubin[table + name : cubin.index(b"\0", table + name)].decode()
        if text.startswith(".text."):
            result[text.removeprefix(".text.")] = cubin[offset : offset + length]
    return result


def opcodes(text: bytes) -> list[int]:
    """The opcode of each machine instruction: its lowest 9 bits, which leave the kind of its operands out."""
    return [int.from_bytes(text[k : k + 2], "little") & 0x1FF for k in range(0, len(text), WORD)]
