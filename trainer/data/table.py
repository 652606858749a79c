"""The rows of a table: CSV, JSON lines, Parquet, or folders named after classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import DataError, MissingError, one_line
from probrt.runtime.images.decode import SUFFIXES
from probrt.trainer.data.examples import SPLITS
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.categorical import ClassHead

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"


@dataclass(frozen=True)
class Row:
    """One row: its number as a person counts it (a CSV's header is row 1), and its cells as text, empty if missing."""

    number: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"row {self.number}"


@dataclass(frozen=True)
class Table:
    """Rows of the same columns, and where they are from."""

    where: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def need(self, columns: Sequence[str]) -> None:
        """DataError for the first of these columns that is not there."""
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.where}: no column {column!r}; it has {', '.join(self.columns) or 'none'}")


def table(root: Path, name: str, heads: Sequence[AnyHead]) -> Table:
    """The table of a data folder; `name` empty looks for TABLES, then for folders named after classes."""
    if name:
        found = root / name
        if not found.is_file():
            raise DataError(f"{found}: no such table; check data.folder and data.table in the config")
    else:
        found = next((root / one for one in TABLES if (root / one).is_file()), None)
        if found is None:
            return _class_folders(root, heads)
    read = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}.get(found.suffix.lower())
    if read is None:
        raise DataError(f"{found}: a table is .csv, .jsonl or .parquet")
    rows = read(found)
    if not rows:
        raise DataError(f"{found}: has no rows")
    return Table(found, tuple(dict.fromkeys(column for row in rows for column in row.cells)), rows)


def _csv(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = list(reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a UTF-8 CSV table ({error})") from None
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two columns are named {twice[0]!r}")
    wrong = [number for number, row in enumerate(rows, start=2) if None in row or None in row.values()]
    if wrong:
        many = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DataError(f"{path}: row {wrong[0]}{many}: another number of cells than the header's {len(names)}")
    return [Row(number, row) for number, row in enumerate(rows, start=2)]


def _json_lines(path: Path) -> list[Row]:
    rows, faults = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            rows.append(Row(number, {str(key): _cell(value) for key, value in found.items()}))
        except (ValueError, AttributeError, RecursionError) as error:
            faults.append(f"row {number}: not a JSON object of plain values ({one_line(error)})")
    if faults:
        raise DataError(f"{path}: {len(faults)} faults: " + "; ".join(faults[:20]))
    names = dict.fromkeys(column for row in rows for column in row.cells)
    return [Row(row.number, {name: row.cells.get(name, "") for name in names}) for row in rows]


def _parquet(path: Path) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingError("reading Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
    try:
        found = parquet.read_table(path).to_pylist()
        return [Row(number, {name: _cell(value) for name, value in row.items()}) for number, row in enumerate(found, 1)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet table of plain values ({one_line(error)})") from None


def _cell(value: Any) -> str:
    """A JSON or Parquet value as a CSV cell would have it."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (list, dict, bytes)):
        raise ValueError(f"{type(value).__name__} in a cell")
    return str(value)


def _class_folders(root: Path, heads: Sequence[AnyHead]) -> Table:
    """Rows out of paths: [split/]class/…/file."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check data.folder in the config")
    if len(heads) != 1 or not isinstance(heads[0], ClassHead) or heads[0].per_position:
        raise DataError(f"{root}: no {', '.join(TABLES)}; name the table in data.table")
    head, found = heads[0], []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if hidden or not any(path.name.lower().endswith(suffix) for suffix in SUFFIXES):
            continue
        split = parts[0] if parts[0] in SPLITS and len(parts) > 2 else ""
        label = parts[bool(split)] if len(parts) > 1 else ""
        found.append({FILE: "/".join(parts), head.target: label, "split": split})
    if not found:
        raise DataError(
            f"{root}: neither {', '.join(TABLES)} nor images in folders named after the classes "
            f"{', '.join(head.labels)}"
        )
    if not any(cells["split"] for cells in found):
        found = [{FILE: cells[FILE], head.target: cells[head.target]} for cells in found]
    return Table(root, tuple(found[0]), [Row(number, cells) for number, cells in enumerate(found, start=1)])
