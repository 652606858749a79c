"""Writes rows by the suffix of the file: JSON lines, or flat columns in CSV and Parquet.

Names that are not UTF-8 survive: JSON escapes their bytes as lone surrogates (`os.fsencode` gives them back), CSV holds
the bytes as they are, Parquet shows them as `\\xNN`.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from probrt.runtime.bundle.manifest import QUANTITIES, HeadRecord, Manifest
from probrt.runtime.errors import MissingError, StorageError, UsageError
from probrt.runtime.files import partial_path, replace_with_partial
from probrt.runtime.rows.kinds import KINDS, Column
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.overlay import can_overlay

FIELDS = ("file", "sha256", "status", "error", "draws", "engine", "bundle")


@dataclass(frozen=True, kw_only=True)
class RowsFile:
    """Where rows go, and which columns they have.

    path: "-" is standard output. append: continues a file of whole rows. review: whether rows have that flag.
    maps: where per-position answers go; None leaves their columns out.
    """

    path: str
    manifest: Manifest
    append: bool = False
    review: bool = False
    maps: MapFolder | None = None


class RowWriter(Protocol):
    """Takes rows in order. Rows are in the file when `write` returns, but those of Parquet when `close` does."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


def open_writer(file: RowsFile) -> RowWriter:
    """Opens the writer for the suffix of the path; standard output takes JSON lines.

    Raises UsageError for another suffix, or for other columns than those of the file that is continued; StorageError
    if the file cannot be opened; MissingError for Parquet without pyarrow.
    """
    if file.path == "-":
        return JsonWriter(sys.stdout)
    path = Path(file.path)
    suffix = path.suffix.lower()
    mode = "a" if file.append else "w"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (".jsonl", ".ndjson"):
            return JsonWriter(path.open(mode, encoding="utf-8"))
        if suffix == ".csv":
            names = list(flat_columns(file))
            if file.append:
                _check_header(path, names)
            stream = path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
            return CsvWriter(stream, names, header=not file.append)
        if suffix == ".parquet":
            return ParquetWriter(path, flat_columns(file))
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None
    raise UsageError(f"--out {path}: choose a name that ends in .jsonl, .csv or .parquet")


class JsonWriter:
    """Writes one JSON object a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[Row]) -> None:
        self._stream.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not sys.stdout:
            self._stream.close()


class CsvWriter:
    """Writes flat columns; lists are JSON text in one cell."""

    def __init__(self, stream: IO[str], columns: Sequence[str], *, header: bool) -> None:
        self._stream = stream
        self._writer = csv.DictWriter(stream, columns, lineterminator="\n")
        if header:
            self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            cells = flatten_row(row).items()
            self._writer.writerow(
                {name: json.dumps(value) if isinstance(value, (list, bool)) else value for name, value in cells}
            )
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class ParquetWriter:
    """Writes flat columns in groups of a few thousand rows; the file appears at its path when it is closed."""

    GROUP = 4096

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingError(f"{path}: writing Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
        types = {"number": pa.float64(), "text": pa.string(), "flag": pa.bool_(), "count": pa.int64()}

        def column_type(content: str, lists: int) -> Any:
            return types[content] if lists == 0 else pa.list_(column_type(content, lists - 1))

        self._schema = pa.schema([(name, column_type(*column)) for name, column in columns.items()])
        self._path = path
        self._pa, self._rows = pa, list[Row]()
        self._writer: Any = pq.ParquetWriter(partial_path(path), self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            cells = flatten_row(row)
            cells["file"] = str(cells["file"]).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            self._rows.append(cells)
        if len(self._rows) >= self.GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()
        replace_with_partial(self._path)

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def flatten_row(row: Row) -> Row:
    """A row as flat columns: `digit.mean` in place of heads: {digit: {mean}}."""
    cells = {name: row[name] for name in (*FIELDS, "review") if name in row}
    for head, values in (row["heads"] or {}).items():
        cells |= {f"{head}.{name}": value for name, value in values.items()}
    return cells


def flat_columns(file: RowsFile) -> dict[str, Column]:
    """All flat columns that the rows of a file may have, by name."""
    columns: dict[str, Column] = {name: ("count" if name == "draws" else "text", 0) for name in FIELDS}
    if file.review:
        columns["review"] = ("flag", 0)
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


def _check_header(path: Path, names: list[str]) -> None:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        if next(csv.reader(stream), []) != names:
            raise UsageError(
                f"--resume: {path} has other columns; give the same --maps and --overlay as before, or --overwrite"
            )
