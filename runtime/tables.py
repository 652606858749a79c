"""Reads rows of CSV, JSON lines and Parquet as dicts, one by one; callers check what a row must hold.

Callers turn `UnreadableTable` into an error of their own kind that names the file.
"""

import codecs
import csv
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import MissingError, one_line

BLANK = "a blank line"
DELIMITERS = (",", "\t", ";")


class UnreadableTable(Exception):
    """A file cannot be read as a table; the message is one line, without the path."""


@dataclass(frozen=True)
class OpenTable:
    """A table that is being read: its columns, and (row number, row) for each row.

    The number is the line where a row ends in CSV (the header is line 1), the count from 1 in Parquet.
    """

    columns: tuple[str, ...]
    rows: Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class JsonLine:
    """A line of a JSON lines file: its line number from 1, and its value or the fault that leaves it without one."""

    line_number: int
    value: Any = None
    fault: str = ""


@contextmanager
def open_csv(
    path: Path, *, encoding: str = "utf-8", errors: str = "strict", strict: bool = True, delimiter: str = ","
) -> Iterator[OpenTable]:
    """Opens a CSV file with a header; its cells are text.

    As in csv.DictReader, a row that is too short holds None for its missing cells, a row that is too long holds its
    surplus cells under the key None, and blank lines are no rows.
    errors: of the decoder. strict: whether misplaced quotes are faults.
    Raises UnreadableTable, also while the rows are read; OSError if the file cannot be opened.
    """
    with path.open(encoding=encoding, errors=errors, newline="") as stream:
        reader = csv.DictReader(stream, strict=strict, delimiter=delimiter)
        try:
            columns = tuple(reader.fieldnames or ())
            yield OpenTable(columns, ((reader.line_num, row) for row in reader))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UnreadableTable(one_line(error)) from None


def find_encoding(data: bytes) -> str:
    """Returns the encoding of a text: UTF-16 by its byte order mark, UTF-8 where it is valid, else Windows-1252."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"  # has a letter for every byte


def find_delimiter(header: str) -> str:
    """Returns the delimiter that cuts a header into the most columns, a comma where several do."""

    def count_columns(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    return max(DELIMITERS, key=count_columns)


@contextmanager
def open_parquet(path: Path, only: Collection[str] | None = None) -> Iterator[OpenTable]:
    """Opens a Parquet file; rows are read in groups, so that memory does not grow with the file.

    only: the columns that rows hold; None means all.
    Raises MissingError without pyarrow; UnreadableTable, also while the rows are read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingError(f"{path}: reading Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
    try:
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            chosen = None if only is None else [name for name in columns if name in only]
            batches = file.iter_batches(batch_size=1024, columns=chosen)
            yield OpenTable(columns, enumerate((row for batch in batches for row in batch.to_pylist()), start=1))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(one_line(error)) from None


def read_json_lines(path: Path, errors: str = "strict") -> Iterator[JsonLine]:
    """Yields every line's value, or its fault, which is BLANK for a blank line.

    errors: of the decoder. Raises UnreadableTable for what is not UTF-8, OSError if the file cannot be opened.
    """
    with path.open(encoding="utf-8", errors=errors) as stream:
        try:
            for line_number, line in enumerate(stream, start=1):
                try:
                    yield JsonLine(line_number, json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield JsonLine(line_number, fault=one_line(error) if line.strip() else BLANK)
        except UnicodeDecodeError as error:
            raise UnreadableTable(one_line(error)) from None
