"""Checks the rows of a stopped run against the images, and decides which of them stay."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from probrt.runtime.errors import ImageError, UsageError, printable
from probrt.runtime.images.decode import read_bytes
from probrt.runtime.rows.numbers import Row

AHEAD = 64


@dataclass(frozen=True)
class KeptRows:
    """The rows that stay.

    rows: their number. errors: the error rows among them. size: the bytes of the journal that they take.
    names: the images that follow them. complete: whether none follows. respelled: by index from 0, the names that the
    rows spell otherwise.
    """

    rows: int
    errors: int
    size: int
    names: Iterator[str]
    complete: bool
    respelled: Mapping[int, str] = field(default_factory=dict)


def check_rows(
    rows: Iterable[tuple[Row, int]],
    names: Iterator[str],
    *,
    block: int,
    where: str,
    threads: int,
    spell: Callable[[str], str] = str,
) -> KeptRows:
    """Compares rows, each with the position of its end, with the images in their order.

    Reads every image again: its digest must be the one in its row. If images follow the rows, the rows after the last
    whole block are dropped, so that the batches that follow are those of an uninterrupted run.
    block: the number of rows in a block. where: the output, for messages. spell: the name of an image as rows hold it.
    Raises UsageError for a row of another image and for an image that has changed.
    """
    count = errors = size = 0
    block_count = block_errors = block_size = 0
    block_names: list[str] = []
    respelled: dict[int, str] = {}
    for row, end, name in _check_images(rows, names, where, threads, spell):
        count, errors, size = count + 1, errors + (row.get("status") == "error"), end
        block_names.append(name)
        if row["file"] != name:
            respelled[count - 1] = name
        if count % block == 0:
            block_count, block_errors, block_size = count, errors, size
            block_names.clear()
    following = next(names, None)
    if following is None:
        return KeptRows(count, errors, size, iter(()), True, respelled)
    rest = chain(block_names, (following,), names)
    return KeptRows(block_count, block_errors, block_size, rest, False, respelled)


def _check_images(
    rows: Iterable[tuple[Row, int]], names: Iterator[str], where: str, threads: int, spell: Callable[[str], str]
) -> Iterator[tuple[Row, int, str]]:
    """Yields rows, ends and names, once the digest of the image is known to be the same."""
    waiting: deque[tuple[int, Row, int, str, Future[str | None]]] = deque()

    def check_oldest() -> tuple[Row, int, str]:
        index, row, end, name, digest = waiting.popleft()
        if digest.result() != row.get("sha256"):
            raise UsageError(
                f"--resume: {where}: {printable(name)} has changed since row {index} was written; "
                "restore it, or start anew with --overwrite"
            )
        return row, end, name

    pool = ThreadPoolExecutor(threads)
    try:
        for index, (row, end) in enumerate(rows, start=1):
            name = next(names, None)
            if name is None or row.get("file") != spell(name):
                in_input = "ends there" if name is None else f"has {printable(name)}"
                raise UsageError(
                    f"--resume: {where}: row {index} is {printable(str(row.get('file')))} but the input {in_input}; "
                    "name the same images"
                )
            waiting.append((index, row, end, name, pool.submit(compute_digest, name)))
            if len(waiting) > AHEAD:
                yield check_oldest()
        while waiting:
            yield check_oldest()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def compute_digest(name: str) -> str | None:
    """Returns the SHA-256 of a file as its row holds it; None if it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(name)).hexdigest()
    except (ImageError, MemoryError):
        return None
