"""What `extract` can be asked: its options, from a command line or from keywords. Light: no stage is imported."""

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..settings.config import Config, load_config
from ..settings.limits import check_all
from ..settings.names import check_barcode, spelled_well, well_position
from ..storage.buckets import Place, place_of
from ..storage.local import check_folder
from .parser import add_plates, command_parser

STATUS = "0 done, 2 bad use, 3 done but for sites that were left out, 75 worth trying again"
MASK_PATTERN = "{well}_s{site}_{compartment}.tiff"


@dataclass(frozen=True)
class Options:
    """What to read, where to write, and how."""

    images: str | None = None  # the configured root where None, and without one the Cell Painting Gallery
    cache: Path | None = None  # keeps what is read from a bucket
    illumination: str = "auto"  # auto, estimate, flatfield, none, or a folder of functions
    output: Place = Path()
    wells: tuple[str, ...] | None = None  # all where None
    sites: tuple[int, ...] | None = None
    device: str = "auto"
    config: Config = field(default_factory=Config)
    masks: Path | None = None  # label images in place of segmentation
    mask_pattern: str = MASK_PATTERN
    grow_cells: bool = False  # of masks that are nuclei alone: cells are found around them
    save_labels: bool = False
    save_overview: bool = False
    threads: int | None = None  # threads that decode, and threads that compute; all processors where None
    workers: int | None = None  # processes on this machine that share the wells; this one does them all where None
    scheduler: str | None = None  # a Dask scheduler whose workers share the wells
    batch: int | None = None  # fields; the config's where None, and chosen by the device where that is None too
    overwrite: bool = False
    retry_quarantined: bool = False  # make wells again that sites were left out of
    strict: bool = False
    quiet: bool = False
    log_json: bool = False  # events as JSON on stderr

    def __post_init__(self) -> None:
        """ValueError for a value that cannot be meant."""
        for well in self.wells or ():
            well_position(well)
        if self.wells == () or self.sites == ():
            raise ValueError("no wells or sites were chosen; leave the option out for all of them")
        for name in ("threads", "workers", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if isinstance(self.output, Path):
            check_folder(self.output)
        if self.masks is not None and not self.masks.is_dir():
            raise FileNotFoundError(f"masks folder {self.masks} does not exist")
        if self.grow_cells and self.masks is None:
            raise ValueError("--grow-cells grows cells from given nuclei; --masks gives them")
        if unknown := sorted(set(re.findall(r"{(.*?)}", self.mask_pattern)) - {"plate", "well", "site", "compartment"}):
            raise ValueError(
                f"mask pattern {self.mask_pattern!r}: unknown {{{unknown[0]}}}; known: plate, well, site, compartment"
            )

    @property
    def distributed(self) -> bool:
        """Whether other processes do the wells."""
        return self.workers is not None or self.scheduler is not None

    @property
    def images_root(self) -> str | None:
        """Where the images are; None where nobody said: in the Cell Painting Gallery."""
        return self.images or self.config.plate.images

    @property
    def fields_a_batch(self) -> int | None:
        return self.batch or self.config.batch


def options_from(given: dict[str, Any]) -> Options:
    """Options from a library user's keywords: paths as text, lists as lists, a config by file or preset name."""
    known = {f.name for f in dataclasses.fields(Options)}
    if unknown := sorted(set(given) - known):
        raise TypeError(f"extract has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    values = dict(given)
    if isinstance(values.get("wells"), str) or isinstance(values.get("sites"), (str, int)):
        raise TypeError('wells and sites are lists: wells=["A01"], sites=[1, 2]')
    for name in ("wells", "sites"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    if values.get("wells"):
        values["wells"] = tuple(dict.fromkeys(spelled_well(well) for well in values["wells"]))
    for name in ("images", "illumination"):
        if values.get(name) is not None:
            values[name] = os.fspath(values[name])
    for name in ("masks", "cache"):
        if values.get(name) is not None:
            values[name] = Path(values[name]).expanduser()
    if values.get("output") is not None:
        values["output"] = place_of(values["output"])
    if not isinstance(values.get("config", Config()), Config):
        values["config"] = Config() if values["config"] is None else load_config(values["config"])
    elif "config" in values:
        check_all(values["config"], "config")
    return Options(**values)


def parser(name: str = "extract") -> argparse.ArgumentParser:
    """The command line of `extract`, or of `segment`, which has its own --output and does all by itself."""
    segment = name == "segment"
    if segment:
        output = command_parser(
            "segment",
            "Find the cells of Cell Painting plates: label images as OME-Zarr, one store per plate, and no features.",
            "jumpgpu segment BR00117010 --images /data/images --outlines",
            status=STATUS,
        )
    else:
        output = command_parser(
            "extract",
            "Measure the cells of Cell Painting plates: images in, one zarr store per plate out. The "
            "same command resumes a run that was stopped.",
            "jumpgpu extract BR00117010 --images /data/images --output out",
            "jumpgpu extract BR00117010 --output out --wells D14      # from the Cell Painting Gallery",
            status=STATUS,
        )
    group = output.add_argument_group("what to read")
    add_plates(output, "barcodes, such as BR00117010", group)
    add = group.add_argument
    add(
        "--images",
        metavar="PATH",
        help="folder with the plates' folders, load_data.csv or s3:// URL (default: the config's, or the public gallery)",
    )
    add("--cache", metavar="DIR", help="keep what is read from a bucket in this folder, and read it from there next time")
    add("--wells", nargs="+", metavar="WELL", help="only these wells: A01 B02, or A01,B02")
    add("--sites", "--fields", nargs="+", metavar="N", help="only these sites: 1 2 3, 1,2,3 or 1-3")
    add("--strict", action="store_true", help="stop at an image that cannot be used instead of leaving its site out")
    add = output.add_argument_group("how to measure").add_argument
    add("--config", metavar="FILE", help="TOML file or preset name (default: cpjump1)")
    if not segment:
        add(
            "--pipeline",
            metavar="FILE",
            action="append",
            help="a CellProfiler pipeline (.cppipe, .cpproj, .json) in place of the preset's steps; repeat it for those "
            "that belong together. Unsupported settings are listed, and stop the run where labels or values would differ",
        )
        add("--accept-differences", action="store_true", help="run such a pipeline without its unsupported settings")
    add(
        "--illumination",
        default="auto",
        metavar="WHAT",
        help="estimate (over the plate), flatfield (Harmony's), none, a folder of functions, or auto: those the gallery has "
        "for the plate, else estimate (default: %(default)s)",
    )
    if not segment:
        add("--masks", metavar="DIR", help="use these label images instead of segmenting; nuclei alone will do")
        add("--grow-cells", action="store_true", help="find cells around masks of nuclei, by [segmentation.cells]")
        add("--mask-pattern", default=MASK_PATTERN, metavar="NAME", help="their file names (default: %(default)s)")
    add = output.add_argument_group("what to write").add_argument
    add(
        "--output",
        default="labels" if segment else ".",
        metavar="DIR",
        help="holds <plate>.zarr, illum/ and quarantine.csv; a folder or an s3:// URL (default: %(default)s)",
    )
    if segment:
        add("--outlines", action="store_true", help="write <plate>_outlines/<well>_s<site>.png too")
        add("--outline-channels", nargs="+", default=[], metavar="NAME", help="show these: one in grey, several as colours")
        add("--outline-panels", action="store_true", help="show each of them in grey, side by side, and the colours last")
        add("--outline-format", choices=("png", "svg"), default="png", help="kind of picture (default: %(default)s)")
        output.set_defaults(save_labels=True, masks=None, mask_pattern=MASK_PATTERN, grow_cells=False)
    else:
        add("--save-labels", action="store_true", help="store the label images, with an overview, as OME-Zarr")
        add("--save-overview", action="store_true", help="store each site at an eighth of its size, as OME-Zarr")
    add("--overwrite", action="store_true", help="measure wells again even if the store already has them")
    add("--retry-quarantined", action="store_true", help="measure wells again from which a site was left out")
    if not segment:
        add(
            "--watch",
            nargs="?",
            type=float,
            const=120.0,
            metavar="SECONDS",
            help="measure wells while the microscope writes, each once its files are complete and have not changed for so "
            "long (default: 120); ends when the plate is complete, or when <output>/<plate>.stop appears",
        )
    add("--dry-run", action="store_true", help="print what would be read and written, and stop")
    add = output.add_argument_group("where to run").add_argument
    add("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads for decoding, and for computing on the CPU (default: all processors, shared by the workers)",
    )
    if not segment:
        add(
            "--workers", type=int, metavar="N", help="share the wells among N processes of this machine; on CUDA one per GPU"
        )
        add("--scheduler", metavar="ADDRESS", help="share the wells among a Dask scheduler's workers (docs/clusters.md)")
    add("--batch", type=int, metavar="N", help="fields computed together (default: chosen from the free memory)")
    add("--quiet", action="store_true", help="no progress on stderr")
    add("--log-json", action="store_true", help="JSON objects on stderr, one per line: batches, wells, quarantine, summary")
    return output


def parse(arguments: Sequence[str] | None = None) -> tuple[list[str], Options, bool]:
    """Barcodes, options and whether it is a dry run, from a command line. Bad use exits with status 2."""
    return settle(given(arguments))


def given(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line of `extract` as it stands."""
    return vars(parser().parse_args(arguments))


def settle(given: dict[str, Any]) -> tuple[list[str], Options, bool]:
    """What `parse` returns, from the parser's values."""
    barcodes, dry_run = list(dict.fromkeys(map(check_barcode, given.pop("plate")))), given.pop("dry_run")
    for name in ("plates", "pipeline", "accept_differences", "watch"):  # the command's own
        given.pop(name, None)
    if given["wells"]:
        given["wells"] = [w for text in given["wells"] for w in text.replace(",", " ").split()]
    if given["sites"]:
        given["sites"] = [n for text in given["sites"] for part in text.replace(",", " ").split() for n in numbers(part)]
    return barcodes, options_from(given), dry_run


def numbers(text: str) -> list[int]:
    """`3` or `1-4` to site numbers."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if not match:
        raise ValueError(f"{text!r} is not a site number; expected 3, or 1-4")
    return list(range(int(match[1]), int(match[2] or match[1]) + 1))
