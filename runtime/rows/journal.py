"""The rows of a run that has not finished: JSON lines, appended batch by batch, whatever the format of the output."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from probrt.runtime.errors import StorageError
from probrt.runtime.files import write_all
from probrt.runtime.rows.numbers import Row


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Returns rows as JSON lines; names that are not UTF-8 become lone surrogates, escaped."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode("ascii")


class JournalWriter:
    """Appends rows to a file. All rows of a call are in the file when `write` returns.

    size: the bytes of the file that stay; what follows them is cut off.
    Raises StorageError if the disk does not take the rows; the file then ends with the rows of the call before.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._size = size
        try:
            self._handle: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._cut(self._handle)
        except OSError as error:
            raise self._storage_error(error) from None

    def write(self, rows: Sequence[Row]) -> None:
        data = encode_rows(rows)
        if self._handle is None:
            raise ValueError("the journal is closed")
        try:
            write_all(self._handle, data)
        except OSError as error:
            with contextlib.suppress(OSError):  # a torn row does no harm: readers stop before it
                self._cut(self._handle)
            raise self._storage_error(error) from None
        self._size += len(data)

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _cut(self, handle: int) -> None:
        os.ftruncate(handle, self._size)
        os.lseek(handle, self._size, os.SEEK_SET)

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: cannot be written: {error.strerror or error}")


def read_journal(path: Path) -> Iterator[tuple[Row, int]]:
    """Yields the whole rows of a journal, each with the position of its end.

    It ends before the first line that is torn or damaged, as a crash of the machine may leave it: what follows is
    computed again.
    """
    end = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                return
            try:
                row: Any = json.loads(line)
            except ValueError:
                return
            if not isinstance(row, dict):
                return
            end += len(line)
            yield row, end
