"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_WINDOWS = os.name == "nt"


def partial_path(path: Path) -> Path:
    """Where the content of `path` is written until it is whole: in the same folder, for a rename crosses no disks."""
    return path.with_name(path.name + ".part")


def replace_with_partial(path: Path) -> None:
    """Puts the file at `partial_path(path)` in place of `path`, after its content has reached the disk.

    Raises OSError; `path` is then what it was before.
    """
    partial = partial_path(path)
    sync(partial)
    partial.replace(path)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Opens a stream whose content replaces `path` if the block succeeds; if not, `path` stays as it was.

    Raises OSError.
    """
    partial = partial_path(path)
    try:
        with partial.open("wb") as stream:
            yield stream
        replace_with_partial(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first fault is the one to report
            partial.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a whole file, or leaves `path` as it was and raises OSError."""
    with open_atomic(path) as stream:
        stream.write(data)


def sync(path: Path) -> None:
    """Waits until the content of a file, or the entries of a folder, are on the disk. Raises OSError."""
    if _WINDOWS and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)  # Windows flushes only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
