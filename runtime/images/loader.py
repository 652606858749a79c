"""Files decoded by several threads, handed on as full batches; a slow image holds up no other."""

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
class Loaded:
    """One file of the input: its place in the order, and its pixels or the reason why there are none.

    affine: of a NIfTI volume, [4, 4].
    """

    index: int
    name: str
    sha256: str | None = None
    pixels: Pixels | None = None
    frames: int = 1
    error: str = ""
    affine: npt.NDArray[np.float64] | None = None


def load(index: int, name: str, input: Input) -> Loaded:
    """One file, read and decoded; never raises for what the file is."""
    digest = None
    try:
        data = read_bytes(name)
        digest = hashlib.sha256(data).hexdigest()
        decoded = decode(data, input)
    except ImageError as error:
        return Loaded(index, name, digest, error=str(error))
    except MemoryError:
        return Loaded(index, name, digest, error="needs more memory than there is")
    return Loaded(index, name, digest, decoded.pixels, decoded.frames, affine=decoded.affine)


@dataclass(frozen=True)
class Batch:
    """Images of one shape that can be computed together; `last` if nothing follows."""

    images: list[Loaded]
    last: bool


class Loader:
    """Files to batches. At most `window` files are between `names` and `done`, which bounds the memory."""

    def __init__(self, names: Iterator[str], input: Input, batch_size: int, workers: int) -> None:
        self._names = names
        self._input = input
        self._batch_size = batch_size
        self._workers = workers
        self._window = max(4 * batch_size, 4 * workers)
        self._todo: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._loaded: queue.SimpleQueue[Loaded | BaseException] = queue.SimpleQueue()
        self._finished = 0

    def done(self, finished: int) -> None:
        """Says that the first `finished` files of the order are written and need no more room."""
        self._finished = finished

    def __iter__(self) -> Iterator[Batch | Loaded | None]:
        """Batches, and by themselves the files that could not be decoded, as they become ready.

        None says that nothing can follow until `done` has made room.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            yield from self._batches()
        finally:  # not joined: on an interrupt one may be in the middle of a large picture
            for _ in threads:
                self._todo.put(None)

    def _batches(self) -> Iterator[Batch | Loaded | None]:
        submitted, flying, exhausted = 0, 0, False
        pools: dict[tuple[int, ...], list[Loaded]] = {}
        while True:
            while not exhausted and submitted - self._finished < self._window:
                name = next(self._names, None)
                exhausted = name is None
                if name is not None:
                    self._todo.put((submitted, name))
                    submitted, flying = submitted + 1, flying + 1
            if flying == 0:
                if not pools and exhausted:
                    return
                if not pools:
                    yield None
                    continue
                # Nothing more can arrive to fill it: either this is the end, or the window is full.
                shape = min(pools, key=lambda shape: pools[shape][0].index)
                yield Batch(pools.pop(shape), last=exhausted and not pools)
                continue
            loaded = self._loaded.get()
            flying -= 1
            if isinstance(loaded, BaseException):
                raise loaded
            if loaded.pixels is None:
                yield loaded
                continue
            pool = pools.setdefault(loaded.pixels.shape, [])
            pool.append(loaded)
            if len(pool) == self._batch_size:
                del pools[loaded.pixels.shape]
                yield Batch(pool, last=exhausted and flying == 0 and not pools)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                self._loaded.put(load(*job, self._input))
            except BaseException as error:  # a fault of ours: ends the run in the main thread, not silently here
                self._loaded.put(error)
