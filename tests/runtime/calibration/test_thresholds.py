"""Regularized sets: their promise on fresh data, and their size where classes are many."""

import numpy as np
import numpy.typing as npt
import pytest

from probrt.runtime.calibration.conformal import class_sets, score_rank
from probrt.runtime.calibration.thresholds import COVERAGES, RAPS_EXAMPLES, fit_quantiles, fit_regularized_sets

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.integer]


def many_classes(rng: np.random.Generator, count: int) -> tuple[Floats, Classes]:
    """100 classes; half of the images have flat probabilities, though the truth is among their first ranks too."""
    logits = rng.normal(0, 1, (count, 100))
    truth = np.exp(3 * logits)
    truth /= truth.sum(axis=1, keepdims=True)
    stated = np.exp(rng.choice([0.5, 3.0], (count, 1)) * logits)
    stated /= stated.sum(axis=1, keepdims=True)
    return stated, (rng.uniform(size=(count, 1)) > truth.cumsum(axis=1)).sum(axis=1).clip(0, 99)


@pytest.mark.slow
def test_regularized_sets_hold_on_fresh_data_and_are_smaller() -> None:
    """The coverage of a threshold from n examples has the standard deviation sqrt(c (1 - c) / (n + 2)); four of that
    and of the count on fresh data below, n being the two thirds that give the threshold."""
    rng = np.random.default_rng(3)
    probabilities, target = many_classes(rng, 3000)
    fresh, truth = many_classes(rng, 10000)
    plain = fit_quantiles("aps", score_rank(probabilities, target))
    regularized = fit_regularized_sets(probabilities, target)
    assert [record.coverage for record in regularized] == list(COVERAGES)
    for record, usual in zip(regularized, plain, strict=True):
        inside = class_sets(fresh, record)
        c = record.coverage
        assert inside[np.arange(len(truth)), truth].mean() > c - 4 * np.sqrt(c * (1 - c) * (1 / 2002 + 1 / 10000))
        if c > 0.5:  # at 0.5 both hold little more than the likeliest class
            assert inside.sum(axis=1).mean() < 0.5 * class_sets(fresh, usual).sum(axis=1).mean()


@pytest.mark.parametrize(("count", "coverages"), [(RAPS_EXAMPLES - 1, 0), (RAPS_EXAMPLES, 4)])
def test_too_few_examples_give_no_regularized_sets(count: int, coverages: int) -> None:
    assert len(fit_regularized_sets(*many_classes(np.random.default_rng(0), count))) == coverages
