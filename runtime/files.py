"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed.

Every OSError that leaves this module names the file in `filename`.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from probrt.runtime.errors import StorageError

_WINDOWS = os.name == "nt"


def partial_path(path: Path) -> Path:
    """Where the content of `path` is written until it is whole: in the same folder, for a rename crosses no disks."""
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Opens a stream whose content replaces `path` if the block succeeds; if not, `path` stays as it was.

    Raises OSError.
    """
    partial = partial_path(path)
    try:
        with name_file_in_errors(path):
            with partial.open("wb") as stream:
                yield stream
            move_synced(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first fault is the one to report
            partial.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a whole file, or leaves `path` as it was and raises OSError."""
    with open_atomic(path) as stream:
        stream.write(data)


def write_result(path: Path, data: bytes) -> None:
    """Writes a file that the user asked for, or leaves `path` as it was and raises StorageError."""
    try:
        write_atomic(path, data)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes a file in a folder that nobody reads yet; raises OSError, also where the disk takes only a part.

    Neither flushed to the disk nor renamed: use `sync` and a rename before anybody reads it.
    """
    with name_file_in_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            write_all(handle, data)
        finally:
            os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Writes all bytes to a file descriptor: the system may take fewer at a time. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def move_synced(source: Path, target: Path) -> None:
    """Puts the file at `source` in place of `target`, after its content has reached the disk.

    Raises OSError; `target` is then what it was before.
    """
    sync(source)
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Waits until the content of a file, or the entries of a folder, are on the disk. Raises OSError."""
    if _WINDOWS and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)  # Windows flushes only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def name_file_in_errors(path: str | Path) -> Iterator[None]:
    """Adds the path to an OSError of the block that names no file, as those of a write on an open file do."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
