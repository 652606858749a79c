"""The tables of an evaluation fit a terminal of 80 columns, whatever the classes are called."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from probrt.trainer.evaluate.report import ClassScore, Coverage, HeadReport, Report, Separation, Strangers, print_report


@pytest.mark.parametrize("classes", [2, 8])
def test_every_line_fits_and_no_number_is_broken(classes: int) -> None:
    interval = (0.1234, 0.1111, 0.2222)
    labels = [f"Transportation & Logistics {index}" for index in range(classes)]
    head = HeadReport(
        name="transport",
        likelihood="categorical",
        loss="error",
        scores={"classwise calibration error": interval},
        coverage=[Coverage(method="likelihood", wanted=0.95, held=interval, size=interval)],
        classes=[ClassScore(label=label, count=12345, precision=0.5, recall=0.5, f1=0.5) for label in labels],
        confusion=[[12345] * classes for _ in labels],
        risk=[],
        review={},
    )
    measures = [Separation(measure="transport.epistemic", auroc=interval, aupr=interval, fpr95=interval, histogram={})]
    report = Report(
        model="test",
        split="test",
        examples=1,
        draws=32,
        data_digest="",
        notes=[],
        heads=[head],
        strangers=[Strangers(name="photographs", images=100, unknown=0.5, separations=measures)],
    )
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=80, force_terminal=True, color_system=None))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("12345") == classes + classes**2
    assert text.count("0.1111 to 0.2222") == 2
