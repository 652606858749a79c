"""The examples of a data set: in memory, or backed by a file where they are too many."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probrt.trainer.heads import AnyHead

SPLITS = ("train", "validation", "test")
# The words for splits in tables and names of folders, in lower case.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# A larger array lives in an unnamed temporary file; the system keeps as much of it in memory as fits.
_IN_MEMORY_BYTES = 4 << 30


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
    """The splits of a table, and a digest over its rows and every file's bytes.

    sides: of the images before any resizing, with the number of images that had them.
    notes: what is allowed but seldom intended, one line each.
    """

    splits: dict[str, Examples]
    digest: str
    sides: dict[tuple[int, ...], int]
    notes: tuple[str, ...] = ()


def allocate(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Allocates an array in memory or, above 4 GiB, in a temporary file that vanishes with the process."""
    if np.prod(shape, dtype=np.float64) * np.dtype(dtype).itemsize <= _IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


def standardise_heads(heads: Sequence[AnyHead], train: Examples) -> tuple[AnyHead, ...]:
    """Returns the heads with the statistics of their training targets, and each with a weight."""
    return tuple(head.standardise(train.targets[head.name]).weigh(train.targets[head.name]) for head in heads)
