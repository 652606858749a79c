"""Continues a stopped run: keeps the rows that are whole, and skips the images that they answer."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.errors import StorageError, UsageError, printable

KEYS = ("file", "status", "bundle", "engine", "draws")


@dataclass(frozen=True, kw_only=True)
class ResumeRequest:
    """The run that continues `out`.

    names: of the images, in their order. bundle: its label. engine: its name. draws: what every good row must have
    taken, or None where they differ. review: whether rows have that flag. thresholds: by head, of `choose_thresholds`.
    """

    out: Path
    names: Iterator[str]
    bundle: str
    engine: str
    draws: int | None
    review: bool
    thresholds: Mapping[str, Conformal]


@dataclass(frozen=True)
class FinishedRows:
    """What a stopped run left: the number of whole rows, of the errors among them, and the bytes that they take."""

    rows: int
    errors: int
    size: int


def resume_rows(request: ResumeRequest) -> FinishedRows:
    """Checks the rows of `out` against the request, cuts off a torn last row, and moves `names` behind the rows.

    Raises UsageError if the rows are of another run: of other images or in another order, or of another bundle,
    engine, number of draws or coverage. Raises StorageError if the file cannot be cut.
    """
    out = request.out
    if out.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
        raise UsageError(f"--resume: {out} cannot be continued; write .jsonl or .csv, or start anew with --overwrite")
    is_csv = out.suffix.lower() == ".csv"
    rows = errors = size = 0
    for row, end in (_csv_rows if is_csv else _json_rows)(out):
        _check_row(row, next(request.names, None), request, f"--resume: {out}: row {rows + 1}")
        rows, errors, size = rows + 1, errors + (row["status"] == "error"), end
    if is_csv and rows == 0:
        size = 0  # the header is written anew
    try:
        with out.open("rb+") as stream:
            stream.truncate(size)
    except OSError as error:
        raise StorageError(f"{out}: cannot be continued: {error.strerror}") from None
    return FinishedRows(rows, errors, size)


def _check_row(row: dict[str, Any], name: str | None, request: ResumeRequest, where: str) -> None:
    """Raises UsageError if a row is not the one that the request would write for the image `name`."""
    if row["file"] != name:
        in_file, in_input = printable(str(row["file"])), printable(str(name))
        raise UsageError(f"{where} is {in_file} but the input has {in_input}; name the same images")
    draws = None if row["status"] == "error" or request.draws is None else int(row["draws"])
    if row["bundle"] != request.bundle or row["engine"] != request.engine or draws not in (None, request.draws):
        raise UsageError(
            f"{where} is by {row['bundle']}, {row['engine']}, {row['draws']} draws, not {request.bundle}, "
            f"{request.engine}, {request.draws}; ask for the same, or start anew with --overwrite"
        )
    if ("review" in row) != request.review:
        raise UsageError(f"{where} has {'no' if request.review else 'a'} review flag; give the same --max-risk")
    for head, coverage in row["coverage"].items():
        threshold = request.thresholds.get(head)
        if threshold is not None and not math.isclose(coverage, threshold.coverage):
            raise UsageError(f"{where} holds {head} at coverage {coverage:g}; give the same --coverage")


def _records(path: Path, *, quoted: bool) -> Iterator[tuple[bytes, int]]:
    """Yields the whole records of a file, each with the position of its end.

    quoted: whether a newline between quotes is part of a record, as in CSV.
    """
    end, record = 0, b""
    with path.open("rb") as stream:
        for line in stream:
            record += line
            if line.endswith(b"\n") and not (quoted and record.count(b'"') % 2):
                end += len(record)
                yield record, end
                record = b""


def _json_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    for line, (record, end) in enumerate(_records(path, quoted=False), start=1):
        try:
            row = json.loads(record)
            heads = (row.get("heads") or {}).items()
            coverage = {head: float(values["coverage"]) for head, values in heads if "coverage" in values}
            flag = {"review": row["review"]} if "review" in row else {}
            yield {key: row[key] for key in KEYS} | flag | {"coverage": coverage}, end
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"--resume: {path}: line {line} is no row of predictions") from None


def _csv_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    header: list[str] = []
    for index, (record, end) in enumerate(_records(path, quoted=True), start=1):
        fields = next(csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")))
        if not header:
            header = fields
            if not set(KEYS) <= set(header):
                raise UsageError(f"--resume: {path}: its header is none of predictions")
        elif len(fields) != len(header):
            raise UsageError(f"--resume: {path}: record {index} is no row of predictions")
        else:
            cells = dict(zip(header, fields, strict=True))
            coverage = {
                name.removesuffix(".coverage"): float(text)
                for name, text in cells.items()
                if name.endswith(".coverage") and text
            }
            yield {**cells, "coverage": coverage}, end
