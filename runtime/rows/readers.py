"""Rows of predictions, read back from what `writers.py` writes."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probrt.runtime.errors import InputError, MissingError, UsageError, one_line
from probrt.runtime.rows.head_rows import Row
from probrt.runtime.rows.writers import FIELDS


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl, .csv or .parquet file, as a line of JSON has them.

    UsageError for another suffix or no such file, InputError for a line that is no row.
    """
    readers = {".jsonl": _json_rows, ".ndjson": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: predictions are .jsonl, .csv or .parquet")
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `probrt predict` writes it")
    for number, row in reader(path):
        if not isinstance(row, dict) or not _is_row(row):
            raise InputError(f"{path}: line {number} is no row of predictions ({path.suffix[1:].upper()})")
        yield row


def _is_row(row: Row) -> bool:
    heads = row.get("heads", "")
    if not isinstance(row.get("file"), str) or not isinstance(heads, (dict, type(None))):
        return False
    return heads is None or all(isinstance(values, dict) and "mean" in values for values in heads.values())


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        try:
            for number, fields in enumerate(csv.DictReader(stream, strict=True), start=2):
                kept = {name: value for name, value in fields.items() if name and value}
                yield number, _nested({name: _value(name, value) for name, value in kept.items()})
        except csv.Error as error:
            raise InputError(f"{path}: not readable as CSV: {one_line(error)}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingError(f"{path}: reading Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            for fields in batch.to_pylist():
                number += 1
                yield number, _nested({name: value for name, value in fields.items() if value is not None})
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet: {one_line(error)}") from None


def _nested(fields: Row) -> Row:
    """A row out of flat columns; what is not there was empty."""
    row: Row = {name: fields.get(name) for name in FIELDS} | {"heads": None}
    if "review" in fields:
        row["review"] = fields["review"]
    if row["status"] == "ok":
        row["heads"] = {}
    for name, value in fields.items():
        head, dot, quantity = name.partition(".")
        if dot and row["heads"] is not None:
            row["heads"].setdefault(head, {})[quantity] = value
    return row


def _value(name: str, text: str) -> Any:
    """A field of CSV: a list or a number in JSON, or text. A label stays text though it may look like a number."""
    text_only = name in FIELDS or (name.endswith(".label") and not text.startswith("["))
    if text_only:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
