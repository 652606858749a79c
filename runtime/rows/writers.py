"""Writes the finished rows by the suffix of the file: JSON lines, or flat columns in CSV and Parquet.

Names that are not UTF-8 survive: JSON escapes their bytes as lone surrogates (`os.fsencode` gives them back), CSV holds
the bytes as they are, Parquet shows them as `\\xNN`.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, QUANTITIES, HeadRecord, Manifest
from probrt.runtime.errors import MissingError, UsageError
from probrt.runtime.files import move_synced, open_atomic
from probrt.runtime.rows.journal import read_journal
from probrt.runtime.rows.kinds import KINDS, Column
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.novelty import NoveltyRows
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.overlay import can_overlay

FIELDS = ("file", "sha256", "status", "error", "draws", "effective_draws", "engine", "precision", "bundle")
COUNTED_FIELDS: Mapping[str, str] = {"draws": "count", "effective_draws": "number"}
JSON_SUFFIXES = (".jsonl", ".ndjson")
SUFFIXES = (*JSON_SUFFIXES, ".csv", ".parquet")
PARQUET_GROUP = 4096


@dataclass(frozen=True, kw_only=True)
class RowsFile:
    """A file of rows, and which columns they have.

    format: the suffix of its name, one of SUFFIXES. novelty: what rows hold of it. review: whether rows have
    that flag. maps: where per-position answers go; None leaves their columns out.
    """

    path: Path
    format: str
    manifest: Manifest
    novelty: NoveltyRows | None = None
    review: bool = False
    maps: MapFolder | None = None


def choose_format(path: str) -> str:
    """Returns the format of an output by its suffix.

    Raises UsageError for another suffix, MissingError for Parquet without pyarrow.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--out {path}: choose a name that ends in .jsonl, .csv or .parquet")
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401  (before any work is done)
        except ImportError:
            raise MissingError(f"{path}: writing Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
    return suffix


def write_rows_file(file: RowsFile, journal: Path, before_rename: Callable[[int], None]) -> None:
    """Turns the journal of a run into its file, which appears at its path when it is whole.

    Of JSON lines the journal itself moves there. The bytes depend on the rows alone.
    before_rename: called with the size of the file before it gets its name.
    Raises OSError; the journal is then as it was.
    """
    if file.format in JSON_SUFFIXES:
        before_rename(journal.stat().st_size)
        move_synced(journal, file.path)
        return
    rows = (row for row, _ in read_journal(journal))
    with open_atomic(file.path) as stream:
        if file.format == ".csv":
            _write_csv(stream, rows, list(flat_columns(file)))
        else:
            write_parquet(stream, rows, flat_columns(file))
        stream.flush()
        before_rename(stream.tell())


def _write_csv(stream: IO[bytes], rows: Iterable[Row], columns: list[str]) -> None:
    line = io.StringIO(newline="")
    # Only the characters of the line's end make csv quote a cell, so \r must be among them; lines still end in \n.
    writer = csv.DictWriter(line, columns, lineterminator="\r\n")

    def write_line() -> None:
        stream.write(line.getvalue().removesuffix("\r\n").encode("utf-8", "surrogateescape") + b"\n")
        line.seek(0)
        line.truncate()

    writer.writeheader()
    write_line()
    for row in rows:
        cells = flatten_row(row).items()
        writer.writerow(
            {name: json.dumps(value) if isinstance(value, (list, bool)) else value for name, value in cells}
        )
        write_line()


def write_parquet(
    stream: IO[bytes], rows: Iterator[Row], columns: Mapping[str, Column], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes flat columns in groups of a few thousand rows.

    metadata: kept in the footer of the file, beside the schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"number": pa.float64(), "text": pa.string(), "flag": pa.bool_(), "count": pa.int64()}

    def column_type(content: str, lists: int) -> Any:
        return types[content] if lists == 0 else pa.list_(column_type(content, lists - 1))

    schema = pa.schema([(name, column_type(*column)) for name, column in columns.items()], metadata)
    with pq.ParquetWriter(stream, schema) as writer:
        while group := [_show_bytes(flatten_row(row)) for row in islice(rows, PARQUET_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def show_bytes(text: str) -> str:
    """Returns a text as Parquet holds it: bytes that are not UTF-8 as `\\xNN`."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _show_bytes(value: Any) -> Any:
    match value:
        case str():
            return show_bytes(value)
        case list():
            return [_show_bytes(item) for item in value]
        case dict():
            return {name: _show_bytes(item) for name, item in value.items()}
    return value


def flatten_row(row: Row) -> Row:
    """A row as flat columns: `digit.mean` in place of heads: {digit: {mean}}."""
    cells = {name: row[name] for name in (*FIELDS, "review") if name in row}
    for head, values in ({NOVELTY: row.get(NOVELTY) or {}} | (row["heads"] or {})).items():
        cells |= {f"{head}.{name}": value for name, value in values.items()}
    return cells


def flat_columns(file: RowsFile) -> dict[str, Column]:
    """All flat columns that the rows of a file may have, by name."""
    columns: dict[str, Column] = {name: (COUNTED_FIELDS.get(name, "text"), 0) for name in FIELDS}
    if file.review:
        columns["review"] = ("flag", 0)
    if file.novelty is not None:
        columns |= {f"{NOVELTY}.{name}": column for name, column in file.novelty.columns.items()}
        if file.maps is not None and file.manifest.novelty is not None and file.manifest.novelty.map:
            names = (NOVELTY_MAP, "overlay") if file.maps.overlay else (NOVELTY_MAP,)
            columns |= {f"{NOVELTY}.{name}": ("text", 0) for name in names}
    for head in file.manifest.heads:
        in_head = _map_columns(head, file.maps) if head.per_position else KINDS[head.kind].columns(head)
        columns |= {f"{head.name}.{name}": column for name, column in in_head.items()}
    return columns


def _map_columns(head: HeadRecord, maps: MapFolder | None) -> dict[str, Column]:
    if maps is None:
        return {}
    paths: dict[str, Column] = dict.fromkeys(QUANTITIES, ("text", int(maps.has_lists(head))))
    paths |= dict.fromkeys(head.extra, ("text", 0))
    return paths | ({"overlay": ("text", 0)} if maps.overlay and can_overlay(head) else {})
