"""Cuts the images of a run into shards, the unit of work that one worker takes and one file holds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

# Images in a shard, rounded up to whole blocks of batches.
SHARD_SIZE = 2048


@dataclass(frozen=True)
class Shard:
    """Consecutive images of a run. index: of the shard, first: of its first image; both from 0."""

    index: int
    first: int
    names: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of the file that holds its rows."""
        return f"part-{self.index:06d}.parquet"

    @property
    def digest(self) -> str:
        """SHA-256 of the names of the images, in their order."""
        return hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What is known of a finished shard. kept: whether an earlier run wrote it. sha256, bytes: of its file."""

    index: int
    first: int
    file: str
    rows: int
    errors: int
    unknown: int
    review: int
    bytes: int
    sha256: str
    kept: bool = False


def cut_shards(names: Iterator[str], size: int) -> Iterator[Shard]:
    """Yields shards of `size` images, the last one of those that are left."""
    index = 0
    while part := tuple(islice(names, size)):
        yield Shard(index, index * size, part)
        index += 1


def round_up(size: int, block: int) -> int:
    """Returns the size of shards that hold whole blocks: the batches are then those of a run on one machine."""
    return -(-size // block) * block
