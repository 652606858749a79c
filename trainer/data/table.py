"""Reads the table of a data folder: CSV, JSON lines, Parquet, or folders named after classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import DataError
from probrt.runtime.images.decode import SUFFIXES
from probrt.runtime.tables import BLANK, JsonLine, UnreadableTable, open_csv, open_parquet, read_json_lines
from probrt.trainer.data.examples import SPLITS
from probrt.trainer.heads import AnyHead

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    number: as a person counts it; the header of a CSV is row 1. cells: text by column, empty where a value is missing.
    """

    number: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"row {self.number}"


@dataclass(frozen=True)
class Table:
    """Rows of the same columns, and the file or folder that they come from."""

    where: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises DataError for the first of these columns that the table lacks."""
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.where}: no column {column!r}; it has {', '.join(self.columns) or 'none'}")


def read_table(root: Path, name: str, heads: Sequence[AnyHead]) -> Table:
    """Reads the table of a data folder; an empty `name` takes the first of TABLES, else folders named after classes.

    Raises DataError for a table that is not there, cannot be read, or has no rows.
    """
    path = root / name if name else next((root / known for known in TABLES if (root / known).is_file()), None)
    if path is None:
        return _read_class_folders(root, heads)
    if not path.is_file():
        raise DataError(f"{path}: no such table; check data.folder and data.table in the config")
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: a table is .csv, .jsonl or .parquet")
    rows = read(path)
    if not rows:
        raise DataError(f"{path}: has no rows")
    return Table(path, tuple(dict.fromkeys(column for row in rows for column in row.cells)), rows)


def _csv_rows(path: Path) -> list[Row]:
    try:
        with open_csv(path, encoding="utf-8-sig") as file:
            names = file.columns
            rows = [cells for _, cells in file.rows]
    except UnreadableTable as error:
        raise DataError(f"{path}: not a UTF-8 CSV table ({error})") from None
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


def _read_class_folders(root: Path, heads: Sequence[AnyHead]) -> Table:
    """Makes a row of every image in [split/]class/…/file."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check data.folder in the config")
    if len(heads) != 1 or not heads[0].accepts_class_folders or heads[0].per_position:
        raise DataError(f"{root}: no {', '.join(TABLES)}; name the table in data.table")
    head = heads[0]
    rows: list[dict[str, str]] = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if hidden or not any(path.name.lower().endswith(suffix) for suffix in SUFFIXES):
            continue
        split = parts[0] if parts[0] in SPLITS and len(parts) > 2 else ""
        label = parts[bool(split)] if len(parts) > 1 else ""
        rows.append({FILE: "/".join(parts), head.target: label, "split": split})
    if not rows:
        raise DataError(
            f"{root}: neither {', '.join(TABLES)} nor images in folders named after the classes {', '.join(head.names)}"
        )
    if not any(cells["split"] for cells in rows):
        rows = [{FILE: cells[FILE], head.target: cells[head.target]} for cells in rows]
    return Table(root, tuple(rows[0]), [Row(row_number, cells) for row_number, cells in enumerate(rows, start=1)])
