"""Room for lists whose length only the device knows, so that a batch waits for the device once."""

import math
from collections.abc import Sequence

import torch

FIRST_SHARE = 1 / 16  # of what a list could hold at most
MARGIN = 1.25  # of the room that would have done, to the next


class Capacity:
    """Gives lists a share of what they could need at most, learns at the batch's synchronisation whether it did, remembers.

    A list that is too short is filled up to its end and no further, so that the batch is wrong but harmless; whoever reads
    the counts does it again, with the room there then is.

    share  of what could be needed that a list gets
    """

    def __init__(self, share: float = FIRST_SHARE, of: "Capacity | None" = None):
        self.share, self._of = share, of
        self._given: list[tuple[torch.Tensor, int, int]] = []

    def of_batch(self) -> "Capacity":
        """For one batch, of which others may be under way: it begins with this share, and this one learns what it learns."""
        return Capacity(self.share, self)

    def give(self, count: torch.Tensor, maximum: int) -> int:
        """Places for a list of `count` (one integer on the device) of at most `maximum` entries."""
        capacity = min(maximum, math.ceil(maximum * self.share))
        self._given.append((count, capacity, maximum))
        return capacity

    @property
    def counts(self) -> list[torch.Tensor]:
        """Of each list, how many entries it has; on the device."""
        return [count for count, _, _ in self._given]

    def enough(self, counts: Sequence[int]) -> bool:
        """Whether every list had room for its count; if not, all get more from now on."""
        given, self._given = self._given, []
        short = [n / maximum for n, (_, capacity, maximum) in zip(counts, given, strict=True) if n > capacity]
        if short:
            self.share = min(1.0, MARGIN * max(short))
            if self._of:
                self._of.share = max(self._of.share, self.share)
        return not short


class CapacityExceeded(Exception):
    """A list of the batch was too short. The `Capacity` has more by now: do the batch again."""
