"""For mkdocs: links of notebooks, written for Jupyter (`other.ipynb`, `../page.md`), lead to the site's pages."""

import re
from typing import Any


def on_page_content(html: str, page: Any, **_: Any) -> str:
    if not page.file.src_path.endswith(".ipynb"):
        return html
    return re.sub(r'href="(?!https?:)([^"#]+)\.(?:ipynb|md)(#[^"]*)?"', r'href="../\1/\2"', html)
