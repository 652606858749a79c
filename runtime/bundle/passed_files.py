"""Remembers, in the user's cache directory, which files of bundles have passed a trial on this machine.

The memory is one text file, a digest a line. It counts only if it is the user's own and nobody else can write it; where
it is absent, unsafe or cannot be written, a trial is made again, and that is all.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from probrt.runtime.bundle.manifest import FileRecord

_NAME = "passed"
# Older lines are dropped when the file is larger than this, in bytes: some ten thousand files.
_MAX_BYTES = 1 << 20


def cache_folder() -> Path | None:
    """Returns the folder of the memory: `probrt` in the user's cache directory; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "", "")
    try:
        return Path(base) / "probrt" if Path(base).is_absolute() else Path.home() / ".cache" / "probrt"
    except RuntimeError:
        return None


def make_key(files: Sequence[FileRecord], *circumstances: object) -> str:
    """Returns the key of a passed trial: of the bytes of some files, and of what else decided it."""
    content = sorted((file.path, file.sha256) for file in files)
    return hashlib.sha256(repr((content, *map(str, circumstances))).encode()).hexdigest()


def read_passed() -> frozenset[str]:
    """Returns the keys that are remembered; empty if there is no memory that only this user can write."""
    descriptor = _open(os.O_RDONLY)
    if descriptor is None:
        return frozenset()
    with os.fdopen(descriptor, "rb") as stream:
        return frozenset(stream.read(_MAX_BYTES).decode("ascii", "replace").split())


def remember_passed(keys: Iterable[str]) -> None:
    """Adds keys to the memory, if there can be one."""
    lines = "".join(f"{key}\n" for key in keys).encode()
    descriptor = _open(os.O_WRONLY | os.O_APPEND | os.O_CREAT) if lines else None
    if descriptor is None:
        return
    with os.fdopen(descriptor, "ab", buffering=0) as stream:
        try:
            if os.fstat(descriptor).st_size + len(lines) > _MAX_BYTES:
                stream.truncate(0)
            stream.write(lines)
        except OSError:
            return


def _open(flags: int) -> int | None:
    """Returns a descriptor of the memory; None if folder or file are absent, another's, or open to others."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        if flags & os.O_CREAT:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(folder.lstat(), stat.S_ISDIR):
            return None
        descriptor = os.open(folder / _NAME, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)
    except OSError:
        return None
    if not _is_private(os.fstat(descriptor), stat.S_ISREG):
        os.close(descriptor)
        return None
    return descriptor


def _is_private(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Whether a folder or file is of that kind, and no other user owns or may change it."""
    # Windows keeps its own lists of who may write in a user's folders.
    is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
    return is_kind(status.st_mode) and is_ours
