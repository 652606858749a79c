"""What has been read: examples in memory, or in a file behind it where they are too many."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probrt.trainer.heads import AnyHead

SPLITS = ("train", "validation", "test")
# Above this many bytes an array lives in an unnamed temporary file, of which the system keeps in memory what it can.
_IN_MEMORY = 4 << 30


@dataclass(frozen=True)
class Examples:
    """One split: images [count, *input.shape] and each head's targets [count, …], in the table's order.

    Images of whole numbers from 0 to 255 are uint8, others float32. Missing targets are NaN (-1 for a class).
    """

    files: tuple[str, ...]
    images: np.ndarray
    targets: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Dataset:
    """The splits of a table, a digest over its rows and every file's bytes, and what is worth a look.

    sides: of the images before any resizing, with how many images had them.
    notes: what is allowed but seldom meant, one line each.
    """

    splits: dict[str, Examples]
    digest: str
    sides: dict[tuple[int, ...], int]
    notes: tuple[str, ...] = ()


def storage(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, in memory or, above 4 GiB, in a temporary file that vanishes with the process."""
    if np.prod(shape, dtype=np.float64) * np.dtype(dtype).itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


def standardised(heads: Sequence[AnyHead], train: Examples) -> tuple[AnyHead, ...]:
    """The heads with what they need to know of their training targets filled in."""
    return tuple(head.standardised(train.targets[head.name]) for head in heads)
