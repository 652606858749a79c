"""Finds the images that a command line names: folders, files, globs, lists, standard input."""

# Names stay strings: rows repeat a name as it was typed, and Path would normalize it.
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
from probrt.runtime.tables import OpenTable, UnreadableTable, find_delimiter, open_csv, open_parquet

LISTS = frozenset({".txt", ".csv", ".parquet"})
COLUMNS = ("file", "file_name", "path", "image")
# UTF-8, where spreadsheets write a mark at the beginning.
_LIST_ENCODING = "utf-8-sig"


@dataclass
class SkippedFiles:
    """Counts the files in folders that are no images, by suffix, for one line at the end."""

    suffixes: dict[str, int] = field(default_factory=dict)

    def add(self, suffix: str) -> None:
        self.suffixes[suffix] = self.suffixes.get(suffix, 0) + 1

    @property
    def line(self) -> str:
        """The counts as one line of text; empty if there are none."""
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
        return f"skipped in folders, no images by their names: {counts}" if counts else ""


def find_images(
    names: Iterable[str], skipped: SkippedFiles, avoid: Iterable[Path] = (), recursive: bool = True
) -> Iterator[str]:
    """Yields the paths of images in a stable order: as named, folders sorted by name.

    names: files, folders, globs, lists (.txt, .csv, .parquet; paths in them are relative to the list) or `-`.
    avoid: paths that are not read as input, for example the output of the run itself.
    Raises InputError for a name that does not exist. The names in a list are not checked.
    """
    avoided = {os.path.abspath(path) for path in avoid}
    for name in names:
        if name == "-":
            # Opened again, because sys.stdin refuses names that are not valid UTF-8.
            with open(sys.stdin.fileno(), errors="surrogateescape", closefd=False) as stream:
                yield from _read_lines(stream, "")
        elif os.path.isdir(name):
            yield from _walk_folder(name, skipped, avoided, recursive)
        elif os.path.lexists(name):
            if os.path.splitext(name)[1].lower() in LISTS and os.path.isfile(name):
                yield from _read_list(name)
            else:
                yield name
        else:
            paths = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
            if not paths:
                raise InputError(f"{printable(name)}: no such file or folder; name images that exist")
            for path in paths:
                if os.path.isfile(path) and os.path.abspath(path) not in avoided:
                    yield path


def is_url(name: str) -> bool:
    """Whether a name is an address such as s3://bucket/image.png, which only `predict --ray` reads."""
    return "://" in name


def is_image_name(name: str) -> bool:
    """Whether the suffix of a file in a folder is that of an image."""
    lower = name.lower()
    return os.path.splitext(lower)[1] in SUFFIXES or lower.endswith(".nii.gz")


def _walk_folder(folder: str, skipped: SkippedFiles, avoided: set[str], recursive: bool) -> Iterator[str]:
    """Yields the images below a folder, and the folders below it that cannot be listed, which become error rows."""
    try:
        stack = [iter(_list_folder(folder))]
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from None
    while stack:  # not recursion: folders may be nested deeper than Python's stack
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif os.path.abspath(entry.path) in avoided:
            continue
        elif entry.is_dir(follow_symlinks=False):
            if recursive:
                try:
                    stack.append(iter(_list_folder(entry.path)))
                except OSError:
                    yield entry.path
        elif is_image_name(entry.name):
            yield entry.path
        elif entry.is_dir():  # a link to a folder is not followed: it may lead into a circle
            skipped.add("link to a folder")
        else:
            skipped.add(os.path.splitext(entry.name)[1].lower() or "without suffix")


def _list_folder(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _read_list(path: str) -> Iterator[str]:
    base, suffix = os.path.split(path)[0], os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path, base)
        elif suffix == ".csv":
            yield from _read_csv(path, base)
        else:
            with open(path, encoding=_LIST_ENCODING, errors="surrogateescape", newline="") as stream:
                yield from _read_lines(stream, base)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _read_lines(stream: TextIO, base: str) -> Iterator[str]:
    """Yields one path per line."""
    for line in stream:
        name = line.rstrip("\r\n")
        if name:
            yield _join(base, name)


def _join(base: str, name: str) -> str:
    """The path of a name in a list; an address of an object store stays as it is."""
    return name if is_url(name) else os.path.join(base, name)


def _read_csv(path: str, base: str) -> Iterator[str]:
    """Yields the paths in the column file, file_name, path or image; columns end with a comma, semicolon or tab."""
    try:
        with open(path, encoding=_LIST_ENCODING, errors="surrogateescape") as stream:
            delimiter = find_delimiter(stream.readline())
        with open_csv(
            Path(path), encoding=_LIST_ENCODING, errors="surrogateescape", strict=False, delimiter=delimiter
        ) as table:
            column = _find_column(path, table)
            for line, row in table.rows:
                if not row[column]:
                    raise InputError(f"{path}: line {line} names no file in column {column}")
                yield _join(base, row[column])
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None


def _read_parquet(path: str, base: str) -> Iterator[str]:
    try:
        with open_parquet(Path(path), only=COLUMNS) as table:
            column = _find_column(path, table)
            for _, row in table.rows:
                if not row[column]:
                    raise InputError(f"{path}: a row names no file in column {column}")
                yield _join(base, str(row[column]))
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


def _find_column(path: str, table: OpenTable) -> str:
    """Returns the first of COLUMNS that the table has; InputError if it has none."""
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise InputError(f"{path}: no column {', '.join(COLUMNS)}; its columns: {', '.join(table.columns)}")
    return column
