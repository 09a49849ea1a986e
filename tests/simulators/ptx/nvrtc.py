"""NVRTC, called directly: it compiles for any architecture without a device, which CuPy's wrapper does not."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


class CompileError(Exception):
    """What NVRTC wrote about a source that it refused."""


@cache
def library() -> ctypes.CDLL:
    """The NVRTC of the `nvidia-cuda-nvrtc` wheel (extra `test`)."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    result = sorted(p for folder in folders for p in Path(folder).glob("*/lib/libnvrtc.so*"))
    if not result:
        raise FileNotFoundError("no libnvrtc: pip install 'jumpgpu[test]' brings the wheel nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(result[-1]))


def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compile_source(
    source: str, name: str, architecture: str, *, cubin: bool = False, options: tuple[str, ...] = ()
) -> bytes:
    """PTX (or a cubin) of a source for `compute_80`, `sm_90` or the like. `name` is what messages call it."""
    return compiled(source, name, architecture, cubin=cubin, options=options)[0]


def compiler_log(source: str, name: str, architecture: str, *, options: tuple[str, ...] = ()) -> str:
    """What ptxas says of a source's kernels (`ptxas -v`): registers, stack, spills, shared memory."""
    return compiled(source, name, architecture, cubin=True, options=(*options, "--ptxas-options=-v"))[1]


def compiled(source: str, name: str, architecture: str, *, cubin: bool, options: tuple[str, ...]) -> tuple[bytes, str]:
    """What is made of a source, and the log."""
    nvrtc = library()
    program = ctypes.c_void_p()

    def written() -> str:
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        return log.value.decode()

    def call(what: str, *arguments: object) -> None:
        if code := getattr(nvrtc, what)(*arguments):
            raise CompileError(f"{name} for {architecture}: {what} gave {code}\n{written()}")

    call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
    try:
        flags = [f"--gpu-architecture={architecture}", *options]
        call("nvrtcCompileProgram", program, len(flags), (ctypes.c_char_p * len(flags))(*[f.encode() for f in flags]))
        kind = "CUBIN" if cubin else "PTX"
        size = ctypes.c_size_t()
        call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        call(f"nvrtcGet{kind}", program, out)
        return out.raw if cubin else out.value, written()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
