"""The plate's page: `python -m jumpgpu.report PLATE` writes one HTML file that needs nothing else."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.exit_status import command, run_command
from .cli.parser import add_plates, command_parser
from .outputs.multiqc import multiqc
from .outputs.plate_page import report
from .storage.atomic import write_whole
from .store.reader import open_plate


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "report",
        "Write a plate's page: one HTML file that needs nothing else, with treatments by effect, heat maps, pictures of "
        "every channel, a map of the wells, the worst images, scores, and how the numbers were made. It works offline, by "
        "keyboard and on a phone. A folder with several pages gets an index.html too.",
        "jumpgpu report out/BR00117010 --metadata metadata --scores out/scores/replicating.json",
    )
    add = output.add_argument
    add_plates(output, "a plate's .zarr folder, its path without the suffix, or a barcode in --output")
    add("--output", type=Path, metavar="DIR", help="where <plate>.html goes (default: beside the plate)")
    add("--metadata", type=Path, metavar="DIR", help="folder of plate maps and treatments")
    add("--scores", type=Path, nargs="*", default=[], metavar="FILE", help=".json files that jumpgpu score wrote")
    add(
        "--pictures",
        default="auto",
        choices=("auto", "all", "first", "none"),
        help="sites of a well shown: all, first, none, or auto: all of a plate of up to 800 sites (default: %(default)s)",
    )
    add("--images", metavar="PATH", help="raw images of the plates: sharper pictures, and a larger file")
    add(
        "--plane",
        default="auto",
        choices=("auto", "pca", "umap"),
        help="how wells are laid out in a plane; auto is umap where umap-learn is installed (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace a page that shows more than the new one would")
    add("--multiqc", type=Path, metavar="FILE", help="write a table of the plates for MultiQC, *_mqc.json, and no page")
    return output


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 done, 2 bad use."""
    options = parser().parse_args(argv)
    plates = [in_output(plate, options.output) for plate in options.plates]
    if options.multiqc:
        write_whole(options.multiqc, multiqc([open_plate(path) for path in plates]))
        print(options.multiqc)
        return 0
    for path in plates:
        page = report(
            path,
            options.output,
            metadata=options.metadata,
            scores=options.scores,
            pictures=options.pictures,
            images=options.images,
            plane=options.plane,
            overwrite=options.overwrite,
        )
        print(f"{page.stem}  {page}  {page.stat().st_size / 1e6:.1f} MB", flush=True)
    if (index := page.with_name("index.html")).is_file() and len(options.plates) > 1:
        print(f"{len(options.plates)} plates  {index}")
    print("next: open it in a browser; it is one file that can be sent to anybody", file=sys.stderr)
    return 0


def in_output(plate: str, output: Path | None) -> str:
    """The plate; or, of a barcode that is nowhere else, that in the output folder, where `profile` and `score` look."""
    if output is None or Path(plate).exists() or Path(f"{plate}.zarr").exists() or not (output / f"{plate}.zarr").is_dir():
        return plate
    return str(output / f"{plate}.zarr")


if __name__ == "__main__":
    sys.exit(run_command(main))
