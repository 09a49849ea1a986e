"""The wheels of a release, all on one Linux machine: `python -m tools.wheels --output dist [PLATFORM ...]`.

zig (the package `ziglang`) compiles for every system: its own C++ library is linked into the kernels, so that a wheel needs
nothing but the C library it was made for. The kernels hold no CPython ABI, so one wheel serves every Python. Needs the
extra `release`. Each wheel is checked by auditwheel (Linux), check-wheel-contents and twine, and its size is printed.
"""

import argparse
import os
import platform
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Platform tag of the wheel: zig's target, CMake's names of the system and the processor. 2_28 is torch's own floor.
PLATFORMS = {
    "manylinux_2_28_x86_64": ("x86_64-linux-gnu.2.28", "Linux", "x86_64"),
    "manylinux_2_28_aarch64": ("aarch64-linux-gnu.2.28", "Linux", "aarch64"),
    "macosx_11_0_arm64": ("aarch64-macos.11.0", "Darwin", "arm64"),
    "win_amd64": ("x86_64-windows-gnu", "Windows", "AMD64"),
}
TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME {system})
set(CMAKE_SYSTEM_PROCESSOR {processor})
set(CMAKE_CXX_COMPILER "{compiler}")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_SKIP_RPATH ON)
set(CMAKE_INSTALL_NAME_TOOL "${{CMAKE_COMMAND}}")  # wanted for macOS, and without paths to change never run
"""


def build(tag: str, output: Path, levels: str | None) -> Path:
    """Build one wheel into `output`."""
    target, system, processor = PLATFORMS[tag]
    with tempfile.TemporaryDirectory(prefix="jumpgpu-wheel-") as folder:
        if os.name == "nt":
            compiler, text = Path(folder) / "c++.cmd", f'@"{sys.executable}" -m ziglang c++ -target {target} %*\n'
        else:
            compiler, text = (
                Path(folder) / "c++",
                f'#!/bin/sh\nexec "{sys.executable}" -m ziglang c++ -target {target} "$@"\n',
            )
        compiler.write_text(text, encoding="utf-8")
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
        toolchain = Path(folder) / "toolchain.cmake"
        text = TOOLCHAIN.format(system=system, processor=processor, compiler=compiler.as_posix())
        toolchain.write_text(text, encoding="utf-8")
        settings = [f"wheel.tags=py3-none-{tag}", f"build-dir={folder}/build"]
        settings += [f"cmake.define.CMAKE_TOOLCHAIN_FILE={toolchain.as_posix()}", "cmake.define.JUMPGPU_ZIG=ON"]
        settings += [f"cmake.define.JUMPGPU_LEVELS={levels}"] if levels else []
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
        for setting in settings:
            command += ["-C", setting]
        subprocess.run([*command, "-w", str(output), str(ROOT)], check=True, env=os.environ | {"CXX": str(compiler)})
    return max(output.glob(f"*{tag}.whl"), key=os.path.getmtime)


def check(wheel: Path) -> None:
    """auditwheel's verdict, check-wheel-contents and twine; CalledProcessError or ValueError where one refuses."""
    tag = wheel.stem.rpartition("-")[2]
    if result := re.fullmatch(r"manylinux_2_(\d+)_(\w+)", tag):
        command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
        said = " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        fits = re.search(rf'following platform tag: "manylinux_2_(\d+)_{result[2]}"', said)
        if not fits or int(fits[1]) > int(result[1]):
            raise ValueError(f"{wheel.name}: auditwheel says {said}")
    subprocess.run([sys.executable, "-m", "check_wheel_contents", "--ignore", "W004", str(wheel)], check=True)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel)], check=True)
    with zipfile.ZipFile(wheel) as files:
        libraries = [
            f"{n.rpartition('/')[2]} {files.getinfo(n).file_size >> 10} KiB" for n in files.namelist() if "/lib/" in n
        ]
    print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.1f} MB  ({', '.join(libraries)})", flush=True)


def host() -> str:
    """The tag of the wheel that this machine takes."""
    of = {"Linux": f"manylinux_2_28_{platform.machine()}", "Darwin": "macosx_11_0_arm64", "Windows": "win_amd64"}
    return of[platform.system()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platforms", nargs="*", default=list(PLATFORMS), help=f"of {', '.join(PLATFORMS)} (default: all)")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder for the wheels (default: dist)")
    parser.add_argument("--levels", help="instruction-set levels, ';' between them (default: all of the processor's)")
    parser.add_argument("--host", action="store_true", help="the wheel of this machine alone")
    options = parser.parse_args(arguments)
    if options.host:
        options.platforms = [host()]
    if unknown := sorted(set(options.platforms) - PLATFORMS.keys()):
        parser.error(f"unknown platforms {', '.join(unknown)}; known are {', '.join(PLATFORMS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for tag in options.platforms:
        check(build(tag, options.output.resolve(), options.levels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
