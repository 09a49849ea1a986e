"""The import rule: data flows one way, so a module imports only its own group and those its group may see, in no circle.

A module that stands in no group is a command: it may import everything, and only commands import it.
"""

import ast
import re
from pathlib import Path

import pytest

import jumpgpu

PACKAGE = Path(jumpgpu.__file__).parent

# Group: its modules, and the groups it may import besides itself.
GROUPS: dict[str, tuple[set[str], set[str]]] = {
    "words": (
        {
            "command",
            "names",
            "config",
            "limits",
            "durable",
            "file_system",
            "files",
            "remote",
            "remote_files",
            "progress",
            "lanes",
            "pictures",
            "platemaps",
        },
        set(),
    ),
    "device": ({"device", "kernel_files", "room"}, set()),
    "reading": (
        {
            "harmony",
            "load_data",
            "plate",
            "gallery",
            "sources",
            "ome_zarr",
            "zarr_planes",
            "zarr_store",
            "checks",
            "lzw",
            "fields",
            "image_files",
            "raw_images",
            "rings",
            "sites",
            "illumination",
            "label_files",
            "masks",
            "drawing",
            "synthetic",
        },
        {"words", "device"},
    ),
    "images": (
        {
            "grow",
            "smooth",
            "threshold",
            "label",
            "distance",
            "basins",
            "sampling",
            "watershed",
            "background",
            "declump",
            "declump_low",
            "segmentation",
            "quality",
        },
        {"words", "device"},
    ),
    "objects": ({"counting", "objects", "order"}, {"words", "device"}),
    "features": ({"features"}, {"words", "device", "images", "objects"}),
    "store": (
        {"layout", "store", "opened", "views", "options", "provenance", "sink", "verify"},
        {"words", "device", "reading"},
    ),
    "pipelines": (
        {"cppipe", "cppipe_settings", "cppipe_segmentation", "cppipe_features", "cppipe_config"},
        {"words"},
    ),
    "profiles": (
        {"recipes", "aggregate", "normalize", "selection", "profiles", "profile_files", "designs", "tables"},
        {"words", "store"},
    ),
    "scores": ({"scores", "maps", "matching", "replicating", "transfer", "figures"}, {"words", "store", "profiles"}),
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Modules of the package that a module imports, dotted, relative to the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("jumpgpu.") for a in node.names if a.name.startswith("jumpgpu.")}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "jumpgpu"):
            folder = list(path.relative_to(PACKAGE).parent.parts)
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = (node.module or "").split(".")[0 if node.level else 1 :]
            names = [".".join(filter(None, [*base, *module, a.name])) for a in node.names]
            parents = {n.rpartition(".")[0] for n in names if node.module}  # what is no module is its module's
            found |= {n for n in names if exists(n)} | (parents if not all(map(exists, names)) else set())
    return {f for f in found if f and exists(f)}


def exists(module: str) -> bool:
    place = PACKAGE.joinpath(*module.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def group_of(module: str) -> str:
    return next((g for g, (members, _) in GROUPS.items() if module.split(".")[0] in members), "commands")


MODULES = {module_of(p): p for p in sorted(PACKAGE.rglob("*.py")) if "kernels" not in p.relative_to(PACKAGE).parts}


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_within_the_layers(module: str) -> None:
    group = group_of(module)
    if group == "commands":
        return
    allowed = GROUPS[group][1] | {group}
    wrong = sorted(f"{m} ({group_of(m)})" for m in imports(MODULES[module]) if group_of(m) not in allowed)
    assert not wrong, f"{module} is of '{group}', which may import {sorted(allowed)}; it imports {wrong}"


def test_no_import_goes_in_a_circle() -> None:
    graph = {m: imports(p) - {m} for m, p in MODULES.items() if m != "__init__"}
    while free := [m for m, needs in graph.items() if not needs & graph.keys()]:
        for m in free:
            del graph[m]
    assert not graph, f"these import each other: {sorted(graph)}"


def test_only_the_device_knows_cupy_and_ctypes() -> None:
    knows = {
        m
        for m, p in MODULES.items()
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in ("cupy", "ctypes")
    }
    assert knows <= {"device", "kernel_files", "file_system"}  # the last for a call that Python has not, syncfs


def test_every_test_that_a_kernel_names_is_there() -> None:
    tests = Path(__file__).parent
    for path in sorted((tests.parent / "kernels").rglob("*.cu*")) + sorted((tests.parent / "kernels").rglob("*.h")):
        named = set(re.findall(r"\btest_\w+\.py|\btests/[\w/.]*\w", path.read_text()))
        missing = sorted(n for n in named if not (tests / n.removeprefix("tests/")).exists())
        assert not missing, f"{path.name} names {missing}"
