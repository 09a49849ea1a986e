"""Whether a run may go on with a plate: which settings differ from those the plate was made with."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..settings.names import counted, well_position
from ..settings.numbers import differences
from ..storage.buckets import Place
from .layout import well_key
from .records import read_attributes, stored_wells

PICTURES = {"labels": "label images", "overview": "overviews"}  # what --save-labels and --save-overview add to a well
SHOWN = 20


def changed_settings(
    stored: Mapping[str, Any], asked: Mapping[str, Any], illumination: tuple[str, str] = ("", "")
) -> list[str]:
    """`differences`, a line each, but that more is saved than before; that concerns wells, not numbers.

    `illumination`: in words what functions the plate was made with and which are asked for; "" where it is not known.
    """
    asked = dict(asked)
    if "saved" in stored and set(stored["saved"]) <= set(asked.get("saved", ())):
        asked["saved"] = stored["saved"]
    lines = differences(stored, asked)
    if any(line.startswith("config.features.families: ") for line in lines):  # which says the same of their versions
        lines = [line for line in lines if not (line.startswith("numbers version of ") and line.endswith(" absent"))]
    was, now = illumination
    words = "illumination: other functions than those the plate was made with"
    if was and now and was != now:
        words += f" (by --illumination {was}; now --illumination {now})"
    elif now:
        words += f" (--illumination {now} gives others now: its images or its files changed)"
    return [words if line.startswith("illumination: stored ") else line for line in lines]


def illumination_of(plate: Place) -> str:
    """What `--illumination` was when a stored plate was made; "" where no well says."""
    wells = stored_wells(plate)
    output = read_attributes(plate / well_key(wells[0])).get("made_with") or {} if wells else {}
    return str(output.get("illumination", ""))


def refuse(plate: Place, changed: Sequence[str], overwrite: bool, asked: Sequence[str]) -> None:
    """ValueError where a run over these wells may not go on with a plate, for what changed."""
    if not changed:
        return
    listed = "\n  ".join([*changed[:SHOWN], *[f"... and {len(changed) - SHOWN} more"] * (len(changed) > SHOWN)])
    if not overwrite:
        raise ValueError(
            f"{plate} was made with other settings:\n  {listed}\nuse those, give another --output, or measure again with "
            "--overwrite"
        )
    if others := sorted(set(stored_wells(plate)) - set(asked), key=well_position):
        raise ValueError(
            f"{plate} was made with other settings:\n  {listed}\nand holds {counted(len(others), 'well')} not asked for now "
            f"({', '.join(others[:4])}{', ...' if len(others) > 4 else ''}); --overwrite would lose them: leave out "
            "--wells, or give another --output"
        )


def lacking(record: Mapping[str, Any], saved: Sequence[str]) -> list[str]:
    """What of `saved` a well's record does not have, in words; a well without sites lacks nothing."""
    keys = record["files"]
    has = {"labels": any("/labels/" in key for key in keys), "overview": any(key.split("/")[1:2] == ["0"] for key in keys)}
    return [PICTURES[name] for name in saved if record["sites"] and not has[name]]
