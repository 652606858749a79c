"""The tables that `probrt export` and the demo print fit a terminal of 80 columns."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from shapes import GOLDEN

from probrt.exporter.parity import Difference
from probrt.exporter.summary import (
    format_next_commands,
    list_faults,
    make_bank_table,
    make_differences_table,
    make_files_table,
)
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import BankError, ParityRecord, Selection

WIDTH = 80


def measure(table: Table) -> int:
    """Returns the columns that a table takes where it has all it wants."""
    return Console(width=500).measure(table).maximum


def make_difference(file: str, signature: str, *faults: str) -> Difference:
    record = ParityRecord(
        file=file, signature=signature, head="severity", quantity="epistemic", absolute=1e-4, relative=1e-4,
        tolerance=2e-4,
    )  # fmt: skip
    return Difference(file, signature, outputs=(record,), faults=faults, milliseconds=1234.5)


def test_the_differences_fit_and_faults_are_lines_of_their_own() -> None:
    fault = "severity.epistemic ranks the images otherwise (rank correlation 0.10, least 0.9)"
    differences = [
        make_difference("saved_model.pb", "serving_default"),
        make_difference("draws-00.fp16.onnx", "", fault),
    ]
    assert measure(make_differences_table(differences)) <= WIDTH
    assert list_faults(differences) == [f"draws-00.fp16.onnx: {fault}"]


def test_the_bank_fits() -> None:
    error = BankError(
        draws=1024, images="training", mean=10.1, spread=10.1, independent_mean=10.1, independent_spread=10.1
    )
    assert measure(make_bank_table(Selection(pool=1024, kept=False, errors=[error]))) <= WIDTH


def test_the_files_of_a_bundle_fit(root: Path) -> None:
    bundle = Bundle.open(root / "tests" / "golden" / "format-1" / "shapes")
    assert measure(make_files_table(bundle, [make_difference("saved_model.pb", "serving_default")])) <= WIDTH


@pytest.fixture
def score(root: Path) -> ModuleType:
    """The script that prints the tables of the demo."""
    spec = importlib.util.spec_from_file_location("score", root / "examples" / "digits" / "score.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_demo_fit(score: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    digit = {"total": 0.5}
    rows = [
        {"file": f"{kind}1.png", "novelty": {"score": 1.5, "unknown": True}, "heads": {"digit": digit}}
        for kind in ("digit", *score.KINDS)
    ]
    assert measure(score.make_novelty_table(rows, rows)) <= WIDTH
    monkeypatch.setattr(score, "read_rows", lambda path: rows)
    monkeypatch.setattr(score, "column", lambda rows, head, quantity: np.zeros(3))
    monkeypatch.setattr(score, "read_map", lambda row, quantity: np.zeros((2, 2)))
    seconds = {"onnxruntime": 1234.5, "tensorflow": 0.5}
    assert measure(score.make_engine_table(Path(), list(seconds), seconds)) <= WIDTH


def test_commands_to_paste_survive_a_folder_with_a_space() -> None:
    spaced = dataclasses.replace(Bundle.open(GOLDEN / "shapes"), path=Path("my models/shapes/1"))
    predict, serve = (shlex.split(line) for line in format_next_commands(spaced).splitlines()[1:])
    assert "my models/shapes" in predict
    assert f"{Path('my models/shapes').absolute()}:/models/shapes" in serve
