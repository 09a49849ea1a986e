"""Small plates on disk for tests: noise images under Phenix names, with or without an index."""

from pathlib import Path

import numpy as np
import tifffile

from jumpgpu.settings.names import well_position

NUMBERS = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}
STAINS = {1: "Alexa 647", 2: "Alexa 568", 3: "488 long", 4: "Alexa 488", 5: "HOECHST 33342"}
SHAPE = 40, 56


def image_name(well: str, site: int, channel: int, plane: int = 1) -> str:
    row, column = well_position(well)
    return f"r{row:02d}c{column:02d}f{site:02d}p{plane:02d}-ch{channel}sk1fk1fl1.tiff"


def noise(well: str, site: int, channel: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """The image of a site, known from its name."""
    row, column = well_position(well)
    return np.random.default_rng([row, column, site, channel]).integers(200, 3000, shape, dtype=np.uint16)


def write_tiff(path: Path, image: np.ndarray, **options: object) -> None:
    tifffile.imwrite(path, image, **{"compression": "lzw", "photometric": "minisblack", "metadata": None, **options})


def write_plate(
    root: Path,
    barcode: str = "BR00000001",
    wells: tuple[str, ...] = ("A01", "B03"),
    sites: tuple[int, ...] = (1, 2, 5),
    shape: tuple[int, int] = SHAPE,
) -> Path:
    """A measurement folder with five images per site; returns its Images folder."""
    images = root / f"{barcode}__2020-11-08T18_18_00-Measurement1" / "Images"
    images.mkdir(parents=True)
    for well in wells:
        for site in sites:
            for channel in NUMBERS.values():
                write_tiff(images / image_name(well, site, channel), noise(well, site, channel, shape))
    return images


def index_xml(
    wells: tuple[str, ...] = ("A01", "B03"),
    sites: tuple[int, ...] = (1, 2, 5),
    stains: dict[int, str] = STAINS,
    name: str = "BR00000001",
    namespace: str = "http://www.perkinelmer.com/PEHH/HarmonyV5",
    extra: str = "",
    planes: tuple[int, ...] = (1,),
    shape: tuple[int, int] = SHAPE,
    url: str | None = None,
) -> str:
    """A Harmony index of such a plate."""
    images = []
    for well in wells:
        row, column = well_position(well)
        for site in sites:
            for channel, stain in stains.items():
                for plane in planes:
                    images.append(
                        f"<Image Version='1'><id>x</id><URL>{url or image_name(well, site, channel, plane)}</URL>"
                        f"<Row>{row}</Row><Col>{column}</Col><FieldID>{site}</FieldID><PlaneID>{plane}</PlaneID>"
                        f"<TimepointID>0</TimepointID><ChannelID>{channel}</ChannelID><ChannelName>{stain}</ChannelName>"
                        f"<ImageResolutionX Unit='m'>5.9E-07</ImageResolutionX><ImageSizeX>{shape[1]}</ImageSizeX>"
                        f"<ImageSizeY>{shape[0]}</ImageSizeY><PositionX Unit='m'>{site}E-06</PositionX>"
                        f"<PositionY Unit='m'>-{site}E-06</PositionY></Image>"
                    )
    return (
        f"<?xml version='1.0' encoding='utf-8'?><EvaluationInputData xmlns='{namespace}'><Plates><Plate><Name>{name}</Name>"
        f"</Plate></Plates><Maps><Map>{extra}</Map></Maps><Images>{''.join(images)}</Images></EvaluationInputData>"
    )


def load_data_csv(
    folder: str,
    barcode: str = "BR00000001",
    wells: tuple[str, ...] = ("A01", "B03"),
    sites: tuple[int, ...] = (1, 2, 5),
) -> str:
    """A load_data.csv of such a plate with every PathName `folder`."""
    channels = list(NUMBERS)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    header += [f"{kind}_Orig{c}" for c in channels for kind in ("FileName", "PathName")]
    rows = [",".join(header)]
    for well in wells:
        for site in sites:
            cells = [barcode, well, str(site)]
            for c in channels:
                cells += [image_name(well, site, NUMBERS[c]), folder]
            rows.append(",".join(cells))
    return "\n".join(rows) + "\n"
