"""The documentation: its links lead somewhere, its examples run, its commands exist, what is generated is up to date."""

import ast
import contextlib
import doctest
import html.parser
import importlib
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest

import jumpgpu
from jumpgpu.score import SCORES
from tools.pages import DOCS, PAGES

CHECKOUT = DOCS.parent
WRITTEN = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.ipynb"))]
MODULES = sorted(m.name for m in pkgutil.walk_packages(jumpgpu.__path__, "jumpgpu.") if not m.name.endswith("__main__"))
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def text_of(path: Path) -> str:
    """A page's Markdown; of a notebook, its Markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


def links(text: str) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(text: str) -> set[str]:
    """What a page's headings are called in links."""
    headings = re.findall(r"^#+ +(.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_links_lead_somewhere(page):
    """Internal ones to a file or heading that is there; of external ones only the form is known."""
    for link in links(text_of(page)):
        if "://" in link or link.startswith("mailto:"):
            parts = urlparse(link)
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)}: {link}"
        assert target.is_relative_to(CHECKOUT), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in anchors(text_of(target)), f"{name_of(page)}: {link}"


# Those of api/ are docstrings', which the next test runs.
@pytest.mark.parametrize("page", [p for p in WRITTEN if p.suffix == ".md" and p.parent.name != "api"], ids=name_of)
def test_examples_of_pages_are_python_and_doctests_hold(page, tmp_path, monkeypatch):
    text = page.read_text()
    for language, code in BLOCK.findall(text):
        if language == "python" and ">>>" not in code:
            ast.parse(code)
    monkeypatch.chdir(tmp_path)
    if ">>>" in text:
        assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_examples_of_docstrings_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name in MODULES:
        module = importlib.import_module(name)
        source = Path(module.__file__).read_text()
        if ">>>" in source:
            result = doctest.testmod(sys.modules[name])
            assert result.failed == 0, name
            tried += result.attempted
    assert tried >= 5


def commands(text: str) -> list[tuple[str, str, list[str]]]:
    """(module, next word, options) of every `python -m jumpgpu.X ...` or `jumpgpu X ...` in a page."""
    joined = re.sub(r"\\\n\s*", " ", text)
    result = re.findall(r"(?:python -m jumpgpu\.|^(?: {4})?jumpgpu |`jumpgpu )([a-z][\w-]*)([^\n`|]*)", joined, re.MULTILINE)
    split = [(name.replace("-", "_"), rest.partition("#")[0].split()) for name, rest in result]
    return [(n, words[0] if words else "", [w for w in words if re.fullmatch("--[a-z][a-z-]*", w)]) for n, words in split]


@pytest.fixture(scope="module")
def help_of():
    known: dict[tuple[str, ...], str] = {}

    def get(module: str, *words: str) -> str:
        if (module, *words) not in known:
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
                importlib.import_module(f"jumpgpu.{module}").main([*words, "--help"])
            known[module, *words] = out.getvalue()
        return known[module, *words]

    return get


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_of_pages_exist(page, help_of):
    for module, word, options in commands(text_of(page)):
        assert importlib.util.find_spec(f"jumpgpu.{module}"), f"{name_of(page)}: no command {module}"
        if options:
            text = help_of(module)
            if module == "score" and word in SCORES:  # a command within it has options of its own
                text += help_of(module, word)
            missing = [o for o in options if not re.search(rf"(?<!\S){o}\b", text)]
            assert not missing, f"{name_of(page)}: jumpgpu {module} has no {missing[0]}"


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name):
    assert (DOCS / name).read_text() == PAGES[name](), "python -m tools.pages writes it anew"


def test_every_setting_says_what_it_means():
    rows = [r for r in PAGES["reference/config.md"]().splitlines() if r.startswith("| `")]
    assert len(rows) > 50
    assert not [r for r in rows if not r.rstrip(" |").rpartition(" | ")[2].strip() or r.endswith("|  |")]


def test_the_readme_has_the_throughput_of_its_page():
    readme, page = (CHECKOUT / "README.md").read_text(), (DOCS / "throughput.md").read_text()
    seconds = re.search(r"CPU seconds per field, one thread \| ([\d.]+)", page)
    ratios = [re.search(rf"\| {peer}[^|]*\| (\d+) \|", page) for peer in ("CellProfiler", "OpenHCS")]
    assert f"**How fast**: {float(seconds[1]):.2f} s of CPU a field" in readme
    assert [f"({r[1]} times)" in readme for r in ratios] == [True, True]


class Links(html.parser.HTMLParser):
    """What a page of the site links to and shows."""

    def __init__(self):
        super().__init__()
        self.result: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.result += [v for k, v in attributes if k in ("href", "src") and v]


def test_the_site_is_built_and_whole(tmp_path):
    """A strict build, and then every link and picture of every page as a browser would look for it."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr + done.stdout
    pages = [p for p in tmp_path.rglob("*.html") if p.name != "404.html"]
    assert len(pages) >= 20
    for page in pages:
        reader = Links()
        reader.feed(page.read_text())
        for link in reader.result:
            if link.startswith(("https://", "data:", "#", "mailto:")):
                continue
            target = (page.parent / link.partition("#")[0]).resolve()
            assert target.exists(), f"{page.relative_to(tmp_path)}: {link}"
    index = json.loads((tmp_path / "search" / "search_index.json").read_text())
    assert {"parity/", "reference/columns/", "notebooks/quick_start/"} <= {d["location"] for d in index["docs"]}
