"""Rows to a file, by its suffix: JSON lines as they come; flat columns in CSV and Parquet.

Names that are no UTF-8 survive: JSON escapes their bytes as lone surrogates (`os.fsencode` gives them
back), CSV holds the bytes as they are, Parquet shows them as `\\xNN`.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from probrt.runtime.bundle.manifest import QUANTITIES, HeadRecord, Manifest
from probrt.runtime.errors import MissingError, StorageError, UsageError
from probrt.runtime.files import partial_path, replace_with_partial
from probrt.runtime.rows.head_rows import Row
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.overlay import can_overlay

Column = tuple[str, int]

FIELDS = ("file", "sha256", "status", "error", "draws", "engine", "bundle")


class RowWriter(Protocol):
    """Takes rows in order; what `write` got is on disk when it returns, but for Parquet."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[Row]) -> None:
        self._stream.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not sys.stdout:
            self._stream.close()


class Csv:
    """Lists are JSON text in one field."""

    def __init__(self, stream: IO[str], columns: Sequence[str], header: bool) -> None:
        self._stream = stream
        self._writer = csv.DictWriter(stream, columns, lineterminator="\n")
        if header:
            self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            fields = flat(row)
            self._writer.writerow({k: json.dumps(v) if isinstance(v, (list, bool)) else v for k, v in fields.items()})
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class Parquet:
    """One row group per few thousand rows; the file is renamed into place when it is whole."""

    GROUP = 4096

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingError(f"{path}: writing Parquet needs pyarrow: pip install 'probrt[parquet]'") from None
        self._path = path
        types = {"number": pa.float64(), "text": pa.string(), "flag": pa.bool_(), "count": pa.int64()}

        def nested(kind: str, depth: int) -> Any:
            return types[kind] if depth == 0 else pa.list_(nested(kind, depth - 1))

        self._schema = pa.schema([(name, nested(*column)) for name, column in columns.items()])
        self._pa, self._rows = pa, list[Row]()
        self._writer: Any = pq.ParquetWriter(partial_path(path), self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            fields = flat(row)
            fields["file"] = str(fields["file"]).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            self._rows.append(fields)
        if len(self._rows) >= self.GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        replace_with_partial(self._path)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def flat(row: Row) -> Row:
    """A row as flat columns: `digit.mean` in place of heads: {digit: {mean}}."""
    fields = {name: row[name] for name in (*FIELDS, "review") if name in row}
    for head, values in (row["heads"] or {}).items():
        fields |= {f"{head}.{name}": value for name, value in values.items()}
    return fields


def columns(manifest: Manifest, review: bool, maps: MapFolder | None) -> dict[str, Column]:
    """All flat columns of a bundle's rows: what they hold, and in how many lists inside each other.

    review: whether rows have that flag; maps: where per-position answers go.
    """
    kinds: dict[str, Column] = {name: ("count" if name == "draws" else "text", 0) for name in FIELDS}
    kinds |= {"review": ("flag", 0)} if review else {}
    for head in manifest.heads:
        for name, kind in (_map_columns(head, maps) if head.per_position else _head_columns(head)).items():
            kinds[f"{head.name}.{name}"] = kind
    return kinds


def _map_columns(head: HeadRecord, maps: MapFolder | None) -> dict[str, Column]:
    if maps is None:
        return {}
    paths: dict[str, Column] = dict.fromkeys(QUANTITIES, ("text", int(maps.lists(head))))
    paths |= dict.fromkeys(head.extra, ("text", 0))
    return paths | ({"overlay": ("text", 0)} if maps.overlay and can_overlay(head) else {})


def _head_columns(head: HeadRecord) -> dict[str, Column]:
    kinds: dict[str, Column] = {name: ("number", _depth(head, name)) for name in (*QUANTITIES, *head.extra)}
    if head.combine == "variance":
        return kinds | {"interval": ("number", 1 + _depth(head, "mean")), "coverage": ("number", 0)}
    if len(head.outputs["mean"]) > len(head.outputs["aleatoric"]):
        return kinds | {
            "label": ("text", 0),
            "probability": ("number", 0),
            "set": ("text", 1),
            "coverage": ("number", 0),
        }
    return kinds | {"label": ("text", 1)}


def _depth(head: HeadRecord, quantity: str) -> int:
    """Lists inside each other that `rows.numbers` makes: a part of one entry is a number."""
    sides = list(head.outputs.get(quantity, head.outputs["aleatoric"]))
    while sides and sides[-1] == 1:
        sides.pop()
    return len(sides)


def _same_columns(path: Path, names: list[str]) -> None:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        if next(csv.reader(stream), []) != names:
            raise UsageError(
                f"--resume: {path} has other columns; give the same --maps and --overlay as before, or --overwrite"
            )


def open_writer(
    path: str, manifest: Manifest, append: bool, review: bool = False, maps: MapFolder | None = None
) -> RowWriter:
    """The writer that the suffix asks for; `-` is JSON lines on standard output.

    append: continue a file of whole rows; review, maps: as for `columns`. UsageError for another suffix,
    StorageError if it cannot be opened.
    """
    if path == "-":
        return JsonLines(sys.stdout)
    target = Path(path)
    suffix = target.suffix.lower()
    mode = "a" if append else "w"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (".jsonl", ".ndjson"):
            return JsonLines(target.open(mode, encoding="utf-8"))
        if suffix == ".csv":
            if append:
                _same_columns(target, list(columns(manifest, review, maps)))
            stream = target.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
            return Csv(stream, list(columns(manifest, review, maps)), header=not append)
        if suffix == ".parquet":
            return Parquet(target, columns(manifest, review, maps))
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None
    raise UsageError(f"--out {path}: choose a name that ends in .jsonl, .csv or .parquet")
