"""Which channel a source's name means, and which of its channels are wanted."""

import json
import re
from collections.abc import Collection, Mapping, Sequence

from ..settings.config import PlateSettings
from ..settings.names import BRIGHTFIELD, CHANNELS, check_file_name

MAX_PLANES = 256  # of a projection: sums of so many 16-bit counts are exact in float32
DYE_WORD = re.compile(  # in the name of a stain that says no more than its light
    "[0-9]+|alexa|fluor|af|atto|bodipy|cf|cy|dylight|fitc|rhodamine|texas|tritc|janelia|"
    "red|far|deep|green|blue|orange|yellow|long|short|em|ex|nm"
)


SPELLINGS = {  # of stains and of what they show, besides [plate.stains]; no setting, so that one more changes no plate
    "concanavalina": "ER",
    "canavalin": "ER",
    "calnexin": "ER",
    "af 488": "ER",
    "syto14": "RNA",
    "syto": "RNA",
    "phenovue 512": "RNA",
    "rnaselect": "RNA",
    "nucleoli": "RNA",
    "nucleolus": "RNA",
    "nucleolar": "RNA",
    "mito tracker": "Mito",
    "mitochondrial": "Mito",
    "mitochondrion": "Mito",
    "phenovue 641": "Mito",
    "tomm20": "Mito",
    "tom20": "Mito",
    "af 647": "Mito",
    "actin": "AGP",
    "golgi": "AGP",
    "plasma membrane": "AGP",
    "cytoskeleton": "AGP",
    "wheat germ": "AGP",
    "alexa 555": "AGP",
    "af 568": "AGP",
    "af 555": "AGP",
    "nucleus": "DNA",
    "draq5": "DNA",
    "nucblue": "DNA",
    "nuclear": "DNA",
    "h 33342": "DNA",
    "bright field": "Brightfield",
    "bf": "Brightfield",
}


def check_channels(settings: PlateSettings) -> None:
    known = (*CHANNELS, *BRIGHTFIELD)
    for channel in settings.channels:  # an illumination function's file has it in its name
        check_file_name(channel, "plate.channels:")
    if not settings.channels or len(set(settings.channels)) != len(settings.channels):
        raise ValueError(f"plate.channels must name each channel once, got {list(settings.channels)}")
    if unknown := [c for c in settings.channels if c not in known and c not in settings.stains.values()]:
        raise ValueError(f"unknown channel {unknown[0]!r} in plate.channels; expected some of {', '.join(known)}")
    check_planes(settings)


def check_planes(settings: PlateSettings) -> None:
    """ValueError for planes that no channel has, that are no planes, or that contradict each other."""
    for channel, planes in settings.planes.items():
        if channel not in settings.channels:
            raise ValueError(
                f"plate.planes says which planes of {channel} to read, and plate.channels has {', '.join(settings.channels)}"
            )
        good = planes and len(planes) <= MAX_PLANES and len(set(planes)) == len(planes) and min(planes) >= 0
        if not good:
            raise ValueError(
                f"plate.planes: {channel}: expected 1 to {MAX_PLANES} different planes, got {list(planes)[:20]}"
            )
        if settings.projection == "none" and len(planes) > 1:
            raise ValueError(
                f"plate.planes gives {channel} the planes {list(planes)[:9]}; set plate.projection to what is made of "
                "them, max or mean, or give one plane"
            )
    if settings.plane is not None and settings.projection != "none":
        raise ValueError(
            f"plate.plane = {settings.plane} reads one plane, and plate.projection = {settings.projection!r} makes one of "
            "several; leave one of them out ([plate.planes] says which planes of a channel are projected)"
        )


def channel_of(name: str, stains: Mapping[str, str]) -> str | None:
    """The channel a source's name means, in any case: a channel's own name, a stain's, or the stains that it contains.

    A name contains a stain, or a channel's name, where it has all of its words. Stains say what is looked at (MitoTracker)
    or in which light (Alexa 568); the first kind outranks the second, and a stain outranks those it contains itself.
    Raises ValueError where what is left means different channels, None where nothing is.
    """
    known = {c.lower(): c for c in (*CHANNELS, *BRIGHTFIELD, *stains.values())}
    table = SPELLINGS | known | {" ".join(key.lower().split()): channel for key, channel in stains.items()}
    if channel := known.get(name.strip().lower()) or table.get(" ".join(name.lower().split())):
        return channel
    words = words_of(name)
    fitting = {key: result for key in table if (result := words_of(key)) and result <= words}
    targets = {key: result for key, result in fitting.items() if not only_light(result)}
    best = targets or fitting
    minimum = [key for key, result in best.items() if not any(result < other for other in best.values())]
    channels = {table[key]: key for key in reversed(minimum)}
    if len(channels) > 1:
        both = " and ".join(f"{channel} ({key!r})" for channel, key in sorted(channels.items()))
        raise ValueError(f"channel name {name!r} fits {both}; say which it is: '{name}' = '...' under [plate.stains]")
    return next(iter(channels), None)


def words_of(name: str) -> frozenset[str]:
    """Words and numbers of a name, lower case: `Alexa568-WGA` has alexa, 568 and wga."""
    return frozenset(re.findall(r"[0-9]+|[^\W\d_]+", name.lower()))


def only_light(words: Collection[str]) -> bool:
    """Whether words say no more than a light: dyes by their makers' series, wavelengths."""
    return all(DYE_WORD.fullmatch(word) for word in words)


def match_channels(barcode: str, names: Mapping[str, str], source: str, settings: PlateSettings) -> dict[str, str]:
    """Wanted channel -> the source's key for it, from key -> name; ValueError where one is absent or doubled."""
    result: dict[str, list[str]] = {}
    for key, name in names.items():
        if channel := channel_of(name, settings.stains):
            result.setdefault(channel, []).append(key)
    for channel, keys in result.items():  # `DNA` wins over names that contain it, such as `DNA_mask`
        rest = [key for key in keys if not words_of(channel) < words_of(names[key])]
        if len(rest) == 1 and names[rest[0]].strip().lower() == channel.lower():
            result[channel] = rest
    wrong = [
        f"more than one {c} channel" if c in result else f"no {c} channel"
        for c in settings.channels
        if len(result.get(c, ())) != 1
    ]
    if wrong:
        absent = [c for c in settings.channels if c not in result]
        free = [names[key] for key in names if not any(key in keys for keys in result.values())]
        free += [names[key] for c in settings.channels for key in result.get(c, ())[1:]]
        raise ValueError(
            f"{barcode}: {', '.join(wrong)} in {source}, which has {shown(names)}. Put such lines into a settings file "
            f"(--config FILE), each name with its right channel:\n\n{block_of(free, absent, settings.channels)}"
        )
    return {channel: result[channel][0] for channel in settings.channels}


def block_of(free: Sequence[str], absent: Sequence[str], channels: Sequence[str]) -> str:
    """Lines of a settings file: a guess which channel each free name is, and the channels there are names for."""
    pairs = list(zip(free, absent, strict=False)) or [(name, "other") for name in free]
    lacking = absent[len(free) :]
    lines = (
        [f"[plate.stains]\n{chr(10).join(f'{json.dumps(n, ensure_ascii=False)} = {json.dumps(c)}' for n, c in pairs)}"]
        if pairs
        else []
    )
    if lacking:
        kept = [c for c in channels if c not in lacking]
        lines.insert(0, f"[plate]\nchannels = {json.dumps(kept)}   # no image is left for {', '.join(lacking)}")
    return "\n\n".join(lines)


def shown(names: Mapping[str, str]) -> str:
    """A source's channels as an error lists them: key and name, the name alone where they are one."""
    listed = [f"{key} {name[:60]!r}" if key != name else repr(name[:60]) for key, name in names.items()]
    return ", ".join(listed[:10] + [f"and {len(listed) - 10} more"] * (len(listed) > 10))


def contradicted(greatest: Mapping[str, str], source: str, settings: PlateSettings) -> tuple[str, ...]:
    """Of channel -> the greatest count a source gives: said where counts are divided by another, unless images say so."""
    others = {c: text for c, text in greatest.items() if text.partition(".")[0] not in ("65535", "65536", "255", "256")}
    if not others or settings.scale is not None:
        return ()
    listed = ", ".join(f"{c} {text[:20]}" for c, text in others.items())
    return (
        f"{source} gives MaxIntensity {listed}: not taken for the scale, nor by CellProfiler, which takes the images' own; "
        "set [plate] scale to it, or to 65535",
    )
