"""Conformal sets and intervals, against their definitions written as loops."""

import numpy as np
import pytest

from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.calibration.conformal import class_sets, intervals, rank_sets, score_improbability, score_rank


def loop_set(probabilities: list[float], method: str, threshold: float, penalty: float, free: int) -> list[int]:
    """One example's set by the definition, likeliest class first."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    members, total = [], 0.0
    for rank, index in enumerate(order, start=1):
        score = 1 - probabilities[index] if method == "lac" else total + penalty * max(0, rank - free)
        inside = score <= threshold if method == "lac" else score < threshold
        if inside:
            members.append(index)
        total += probabilities[index]
    return members or order[:1]


@pytest.mark.parametrize(("method", "penalty", "free"), [("lac", 0.0, 0), ("aps", 0.0, 0), ("raps", 0.2, 2)])
@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.05, 0.6, 0.8, 0.999, 1.5])
def test_sets_follow_their_definition(method: str, penalty: float, free: int, threshold: float) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.4), 200)
    probabilities[0] = 0.2  # ties keep the order of the classes
    conformal = Conformal(coverage=0.9, method=method, threshold=threshold, penalty=penalty, free_ranks=free)
    inside, (order, sizes) = class_sets(probabilities, conformal), rank_sets(probabilities, conformal)
    for index, row in enumerate(probabilities):
        expected = loop_set(row.tolist(), method, threshold, penalty, free)
        assert order[index, : sizes[index]].tolist() == expected
        assert np.flatnonzero(inside[index]).tolist() == sorted(expected)


@pytest.mark.parametrize(("method", "half"), [("scaled", [1.0, 4.0]), ("absolute", [2.0, 2.0])])
def test_intervals_follow_their_definition(method: str, half: list[float]) -> None:
    mean, deviation = np.array([[1.0, -1.0]]), np.array([[0.5, 2.0]])
    low, high = intervals(mean, deviation, Conformal(coverage=0.9, method=method, threshold=2.0))
    np.testing.assert_array_equal(low, mean - half)
    np.testing.assert_array_equal(high, mean + half)


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_a_class_is_in_the_set_exactly_if_its_score_passes(method: str) -> None:
    rng = np.random.default_rng(1)
    probabilities, target = rng.dirichlet(np.full(6, 0.5), 300), rng.integers(0, 6, 300)
    conformal = Conformal(coverage=0.9, method=method, threshold=0.7, penalty=0.1, free_ranks=2)
    if method == "lac":
        passes = score_improbability(probabilities, target) <= 0.7
    else:
        passes = score_rank(probabilities, target, *((0.1, 2) if method == "raps" else ())) < 0.7
    if method == "aps":
        conformal = Conformal(coverage=0.9, method=method, threshold=0.7)
    inside = class_sets(probabilities, conformal)[np.arange(300), target]
    likeliest = probabilities.argmax(axis=1) == target  # always in the set
    np.testing.assert_array_equal(inside, passes | likeliest)
