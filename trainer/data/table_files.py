"""Reads the rows of a table file: CSV with any of the usual delimiters and encodings, JSON lines, Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import DataError
from probrt.runtime.tables import (
    BLANK,
    JsonLine,
    UnreadableTable,
    find_delimiter,
    find_encoding,
    open_csv,
    open_parquet,
    read_json_lines,
)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    number: as a person counts it; the header of a CSV is row 1. cells: text by column, empty where a value is missing.
    """

    number: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"row {self.number}"


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Returns the rows of a table file, by its suffix, and notes about how it was read.

    Raises DataError for a file that is no table or has no rows.
    """
    notes: list[str] = []
    match path.suffix.lower():
        case ".csv" | ".tsv":
            rows = _csv_rows(path, notes)
        case ".jsonl":
            rows = _json_rows(path)
        case ".parquet":
            rows = _parquet_rows(path)
        case _:
            raise DataError(f"{path}: a table is .csv, .tsv, .jsonl or .parquet")
    if not rows:
        raise DataError(f"{path}: has no rows")
    return [Row(row.number, _strip_names(row.cells, path)) for row in rows], notes


def _strip_names(cells: dict[str, str], path: Path) -> dict[str, str]:
    stripped = {name.strip(): cell for name, cell in cells.items()}
    if len(stripped) < len(cells):
        names = [name.strip() for name in cells]
        raise DataError(f"{path}: two columns are named {max(names, key=names.count)!r}")
    return stripped


def _csv_rows(path: Path, notes: list[str]) -> list[Row]:
    data = path.read_bytes()
    encoding = find_encoding(data)
    if encoding not in ("utf-8-sig", "utf-16"):
        notes.append(f"{path.name} is not UTF-8 and is read as {encoding}; check names with other letters than a to z")
    try:
        header = next(iter(data.decode(encoding).splitlines()), "")
        with open_csv(path, encoding=encoding, delimiter=find_delimiter(header)) as file:
            names = file.columns
            rows = [cells for _, cells in file.rows]
    except (UnreadableTable, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table ({error})") from None
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}: two columns are named {repeated[0]!r}")
    ragged = [row_number for row_number, cells in enumerate(rows, start=2) if None in cells or None in cells.values()]
    if ragged:
        more = f" and {len(ragged) - 1} more" if len(ragged) > 1 else ""
        raise DataError(f"{path}: row {ragged[0]}{more}: another number of cells than the header's {len(names)}")
    return [Row(row_number, cells) for row_number, cells in enumerate(rows, start=2)]


def _json_rows(path: Path) -> list[Row]:
    rows, faults = [], []
    try:
        for line in read_json_lines(path):
            if line.fault == BLANK:
                continue
            try:
                rows.append(Row(line.line_number, _json_cells(line)))
            except ValueError as error:
                faults.append(f"row {line.line_number}: not a JSON object of plain values ({error})")
    except UnreadableTable as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from None
    if faults:
        raise DataError(f"{path}: {len(faults)} faults: " + "; ".join(faults[:20]))
    names = dict.fromkeys(column for row in rows for column in row.cells)
    return [Row(row.number, {name: row.cells.get(name, "") for name in names}) for row in rows]


def _json_cells(line: JsonLine) -> dict[str, str]:
    if line.fault:
        raise ValueError(line.fault)
    if not isinstance(line.value, dict):
        raise ValueError(f"a {type(line.value).__name__}")
    return _cells(line.value)


def _parquet_rows(path: Path) -> list[Row]:
    try:
        with open_parquet(path) as file:
            return [Row(row_number, _cells(cells)) for row_number, cells in file.rows]
    except (UnreadableTable, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet table of plain values ({error})") from None


def _cells(values: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): _cell(value) for name, value in values.items()}


def _cell(value: Any) -> str:
    """Formats a JSON or Parquet value as a CSV cell; ValueError for a list, an object or bytes."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (list, dict, bytes)):
        raise ValueError(f"{type(value).__name__} in a cell")
    return str(value)
