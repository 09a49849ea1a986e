"""Every hostile file in a process of its own: what became of it, in bounded time and memory; and the page that says so."""

import re
from collections import Counter

from tests.conftest import CHECKOUT
from tools.survival_page import MARKS, cases

HARMLESS = {"LZW bomb"}  # decodes to the declared size and no further


def test_every_hostile_file_is_refused_or_costs_its_site_within_bounds():
    result = cases(large=False)
    assert {c.name for c in result if not c.became} <= HARMLESS
    for case in result:
        assert case.seconds < 5, case
        assert case.megabytes < 60, case
    text = (CHECKOUT / "docs" / "survival.md").read_text()
    begin, end = (text.index(mark) for mark in MARKS)
    counted = {m[1].strip(): int(m[2]) for m in re.finditer(r"^\| (.+?) \| (\d+) \| \d+ \|", text[begin:end], re.M)}
    large = {"load_data.csv": 2}
    assert counted == {reader: n + large.get(reader, 0) for reader, n in Counter(c.reader for c in result).items()}
