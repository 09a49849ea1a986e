"""What a TIFF's tags say about its grey values, and what becomes of it: the table of docs/plates.md.

Every tag of TIFF 6.0 and of its supplements that may change what a count means is honoured, refused or remarked on (the
image is measured as CellProfiler 4.2.8 reads it, and flagged); the others and private ones say nothing about counts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..storage.local import Status

FULL_SCALE = 65535.0  # what counts of 16 bits are divided by, where nothing says otherwise
FULL_SCALE_8 = 255.0  # and of 8
Values = Mapping[int, tuple[float, ...] | str]  # code -> its numbers, or its text

MAX_SCALE = 2**31 - 1  # of Java's whole numbers, which CellProfiler reads it into
HONOURED, REFUSED, REMARKED, IRRELEVANT = "honoured", "refused", "remarked on", "irrelevant"
DESCRIPTION, SUBFILE, OLD_SUBFILE, PHOTOMETRIC, THRESHOLDING, ORIENTATION = 270, 254, 255, 262, 263, 274
MAX_SAMPLE, CURVE, TRANSFER, BLACK_WHITE, EXTRA, SAMPLE_FORMAT, UIC2 = 281, 291, 301, 532, 338, 339, 33629
PHOTOMETRICS = {
    2: "RGB",
    3: "palette colour",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
FORMATS = {2: "signed whole numbers", 3: "floating point", 5: "complex whole numbers", 6: "complex"}


# The table of docs/plates.md, which has their names and how each is treated; a tag may have values of two kinds.
TABLE = {
    HONOURED: (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 281, 284, 317, 322, 323, 324, 325, 339),
    REFUSED: (254, 255, 258, 259, 262, 263, 266, 270, 281, 317, 338, 339, 32997, 33629),
    REMARKED: (270, 274, 291, 301, 532),
    IRRELEVANT: (
        *(264, 265, 269, 271, 272, 280, 282, 283, 285, 286, 287, 288, 289, 290, 292, 293, 296, 297, 305, 306, 315, 316, 318),
        *(319, 320, 321, 330, 333, 340, 341, 347, 529, 530, 531, 32998, 33432, 34675),
    ),
}
# Tags that `judge_tags` is asked about, and of some the whole numbers that need no asking.
USUAL = {
    SUBFILE: (0, 2),
    OLD_SUBFILE: (0, 1, 3),
    PHOTOMETRIC: (1,),
    THRESHOLDING: (1,),
    ORIENTATION: (1,),
    SAMPLE_FORMAT: (1,),
}
ASKED = frozenset((*TABLE[REFUSED], *TABLE[REMARKED]))


@dataclass(frozen=True)
class Grey:
    """What an image's own file says of its counts.

    scale : what they are divided by to be 0 to 1; None where the file does not say
    white : whether 0 is the brightest
    remarks : reasons to flag the image
    status : size and mark of the file that was opened; None where it is none
    """

    scale: float | None = None
    white: bool = False
    remarks: tuple[str, ...] = ()
    status: Status | None = None


def judge_tags(tags: Values) -> Grey:
    """What a page's tags say; ValueError for a page that is not plain grey values, by the tag's name."""
    number = {code: value for code, value in tags.items() if not isinstance(value, str)}
    one = {code: int(value[0]) for code, value in number.items() if len(value) == 1 and float(value[0]).is_integer()}
    if (kind := one.get(SUBFILE, 0)) not in USUAL[SUBFILE]:
        raise ValueError(f"NewSubfileType {kind}: a reduced image, or a mask")
    if (kind := one.get(OLD_SUBFILE, 1)) not in USUAL[OLD_SUBFILE]:
        raise ValueError(f"SubfileType {kind}: a reduced image")
    if (photometric := one.get(PHOTOMETRIC, 1)) not in (0, 1):
        name = PHOTOMETRICS.get(photometric, "unknown")
        raise ValueError(f"PhotometricInterpretation {photometric} ({name}), expected MinIsBlack or MinIsWhite")
    if one.get(266, 1) != 1 and one.get(259, 1) != 1:
        raise ValueError("FillOrder 2 of compressed pixels")
    if (predictor := one.get(317, 1)) not in (1, 2):
        raise ValueError(f"Predictor {predictor}, expected none or horizontal differences")
    if (kind := one.get(THRESHOLDING, 1)) != 1:
        raise ValueError(f"Threshholding {kind}: a dithered image")
    if EXTRA in number:
        raise ValueError(f"ExtraSamples {number[EXTRA][:4]}: more than grey values")
    if kinds := [int(k) for k in number.get(SAMPLE_FORMAT, (1,)) if k not in (1, 4)]:
        raise ValueError(f"SampleFormat {kinds[0]} ({FORMATS.get(kinds[0], 'unknown')}), expected whole numbers from 0")
    if (depth := one.get(32997, 1)) > 1:
        raise ValueError(f"ImageDepth {depth}: a volume")
    text = tags.get(DESCRIPTION)
    said = describe(text if isinstance(text, str) else "")
    scale = FULL_SCALE_8 if one.get(258) == 8 else None
    if MAX_SAMPLE in tags:
        limit = float(number.get(MAX_SAMPLE, (0.0,))[0])
        if not 1 <= limit <= MAX_SCALE:
            raise ValueError(f"MaxSampleValue {str(tags[MAX_SAMPLE])[:40]}, expected a number from 1 on")
        scale = float(int(limit))  # as CellProfiler takes it
    remarks = [remark for remark in said if scale is None or not remark.startswith("OME")]
    if (turned := one.get(ORIENTATION, 1)) != 1:
        remarks.append(f"Orientation {turned}: read as it is stored")
    names = {CURVE: "GrayResponseCurve", TRANSFER: "TransferFunction", BLACK_WHITE: "ReferenceBlackWhite"}
    remarks += [f"{name}: not applied to the counts" for code, name in names.items() if code in tags]
    return Grey(scale, photometric == 0, tuple(remarks))


def describe(text: str) -> Iterable[str]:
    """Remarks on an ImageDescription; ValueError for ImageJ's of several images in one page."""
    text = text[: 1 << 16]
    if text.startswith("ImageJ="):
        said = dict(re.findall(r"^(\w+)=([^\r\n]{0,40})", text, re.MULTILINE))
        if said.get("images", "1").strip() != "1":
            raise ValueError(f"ImageJ's ImageDescription says images={said['images']}: several images in one page")
        if "cf" in said:
            line = ", ".join(f"{key}={said[key]}" for key in ("cf", "c0", "c1", "c2") if key in said)
            yield f"ImageJ's calibration of grey values ({line}): not applied to the counts"
    elif (match := re.search(r'SignificantBits="(\d{1,3})"', text)) and int(match[1]) < 16:
        yield (
            f"OME's SignificantBits {match[1]}: not taken for the scale, nor by CellProfiler; [plate] scale = "
            f"{2 ** int(match[1]) - 1} does"
        )
