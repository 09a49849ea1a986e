"""CellProfiler's pipeline files as modules and their settings: text (`.cppipe`, versions 1 to 5) and JSON (`v6`).

A pipeline file comes from anywhere, so nothing in it is evaluated: size and counts are bounded, escapes are replaced by a
table, and of a module's attributes only the three that matter are looked for.
"""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings.config import check_regular

MAX_BYTES = 1 << 25  # of a file
MAX_MODULES = 1000
MAX_SETTINGS = 20_000  # of a module
COOKIE = "CellProfiler Pipeline:"
VERSIONS = range(1, 6)  # of the text format
HDF5 = b"\x89HDF\r\n\x1a\n"
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
PLAIN = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


@dataclass(frozen=True)
class Module:
    """One module of a pipeline: its settings as (what the setting is called, its value), in stored order."""

    name: str
    number: int
    revision: int
    enabled: bool
    settings: tuple[tuple[str, str], ...]

    @property
    def values(self) -> list[str]:
        return [value for _, value in self.settings]

    def named(self, beginning: str) -> list[str]:
        """Values of the settings whose name begins so."""
        return [value for text, value in self.settings if text.startswith(beginning)]

    def __str__(self) -> str:
        return f"{self.name} (module {self.number})"


@dataclass(frozen=True)
class Pipeline:
    """A file's modules. `written_by` is CellProfiler's own DateRevision, such as 4281 for 4.2.8.1; `declared` how many
    modules
    the file says it has, where it has another number."""

    file: str
    version: str
    written_by: str
    modules: tuple[Module, ...]
    declared: int | None = None


def read_pipeline(path: str | Path) -> Pipeline:
    """A pipeline file; ValueError names what is wrong with it and where, OSError where it cannot be read."""
    path = Path(path)
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no pipeline is")
    if data.startswith(HDF5):
        data = pipeline_of_project(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # as old versions wrote
    return parse_json(text, str(path)) if text.lstrip()[:1] == "{" else parse_text(text, str(path))


def pipeline_of_project(path: Path, data: bytes) -> bytes:
    """The pipeline that a CellProfiler project (HDF5) holds as one string; ValueError where there is none, or several."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{path}: a CellProfiler project (HDF5) needs h5py: pip install 'jumpgpu[cellprofiler]'") from error
    result: list[Any] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and name.split("/")[-1] == "Pipeline_Pipeline" and "data" in item:
            result.append(item)

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(look)
            stored = result[0]["data"] if len(result) == 1 else None
            if not isinstance(stored, h5py.Dataset) or h5py.check_string_dtype(stored.dtype) is None:
                raise ValueError(f"{path}: a CellProfiler project (HDF5) without a pipeline")
            value = stored[place_of(result[0], stored.size, path)] if stored.ndim else stored[()]
    except OSError as error:
        raise ValueError(f"{path}: a CellProfiler project (HDF5) that cannot be read: {error}") from error
    data = value if isinstance(value, bytes) else str(value).encode()
    if b"\n" not in data:  # as CellProfiler keeps it there: escaped once more
        data = ESCAPE.sub(unescaped, data.decode("utf-8", "replace")).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: its pipeline is larger than {MAX_BYTES >> 20} MiB")
    return data


def place_of(group: Any, size: int, path: Path) -> int:
    """Which of a project's pipelines holds: each saving appends one, and `index` says where the last begins and ends."""
    if size == 1:
        return 0
    rows = group["index"][:4] if "index" in group else []
    if len(rows) != 1 or len(rows[0]) != 3 or not 0 <= rows[0][1] == rows[0][2] - 1 < size:
        raise ValueError(f"{path}: a CellProfiler project (HDF5) with {size} pipelines, and it is not said which holds")
    return int(rows[0][1])


def parse_text(text: str, where: str) -> Pipeline:
    """The text format: a header, then blocks of a module's line and a line a setting."""
    lines = re.split(r"\r\n|\r|\n", text)  # not splitlines, which also splits at form feeds and U+2028
    if not lines[0].startswith(COOKIE):
        raise ValueError(f"{where}: not a CellProfiler pipeline: its first line is not {COOKIE!r}")
    header: dict[str, str] = {}
    at = 1
    while at < len(lines) and lines[at].strip():
        key, _, value = lines[at].partition(":")
        header[key.strip()] = value.strip()
        at += 1
    version = number(header.get("Version", "1"), f"{where}: Version")
    if version not in VERSIONS:
        raise ValueError(f"{where}: pipeline format {version}; known are {VERSIONS[0]} to {VERSIONS[-1]}, and JSON v6")
    declared = number(header["ModuleCount"], f"{where}: ModuleCount") if "ModuleCount" in header else None
    if declared is not None and declared > MAX_MODULES:
        raise ValueError(f"{where}: declares {declared} modules; at most {MAX_MODULES} are read")
    modules: list[Module] = []
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if lines[at].startswith('"Version"'):  # the list of image files
            break
        module, at = parse_module(lines, at, len(modules) + 1, where)
        modules.append(module)
        if len(modules) > MAX_MODULES:
            raise ValueError(f"{where}: more than {MAX_MODULES} modules")
    if not modules:
        raise ValueError(f"{where}: has no modules")
    written_by = header.get("DateRevision", header.get("SVNRevision", ""))
    return Pipeline(
        where, str(version), written_by, tuple(modules), declared if declared not in (None, len(modules)) else None
    )


def parse_module(lines: list[str], at: int, position: int, where: str) -> tuple[Module, int]:
    """The module whose line is `lines[at]`, and the line after it."""
    name, _, attributes = lines[at].strip().partition(":")
    if not re.fullmatch(r"\w{1,80}", name) or not (attributes.startswith("[") and attributes.endswith("]")):
        raise ValueError(f"{where}: line {at + 1} is not a module's: {printable(lines[at])}")
    revision = re.search(r"[\[|]variable_revision_number:(\d{1,4})(?=[|\]])", attributes)
    if not revision:
        raise ValueError(f"{where}: {name} at line {at + 1} has no variable_revision_number")
    enabled = re.findall(r"\|enabled:(True|False)(?=[|\]])", attributes)  # the last: notes come before it
    settings: list[tuple[str, str]] = []
    at += 1
    while at < len(lines) and lines[at].strip():
        text, colon, value = lines[at].strip().partition(":")
        if not colon:
            raise ValueError(f"{where}: line {at + 1} is not a setting of {name}: {printable(lines[at])}")
        settings.append((unescape(text), unescape(value)))
        if len(settings) > MAX_SETTINGS:
            raise ValueError(f"{where}: {name} has more than {MAX_SETTINGS} settings")
        at += 1
    return Module(name, position, int(revision[1]), not enabled or enabled[-1] == "True", tuple(settings)), at


def parse_json(text: str, where: str) -> Pipeline:
    """CellProfiler 4's JSON format."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON pipeline: {error}") from error
    result = table.get("modules")
    if table.get("version") != "v6" or not isinstance(result, list):
        raise ValueError(f'{where}: not a JSON pipeline of CellProfiler: expected "version": "v6" and a list of modules')
    if len(result) > MAX_MODULES:
        raise ValueError(f"{where}: more than {MAX_MODULES} modules")
    modules = tuple(json_module(entry, i, where) for i, entry in enumerate(result, 1))
    return Pipeline(where, "v6", str(table.get("date_revision", "")), modules)


def json_module(entry: Any, position: int, where: str) -> Module:
    try:
        attributes, settings = entry["attributes"], entry["settings"]
        name, revision = attributes["module_name"], attributes["variable_revision_number"]
        pairs = tuple((s["text"], s["value"]) for s in settings)
        enabled = attributes.get("enabled", True)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: module {position} is not a module of a JSON pipeline") from error
    right = isinstance(name, str) and re.fullmatch(r"\w{1,80}", name) and type(revision) is int and type(enabled) is bool
    if not right or len(pairs) > MAX_SETTINGS or not all(isinstance(p, str) for pair in pairs for p in pair):
        raise ValueError(f"{where}: module {position} is not a module of a JSON pipeline")
    return Module(name, position, revision, enabled, pairs)


def unescape(text: str) -> str:
    """A value as it was before CellProfiler wrote it: `\\x7C` is `|`; older versions wrote UTF-16 that way.

    Backslashes stand for themselves in a value without any `\\x`, as CellProfiler reads it.
    """
    if "\\x" not in text:
        return text
    plain = ESCAPE.sub(unescaped, text)
    if plain.startswith("ÿþ"):
        try:
            return plain[2:].encode("latin-1").decode("utf-16-le")
        except UnicodeError:
            return plain[2:].replace("\0", "")
    return plain.replace("\0", "")


def unescaped(match: re.Match[str]) -> str:
    """What an escape stands for."""
    return chr(int(match[1] or match[2], 16)) if match[1] or match[2] else PLAIN.get(match[3], match[0])


def number(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{where}: expected a number, got {printable(text)}")
    return int(text)


def printable(text: str, maximum: int = 120) -> str:
    """Text from a file on one line and without control or direction characters, cut to a length."""
    shown = "".join(c if c.isprintable() else "?" for c in text[: maximum + 1])
    return repr(shown if len(shown) <= maximum else shown[:maximum] + "...")
