"""What some tensors of a file's graph are computed from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Tensor = TypeVar("Tensor", bound=Hashable)


def find_needed(
    operations: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]], tensors: Iterable[Tensor]
) -> set[Tensor]:
    """Returns some tensors and all, constants too, that they are computed from.

    operations: what each reads and what it writes, in an order of computation.
    """
    needed = set(tensors)
    for reads, writes in reversed(operations):
        if needed.intersection(writes):
            needed.update(reads)
    return needed
