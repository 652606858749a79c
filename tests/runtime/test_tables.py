"""CSV, JSON lines and Parquet give the same rows, and faults in one line."""

import csv
import json
from pathlib import Path

import pytest

from probrt.runtime.tables import BLANK, UnreadableTable, open_csv, open_parquet, read_json_lines

ROWS = [{"file": "a.png", "kind": "x, y"}, {"file": "b\nc.png", "kind": "\u2028"}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["file", "kind"])
        writer.writeheader()
        writer.writerows(ROWS)
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (tmp_path / "t.jsonl").write_text(f"{lines[0]}\n\n{lines[1]}\n", encoding="utf-8")
    with open_csv(tmp_path / "t.csv") as table:
        assert table.columns == ("file", "kind")
        assert list(table.rows) == [(2, ROWS[0]), (4, ROWS[1])]
    first, blank, last = read_json_lines(tmp_path / "t.jsonl")
    assert ([first.value, last.value], last.line_number, blank.fault) == (ROWS, 3, BLANK)
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    with open_parquet(tmp_path / "t.parquet", only=["kind", "other"]) as table:
        assert table.columns == ("file", "kind")
        assert list(table.rows) == [(1, {"kind": "x, y"}), (2, {"kind": "\u2028"})]


@pytest.mark.parametrize(("content", "strict"), [(b'file\n"a"b\n', True), (b"file\n\xff\n", False)])
def test_a_fault_in_a_row_of_csv_is_one_line(content: bytes, strict: bool, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UnreadableTable), open_csv(tmp_path / "t.csv", strict=strict) as table:
        list(table.rows)


def test_lines_that_are_no_json_have_their_fault_and_others_their_value(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\nnonsense\n' + "[" * 100_000 + "\n[1]\n")
    good, text, deep, array = read_json_lines(tmp_path / "t.jsonl")
    assert (good.value, array.value) == ({"a": 1}, [1])
    assert text.fault
    assert deep.fault
    (tmp_path / "t.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(UnreadableTable):
        list(read_json_lines(tmp_path / "t.jsonl"))


def test_what_is_no_parquet_is_unreadable(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no parquet at all PAR1")
    with pytest.raises(UnreadableTable), open_parquet(tmp_path / "t.parquet"):
        pass
