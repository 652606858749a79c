"""Finds pictures that are copies of each other, exact or nearly so: encoded anew, resized, brighter, paler."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import decode, read_bytes

_SIDE = 16
_THUMBNAIL = Input(shape=[_SIDE, _SIDE, 3], colour="rgb", resize="bilinear", range=(0.0, 255.0))
# Of standardised thumbnails. Among 3,655 colour emoji these limits join 105 pairs of 6.7 million: flags that are the
# same picture, drawings in another skin tone, and one with and without a beard. Among 5,000 MNIST digits they join
# none. Of 300 of these emoji they find 99 to 100 % when halved, doubled, darker, paler or a JPEG of quality 90, and
# 88 % at quality 60.
_LARGEST_DIFFERENCE, _ROOT_MEAN_SQUARE = 0.4, 0.08
# Grey values of the thumbnail between which a picture has no structure to be told by: its file alone can be the same.
_PLAIN = 8.0
# Comparing takes time that grows with the square of the number: about ten seconds for so many.
_MOST = 20_000
_BLOCK = 1024
# A chain of copies that holds more of the rows than this is a series, such as the frames of one camera.
_LARGEST_SHARE = 0.2


def find_copies(root: Path, names: Sequence[str]) -> list[int]:
    """Returns for each file the place of the first one that it is a copy of, itself if of none.

    Files that cannot be read, arrays and plain pictures are compared by their bytes alone; so is each of over 20,000.
    """
    decodes = len(names) <= _MOST
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(lambda name: _look(root / name, decodes), names))
    first = list(range(len(names)))
    seen: dict[bytes, int] = {}
    for place, (digest, _) in enumerate(looks):
        if digest:
            join(first, place, seen.setdefault(digest, place))
    places = [place for place, (_, thumbnail) in enumerate(looks) if thumbnail is not None and first[place] == place]
    thumbnails = np.array([looks[place][1] for place in places], np.float32)
    for earlier, later in _find_pairs(thumbnails):
        join(first, places[earlier], places[later])
    return [find_root(first, place) for place in range(len(names))]


def find_series(first: Sequence[int]) -> int:
    """Returns the size of the largest set of copies where it is too large for fair splits; else 0."""
    largest = max(Counter(first).values(), default=0)
    return largest if largest > max(8, _LARGEST_SHARE * len(first)) else 0


def number_sets(first: Sequence[int]) -> list[str]:
    """Returns for each row the number of its set, from 1, as a cell of a table; empty for a row alone in its set."""
    sizes = Counter(first)
    several = [place for place in sorted(sizes) if sizes[place] > 1]
    cell_by_place = {place: str(count) for count, place in enumerate(several, start=1)}
    return [cell_by_place.get(place, "") for place in first]


def join(first: list[int], place: int, other_place: int) -> None:
    """Makes two places belong to one set."""
    roots = find_root(first, place), find_root(first, other_place)
    first[max(roots)] = min(roots)


def find_root(first: list[int], place: int) -> int:
    """Returns the place that stands for the set of a place."""
    while first[place] != place:
        first[place] = first[first[place]]
        place = first[place]
    return place


def join_by(first: Iterable[int], values: Sequence[str]) -> list[int]:
    """Returns the sets in which copies and rows of the same value are together; an empty value joins nothing."""
    joined = list(first)
    seen: dict[str, int] = {}
    for place, value in enumerate(values):
        if value:
            join(joined, place, seen.setdefault(value, place))
    return [find_root(joined, place) for place in range(len(joined))]


def _look(path: Path, decodes: bool) -> tuple[bytes, np.ndarray | None]:
    """Returns the digest of a file and its standardised thumbnail, [values]; None for what has no structure.

    decodes: whether to make thumbnails at all.
    """
    try:
        data = read_bytes(path)
    except (ImageError, OSError):
        return b"", None
    digest = hashlib.sha256(data).digest()
    if not decodes:
        return digest, None
    try:
        pixels = decode(data, _THUMBNAIL).pixels
    except ImageError:
        return digest, None
    if float(pixels.std(axis=(0, 1)).max()) < _PLAIN:
        return digest, None
    return digest, ((pixels - pixels.mean()) / pixels.std()).ravel().astype(np.float32)


def _find_pairs(thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the places of thumbnails [count, values] that are alike, each pair once."""
    if len(thumbnails) < 2:
        return
    squares = (thumbnails**2).sum(axis=1)
    limit = _ROOT_MEAN_SQUARE**2 * thumbnails.shape[1]
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK]
        distances = squares[start : start + _BLOCK, None] + squares[start:] - 2 * block @ thumbnails[start:].T
        for row, column in np.argwhere(distances <= limit):
            if row < column and np.abs(block[row] - thumbnails[start + column]).max() <= _LARGEST_DIFFERENCE:
                yield start + int(row), start + int(column)
