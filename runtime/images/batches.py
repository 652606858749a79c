"""Groups images into batches by their order alone, so that two runs over the same images make the same batches.

Some engines round differently in batches of other sizes. Batches therefore depend on the images and their order, never
on which thread was faster. The input is cut into blocks, and no batch crosses the end of a block. So a run that
continues at a block makes the same batches too.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.loader import LoadedImage, Loader, Reader, open_reader

BATCHES_PER_BLOCK = 4
MAX_WAITING_BYTES = 256 << 20


@dataclass(frozen=True)
class ImageBatch:
    """Images of one shape, computed together; `last`: no batch follows."""

    images: list[LoadedImage]
    last: bool


def block_size(input: Input, batch_size: int, regroups: bool = False) -> int:
    """Returns the number of files in a block: those of a batch, or of several where images are regrouped.

    regroups: whether images of one shape may end in different batches, because some need more draws.
    """
    return batch_size * (BATCHES_PER_BLOCK if regroups or None in input.shape else 1)


def load_batches(
    names: Iterator[str],
    input: Input,
    batch_size: int,
    workers: int,
    regroups: bool = False,
    open_reader: Callable[[Input], AbstractContextManager[Reader]] = open_reader,
) -> Iterator[ImageBatch | LoadedImage | None]:
    """Decodes files and yields them in batches; files that cannot be decoded come one by one.

    Yields None at the end of each block: all images before it must be answered before those after it.
    """
    loader = Loader(names, input, workers, window=max(3 * batch_size, 4 * workers), open_reader=open_reader)
    block = block_size(input, batch_size, regroups)
    # Where sides are free, few pictures may be large: the oldest do not wait for others of their shape.
    limit = MAX_WAITING_BYTES if None in input.shape else None
    pools: dict[tuple[int, ...], list[LoadedImage]] = {}

    def take(shape: tuple[int, ...]) -> ImageBatch:
        images = pools.pop(shape)
        return ImageBatch(images, last=loader.ended and not pools)

    for image in loader:
        if image.pixels is None:
            yield image
        else:
            pool = pools.setdefault(image.pixels.shape, [])
            pool.append(image)
            if len(pool) == batch_size:
                yield take(image.pixels.shape)
            while limit is not None and sum_bytes(chain.from_iterable(pools.values())) > limit:
                yield take(next(iter(pools)))
        if (image.index + 1) % block == 0 or loader.ended:
            while pools:
                yield take(next(iter(pools)))
            yield None


def sum_bytes(images: Iterable[LoadedImage]) -> int:
    """Returns the bytes that the pixels of images take."""
    return sum(image.pixels.nbytes for image in images if image.pixels is not None)
