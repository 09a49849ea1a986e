"""Plates to their stores: one after another in this process, or their wells over worker processes."""

import os
from collections.abc import Iterator, Sequence

from ..cli.options import MASK_PATTERN, Options, options_from
from ..cli.progress import Progress
from ..gpu.open import open_device
from ..images.locate import find_source
from ..images.plate import Plate
from ..settings.config import Config
from ..storage.buckets import RemotePath
from ..store.outline_pictures import PictureStyle
from ..store.reader import StoredPlate, open_plate
from .label_images import segment_plate
from .plate import Outcome, chosen_wells, extract_plate, say_blurred, say_empty

StrPath = str | os.PathLike[str]


def extract(
    plate: str,
    images: StrPath | None = None,
    *,
    wells: Sequence[str] | None = None,
    sites: Sequence[int] | None = None,
    output: StrPath | RemotePath = ".",
    config: StrPath | Config | None = None,
    illumination: StrPath = "auto",
    masks: StrPath | None = None,
    mask_pattern: str = MASK_PATTERN,
    grow_cells: bool = False,
    save_labels: bool = False,
    save_overview: bool = False,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    batch: int | None = None,
    cache: StrPath | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
    strict: bool = False,
    quiet: bool = False,
    log_json: bool = False,
) -> StoredPlate:
    """Measure a plate's images into `<output>/<plate>.zarr`, and open that. A run that was stopped goes on where it stopped.

    Parameters
    ----------
    plate : str
        Barcode.
    images : path or URL, optional
        Folder that holds the plate's folder, that folder, a load_data.csv, an OME-Zarr plate, or an s3:// URL. Where None,
        the configured root, and without one the Cell Painting Gallery.
    wells, sites : sequences, optional
        Only these, as `["D14"]` and `[1, 2]`; all where None.
    output : path or URL
        Holds `<plate>.zarr`, `illum/` and `quarantine.csv`.
    config : path, preset name or Config, optional
        Settings; the preset `cpjump1` where None.
    illumination : str
        `estimate` over the plate, `flatfield` (Harmony's), `none`, a folder of functions, or `auto`: those that the gallery
        has for the plate, else the estimate.
    masks : path, optional
        Folder of label images that are measured in place of a segmentation; `mask_pattern` says how they are named.
    grow_cells : bool
        Where the label images are nuclei alone: find cells around them by `[segmentation.cells]`. Without it such nuclei are
        measured by themselves.
    save_labels, save_overview : bool
        Store the label images, and each site at an eighth of its size, as OME-Zarr.
    device : str
        `cpu`, `cuda`, `cuda:N`, or `auto`.
    threads : int, optional
        That decode, and that compute on a CPU; all processors where None.
    workers, scheduler : optional
        Share the wells among so many processes of this machine, or among the workers of a Dask scheduler.
    batch : int, optional
        Fields computed together; chosen from the free memory where None.
    cache : path, optional
        Keeps what is read from a bucket.
    overwrite, retry_quarantined, strict : bool
        Measure finished wells again; those that a site was left out of; stop at an image that cannot be used instead of
        leaving its site out.
    quiet, log_json : bool
        No progress on stderr; events there as JSON.

    Returns
    -------
    StoredPlate
        The plate, opened for reading. What is wrong with its images stands in `quarantine`.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        For bad use, before anything is written.
    BlockingIOError
        While another run has one of the wells.
    OSError
        Where the disk fails. What was finished stays.

    Examples
    --------
    >>> plate = jumpgpu.extract("BR00117010", images="/data/images", wells=["D14"])  # doctest: +SKIP
    """
    chosen = options_from({k: v for k, v in locals().items() if k != "plate"})
    result = find_source(plate, chosen.images_root, chosen.config.plate, chosen.cache)
    list(extract_plates([result], chosen))
    return open_plate(chosen.output / f"{result.barcode}.zarr", chosen.images_root)


def segment(
    plate: str,
    images: StrPath | None = None,
    *,
    wells: Sequence[str] | None = None,
    sites: Sequence[int] | None = None,
    output: StrPath | RemotePath = "labels",
    config: StrPath | Config | None = None,
    illumination: StrPath = "auto",
    outlines: bool | PictureStyle = False,
    device: str = "auto",
    threads: int | None = None,
    batch: int | None = None,
    cache: StrPath | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
    strict: bool = False,
    quiet: bool = False,
    log_json: bool = False,
) -> StoredPlate:
    """Find the cells of a plate: label images as OME-Zarr in `<output>/<plate>.zarr`, and no features.

    Parameters
    ----------
    plate, images, wells, sites, output, config, illumination : as `extract` has them
    outlines : bool or PictureStyle
        Write `<output>/<plate>_outlines/<well>_s<site>.png` too; `store.outline_pictures.PictureStyle` says which channels,
        whether as panels, and PNG or SVG.
    device, threads, batch, cache, overwrite, retry_quarantined, strict, quiet, log_json : as `extract` has them

    Returns
    -------
    StoredPlate
        The plate, whose `labels(well, site)` are uint16 or uint32 images [H, W] of nuclei, cells and cytoplasm.

    Raises what `extract` does.
    """
    chosen = options_from({k: v for k, v in locals().items() if k not in ("plate", "outlines")})
    result = find_source(plate, chosen.images_root, chosen.config.plate, chosen.cache)
    style = outlines if isinstance(outlines, PictureStyle) else PictureStyle() if outlines else None
    segment_plate(result, chosen, open_device(chosen.device, chosen.threads), style)
    return open_plate(chosen.output / f"{result.barcode}.zarr", chosen.images_root)


def extract_plates(plates: Sequence[Plate], options: Options) -> Iterator[Outcome]:
    """Plates one after another in this process, or their wells over worker processes."""
    if options.distributed:
        from .dask_scheduler import spread

        wells = {plate.barcode: chosen_wells(plate, options) for plate in plates}
        by_barcode = {plate.barcode: plate for plate in plates}
        for figures in spread(wells, options):
            done = Outcome(**figures)
            progress = Progress(done.plate, 0, options.quiet, options.log_json)
            say_empty(done, by_barcode[done.plate], wells[done.plate], options, progress)
            say_blurred(done.plate, options, progress)
            yield done
        return
    device = open_device(options.device, options.threads)
    for plate in plates:
        yield extract_plate(plate, options, device)
