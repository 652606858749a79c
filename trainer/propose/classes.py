"""Counts the classes of a data set: which column the splits are stratified by, and how rare its rarest class is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probrt.trainer.propose.columns import HeadChoice
from probrt.trainer.propose.source import Source

_FAR_APART = 10


@dataclass(frozen=True)
class RareClasses:
    """The column of a class head with its rarest and its most frequent class, and the rows of each."""

    column: str
    rarest: str
    rarest_count: int
    largest: str
    largest_count: int

    @property
    def note(self) -> str:
        """What to know where the shares are far apart; else empty."""
        if self.largest_count < _FAR_APART * self.rarest_count:
            return ""
        return (
            f'{self}: class_weights = "balanced" in the head finds more of the rare classes, with a lower likelihood '
            "(docs/train.md)"
        )

    def __str__(self) -> str:
        return f"{self.rarest} has {self.rarest_count} images, {self.largest} {self.largest_count}"


def find_rare_classes(source: Source, heads: Sequence[HeadChoice]) -> RareClasses | None:
    """Returns the classes of the head whose rarest class is the rarest of all; None without a head of classes."""
    candidates = []
    for head in heads:
        if head.likelihood not in ("categorical", "bernoulli") or head.per_position:
            continue
        column = str(head.settings.get("column", head.name))
        counts = Counter(cell for cell in source.cells(column) if cell).most_common()
        if len(counts) > 1:
            (largest, most), (rarest, least) = counts[0], counts[-1]
            candidates.append(RareClasses(column, rarest, least, largest, most))
    return min(candidates, key=lambda classes: classes.rarest_count, default=None)
