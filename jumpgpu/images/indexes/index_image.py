"""One image as an index, a table or its name says what it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexImage:
    """An image: well, field, plane, time and channel by number; the file that holds it, and where its field lies.

    page : of the file, from 1, where it holds several images; 0 where it is the file
    """

    row: int
    column: int
    field: int
    plane: int
    time: int
    channel: int
    url: str
    x_um: float | None = None
    y_um: float | None = None
    page: int = 0
