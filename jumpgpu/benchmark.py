"""`python -m jumpgpu.benchmark`: representations of the same wells side by side, on CPJUMP1's tasks."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .profiles import conventions
from .profiles.platemap import column_name
from .profiles.recipe import load_recipe
from .score_options import add_against, add_common, selection_of
from .scores.benchmark import ALL, TASKS, Benchmark, benchmark
from .scores.benchmark_page import write_benchmark
from .scores.mean_average_precision import NULL_SIZE
from .scores.selection import judging_controls, pairs_of_conditions
from .scores.transfer import SPLITS
from .settings.names import check_file_name


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "benchmark",
        "Judge every representation that profiles hold (classical features by family and compartment, each network's "
        "embedding, both together, the number of cells alone) on the same wells: one table, one figure, one page.",
        "jumpgpu benchmark BR00117010 BR00117011 --label gene --output out",
        "jumpgpu benchmark A549a A549b --against U2OSa --against U2OSb --output out",
    )
    add_common(output)
    add_against(output)
    add = output.add_argument_group("tasks").add_argument
    add("--task", action="append", choices=TASKS, metavar="TASK", help=f"{', '.join(TASKS)} (repeatable; default: all)")
    add("--label", metavar="COLUMN", help="column of labels that match, several as a|b (default: by convention)")
    add("--only", action="append", metavar="NAME", help="this representation, such as classical or Texture (repeatable)")
    add("--split", choices=(ALL, *SPLITS), default=ALL, help="only treatments of this part, by name and seed (default: all)")
    add("--null-wells", metavar="N", help="wells per set: a number, typical or matched (default: the recipe's)")
    add("--null-size", type=int, default=NULL_SIZE, metavar="N", help="random rankings of mAP (default: %(default)s)")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(arguments)
    start = time.perf_counter()
    name = check_file_name(options.name or "benchmark", "--name")
    results = judge(options)
    files = write_benchmark(results, options.output / "scores", name, not options.no_figures)
    for result in results:
        for line in result.findings:
            tell(line)
        for row in result.table.to_dict("records"):
            where = "  ".join(filter(None, [row["condition"], row["task"], row["measure"]]))
            print(f"{where}  {row['representation']}  {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    print(f"{files[-1]}  {time.perf_counter() - start:.1f} s")
    return 0


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def judge(options: argparse.Namespace) -> list[Benchmark]:
    """A benchmark per condition, or per pair of conditions."""
    recipe = load_recipe(options.recipe)
    selection = selection_of(options, recipe)
    wanted = str(options.null_wells or recipe.score.null_wells)
    first = selection.read(options.plate, tell)
    if options.against:
        second = selection.read(options.against, tell)
        sides = [(c, rows, others) for c, rows, others in pairs_of_conditions(first, second, options.same)]
    else:
        second = None
        sides = [(condition, rows, None) for condition, rows in first.conditions()]
    held = dict.fromkeys(f for side in (first, second) if side is not None for f in side.held_out.findings)
    results = []
    for condition, rows, others in sides:
        for line in first.design_findings(rows, condition):
            tell(line)
        label = column_name(options.label) if options.label else None
        if "matching" in (options.task or TASKS):
            try:
                label, said = conventions.choose_label(rows, label)
            except ValueError as error:
                if options.label:
                    raise
                label, said = None, [f"nothing is matched: {error}"]
            for line in said if label is None else conventions.one_line(said):
                tell(f"{condition or 'plates'}: {line}")
        judged = [(first, rows)] if second is None or others is None else [(first, rows), (second, others)]
        result = benchmark(
            rows,
            others,
            group=first.group,
            label=label,
            condition=condition,
            tasks=options.task or TASKS,
            only=options.only,
            split=options.split,
            null_wells=int(wanted) if wanted.isdecimal() else wanted,
            draws=recipe.score.draws if options.draws is None else options.draws,
            null_size=options.null_size,
            seed=options.seed,
            also=first.features,
            controls=judging_controls(*judged),
            advance=lambda name: tell(f"judging {name}"),
        )
        results.append(dataclasses.replace(result, findings=(*result.findings, *held)))
    return results


if __name__ == "__main__":
    sys.exit(run_command(main))
