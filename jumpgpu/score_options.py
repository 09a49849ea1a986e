"""Options of `jumpgpu score` and its subcommands."""

import argparse
from pathlib import Path

from .cli.parser import add_parser, add_plates, command_parser
from .profiles.design_checks import FORMATS
from .profiles.files import TABLES
from .profiles.platemap import SAMPLE
from .profiles.recipe import Recipe
from .scores import mean_average_precision as maps
from .scores.embedding import METHODS
from .scores.hits import TOXIC
from .scores.percent_matching import LABEL
from .scores.selection import Selection
from .settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS, FAMILIES


def parser() -> argparse.ArgumentParser:
    produced = command_parser(
        "score",
        "Score profiles against seeded nulls, condition by condition: a table, JSON and figures.",
        "jumpgpu score replicating BR00117010 BR00117011 --output out",
        "jumpgpu score map --help",
    )
    commands = produced.add_subparsers(dest="score", required=True, metavar="SCORE")

    one = add_parser(
        commands,
        "replicating",
        "Percent Replicating: whether replicates are more alike than other wells",
        "jumpgpu score replicating BR00117010 BR00117011 --output out",
    )
    add_common(one)
    one.add_argument(
        "--null-wells",
        metavar="N",
        help="wells per set: a number, typical (the median group's) or matched (default: the recipe's)",
    )

    add_null(one)

    one = add_parser(
        commands,
        "matching",
        "Percent Matching: whether treatments of one gene are more alike than others",
        "jumpgpu score matching BR00117010 BR00117011 --output out",
    )
    add_common(one)
    add_against(one)
    one.add_argument(
        "--label", metavar="COLUMN", help=f"column of labels that match, several as a|b (default: {LABEL}, or by convention)"
    )

    one = add_parser(
        commands,
        "map",
        "mean average precision by copairs, both p-value conventions",
        "jumpgpu score map BR00117010 BR00117011 --output out",
    )
    add_common(one)
    one.add_argument(
        "--label", metavar="COLUMN", help="score matching by this column (several labels: a|b) instead of replicability"
    )
    one.add_argument(
        "--across", metavar="COLUMN", help="column in which the two treatments of a pair must differ, such as Perturbation"
    )
    one.add_argument(
        "--keep",
        choices=(*maps.CONVENTIONS, "all"),
        default="map",
        help="treatments to match: retrieved by (default: %(default)s)",
    )
    one.add_argument(
        "--null-size", type=int, default=maps.NULL_SIZE, metavar="N", help="random rankings (default: %(default)s)"
    )

    add_null(one)

    one = add_parser(
        commands,
        "hits",
        "one table of treatments: retrieved or not, checked by position, what they do to the number of cells, by label",
        "jumpgpu score hits BR00117010 BR00117011 --output out --label gene",
    )
    add_common(one)
    one.add_argument("--label", metavar="COLUMN", help="count treatments by this column too, such as gene (several: a|b)")
    one.add_argument(
        "--convention", choices=maps.CONVENTIONS, default="map", help="p-value that makes a hit (default: %(default)s)"
    )
    one.add_argument(
        "--null-size", type=int, default=maps.NULL_SIZE, metavar="N", help="random rankings (default: %(default)s)"
    )
    add_toxic(one)
    add_null(one)

    one = add_parser(
        commands,
        "dose",
        "how strong profiles are at each dose of a treatment, and at which dose cells die",
        "jumpgpu score dose SQ00015054.csv.gz --dose mmoles_per_liter --output out",
    )
    add_common(one)
    one.add_argument("--dose", required=True, metavar="COLUMN", help="column of doses, such as mmoles_per_liter")
    add_toxic(one)

    one = add_parser(
        commands,
        "embed",
        "wells in a plane, by principal components or UMAP: data for a picture",
        "jumpgpu score embed BR00117010 BR00117011 --output out --method umap",
    )
    add_common(one)
    one.add_argument("--method", choices=METHODS, default="pca", help="umap needs jumpgpu[umap] (default: %(default)s)")

    one = add_parser(
        commands,
        "similarity",
        "how alike every two wells are, replicates side by side: data for a heat map",
        "jumpgpu score similarity BR00117010 BR00117011 --output out",
    )
    add_common(one)

    one = add_parser(
        commands,
        "transfer",
        "predict profiles of one condition from another: the scores of the baselines",
        "jumpgpu score transfer BR00117010 --against BR00117020 --output out --by Cell_type",
    )
    add_common(one)
    add_against(one, required=True)
    return produced


def add_common(command: argparse.ArgumentParser) -> None:
    """What every score takes: profiles, conditions, subsets, null, output."""
    add = command.add_argument_group("profiles").add_argument
    add_plates(command, "barcodes, or profile files")
    add(
        "--table",
        choices=TABLES,
        metavar="NAME",
        help="which table of a barcode (default: of the last step, by negative controls before all wells)",
    )
    add(
        "--group",
        metavar="COLUMN",
        help=f"column that names the treatment; several as A,B (default: {SAMPLE}, or by convention)",
    )
    add("--metadata", type=Path, metavar="DIR", help="folder with experiment-metadata.tsv (default: <output>/metadata)")
    add("--treatments", type=Path, metavar="FILE", help="treatment table, which adds columns such as target_list")
    add("--batch", metavar="NAME", help="batch to take from the experiment table where a barcode is in several")
    add("--plate-column", metavar="COLUMN", help="column that names the plate (default: Metadata_Plate, or by convention)")
    add("--well-column", metavar="COLUMN", help="column that names the well (default: Metadata_Well, or by convention)")
    add = command.add_argument_group("conditions and subsets").add_argument
    add(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column that separates conditions, such as Cell_type (repeatable)",
    )
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such plates or wells (repeatable)")
    add(
        "--control",
        action="append",
        metavar="COLUMN=VALUE",
        help="wells that are negative controls (repeatable; default: the recipe's, Metadata_control_type=negcon)",
    )
    add("--inner", action="store_true", help="leave out the two rows and columns nearest the edge")
    add("--plate-format", type=int, choices=FORMATS, help="wells of a plate (default: 384)")
    add(
        "--channel",
        action="append",
        default=[],
        choices=(*CHANNELS, *BRIGHTFIELD),
        metavar="CHANNEL",
        help="only these features (repeatable)",
    )
    add(
        "--without-channel",
        action="append",
        default=[],
        choices=(*CHANNELS, *BRIGHTFIELD),
        metavar="CHANNEL",
        help="leave out features of this channel (repeatable)",
    )
    add("--fluorescence", action="store_true", help="leave out features of brightfield channels")
    add(
        "--family",
        action="append",
        default=[],
        choices=FAMILIES,
        metavar="FAMILY",
        help="only features of this family, such as Texture (repeatable)",
    )
    add("--compartment", action="append", default=[], choices=COMPARTMENTS, help="only these features (repeatable)")
    add(
        "--features",
        action="append",
        metavar="PATTERN",
        help="columns that are features besides those of Cells, Cytoplasm and Nuclei, such as 'efficientnet_*' (repeatable)",
    )
    add = command.add_argument_group("null and output").add_argument
    add(
        "--recipe",
        default="jumpgpu",
        metavar="FILE",
        help="recipe whose [score] says how nulls are drawn (default: %(default)s)",
    )
    add("--draws", type=int, metavar="N", help="sets or pairs in the null (default: the recipe's)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random null (default: %(default)s)")
    add("--output", type=Path, default=Path("."), metavar="DIR", help="holds profiles/, gets scores/ (default: .)")
    add("--name", metavar="NAME", help="name of the result files (default: the score's)")
    add("--no-figures", action="store_true", help="write the table and JSON only")


def add_toxic(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--toxic",
        type=float,
        default=TOXIC,
        metavar="SHARE",
        help="share of the controls' cells below which a treatment is flagged as toxic (default: %(default)s)",
    )


def add_null(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--null",
        choices=("wells", "position"),
        default="wells",
        help="what treatments are judged against: wells of other treatments or controls (wells; default), or wells of one "
        "position, of different treatments where the layouts allow it and negative controls otherwise",
    )


def add_against(command: argparse.ArgumentParser, required: bool = False) -> None:
    help = "plates of the other side, such as another modality" + ("" if required else " (default: pairs within --plate)")
    command.add_argument("--against", action="append", default=[], required=required, metavar="PLATE", help=help)
    command.add_argument(
        "--same",
        action="append",
        default=[],
        metavar="COLUMN",
        help="pair only conditions with the same value in this --by column",
    )


def selection_of(options: argparse.Namespace, recipe: Recipe) -> Selection:
    """The profiles that the options of `add_common` choose, and the recipe where they leave something open."""
    return Selection(
        output=options.output,
        table=options.table,
        group=options.group,
        metadata=options.metadata,
        treatments=options.treatments,
        batch=options.batch,
        plate_column=options.plate_column,
        well_column=options.well_column,
        by=options.by,
        where=options.where,
        control=tuple(options.control or recipe.controls),
        inner=options.inner,
        plate_format=options.plate_format,
        channels=options.channel,
        without_channels=(*options.without_channel, *(BRIGHTFIELD if options.fluorescence else ())),
        families=options.family,
        compartments=options.compartment,
        features=tuple(options.features or recipe.features),
    )
