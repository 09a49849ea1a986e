"""The page of a comparison with a lab's own CellProfiler output: one HTML file that needs nothing else."""

from typing import Any

from .comparison import NEAR
from .comparison_result import TOLERANCE, Comparison, families_of

MAX_COLUMNS = 500  # that differ and are listed


def comparison_page(result: Comparison) -> str:
    """The page as HTML."""
    import jinja2

    differing = sorted((c for c in result.columns if c.status == "differs"), key=lambda c: c.within / c.n)
    odd = [
        (at, s.name, ours, theirs, matched)
        for s in result.sets.values()
        for at, (ours, theirs, matched) in s.sites.items()
        if matched < max(ours, theirs)
    ]
    status = [c.status for c in result.columns]
    facts: list[tuple[str, Any]] = [
        ("Theirs", result.lab),
        ("Sites", len(result.sites)),
        ("Columns", sum(s != "nothing to compare" for s in status)),
        ("Equal", status.count("equal")),
        ("Within tolerance", status.count("within")),
        ("Differ", status.count("differs")),
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jumpgpu"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page: str = environment.get_template("comparison.html.jinja").render(
        result=result,
        facts=facts,
        findings=result.findings,
        families=families_of(result),
        odd_sites=odd,
        differing=differing[:MAX_COLUMNS],
        more=max(0, len(differing) - MAX_COLUMNS),
        near=NEAR,
        absolute=TOLERANCE[0],
        relative=TOLERANCE[1],
    )
    return page
