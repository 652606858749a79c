"""A folder of shards reads like one file."""

from pathlib import Path

import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import UsageError
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.readers import read_rows
from probrt.runtime.rows.writers import RowsFile, flat_columns, write_parquet


def make_row(name: str) -> Row:
    heads = {"slant": {"mean": 0.5, "total": 1.0, "aleatoric": 0.5, "epistemic": 0.5}}
    start = {"file": name, "sha256": "0" * 64, "status": "ok", "error": None}
    answered_by = {"engine": "litert", "precision": "float32", "bundle": "shapes/1"}
    return start | {"draws": 8, "effective_draws": 8.0} | answered_by | {"heads": heads}


def test_shards_in_their_order(bundle: Bundle, tmp_path: Path) -> None:
    columns = flat_columns(RowsFile(path=tmp_path, format=".parquet", manifest=bundle.manifest))
    for index in (1, 0, 2):
        with (tmp_path / f"part-{index:06d}.parquet").open("wb") as stream:
            write_parquet(stream, iter([make_row(f"{index}{letter}.png") for letter in "ab"]), columns)
    with pytest.raises(UsageError, match="not complete"):
        list(read_rows(tmp_path))
    (tmp_path / "_shards.json").write_text("{}")
    rows = list(read_rows(tmp_path))
    assert [row["file"] for row in rows] == ["0a.png", "0b.png", "1a.png", "1b.png", "2a.png", "2b.png"]
    assert rows[0] == make_row("0a.png")
