"""Where a plate's images are: a folder here, a bucket, an OME-Zarr plate, or, if nobody says, the Cell Painting Gallery."""

from pathlib import Path

from ..settings.config import PlateSettings
from ..settings.names import check_barcode
from ..storage.buckets import Place, RemotePath, place_of
from .gallery import find_in_bucket
from .ome_zarr_planes import open_planes
from .plate import Plate, check_channels, find_plate


def find_source(barcode: str, images: str | Place | None, settings: PlateSettings, cache: Path | None = None) -> Plate:
    """Find a plate wherever `--images` says.

    Parameters
    ----------
    images : a folder or load_data.csv on this machine (`find_plate`), an s3:// URL (`find_in_bucket`), an OME-Zarr plate
        in either (`open_planes`; in a folder also as `<barcode>.ome.zarr`), or None for the gallery.
    cache : folder that keeps what is read from a bucket; None keeps nothing.

    Raises as those do, and ConnectionError where a bucket is out of reach.
    """
    check_barcode(barcode)
    check_channels(settings)
    place = None if images is None else place_of(images)
    if isinstance(place, Path):
        named = [p for p in (place, place / f"{barcode}.ome.zarr") if p.is_dir()]
        return next((p for n in named if (p := open_planes(barcode, n, settings, cache))), None) or find_plate(
            barcode, place, settings
        )
    try:
        if place and place.name.endswith(".zarr") and (plate := open_planes(barcode, place, settings, cache)):
            return plate
        return find_in_bucket(barcode, place if isinstance(place, RemotePath) else None, settings, cache)
    except ConnectionError as error:
        why = "" if images else " (no --images was given, so the Cell Painting Gallery was asked)"
        advice = "check the network and try again, or give --images FOLDER for images on this machine"
        raise ConnectionError(f"{barcode}{why}: {error}; {advice}") from error
