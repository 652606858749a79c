"""Decodes files in several threads and groups them into full batches; a slow image delays no other."""

import hashlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import Pixels, decode, read_bytes


@dataclass(frozen=True)
class LoadedImage:
    """One file of the input.

    index: its position in the order of the input.
    pixels: float32 of `input.shape`; None if the file cannot be decoded, and `error` says why.
    frames: the number of frames or pages in the file.
    affine: of a NIfTI volume, [4, 4].
    """

    index: int
    name: str
    sha256: str | None = None
    pixels: Pixels | None = None
    frames: int = 1
    error: str = ""
    affine: npt.NDArray[np.float64] | None = None


def load_image(index: int, name: str, input: Input) -> LoadedImage:
    """Reads and decodes one file; returns the reason if the file is unfit, and never raises for it."""
    digest = None
    try:
        data = read_bytes(name)
        digest = hashlib.sha256(data).hexdigest()
        decoded = decode(data, input)
    except ImageError as error:
        return LoadedImage(index, name, digest, error=str(error))
    except MemoryError:
        return LoadedImage(index, name, digest, error="needs more memory than there is")
    return LoadedImage(index, name, digest, decoded.pixels, decoded.frames, affine=decoded.affine)


@dataclass(frozen=True)
class ImageBatch:
    """Images of one shape, computed together; `last`: no batch follows."""

    images: list[LoadedImage]
    last: bool


class Loader:
    """Turns files into batches.

    At most a window of a few batches lies between the files taken from `names` and those released, which bounds the
    memory.
    """

    def __init__(self, names: Iterator[str], input: Input, batch_size: int, workers: int) -> None:
        self._names = names
        self._input = input
        self._batch_size = batch_size
        self._workers = workers
        self._window = max(4 * batch_size, 4 * workers)
        self._todo: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._loaded: queue.SimpleQueue[LoadedImage | BaseException] = queue.SimpleQueue()
        self._released = 0

    def release(self, count: int) -> None:
        """Frees the window of the first `count` files of the order; call it once their rows are written."""
        self._released = count

    def __iter__(self) -> Iterator[ImageBatch | LoadedImage | None]:
        """Yields batches as they become ready, and the files that cannot be decoded one by one.

        Yields None when nothing can follow until `release` makes room.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            yield from self._batches()
        finally:  # not joined: on an interrupt a thread may be busy with a large picture
            for _ in threads:
                self._todo.put(None)

    def _batches(self) -> Iterator[ImageBatch | LoadedImage | None]:
        submitted, pending, exhausted = 0, 0, False
        pools: dict[tuple[int, ...], list[LoadedImage]] = {}
        while True:
            while not exhausted and submitted - self._released < self._window:
                name = next(self._names, None)
                exhausted = name is None
                if name is not None:
                    self._todo.put((submitted, name))
                    submitted, pending = submitted + 1, pending + 1
            if pending == 0:
                if not pools and exhausted:
                    return
                if not pools:
                    yield None
                    continue
                # No image can arrive to fill a batch: the input has ended, or the window is full.
                shape = min(pools, key=lambda shape: pools[shape][0].index)
                yield ImageBatch(pools.pop(shape), last=exhausted and not pools)
                continue
            loaded = self._loaded.get()
            pending -= 1
            if isinstance(loaded, BaseException):
                raise loaded
            if loaded.pixels is None:
                yield loaded
                continue
            pool = pools.setdefault(loaded.pixels.shape, [])
            pool.append(loaded)
            if len(pool) == self._batch_size:
                del pools[loaded.pixels.shape]
                yield ImageBatch(pool, last=exhausted and pending == 0 and not pools)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                self._loaded.put(load_image(*job, self._input))
            except BaseException as error:  # an internal fault: raised again in the main thread, not lost in this one
                self._loaded.put(error)
