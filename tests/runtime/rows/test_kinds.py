"""Rows by the kind of a head; outputs beside the four quantities in every format of rows and in the manifest."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from probrt.runtime.bundle import manifest_file
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.errors import BundleError
from probrt.runtime.predict.answer import Prediction, join_predictions, make_answer
from probrt.runtime.rows.journal import JournalWriter
from probrt.runtime.rows.kinds import KINDS
from probrt.runtime.rows.writers import RowsFile, write_rows_file

OUTPUTS = {
    "mean": [1],
    "total": [1],
    "aleatoric": [1],
    "epistemic": [1],
    "quantiles": [1, 3],
    "zero": [1],
    "knots": [2, 2, 1],
}
HEAD = HeadRecord(
    name="count", likelihood="poisson", kind="real", combine="variance", labels=["count"], outputs=OUTPUTS
)
VALUES: dict[str, Any] = {
    **dict.fromkeys(("mean", "total", "aleatoric", "epistemic"), 2.0),
    "quantiles": [[0.5, 1.0, 3.0]],
    "zero": 0.25,
    "knots": [[1.0, 2.0], [3.0, 4.0]],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_other_outputs_are_in_rows_of_every_format(suffix: str, bundle: Bundle, tmp_path: Path) -> None:
    arrays = {name: np.resize(np.array(VALUES[name]), (1, *sides)) for name, sides in OUTPUTS.items()}
    prediction = join_predictions([Prediction({"count": make_answer(arrays)}, np.array([8], np.int32))] * 2)
    assert prediction["count"].extra["knots"].shape == (2, 2, 2, 1)
    values = KINDS[HEAD.kind].row(HEAD, prediction["count"].image(1).quantities, None)
    assert {name: values[name] for name in VALUES} == VALUES
    manifest = msgspec.structs.replace(bundle.manifest, heads=[HEAD], calibration=[])
    row = {"file": "a", "sha256": "", "status": "ok", "error": None, "draws": 8, "engine": "e", "bundle": "b"}
    out = tmp_path / f"p{suffix}"
    journal = JournalWriter(tmp_path / "rows.jsonl")
    journal.write([row | {"heads": {"count": values}}])
    journal.close()
    write_rows_file(RowsFile(path=out, format=suffix, manifest=manifest), tmp_path / "rows.jsonl", lambda size: None)
    if suffix == ".jsonl":
        written = json.loads(out.read_text())["heads"]["count"]
    elif suffix == ".csv":
        (line,) = csv.DictReader(out.read_text().splitlines())
        written = {name: json.loads(line[f"count.{name}"]) for name in VALUES}
    else:
        (line,) = pq.read_table(out).to_pylist()
        written = {name: line[f"count.{name}"] for name in VALUES}
    assert {name: written[name] for name in VALUES} == VALUES


@pytest.mark.parametrize(("name", "reason"), [("label", "which rows have already"), ("Bad name", "matching regex")])
def test_an_output_by_a_name_that_rows_have_is_refused(name: str, reason: str, bundle: Bundle) -> None:
    head = msgspec.structs.replace(HEAD, outputs={**OUTPUTS, name: [1]})
    data = msgspec.json.encode(msgspec.structs.replace(bundle.manifest, heads=[head], calibration=[]))
    with pytest.raises(BundleError, match=reason):
        manifest_file.decode(data, "probrt.json")
