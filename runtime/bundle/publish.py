"""Publishes a version: builds it beside its place, then renames it, so that a numeric folder is a whole bundle."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from probrt.runtime.errors import StorageError, UsageError
from probrt.runtime.files import sync
from probrt.runtime.locks import FileLock

_PREFIX = ".unfinished-"
_LOCK = ".lock"
# What a rename reports if the target is there already.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True)
class Stage:
    """A version in the making.

    folder: empty at first; becomes `home/<version>`. version: its number; None is the next that is free in the end.
    """

    folder: Path
    home: Path
    version: int | None

    def publish(self, complete: Callable[[int], None] = lambda version: None) -> Path:
        """Renames the folder to its version number and returns its new path.

        complete: writes what depends on the number; is called again if another export takes that number meanwhile.
        Raises UsageError if the number that was asked for is taken.
        """
        while True:
            version = self.version or next_version(self.home)
            target = self.home / str(version)
            _refuse_existing(target)
            complete(version)
            for path in [*self.folder.rglob("*"), self.folder]:
                sync(path)
            try:
                self.folder.rename(target)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                continue  # the next number, or the refusal
            sync(self.home)
            return target


def next_version(home: Path) -> int:
    """One more than the highest numeric folder of a model folder."""
    versions = [int(path.name) for path in home.glob("*") if path.name.isascii() and path.name.isdigit()]
    return max(versions, default=0) + 1


@contextmanager
def stage_version(home: Path, version: int | None = None) -> Iterator[Stage]:
    """Makes an empty folder in a model folder; it vanishes unless the block publishes it.

    Its name is not a number, so that TF Serving does not see it. Its lock shows that this process lives; what dead
    processes have left is removed. Until the block ends, the temporary files of this process lie beside the folder, so
    that a killed export leaves none elsewhere.
    Raises UsageError if the version exists already, StorageError if the disk does not take it.
    """
    if version is not None:
        _refuse_existing(home / str(version))
    try:
        home.mkdir(parents=True, exist_ok=True)
        remove_leftovers(home)
        with _make_locked_folder(home) as folder:
            stage = Stage(folder / "version", home, version)
            stage.folder.mkdir()
            with _use_for_temporary_files(folder / "temporary"):
                yield stage
    except OSError as error:
        raise StorageError(f"{error.filename or home}: {error.strerror or error}; nothing was published") from None


def remove_leftovers(home: Path) -> None:
    """Removes the unfinished folders of processes that are dead; those of living ones are locked and stay."""
    names = {path.name.removesuffix(_LOCK) for path in home.glob(f"{_PREFIX}*")}
    for name in sorted(names):
        lock_path = home / (name + _LOCK)
        with contextlib.suppress(OSError):
            lock = FileLock(lock_path)
            if lock.acquire():
                _remove(home / name, lock_path, lock)


@contextmanager
def _make_locked_folder(home: Path) -> Iterator[Path]:
    while True:
        folder = home / (_PREFIX + secrets.token_hex(4))
        lock_path = folder.with_name(folder.name + _LOCK)
        lock = FileLock(lock_path)
        if lock.acquire():
            break
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(folder, lock_path, lock)


def _remove(folder: Path, lock_path: Path, lock: FileLock) -> None:
    """Removes an unfinished folder, then its lock file, then ends the lock."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        lock_path.unlink(missing_ok=True)
    lock.release()


@contextmanager
def _use_for_temporary_files(folder: Path) -> Iterator[None]:
    folder.mkdir()
    previous, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = previous


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise UsageError(f"{target}: exists; a version is never overwritten, choose another number")
