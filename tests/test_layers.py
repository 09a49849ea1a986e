"""The import rule: a package imports itself and the packages named here; commands import any, and no other command."""

import ast
import re
from pathlib import Path

import pytest

import jumpgpu

PACKAGE = Path(jumpgpu.__file__).parent
PACKAGES: dict[str, set[str]] = {
    "settings": set(),
    "gpu": set(),
    "storage": set(),
    "drawing": {"settings"},
    "cellprofiler": {"settings"},
    "cli": {"settings", "gpu", "storage"},
    "images": {"settings", "gpu", "storage"},
    "segmentation": {"settings", "gpu"},
    "networks": {"settings", "gpu"},
    "features": {"settings", "gpu", "images", "segmentation", "networks"},
    "image_features": {"settings", "gpu", "segmentation", "features"},
    "steps": {"settings", "gpu", "segmentation", "features", "image_features"},
    "store": {"settings", "storage", "images", "features"},
    "run": {"settings", "gpu", "storage", "cli", "images", "segmentation", "networks"}
    | {"features", "steps", "store", "outputs"},
    "checks": {"settings", "gpu", "storage", "images", "store"},
    "profiles": {"settings", "storage", "store"},
    "scores": {"settings", "storage", "profiles"},
    "outputs": {"settings", "storage", "store", "profiles", "scores"},
}
MODULES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
    if "kernels" not in p.relative_to(PACKAGE).parts
}
COMMANDS = {m for m in MODULES if "." not in m and not m.endswith("_options")} - {*PACKAGES, "__init__", "__main__"}


def imports(module: str) -> set[str]:
    """Modules of the package that a module imports, or names in a string that is imported later (TASKS of dask_workers)."""
    path, result = MODULES[module], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "jumpgpu"):
            folder = path.relative_to(PACKAGE).parent.parts
            base = [*folder[: len(folder) - node.level + 1]] if node.level else []
            base += (node.module or "").split(".")[0 if node.level else 1 :]
            result |= {".".join(filter(None, [*base, a.name])) for a in node.names} | {".".join(filter(None, base))}
        elif isinstance(node, ast.Import):
            result |= {a.name.removeprefix("jumpgpu.") for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            result.add(node.value.removeprefix("jumpgpu.") if re.fullmatch(r"jumpgpu\.[\w.]+", node.value) else "")
    return result & MODULES.keys() - {module, "__init__", *PACKAGES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_within_the_layers(module: str) -> None:
    package = module.split(".")[0]
    if package in PACKAGES:
        allowed = PACKAGES[package] | {package}
        wrong = sorted(m for m in imports(module) if m.split(".")[0] not in allowed)
        assert not wrong, f"{module}: '{package}' may import {sorted(allowed)}; it imports {wrong}"
    elif module != "__main__":
        assert not imports(module) & (COMMANDS - {module}), f"{module} imports another command"


def test_no_import_goes_in_a_circle() -> None:
    graph = {m: imports(m) for m in MODULES if m not in ("__init__", "__main__")}
    while free := [m for m, needs in graph.items() if not needs & graph.keys()]:
        graph = {m: needs for m, needs in graph.items() if m not in free}
    assert not graph, f"these import each other: {sorted(graph)}"


def test_every_package_says_what_it_imports() -> None:
    assert {p.parent.name for p in PACKAGE.glob("*/__init__.py")} == PACKAGES.keys()
    for package in PACKAGES:
        assert len(MODULES[package].read_text().splitlines()) <= 4, f"{package}: a docstring of four lines at most"


def test_only_the_device_knows_cupy_and_ctypes() -> None:
    text = {m: p.read_text() for m, p in MODULES.items()}
    knows = {m for m in text if re.search(r"^\s*(import|from) (cupy|ctypes)\b", text[m], re.M)}
    assert knows <= {m for m in MODULES if m.startswith("gpu.")} | {"storage.file_system"}  # syncfs, which Python lacks


def test_every_test_that_a_kernel_names_is_there() -> None:
    for path in sorted((PACKAGE.parent / "kernels").rglob("*.*")):
        missing = [n for n in re.findall(r"\btests/[\w/.]*\w", path.read_text()) if not (PACKAGE.parent / n).exists()]
        assert not missing, f"{path.name} names {missing}"
