"""What a run prints on standard error: progress while it works, and its most uncertain files."""

import heapq
import sys
import time
from typing import Any, Protocol

import numpy as np

from probrt.runtime.errors import printable
from probrt.runtime.rows.numbers import Row

SECONDS_PER_LINE = 10.0
WORST = 10


class ProgressDisplay(Protocol):
    """Shows how many rows are written; closed when the run ends, however it ends."""

    def advance(self, rows: int) -> None: ...

    def close(self) -> None: ...


class NoDisplay:
    """Shows nothing."""

    def advance(self, rows: int) -> None: ...

    def close(self) -> None: ...


class LineDisplay:
    """Prints a plain line every few seconds, for logs."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._rows = 0

    def advance(self, rows: int) -> None:
        self._rows += rows
        now = time.monotonic()
        if now - self._last >= SECONDS_PER_LINE:
            self._last = now
            say(f"{self._rows} images, {self._rows / (now - self._start):.1f} images/s")

    def close(self) -> None: ...


class BarDisplay:
    """Draws a bar with images per second and the time left, for terminals."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        speed = TextColumn("{task.fields[speed]}")
        columns = (TextColumn("predict"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("predict", total=total, speed="")
        self._start, self._rows = time.monotonic(), 0
        self._bar.start()

    def advance(self, rows: int) -> None:
        self._rows += rows
        speed = self._rows / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, advance=rows, speed=f"{speed:.1f} images/s")

    def close(self) -> None:
        self._bar.stop()


def open_progress(quiet: bool, total: int | None) -> ProgressDisplay:
    """Opens the display that fits: none if quiet, a bar on a terminal, else lines. None is an unknown total."""
    if quiet or total == 1:
        return NoDisplay()
    return BarDisplay(total) if sys.stderr.isatty() else LineDisplay()


def say(text: str) -> None:
    """Prints one line on standard error."""
    print(f"probrt: {printable(text)}", file=sys.stderr)


class Ranking:
    """Keeps the most uncertain files of a run, in memory that does not grow.

    by: `head.quantity`, the epistemic, else total, else aleatoric uncertainty of the first head whose rows hold
    numbers; empty before the first such row.
    """

    def __init__(self) -> None:
        self.by = ""
        self._heap: list[tuple[float, int, str]] = []
        self._order = 0

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            uncertainty = self._uncertainty(row)
            if uncertainty is not None:
                self._order -= 1
                entry = (uncertainty, self._order, row["file"])
                (heapq.heappush if len(self._heap) < WORST else heapq.heappushpop)(self._heap, entry)

    def worst(self) -> list[tuple[float, str]]:
        """Uncertainty and file, the most uncertain first."""
        return [(uncertainty, name) for uncertainty, _, name in sorted(self._heap, reverse=True)]

    def _uncertainty(self, row: Row) -> float | None:
        for head, values in (row["heads"] or {}).items():
            for quantity in ("epistemic", "total", "aleatoric"):
                value: Any = values.get(quantity)
                if isinstance(value, (float, list)) and self.by in ("", f"{head}.{quantity}"):
                    numbers = np.asarray(value)
                    if numbers.dtype.kind == "f":
                        self.by = f"{head}.{quantity}"
                        return float(numbers.mean())
        return None
