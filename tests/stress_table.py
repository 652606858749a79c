"""The table that `make stress` prints: what was tried, what was measured, what held."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

START, END = "<!-- stress table -->", "<!-- end of stress table -->"


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    tried: str
    measured: str
    held: bool
    seconds: float

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The line's cells as text."""
        return self.tried, self.measured, "held" if self.held else "FAILED", f"{self.seconds:.0f} s"


COLUMNS = ("tried", "measured", "", "time")


def collect_lines(reports: Iterable[pytest.TestReport]) -> list[Line]:
    """Returns the lines of the tests that used the fixture `measured`, in the order of their names."""
    return [
        Line(tried, measured, report.passed, report.duration)
        for report in sorted(reports, key=lambda report: report.nodeid)
        if report.when == "call"
        for key, value in report.user_properties
        if key == "measured"
        for tried, measured in [value]
    ]


def print_lines(lines: list[Line], console: Console) -> None:
    """Prints the lines as a table."""
    table = Table(title="what was tried", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line.cells)
    console.print(table)


def write_lines(lines: list[Line], page: Path) -> None:
    """Replaces the table between the two marks of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells for line in lines)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    page.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
