"""What the steps of an export cost together is what they report."""

from __future__ import annotations

from pathlib import Path

import pytest

from probrt.exporter.export import export
from probrt.exporter.formats import Format, select_graphs
from probrt.exporter.plan import ExportRequest
from probrt.exporter.steps import COSTS, Steps, estimate_cost, list_kinds


def test_a_share_is_what_came_before() -> None:
    reported: list[tuple[str, float]] = []
    steps = Steps(COSTS["bank"] + COSTS["trace"], lambda text, share: reported.append((text, share)))
    steps.begin("bank", "bank")
    steps.begin("mean", "trace")
    steps.begin("one too many", "check")
    assert reported == [("bank", 0.0), ("mean", COSTS["bank"] / steps.total), ("one too many", 1.0)]


def test_only_the_first_file_of_a_format_is_converted() -> None:
    precisions = ("float32", "float16", "int8")
    graphs = select_graphs(("tflite", "onnx"), precisions, ("draws",), ("draws",))
    assert list_kinds(graphs, copied=False) == ["tflite", "onnx", "derive", "derive", "int8", "int8"]
    assert list_kinds(graphs, copied=True) == ["derive"] * 4 + ["int8"] * 2
    costs = [
        estimate_cost(graphs, 4, copies=copies, saved_model=False, bank=False, tuning=False) for copies in (True, False)
    ]
    once = COSTS["trace"] + COSTS["tflite"] + COSTS["onnx"]
    assert costs[1] - costs[0] == pytest.approx(3 * (once - 3 * COSTS["derive"]))


@pytest.mark.slow
@pytest.mark.parametrize("formats", [("tflite", "onnx"), ("savedmodel",)])
def test_the_plan_is_what_is_done(root: Path, tmp_path: Path, formats: tuple[Format, ...]) -> None:
    """The last step of an export is reported near the end, and none beyond it."""
    shares: list[float] = []
    request = ExportRequest(draws=16, formats=formats, select=False)
    model = root / "tests" / "golden" / "format-1" / "model"
    export(model, tmp_path, request, on_step=lambda step, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.85 < shares[-1] <= 1.0
