"""The report of an evaluation, as `evaluation.json` holds it, and as a table for a terminal."""

from __future__ import annotations

import math

from msgspec import Struct
from rich.console import Console
from rich.table import Table

Interval = tuple[float, float, float]
# A terminal has no room for the matrix of more classes; the page and evaluation.json have it.
_PRINTED_CLASSES = 20
_PRINTED_MATRIX = 8


class Mistake(Struct, frozen=True, kw_only=True):
    """An example that the model was certain and wrong about.

    row: in the split. truth, said: the target and the model's answer, for people; empty for a head per position.
    """

    row: int
    file: str
    truth: str
    said: str
    uncertainty: float
    loss: float


class Coverage(Struct, frozen=True, kw_only=True):
    """How often a set or an interval holds the target.

    method: of the conformal thresholds, or "likelihood" for intervals of the model alone. wanted: the coverage that it
    is made for. held: the share that it holds. size: of a set, in classes, or width of an interval; null per position.
    """

    method: str
    wanted: float
    held: Interval
    size: Interval | None


class ClassScore(Struct, frozen=True, kw_only=True):
    """One class: number of its examples (or positions), precision, recall and F1; null where nothing was predicted or
    there is no example."""

    label: str
    count: int
    precision: float | None
    recall: float | None
    f1: float | None


class HeadReport(Struct, frozen=True, kw_only=True):
    """One head: scores with 95 % bootstrap intervals (value, low, high), and curves for charts.

    The ends of an interval are null for a score that a bootstrap would judge wrongly.
    coverage: of each set and interval. classes: of a head of classes or flags. confusion: rows are the true classes,
    columns the predicted ones.

    risk: (coverage, risk, threshold) points, risk being `loss`. review: for each risk, the largest total
    uncertainty at or below which the split's risk stays within it, and the share of examples there; null if none.
    ood: AUROC and FPR95 by each quantity. histograms: of each quantity, edges and the counts of both sets.
    """

    name: str
    likelihood: str
    loss: str
    scores: dict[str, Interval]
    coverage: list[Coverage] = []
    classes: list[ClassScore] = []
    confusion: list[list[int]] = []
    risk: list[tuple[float, float, float]]
    review: dict[str, tuple[float, float] | None]
    reliability: list[list[float]] = []
    pit: list[int] = []
    ood: dict[str, Interval] = {}
    histograms: dict[str, dict[str, list[float]]] = {}
    wrong: list[Mistake] = []


class Report(Struct, frozen=True, kw_only=True):
    """A whole evaluation; `notes` name its limits."""

    model: str
    split: str
    examples: int
    draws: int
    ood_images: int = 0
    data_digest: str
    notes: list[str]
    heads: list[HeadReport]


def print_report(report: Report, console: Console) -> None:
    """Prints the report as tables of each head, at most 80 columns wide."""
    console.print(f"{report.model}: {report.examples} examples of the {report.split} split, {report.draws} draws")
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    for head in report.heads:
        table = _make_table(f"{head.name} ({head.likelihood})", "score", "value", "95 % interval")
        for name, (value, low, high) in {**head.scores, **head.ood}.items():
            table.add_row(name, f"{value:.4f}", format_ends(low, high))
        console.print(table)
        if head.coverage:
            console.print(_make_coverage_table(head))
        if 0 < len(head.classes) <= _PRINTED_CLASSES:
            console.print(_make_class_table(head))
        if 0 < len(head.confusion) <= _PRINTED_MATRIX:
            console.print(_make_confusion_table(head))


def format_ends(low: float, high: float) -> str:
    """Formats the ends of an interval; empty for a score without one."""
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def format_share(value: float | None) -> str:
    """Formats a score of a class."""
    return "" if value is None else f"{value:.3f}"


def _make_table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _make_coverage_table(head: HeadReport) -> Table:
    table = _make_table(f"{head.name}: coverage", "method", "wanted", "held", "95 % interval", "size")
    for row in head.coverage:
        held, low, high = row.held
        size = "" if row.size is None else f"{row.size[0]:.4g}"
        table.add_row(row.method, f"{row.wanted:.0%}", f"{held:.1%}", f"{low:.1%} to {high:.1%}", size)
    return table


def _make_class_table(head: HeadReport) -> Table:
    table = _make_table(f"{head.name}: classes", "class", "count", "precision", "recall", "F1")
    for score in head.classes:
        table.add_row(score.label, str(score.count), *map(format_share, (score.precision, score.recall, score.f1)))
    return table


def _make_confusion_table(head: HeadReport) -> Table:
    labels = [score.label for score in head.classes]
    table = _make_table(f"{head.name}: confusion, a row per true class", "is", *(label[:8] for label in labels))
    for label, row in zip(labels, head.confusion, strict=True):
        table.add_row(label, *map(str, row))
    return table
