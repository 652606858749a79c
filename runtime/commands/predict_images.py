"""The images that `probrt predict` is asked for."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from probrt.runtime.errors import InputError
from probrt.runtime.images.inputs import SkippedFiles, find_images
from probrt.runtime.predict.choose import FEW


@dataclass
class ImageNames:
    """The names of the images of a run.

    arguments: as the command line names them. avoid: paths that are no input, as the output of the run itself.
    names: in the order of the input. few: how many there are, if they are few enough to be worth a quick start.
    skipped: what the folders hold besides images, complete at the end of `names`. find: yields the names that the
    arguments mean.
    Raises InputError if there are none.
    """

    arguments: Sequence[str]
    avoid: Sequence[Path]
    recursive: bool
    names: Iterator[str] = field(init=False)
    few: int | None = field(init=False)
    skipped: SkippedFiles = field(default_factory=SkippedFiles, init=False)
    find: Callable[[Iterable[str], SkippedFiles, Iterable[Path], bool], Iterator[str]] = find_images

    def __post_init__(self) -> None:
        names = self._find(self.skipped)
        first = list(islice(names, FEW + 1))
        if not first:
            raise InputError(
                f"{', '.join(self.arguments)}: no images there (.png, .jpg, .webp, .bmp, .tif, .gif, .npy, ...)"
            )
        self.names = chain(first, names)
        self.few = len(first) if len(first) <= FEW else None

    def count(self, *, quiet: bool) -> int | None:
        """How many there are; None where counting would take a second look for a number that nobody sees."""
        if self.few is not None or quiet or not sys.stderr.isatty() or "-" in self.arguments:
            return self.few
        return sum(1 for _ in self._find(SkippedFiles()))

    def _find(self, skipped: SkippedFiles) -> Iterator[str]:
        return self.find(self.arguments, skipped, self.avoid, self.recursive)
