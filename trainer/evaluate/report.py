"""The report of an evaluation, as `evaluation.json` holds it, and as a table for a terminal."""

from __future__ import annotations

from msgspec import Struct
from rich.console import Console
from rich.table import Table

Interval = tuple[float, float, float]


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


class HeadReport(Struct, frozen=True, kw_only=True):
    """One head: scores with 95 % bootstrap intervals (value, low, high), and curves for charts.

    risk: (coverage, risk, threshold) points, risk being `loss`. review: for each risk, the largest total
    uncertainty at or below which the split's risk stays within it, and the share of examples there; null if none.
    ood: AUROC and FPR95 by each quantity. histograms: of each quantity, edges and the counts of both sets.
    """

    name: str
    likelihood: str
    loss: str
    scores: dict[str, Interval]
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
    """Prints the report as a table per head."""
    console.print(f"{report.model}: {report.examples} examples of the {report.split} split, {report.draws} draws")
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    for head in report.heads:
        table = Table(title=f"{head.name} ({head.likelihood})", title_justify="left")
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("95 % interval", justify="right")
        for name, (value, low, high) in {**head.scores, **head.ood}.items():
            table.add_row(name, f"{value:.4f}", f"{low:.4f} to {high:.4f}")
        console.print(table)
