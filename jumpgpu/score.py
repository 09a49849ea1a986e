"""`python -m jumpgpu.score`: scores of profiles against seeded nulls, by condition, as a table, JSON and figures."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from .cli.exit_status import command, run_command
from .profiles import conventions
from .profiles.platemap import column_name
from .profiles.recipe import load_recipe
from .score_options import parser, selection_of
from .scores import mean_average_precision as maps
from .scores.common import Score
from .scores.embedding import Picture, embed, similarity
from .scores.hits import Hits, dose_response, hits
from .scores.mean_average_precision import MeanPrecision
from .scores.percent_matching import percent_matching
from .scores.percent_replicating import percent_replicating
from .scores.results import headline, write_results
from .scores.selection import Selected, column, judging_controls, pairs_of_conditions
from .scores.transfer import Baselines, baselines, pairs
from .settings.names import check_file_name


@command
def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    start = time.perf_counter()
    name = check_file_name(options.name or options.score, "--name")
    asked = Asked(options)
    results = list(SCORES[options.score](asked))
    results = [dataclasses.replace(r, findings=(*r.findings, *asked.findings)) for r in results]
    write_results(results, options.output / "scores", name, not options.no_figures)
    for result in results:
        seconds = time.perf_counter() - start
        of = result.condition or result.name
        for line in (*(check.line() for check in getattr(result, "checks", ())), *result.findings):
            tell(f"{of}: {line}")
        print("  ".join(filter(None, [result.name, result.condition, headline(result), f"{seconds:.1f} s"])))
    return 0


def tell(line: str) -> None:
    print(line, file=sys.stderr)


class Asked:
    """What the command line asked for: its options, the recipe's where one is left open, and profiles as they are read."""

    def __init__(self, options: argparse.Namespace) -> None:
        recipe = load_recipe(options.recipe)
        self.options = options
        self.seed: int = options.seed
        self.draws = recipe.score.draws if options.draws is None else int(options.draws)
        null_wells = str(getattr(options, "null_wells", None) or recipe.score.null_wells)
        self.null_wells = int(null_wells) if null_wells.isdecimal() else null_wells
        self.selection = selection_of(options, recipe)
        self.findings: list[str] = []  # about how controls were held out, of all that was read

    def read(self, plates: Sequence[str]) -> Selected:
        selected = self.selection.read(plates, tell)
        self.findings += selected.held_out.findings
        return selected

    def conditions(self, design: bool = True) -> Iterator[tuple[Selected, str, pd.DataFrame]]:
        """The profiles of --plate by condition; what their design means for a score is said first."""
        selected = self.read(self.options.plate)
        for condition, rows in selected.conditions():
            for line in selected.design_findings(rows, condition) if design else ():
                tell(line)
            yield selected, condition, rows

    def sides(self) -> Iterator[tuple[str, tuple[Selected, pd.DataFrame], tuple[Selected, pd.DataFrame] | None]]:
        """Each condition of --plate with each of --against that agrees in the --same columns, or alone."""
        if not self.options.against:
            if stray := [s for s in self.options.same if s not in self.options.by]:
                raise ValueError(f"--same {stray[0]} is not a column of --by")
            yield from ((condition, (selected, rows), None) for selected, condition, rows in self.conditions(design=False))
            return
        first, second = self.read(self.options.plate), self.read(self.options.against)
        for condition, rows, others in pairs_of_conditions(first, second, self.options.same):
            yield condition, (first, rows), (second, others)


def score_replicating(asked: Asked) -> Iterator[Score]:
    for selected, condition, rows in asked.conditions():
        yield percent_replicating(
            rows,
            selected.group,
            condition,
            asked.null_wells,
            asked.draws,
            asked.seed,
            selected.features,
            asked.options.null,
            judging_controls((selected, rows)),
        )


def score_matching(asked: Asked) -> Iterator[Score]:
    for condition, (selected, rows), other in asked.sides():
        for line in selected.design_findings(rows, condition):
            tell(line)
        label = asked.options.label
        label, said = conventions.choose_label(rows, column_name(label) if label else None)
        for line in conventions.one_line(said):
            tell(f"{condition or 'plates'}: {line}")
        yield percent_matching(
            rows,
            None if other is None else other[1],
            label,
            selected.group,
            condition,
            asked.draws,
            asked.seed,
            selected.features,
            judging_controls((selected, rows), *([] if other is None else [other])),
        )


def replicability(asked: Asked, selected: Selected, condition: str, rows: pd.DataFrame) -> MeanPrecision:
    return maps.replicability(
        rows,
        selected.group,
        condition,
        asked.options.null_size,
        asked.seed,
        selected.features,
        asked.options.null,
        judging_controls((selected, rows)),
    )


def score_map(asked: Asked) -> Iterator[MeanPrecision]:
    options = asked.options
    for selected, condition, rows in asked.conditions():
        keep = None
        if options.label is None or options.keep != "all":
            precision = replicability(asked, selected, condition, rows)
            if options.label is None:
                yield precision
                continue
            keep = list(precision.table.loc[precision.table[f"retrieved_{options.keep}"], selected.group])
        yield maps.matching(
            rows,
            str(column(rows, options.label).name),
            selected.group,
            keep,
            column_name(options.across) if options.across else None,
            condition,
            options.null_size,
            asked.seed,
            selected.features,
            judging_controls((selected, rows)),
        )


def score_hits(asked: Asked) -> Iterator[Hits]:
    options = asked.options
    for selected, condition, rows in asked.conditions():
        label = None if options.label is None else str(column(rows, options.label).name)
        precision = replicability(asked, selected, condition, rows)
        yield hits(precision, rows, label, options.toxic, options.convention)


def score_dose(asked: Asked) -> Iterator[Hits]:
    for selected, condition, rows in asked.conditions():
        dose = str(column(rows, asked.options.dose).name)
        yield dose_response(rows, selected.group, dose, condition, asked.options.toxic, selected.features)


def score_embed(asked: Asked) -> Iterator[Picture]:
    for selected, condition, rows in asked.conditions(design=False):
        yield embed(rows, selected.group, asked.options.method, condition, asked.seed, selected.features)


def score_similarity(asked: Asked) -> Iterator[Picture]:
    for selected, condition, rows in asked.conditions(design=False):
        yield similarity(rows, selected.group, condition, selected.features)


def score_transfer(asked: Asked) -> Iterator[Baselines]:
    for condition, (selected, rows), other in asked.sides():
        assert other is not None  # --against is required
        matched = pairs(rows, other[1], selected.group, seed=asked.seed, also=selected.features)
        yield baselines(matched, condition, {"on": selected.group, "seed": asked.seed})


SCORES: dict[str, Callable[[Asked], Iterator[Any]]] = {
    "replicating": score_replicating,
    "matching": score_matching,
    "map": score_map,
    "hits": score_hits,
    "dose": score_dose,
    "embed": score_embed,
    "similarity": score_similarity,
    "transfer": score_transfer,
}


if __name__ == "__main__":
    sys.exit(run_command(main))
