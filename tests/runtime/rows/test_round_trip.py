"""Rows come back from every format as they were written, whatever the names of the files hold."""

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.rows.journal import JournalWriter, read_journal
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.readers import read_finished_rows, read_rows
from probrt.runtime.rows.resume import check_rows
from probrt.runtime.rows.writers import SUFFIXES, RowsFile, flat_columns, show_bytes, write_rows_file

# Every name that a file may have: any bytes but NUL, and often those that formats give a meaning to.
PIECES = [b"\r", b"\n", b"\r\n", b",", b'"', b"'", b"\\", b"\xff", b"a", b" ", b";", "é\u2028\x85".encode()]
NAMES = st.one_of(
    st.binary(min_size=1, max_size=12).map(lambda data: data.replace(b"\0", b"x")),
    st.lists(st.sampled_from(PIECES), min_size=1).map(b"".join),
).map(os.fsdecode)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def make_row(name: str, numbers: list[float] | None) -> Row:
    start = {"file": name, "sha256": "0" * 64, "status": "error" if numbers is None else "ok"}
    if numbers is None:
        fields = start | {
            "error": "cannot be decoded",
            "draws": None,
            "effective_draws": None,
            "engine": "litert",
            "precision": "int8",
        }
        return fields | {"bundle": "shapes/1", "review": True, "heads": None}
    a, b, c = numbers
    quantities = {"total": a, "aleatoric": b, "epistemic": c}
    heads = {
        "shape": {"mean": [a, b, c], **quantities, "label": "1e3", "probability": a, "set": [], "coverage": 0.9},
        "slant": {"mean": a, **quantities, "interval": [a, b], "coverage": 0.9},
    }
    fields = start | {"error": None, "draws": 8, "effective_draws": 21.5, "engine": "litert", "precision": "int8"}
    return fields | {"bundle": "shapes/1", "review": False, "heads": heads}


ROWS = st.lists(st.builds(make_row, NAMES, st.none() | st.lists(NUMBERS, min_size=3, max_size=3)), max_size=6)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def write(bundle: Bundle, folder: Path, format: str, rows: list[Row]) -> RowsFile:
    journal = JournalWriter(folder / "journal")
    journal.write(rows)
    journal.close()
    file = RowsFile(path=folder / f"p{format}", format=format, manifest=bundle.manifest, review=True)
    write_rows_file(file, folder / "journal", lambda size: None)
    return file


@pytest.mark.parametrize("format", SUFFIXES)
@settings(deadline=None, max_examples=60)
@given(rows=ROWS)
def test_rows_come_back_from_every_format(bundle: Bundle, scratch: Path, format: str, rows: list[Row]) -> None:
    file = write(bundle, scratch, format, rows)
    columns = flat_columns(file)
    expected = [row | {"file": show_bytes(row["file"]) if format == ".parquet" else row["file"]} for row in rows]
    assert list(read_finished_rows(file.path, format, columns)) == expected
    assert [row["file"] for row in read_rows(file.path)] == [row["file"] for row in expected]
    if format == ".csv":
        with file.path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            assert [line["file"] for line in csv.DictReader(stream)] == [row["file"] for row in rows]
        table = pd.read_csv(file.path, encoding_errors="surrogateescape", keep_default_na=False, dtype={"file": object})
        assert table["file"].tolist() == [row["file"] for row in rows]
    elif format == ".parquet":
        assert pd.read_parquet(file.path)["file"].tolist() == [row["file"] for row in expected]


@settings(deadline=None, max_examples=100)
@given(
    rows=ROWS,
    cut=st.integers(0, 4000),
    tail=st.sampled_from([b"", b"\n", b'{"file"', b"\xff\xfe\n", b"3\n", b"\0" * 9]),
)
def test_a_journal_gives_its_whole_rows_wherever_it_was_cut(
    scratch: Path, rows: list[Row], cut: int, tail: bytes
) -> None:
    path = scratch / "cut"
    path.unlink(missing_ok=True)
    journal = JournalWriter(path)
    journal.write(rows)
    journal.close()
    content = path.read_bytes()[:cut]
    path.write_bytes(content + tail)
    whole = list(read_journal(path))
    assert [row for row, _ in whole] == rows[: content.count(b"\n")]
    end = whole[-1][1] if whole else 0
    JournalWriter(path, end).close()
    assert path.read_bytes() == content[:end]


@settings(deadline=None, max_examples=100)
@given(count=st.integers(0, 12), kept=st.integers(0, 12), block=st.integers(1, 5))
def test_rows_stay_up_to_a_whole_block_unless_all_are_there(count: int, kept: int, block: int) -> None:
    kept = min(kept, count)
    names = [f"gone-{i}" for i in range(count)]
    rows = [({"file": name, "sha256": None, "status": "error"}, 10 * (i + 1)) for i, name in enumerate(names[:kept])]
    result = check_rows(iter(rows), iter(names), block=block, where="p.jsonl", threads=2)
    stay = kept if kept == count else kept - kept % block
    assert (result.rows, result.errors, result.size) == (stay, stay, 10 * stay)
    assert list(result.names) == names[stay:]
    assert result.complete == (kept == count)


@pytest.mark.parametrize("format", SUFFIXES)
def test_text_stays_text(bundle: Bundle, tmp_path: Path, format: str) -> None:
    row = make_row("a", [1.0, 2.0, 3.0])
    for label in ("[1]", "true", "007", "null", '"', "1e3", "\r"):
        row["heads"]["shape"]["label"] = label
        file = write(bundle, tmp_path, format, [row])
        (read,) = read_finished_rows(file.path, format, flat_columns(file))
        assert json.dumps(read) == json.dumps(row)
