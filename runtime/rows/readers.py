"""Rows of predictions, read back from what `writers.py` writes."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import NOVELTY
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.rows.kinds import Column
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.writers import COUNTED_FIELDS, FIELDS
from probrt.runtime.tables import UnreadableTable, open_csv, open_parquet, read_json_lines

# Of a folder of `predict --ray`; the second is there once it is complete.
SHARDS, SHARD_LIST = "part-*.parquet", "_shards.json"


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a .jsonl, .csv or .parquet file, each as its line of JSON lines holds it.

    A folder that `predict --ray` has written is read like a file. Raises UsageError for another suffix or a file that
    does not exist, InputError for a line that is no row.
    """
    if path.is_dir():
        if not (path / SHARD_LIST).is_file():
            raise UsageError(f"{path}: no folder of `predict --ray`, or one that is not complete; go on with --resume")
        for part in sorted(path.glob(SHARDS)):
            yield from read_rows(part)
        return
    readers = {".jsonl": _json_rows, ".ndjson": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: predictions are .jsonl, .csv or .parquet")
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `probrt predict` writes it")
    for line, row in reader(path):
        if not isinstance(row, dict) or not _is_row(row):
            raise InputError(f"{path}: line {line} is no row of predictions ({path.suffix[1:].upper()})")
        yield row


def _is_row(row: Row) -> bool:
    heads = row.get("heads", "")
    if not isinstance(row.get("file"), str) or not isinstance(heads, (dict, type(None))):
        return False
    return heads is None or all(isinstance(values, dict) and "mean" in values for values in heads.values())


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for line in read_json_lines(path, errors="replace"):
        yield line.line_number, line.value


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with open_csv(path, errors="surrogateescape") as table:
            for line, cells in table.rows:
                known = {name: text for name, text in cells.items() if name and text}
                yield line, _nest({name: _parse_cell(name, text) for name, text in known.items()})
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with open_parquet(path) as table:
            for line, cells in table.rows:
                yield line, _nest({name: value for name, value in cells.items() if value is not None})
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None


def _nest(cells: Row) -> Row:
    """Builds a row from its flat columns; a column that is not there was empty."""
    row: Row = {name: cells.get(name) for name in FIELDS}
    heads: dict[str, Row] = {}
    for name, value in cells.items():
        head, dot, quantity = name.partition(".")
        if dot:
            heads.setdefault(head, {})[quantity] = value
    if NOVELTY in heads:
        row[NOVELTY] = heads.pop(NOVELTY)
    if "review" in cells:
        row["review"] = cells["review"]
    return row | {"heads": heads if row["status"] == "ok" else None}


def read_finished_rows(path: Path, format: str, columns: Mapping[str, Column]) -> Iterator[Row]:
    """Yields the rows of a file whose columns are known, equal to those that were written.

    Raises InputError for a file that does not hold such rows.
    """
    if format == ".csv":
        rows = _typed_csv_rows(path, columns)
    elif format == ".parquet":
        rows = (row for _, row in _parquet_rows(path))
    else:
        rows = (row for _, row in _json_rows(path))
    for row in rows:
        if not isinstance(row, dict) or not _is_row(row):
            raise InputError(f"{path}: holds something that is no row of predictions; start anew with --overwrite")
        yield row


def _typed_csv_rows(path: Path, columns: Mapping[str, Column]) -> Iterator[Row]:
    try:
        with open_csv(path, errors="surrogateescape") as table:
            for line, cells in table.rows:
                try:
                    yield _nest(
                        {
                            name: text if columns[name] == ("text", 0) else json.loads(text)
                            for name, text in cells.items()
                            if text
                        }
                    )
                except (KeyError, ValueError):
                    raise InputError(
                        f"{path}: line {line} is no row of this run; start anew with --overwrite"
                    ) from None
    except UnreadableTable as error:
        raise InputError(f"{path}: not readable as CSV: {error}") from None


def _parse_cell(name: str, text: str) -> Any:
    """A cell of CSV: a list or a number in JSON, or text. A label stays text though it may look like a number."""
    if (name in FIELDS and name not in COUNTED_FIELDS) or (name.endswith(".label") and not text.startswith("[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
