"""Decodes files in several threads and returns them in the order of the input."""

import contextlib
import functools
import hashlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import Pixels, decode, read_bytes

MAX_LOADED_BYTES = 256 << 20


@dataclass(frozen=True)
class LoadedImage:
    """One file of the input.

    index: its position in the order of the input.
    pixels: float32 of `input.shape`; None if the file cannot be decoded, and `error` says why.
    frames: 1, or 2 if the file holds several frames or pages; they are not counted.
    affine: of a NIfTI volume, [4, 4].
    """

    index: int
    name: str
    sha256: str | None = None
    pixels: Pixels | None = None
    frames: int = 1
    error: str = ""
    affine: npt.NDArray[np.float64] | None = None


def load_image(
    index: int,
    name: str,
    input: Input,
    reserve: Callable[[int], None] = lambda size: None,
    read: Callable[[str], bytes] = read_bytes,
) -> LoadedImage:
    """Reads and decodes one file; returns the reason if the file is unfit, and never raises for it.

    reserve: called with about the bytes of memory that the pixels take, before any of them is decoded.
    read: returns the bytes of a file, or raises ImageError.
    """
    digest = None
    try:
        data = read(name)
        digest = hashlib.sha256(data).hexdigest()
        decoded = decode(data, input, reserve)
    except ImageError as error:
        return LoadedImage(index, name, digest, error=str(error))
    except MemoryError:
        return LoadedImage(index, name, digest, error="needs more memory than there is")
    return LoadedImage(index, name, digest, decoded.pixels, decoded.frames, affine=decoded.affine)


# Reads and decodes the file at an index and of a name, like `load_image` with an input.
Reader = Callable[[int, str, Callable[[int], None]], LoadedImage]


@contextlib.contextmanager
def open_reader(input: Input) -> Iterator[Reader]:
    """Opens a reader that decodes in the thread that calls it."""
    yield lambda index, name, reserve: load_image(index, name, input, reserve)


class MemoryBudget:
    """Bounds the memory of the images that are decoded but not yet yielded, whatever the number of threads.

    The next image in the order never waits, so the order goes on even if it alone is larger than the limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[int, int] = {}
        self._next = 0
        self._changed = threading.Condition()

    def reserve(self, index: int, size: int) -> None:
        """Waits until there is room for `size` bytes of the image at `index`."""
        with self._changed:
            self._changed.wait_for(lambda: index <= self._next or sum(self._sizes.values()) + size <= self._limit)
            self._sizes[index] = size

    def resize(self, index: int, size: int) -> None:
        """Sets what the decoded image really takes."""
        with self._changed:
            self._sizes[index] = size
            self._changed.notify_all()

    def release(self, index: int) -> None:
        """Frees the room of the image at `index`, which is yielded; the image after it is the next one."""
        with self._changed:
            self._sizes.pop(index, None)
            self._next = index + 1
            self._changed.notify_all()

    def lift(self) -> None:
        """Lets every waiting thread go on: nobody takes the images any more."""
        with self._changed:
            self._limit = sys.maxsize
            self._changed.notify_all()


class Loader:
    """Decodes files ahead of their use; iterating yields them in the order of `names`.

    workers: the number of threads. open_reader: opens the reader of each thread.
    window: at most this many files lie between those taken from `names` and those yielded. They also take at most
    MAX_LOADED_BYTES, or the memory of one image.
    """

    def __init__(
        self,
        names: Iterator[str],
        input: Input,
        workers: int,
        window: int,
        open_reader: Callable[[Input], AbstractContextManager[Reader]] = open_reader,
    ) -> None:
        self._names = names
        self._input = input
        self._open_reader = open_reader
        self._workers = workers
        self._window = window
        self._todo: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._loaded: queue.SimpleQueue[LoadedImage | BaseException] = queue.SimpleQueue()
        self._submitted = self._yielded = 0
        self._names_ended = False
        self._budget = MemoryBudget(MAX_LOADED_BYTES)

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
            self._budget.lift()
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
            self._budget.release(self._yielded)
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
        try:
            with self._open_reader(self._input) as read:
                while (job := self._todo.get()) is not None:
                    index, name = job
                    image = read(index, name, functools.partial(self._budget.reserve, index))
                    self._budget.resize(index, 0 if image.pixels is None else image.pixels.nbytes)
                    self._loaded.put(image)
                    del image  # this thread may wait long for its next file
        except BaseException as error:  # an internal fault: raised again in the main thread, not lost in this one
            self._loaded.put(error)
