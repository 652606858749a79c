"""Locks that end with their process, however it ends."""

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class FileLock:
    """A lock on a file, which is made if it is not there. One process at a time holds it; a dead one never does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> bool:
        """Takes the lock and returns whether that succeeded; never waits. Raises OSError if the file cannot be made."""
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _try_to_lock(handle):
                os.close(handle)
                return False
            if self._is_in_place(handle):
                self._handle = handle
                return True
            os.close(handle)  # its holder removed the file between opening and locking: that lock guards nothing

    def release(self) -> None:
        """Ends the lock. Who removes the file does so before, so that no two processes lock different files."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _is_in_place(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False


def _try_to_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
