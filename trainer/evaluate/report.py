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
_LONGEST_LABEL = 14


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
    wrong: list[Mistake] = []


class Separation(Struct, frozen=True, kw_only=True):
    """How well a measure tells strangers from the images of the split.

    measure: `novelty`, or `<head>.<uncertainty>`. auroc, aupr (average precision) and fpr95 (the share of the split
    that is flagged where 95 % of the strangers are) have intervals. histogram: edges, and the counts of both sets.
    """

    measure: str
    auroc: Interval
    aupr: Interval
    fpr95: Interval
    histogram: dict[str, list[float]]


class Strangers(Struct, frozen=True, kw_only=True):
    """A folder of images of another kind.

    unknown: the share whose p-value of novelty is at most the report's level; null if the model has no novelty.
    """

    name: str
    images: int
    unknown: float | None
    separations: list[Separation]


class Report(Struct, frozen=True, kw_only=True):
    """A whole evaluation; `notes` name its limits.

    split: `validation`, `test`, or `all` of a folder that the model was not trained on.
    level: the p-value of novelty up to which an image is unknown: 0.01, or the smallest there is if that is larger.
    unknown: the share of the split that is unknown, the false alarms. Both are null without novelty.
    """

    model: str
    split: str
    examples: int
    draws: int
    data_digest: str
    notes: list[str]
    heads: list[HeadReport]
    level: float | None = None
    unknown: float | None = None
    strangers: list[Strangers] = []

    @property
    def scored(self) -> str:
        """What was scored, in words."""
        examples = f"{self.examples} example{'' if self.examples == 1 else 's'}"
        return f"{examples} of the folder" if self.split == "all" else f"{examples} of the {self.split} split"


def print_report(report: Report, console: Console) -> None:
    """Prints the report as tables of each head, at most 80 columns wide."""
    console.print(f"{report.model}: {report.scored}, {report.draws} draws")
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    for head in report.heads:
        table = _make_table(f"{head.name} ({head.likelihood})", "score", "value", "95 % interval")
        for name, (value, low, high) in head.scores.items():
            table.add_row(name, f"{value:.4f}", format_ends(low, high))
        console.print(table)
        if head.coverage:
            console.print(_make_coverage_table(head))
        if 0 < len(head.classes) <= _PRINTED_CLASSES:
            console.print(_make_class_table(head))
        if 0 < len(head.confusion) <= _PRINTED_MATRIX:
            console.print(_make_confusion_table(head))
    if report.unknown is not None:
        console.print(f"unknown at {format_level(report)}: {report.unknown:.1%} of the split")
    for strangers in report.strangers:
        console.print(_make_strangers_table(strangers, format_level(report)))


def format_ends(low: float, high: float) -> str:
    """Formats the ends of an interval; empty for a score without one."""
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def format_level(report: Report) -> str:
    """Formats the level at which images count as unknown."""
    return "" if report.level is None else f"{100 * report.level:.2g} %"


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


def _make_strangers_table(strangers: Strangers, level: str) -> Table:
    unknown = "" if strangers.unknown is None else f", {strangers.unknown:.1%} unknown at {level}"
    title = f"{strangers.name}: {strangers.images} images{unknown}"
    table = _make_table(title, "told by", "AUROC", "95 % interval", "AUPR", "FPR at 95 %")
    for row in strangers.separations:
        area, low, high = row.auroc
        table.add_row(row.measure, f"{area:.4f}", format_ends(low, high), f"{row.aupr[0]:.4f}", f"{row.fpr95[0]:.4f}")
    return table


def _make_class_table(head: HeadReport) -> Table:
    table = _make_table(f"{head.name}: classes", "class", "count", "precision", "recall", "F1")
    for score in head.classes:
        table.add_row(score.label, str(score.count), *map(format_share, (score.precision, score.recall, score.f1)))
    return table


def _make_confusion_table(head: HeadReport) -> Table:
    labels = [score.label[:_LONGEST_LABEL] for score in head.classes]
    # Each column has three characters around it; the rest of 80 is for the names, cut where they must be.
    room = (80 - 1 - (max(map(len, labels)) + 3)) // len(labels) - 3
    table = _make_table(f"{head.name}: confusion, a row per true class", "is", *(label[:room] for label in labels))
    for label, row in zip(labels, head.confusion, strict=True):
        table.add_row(label, *map(str, row))
    return table
