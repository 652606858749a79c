"""Shows how far a command is, and the time left for the whole of it: a bar on a terminal, else lines for logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

ShowProgress = Callable[[str, float], None]
"""Takes what the command does now, and the share of the whole that is done, 0 to 1."""

# A line comes after this many seconds, and after a tenth of the time so far: a long run makes no long log.
_SECONDS_PER_LINE, _GROWTH = 10.0, 0.1
# The first moments, with a share near 0, tell nothing about the rest.
_LEAST_SHARE = 0.02


def estimate_seconds_left(elapsed: float, share: float) -> float | None:
    """Returns the seconds left where the whole goes on as it has; None near the start."""
    return None if share < _LEAST_SHARE else elapsed * (1 - share) / share


def format_seconds(seconds: float) -> str:
    """Formats a duration roughly, as no estimate is exact: `40 s`, `12 min`, `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def show_progress(
    console: Console, command: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[ShowProgress]:
    """Shows the progress of a command during the block.

    clock: returns seconds. A share that falls back is taken as it is: estimates change.
    """
    start = clock()

    def format_left(share: float) -> str:
        seconds = estimate_seconds_left(clock() - start, share)
        return "" if seconds is None else f"about {format_seconds(seconds)} left"

    if console.is_terminal:
        with _show_bar(console, command, format_left) as show:
            yield show
        return
    last = start

    def print_line(text: str, share: float) -> None:
        nonlocal last
        now = clock()
        if now - last >= max(_SECONDS_PER_LINE, _GROWTH * (now - start)):
            last = now
            left = format_left(share)
            console.print(f"{command}: {text}, {share:.0%}{left and ', '}{left}", soft_wrap=True, markup=False)

    yield print_line


@contextmanager
def _show_bar(console: Console, command: str, format_left: Callable[[float], str]) -> Iterator[ShowProgress]:
    """Draws a bar that vanishes at the end."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    texts = TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1))
    columns = (SpinnerColumn(), texts, BarColumn(bar_width=16), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task(command, total=1.0, left="")

        def update(text: str, share: float) -> None:
            progress.update(task, description=escape(text), completed=share, left=format_left(share))

        yield update
