"""Publishes a version: builds it beside its place, then renames it, so that a numeric folder is a whole bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probrt.runtime.errors import StorageError, UsageError
from probrt.runtime.files import sync


def next_version(model: Path) -> int:
    """One more than the highest numeric folder of a model folder."""
    versions = [int(path.name) for path in model.glob("*") if path.name.isascii() and path.name.isdigit()]
    return max(versions, default=0) + 1


@contextmanager
def stage_version(model: Path, version: int) -> Iterator[Path]:
    """Makes an empty folder that becomes `model/<version>` if the block succeeds, and vanishes if it does not.

    Its name is not a number, so that TF Serving does not see it. Raises UsageError if the version exists already,
    StorageError if the disk does not take it.
    """
    target = model / str(version)
    if target.exists():
        raise UsageError(f"{target}: exists; a version is never overwritten, choose another number")
    folder = model / f".unfinished-{version}-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
        yield folder
        for path in [*folder.rglob("*"), folder]:
            sync(path)
        if target.exists():
            raise UsageError(f"{target}: appeared meanwhile; a version is never overwritten")
        folder.rename(target)
        sync(model)
    except OSError as error:
        raise StorageError(f"{error.filename or target}: {error.strerror or error}; nothing was published") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
