"""Progress of a whole command: the estimate, the lines for logs, and the bar."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from probrt.runtime.time_left import estimate_seconds_left, format_seconds, show_progress


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3570, "1 h 0 min"), (3540, "59 min"), (7800, "2 h 10 min")],
)
def test_durations_are_rough(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_estimate_is_proportional_and_none_near_the_start() -> None:
    assert estimate_seconds_left(30, 0.25) == pytest.approx(90)
    assert estimate_seconds_left(30, 1.0) == 0
    assert estimate_seconds_left(30, 0.001) is None


def test_a_log_gets_lines_that_become_rarer() -> None:
    stream, clock, seconds = io.StringIO(), Clock(), 1000
    with show_progress(Console(file=stream, width=40), "export", clock) as show:
        for second in range(seconds):
            clock.seconds += 1
            show(f"step [{second}]", (second + 1) / seconds)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "export: step [9], 1%"
    assert lines[2] == "export: step [29], 3%, about 16 min left"
    times = [int(line.partition("[")[2].partition("]")[0]) for line in lines]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] == 10
    assert all(90 <= gap <= 120 for gap in gaps if gap > 90)
    assert len(lines) < 40


def test_a_terminal_gets_one_line_of_its_width() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    with show_progress(console, "train", clock) as show:
        clock.seconds += 60
        show("epoch 3/10  loss 0.123  " + "digit accuracy 0.9000  " * 6, 0.5)
    text = stream.getvalue()
    assert "about 1 min left" in text
    shown = text.replace("\r", "\n").splitlines()
    assert max(len(line.split("\x1b[")[0]) for line in shown) <= 80
