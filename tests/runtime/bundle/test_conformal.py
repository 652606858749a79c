"""Conformal sets and intervals, against their definitions written as loops."""

import numpy as np
import pytest

from probrt.runtime.bundle.conformal import class_sets, intervals, rank_sets
from probrt.runtime.bundle.manifest import Conformal


def loop_set(probabilities: list[float], method: str, threshold: float) -> list[int]:
    """One example's set by the definition, likeliest class first."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    members, total = [], 0.0
    for index in order:
        inside = 1 - probabilities[index] <= threshold if method == "lac" else total < threshold
        if inside:
            members.append(index)
        total += probabilities[index]
    return members or order[:1]


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.05, 0.6, 0.8, 0.999, 1.5])
def test_sets_follow_their_definition(method: str, threshold: float) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.4), 200)
    probabilities[0] = 0.2  # ties keep the order of the classes
    conformal = Conformal(coverage=0.9, method=method, threshold=threshold)
    inside, (order, sizes) = class_sets(probabilities, conformal), rank_sets(probabilities, conformal)
    for index, row in enumerate(probabilities):
        expected = loop_set(row.tolist(), method, threshold)
        assert order[index, : sizes[index]].tolist() == expected
        assert np.flatnonzero(inside[index]).tolist() == sorted(expected)


@pytest.mark.parametrize(("method", "half"), [("scaled", [1.0, 4.0]), ("absolute", [2.0, 2.0])])
def test_intervals_follow_their_definition(method: str, half: list[float]) -> None:
    mean, deviation = np.array([[1.0, -1.0]]), np.array([[0.5, 2.0]])
    low, high = intervals(mean, deviation, Conformal(coverage=0.9, method=method, threshold=2.0))
    np.testing.assert_array_equal(low, mean - half)
    np.testing.assert_array_equal(high, mean + half)
