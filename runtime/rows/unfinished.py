"""The folder beside an output that holds a run until it has finished: `predictions.jsonl.unfinished/`.

It holds `run.json` (the identity of the run), `rows.jsonl` (the rows so far), `maps/` and `lock`. The process that
writes holds the lock. When the run has finished, its rows and maps get their final names and the folder goes.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from probrt.runtime.errors import UsageError
from probrt.runtime.files import partial_path, sync, write_atomic
from probrt.runtime.locks import FileLock


def unfinished_path(out: Path) -> Path:
    """The folder of an unfinished run that writes `out`."""
    return out.with_name(f"{out.name}.unfinished")


class UnfinishedRun:
    """The folder of a run that writes `out`. `lock` first; `release` or `remove` at the end."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = unfinished_path(out)
        self.rows = self.folder / "rows.jsonl"
        self.record = self.folder / "run.json"
        self.maps = self.folder / "maps"
        self._lock = FileLock(self.folder / "lock")

    @property
    def exists(self) -> bool:
        """Whether a run has begun here; its rows may be none. `rows` is the last file that `start` makes."""
        return self.rows.exists()

    @property
    def has_rows(self) -> bool:
        return self.exists and self.rows.stat().st_size > 0

    def lock(self) -> None:
        """Makes the folder and takes its lock; UsageError if another process has it, OSError if that fails."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                locked = self._lock.acquire()
            except FileNotFoundError:
                continue  # another run has just finished and removed the folder
            if not locked:
                raise UsageError(f"--out {self._out}: another run is writing it; wait for it, or choose another name")
            return

    def clear(self) -> None:
        """Removes what an earlier run left, and what it left of the output beside it."""
        self.rows.unlink(missing_ok=True)
        for path in (self.record, partial_path(self.record), partial_path(self._out)):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.maps, ignore_errors=True)

    def release(self) -> None:
        """Ends the lock and leaves the rows for a later run; without rows nothing is left."""
        if not self._lock.held:
            return  # another run may be at work here already
        with contextlib.suppress(OSError):
            if not self.has_rows:
                self.remove()
        self._lock.release()

    def remove(self) -> None:
        """Removes the folder and ends the lock."""
        self.clear()
        (self.folder / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run may have just made its lock here
            self.folder.rmdir()
        self._lock.release()

    def publish_maps(self, target: Path) -> None:
        """Moves the maps to their final folder, beside those that are there; raises OSError.

        Can be repeated after an interrupt.
        """
        if not self.maps.is_dir():
            return
        for entry in os.scandir(self.maps):
            sync(Path(entry.path))
        sync(self.maps)
        if target.exists():
            for entry in os.scandir(self.maps):
                _move(Path(entry.path), target / entry.name)
            sync(target)
            self.maps.rmdir()
        else:
            try:
                self.maps.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                target.mkdir()
                self.publish_maps(target)
        sync(target.parent)


def _move(source: Path, target: Path) -> None:
    """Moves a file, also to another disk: the output may be a link to one."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomic(target, source.read_bytes())
        source.unlink()
