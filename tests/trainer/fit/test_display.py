"""The share of a training that is done: the fit as it goes, and what follows by the cost of its images."""

from __future__ import annotations

import pytest

from probrt.trainer.fit.display import RunShare


class Clock:
    """A clock that the test moves."""

    seconds = 7.0

    def __call__(self) -> float:
        return self.seconds


def test_the_share_grows_to_the_part_of_the_fit() -> None:
    """300 training images cost 900 passes an epoch; 10 validation images 30, and 330 in calibration."""
    clock = Clock()
    shares = RunShare(train=300, validation=10, test=0, clock=clock)
    values = []
    for step in range(1, 31):
        clock.seconds += 1.0
        values.append(shares.after_step(step, 30, 10))
    assert values == sorted(values)
    # 10 steps of a second cost 930 passes; 330 + 300 follow, and 10 s of tracing.
    after = 630 * 10 / 930 + 10
    assert values[-1] == pytest.approx(30 / (30 + after))
    assert values[0] == pytest.approx(1 / (30 + after))
    assert shares.after_fit(0.0) == pytest.approx(values[-1])
    assert shares.after_fit(1.0) == 1.0


def test_a_continued_fit_counts_its_own_steps() -> None:
    clock = Clock()
    shares = RunShare(train=100, validation=0, test=0, clock=clock)
    for step in range(81, 91):
        clock.seconds += 2.0
        share = shares.after_step(step, 100, 10)
    assert share == pytest.approx(20 / (20 + 20 + 100 * 20 / 300 + 10))


def test_without_steps_the_rest_is_all() -> None:
    """A finished fit that is continued has no step left."""
    shares = RunShare(train=100, validation=0, test=0, clock=Clock())
    assert shares.after_fit(0.5) == 0.0
