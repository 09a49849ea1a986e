"""An index of the plates' pages in a folder: what each says at its top, a map of its cell counts, and a link."""

import json
import re
from pathlib import Path
from typing import Any

from ..storage.atomic import write_whole
from ..store import render
from ..store.views import count_map

HEAD = 1 << 18  # bytes at the start of a page, where its summary is
MARK = '<meta name="generator" content="jumpgpu index">'
SUMMARY = re.compile(r'<script type="application/json" id="summary">(.*?)</script>', re.DOTALL)


def summaries(folder: Path) -> list[dict[str, Any]]:
    """What the pages of a folder say of themselves, by barcode. A file that is no page of a plate is passed over."""
    result = []
    for page in sorted(folder.glob("*.html")):
        with page.open("rb") as file:
            match = SUMMARY.search(file.read(HEAD).decode("utf-8", "replace"))
        try:
            said = json.loads(match[1]) if match else {}
            if said.get("barcode") == page.stem:
                cells = {str(w): int(n) for w, n in said["cells"].items()}
                url = render.data_url(count_map(cells), "png") if cells else ""
                facts = [(str(name), str(value)) for name, value in said["facts"]]
                percent = {str(k): float(v) for k, v in said["percent"].items()}
                result.append({"barcode": page.stem, "facts": facts, "percent": percent, "map": url})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return result


def write_index(folder: Path) -> Path | None:
    """Write `index.html` where a folder has the pages of two plates or more; None where it has not.

    All pages of the folder are listed, so that none is lost from it. An index.html of another make is left alone.
    """
    import jinja2

    plates = summaries(folder)
    target = folder / "index.html"
    if len(plates) < 2 or (target.is_file() and MARK not in target.read_text(encoding="utf-8", errors="replace")[:HEAD]):
        return None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jumpgpu"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    scores = sorted({name for plate in plates for name in plate["percent"]})
    page = environment.get_template("index.html.jinja").render(plates=plates, scores=scores, mark=MARK)
    write_whole(target, page)
    return target
