"""`python -m jumpgpu.tables`: what a metadata folder holds, as CPJUMP1's tables: compounds by targets, genes by reagents.

The files say which genes a compound is known to hit and which reagents were made for a gene. They do not say which family
a gene belongs to, so a table of genes by family cannot be made from them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .profiles.files import write_table
from .profiles.platemap import read_treatments
from .profiles.text_tables import as_text, split_labels

BINS = (1, 2, 3, 4, 5, 10, 20, 50)  # targets: each first number of a row


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "tables",
        "Print what a metadata folder holds, as CPJUMP1's tables: compounds by number of targets, genes by number of "
        "reagents.",
        "jumpgpu tables --metadata metadata",
    )
    output.add_argument("--metadata", type=Path, required=True, metavar="DIR", help="metadata folder with external/*.tsv")
    output.add_argument("--output", type=Path, metavar="DIR", help="write the tables there as Parquet too")
    return output


@command
def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    read = read_folder(options.metadata)
    tables = count_tables(read)
    for table in read.values():
        for finding in table.attrs["findings"]:
            print(finding, file=sys.stderr)
    for name, table in tables.items():
        print(f"{name}\n{table.to_string(index=False)}\n")
        if options.output:
            write_table(table, options.output / f"{name}.parquet")
    print("genes by family: not in these files", file=sys.stderr)
    return 0


def make_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables that the folder's treatment tables allow; FileNotFoundError where there is none."""
    return count_tables(read_folder(folder))


def read_folder(folder: Path) -> dict[str, pd.DataFrame]:
    """The folder's treatment tables by name; FileNotFoundError where there is none."""
    tables = {p.stem: read_treatments(p) for p in sorted((folder / "external").glob("*.tsv"))}
    if not tables:
        raise FileNotFoundError(f"{folder / 'external'}: no treatment table (*.tsv)")
    lists = [name for name, t in tables.items() if "target_list" in t]
    for name in lists[1:]:
        tables[name].attrs["findings"].append(f"{name}: not counted, compounds by targets are of {lists[0]}")
    return tables


def count_tables(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Compounds by targets and genes by reagents, of treatment tables by name."""
    output = {}
    if lists := [t for t in tables.values() if "target_list" in t]:
        output["compounds_by_targets"] = compounds_by_targets(lists[0])
    genes = {modality(name): t for name, t in tables.items() if "gene" in t and "target_list" not in t}
    if genes:
        output["genes_by_reagents"] = genes_by_reagents(genes)
    return output


def modality(name: str) -> str:
    """`JUMP-Target-1_crispr_metadata` to `crispr`."""
    return name.removesuffix("_metadata").rsplit("_", 1)[-1]


def compounds_by_targets(compounds: pd.DataFrame) -> pd.DataFrame:
    """Compounds by their number of known targets: targets, compounds, percent. Controls without targets are left out."""
    labels = split_labels(compounds["target_list"])
    counts = labels[compounds["broad_sample"].notna() & (labels != ())].map(len)
    rows = []
    for low, high in zip(BINS, (*(b - 1 for b in BINS[1:]), None), strict=True):
        inside = (counts >= low) & (counts <= high if high else True)
        words = f"{low}" if low == high else (f"{low}-{high}" if high else f">= {low}")
        rows.append({"targets": words, "compounds": int(inside.sum()), "percent": round(100 * float(inside.mean()), 1)})
    return pd.DataFrame(rows)


def genes_by_reagents(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Genes by how many reagents of each modality they have: reagents, then a column of genes a modality."""
    counts = {}
    for name, table in tables.items():
        reagents = table[table["broad_sample"].notna() & table["gene"].notna()].assign(gene=as_text(table["gene"]))
        if "control_type" in reagents:
            reagents = reagents[as_text(reagents["control_type"]) != "negcon"]
        counts[name] = reagents.groupby("gene")["broad_sample"].nunique().value_counts()
    sizes = sorted(set().union(*(c.index for c in counts.values())))
    columns = {name: [int(c.get(n, 0)) for n in sizes] for name, c in counts.items()}
    return pd.DataFrame({"reagents": sizes, **columns})


if __name__ == "__main__":
    sys.exit(run_command(main))
