"""Decodes files in several threads and returns them in the order of the input."""

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


class Loader:
    """Decodes files ahead of their use; iterating yields them in the order of `names`.

    workers: the number of threads.
    window: at most this many files lie between those taken from `names` and those yielded, which bounds the memory.
    """

    def __init__(self, names: Iterator[str], input: Input, workers: int, window: int) -> None:
        self._names = names
        self._input = input
        self._workers = workers
        self._window = window
        self._todo: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._loaded: queue.SimpleQueue[LoadedImage | BaseException] = queue.SimpleQueue()
        self._submitted = self._yielded = 0
        self._names_ended = False

    @property
    def ended(self) -> bool:
        """Whether no image follows the latest."""
        return self._names_ended and self._yielded == self._submitted

    def __iter__(self) -> Iterator[LoadedImage]:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            yield from self._load_in_order()
        finally:  # not joined: on an interrupt a thread may be busy with a large picture
            for _ in threads:
                self._todo.put(None)

    def _load_in_order(self) -> Iterator[LoadedImage]:
        early: dict[int, LoadedImage] = {}
        while True:
            self._submit()
            if self.ended:
                return
            while self._yielded not in early:
                loaded = self._loaded.get()
                if isinstance(loaded, BaseException):
                    raise loaded
                early[loaded.index] = loaded
            image = early.pop(self._yielded)
            self._yielded += 1
            yield image

    def _submit(self) -> None:
        """Hands names to the threads until the window is full."""
        while not self._names_ended and self._submitted - self._yielded < self._window:
            name = next(self._names, None)
            if name is None:
                self._names_ended = True
                return
            self._todo.put((self._submitted, name))
            self._submitted += 1

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                self._loaded.put(load_image(*job, self._input))
            except BaseException as error:  # an internal fault: raised again in the main thread, not lost in this one
                self._loaded.put(error)
