"""Which images a command line names: folders, files, globs, lists, standard input."""

# Names stay strings here: Path would normalise what the rows have to give back as it was typed.
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH122, PTH123, PTH207

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from probrt.runtime.errors import InputError, printable
from probrt.runtime.images.decode import SUFFIXES
from probrt.runtime.tables import OpenTable, UnreadableTable, open_csv, open_parquet

LISTS = frozenset({".txt", ".csv", ".parquet"})
COLUMNS = ("file", "file_name", "path", "image")


@dataclass
class Skipped:
    """What a folder holds besides images, counted by suffix for one line at the end."""

    suffixes: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str) -> None:
        self.suffixes[kind] = self.suffixes.get(kind, 0) + 1

    @property
    def line(self) -> str:
        """The count as a person reads it; empty if there is nothing to say."""
        shown = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
        return f"skipped in folders, no images by their names: {shown}" if shown else ""


def images(names: Iterable[str], skipped: Skipped, avoid: Iterable[Path] = (), recursive: bool = True) -> Iterator[str]:
    """Paths of images in a stable order: as named, folders sorted by name.

    names: files, folders, globs, lists (.txt, .csv, .parquet; their names are relative to the list) or `-`.
    avoid: the run's own output, not to be read as input.
    Raises InputError for a name that is nothing at all. What a list names is not checked here.
    """
    shunned = {os.path.abspath(path) for path in avoid}
    for name in names:
        if name == "-":
            # Anew: as it stands it refuses names that are no UTF-8.
            with open(sys.stdin.fileno(), errors="surrogateescape", closefd=False) as stream:
                yield from _lines(stream, "")
        elif os.path.isdir(name):
            yield from _folder(name, skipped, shunned, recursive)
        elif os.path.lexists(name):
            if os.path.splitext(name)[1].lower() in LISTS and os.path.isfile(name):
                yield from _list(name)
            else:
                yield name
        else:
            found = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
            if not found:
                raise InputError(f"{printable(name)}: no such file or folder; name images that exist")
            for path in found:
                if os.path.isfile(path) and os.path.abspath(path) not in shunned:
                    yield path


def is_image_name(name: str) -> bool:
    """Whether a name in a folder is taken for an image, by its suffix."""
    lower = name.lower()
    return os.path.splitext(lower)[1] in SUFFIXES or lower.endswith(".nii.gz")


def _folder(folder: str, skipped: Skipped, shunned: set[str], recursive: bool) -> Iterator[str]:
    """Images below a folder; one inside that cannot be listed is handed on, to become an error row."""
    try:
        stack = [iter(_sorted(folder))]
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from None
    while stack:  # not recursion: folders may be nested deeper than Python's stack
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif os.path.abspath(entry.path) in shunned:
            continue
        elif entry.is_dir(follow_symlinks=False):
            if recursive:
                try:
                    stack.append(iter(_sorted(entry.path)))
                except OSError:
                    yield entry.path
        elif is_image_name(entry.name):
            yield entry.path
        elif entry.is_dir():  # a link to a folder is not followed: it may lead back here
            skipped.add("link to a folder")
        else:
            skipped.add(os.path.splitext(entry.name)[1].lower() or "without suffix")


def _sorted(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _list(path: str) -> Iterator[str]:
    base, suffix = os.path.split(path)[0], os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path, base)
        elif suffix == ".csv":
            yield from _csv(path, base)
        else:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
                yield from _lines(stream, base)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(stream: TextIO, base: str) -> Iterator[str]:
    """One name a line."""
    for line in stream:
        name = line.rstrip("\r\n")
        if name:
            yield os.path.join(base, name)


def _csv(path: str, base: str) -> Iterator[str]:
    """The column named file, file_name, path or image."""
    try:
        with open_csv(Path(path), errors="surrogateescape", strict=False) as table:
            column = _column(path, table)
            for line, row in table.rows:
                if not row[column]:
                    raise InputError(f"{path}: line {line} names no file in column {column}")
                yield os.path.join(base, row[column])
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None


def _parquet(path: str, base: str) -> Iterator[str]:
    try:
        with open_parquet(Path(path), only=COLUMNS) as table:
            column = _column(path, table)
            for _, row in table.rows:
                if not row[column]:
                    raise InputError(f"{path}: a row names no file in column {column}")
                yield os.path.join(base, str(row[column]))
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


def _column(path: str, table: OpenTable) -> str:
    """The first of COLUMNS that the table has; InputError if it has none."""
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise InputError(f"{path}: no column {', '.join(COLUMNS)}; its columns: {', '.join(table.columns)}")
    return column
