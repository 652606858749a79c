"""A stopped run, continued: the rows that are whole stay, and the input goes on behind them."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.errors import StorageError, UsageError, one_line


@dataclass(frozen=True)
class Done:
    """What a stopped run left: whole rows, how many of them are errors, and where they end in the file."""

    rows: int
    errors: int
    size: int


def resume(
    out: Path,
    names: Iterator[str],
    bundle: str,
    engine: str,
    draws: int | None,
    review: bool,
    promises: Mapping[str, Conformal],
) -> Done:
    """Checks the rows of `out` against this run, cuts off a torn last row, and moves `names` behind them.

    draws: what every good row must have taken, or None where they differ; review: whether rows have that flag;
    promises: of `rows.promises`.
    UsageError if the file is of another run: other images or order, bundle, engine, number of draws or coverage.
    """
    if out.suffix.lower() not in (".jsonl", ".ndjson", ".csv"):
        raise UsageError(f"--resume: {out} cannot be continued; write .jsonl or .csv, or start anew with --overwrite")
    rows = errors = size = 0
    for row, end in (_csv_rows if out.suffix.lower() == ".csv" else _json_rows)(out):
        name = next(names, None)
        where = f"--resume: {out}: row {rows + 1}"
        if row["file"] != name:
            shown = one_line(ValueError(str(row["file"]))), one_line(ValueError(str(name)))
            raise UsageError(f"{where} is {shown[0]} but the input has {shown[1]}; name the same images")
        taken = None if row["status"] == "error" or draws is None else int(row["draws"])
        if row["bundle"] != bundle or row["engine"] != engine or taken not in (None, draws):
            raise UsageError(
                f"{where} is by {row['bundle']}, {row['engine']}, {row['draws']} draws, not {bundle}, {engine}, "
                f"{draws}; ask for the same, or start anew with --overwrite"
            )
        if ("review" in row) != review:
            raise UsageError(f"{where} has {'no' if review else 'a'} review flag; give the same --max-risk")
        for head, coverage in row["coverage"].items():
            if head in promises and not math.isclose(coverage, promises[head].coverage):
                raise UsageError(f"{where} promises {head} at {coverage:g}; give the same --coverage")
        rows, errors, size = rows + 1, errors + (row["status"] == "error"), end
    if out.suffix.lower() == ".csv" and rows == 0:
        size = 0  # the header is written anew
    try:
        with out.open("rb+") as stream:
            stream.truncate(size)
    except OSError as error:
        raise StorageError(f"{out}: cannot be continued: {error.strerror}") from None
    return Done(rows, errors, size)


def _records(path: Path, quoted: bool) -> Iterator[tuple[bytes, int]]:
    """Whole records and where they end; in CSV a newline between quotes ends none."""
    end, record = 0, b""
    with path.open("rb") as stream:
        for line in stream:
            record += line
            if line.endswith(b"\n") and not (quoted and record.count(b'"') % 2):
                end += len(record)
                yield record, end
                record = b""


def _json_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    for number, (record, end) in enumerate(_records(path, quoted=False), start=1):
        try:
            row = json.loads(record)
            kept = ("file", "status", "bundle", "engine", "draws")
            heads = (row.get("heads") or {}).items()
            coverage = {head: float(values["coverage"]) for head, values in heads if "coverage" in values}
            yield (
                {key: row[key] for key in (*kept, "review") if key in kept or key in row} | {"coverage": coverage},
                end,
            )
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"--resume: {path}: line {number} is no row of predictions") from None


def _csv_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    header: list[str] = []
    for number, (record, end) in enumerate(_records(path, quoted=True), start=1):
        fields = next(csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")))
        if not header:
            header = fields
            if not {"file", "status", "bundle", "engine", "draws"} <= set(header):
                raise UsageError(f"--resume: {path}: its header is none of predictions")
        elif len(fields) != len(header):
            raise UsageError(f"--resume: {path}: record {number} is no row of predictions")
        else:
            named = dict(zip(header, fields, strict=True))
            said = {
                name.removesuffix(".coverage"): value for name, value in named.items() if name.endswith(".coverage")
            }
            yield {**named, "coverage": {head: float(value) for head, value in said.items() if value}}, end
