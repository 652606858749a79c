"""Split-conformal thresholds: sets and intervals that hold the truth as often as they say.

With n calibration scores the threshold at coverage c is the ceil((n + 1) c)-th smallest; a new example from
the same source scores at most that with probability c or more, whatever the model (Papadopoulos et al. 2002;
Lei et al. 2018, theorem 2.2).
"""

from __future__ import annotations

import math

import numpy as np

from probrt.runtime.manifest import Conformal
from probrt.trainer.heads import AnyHead, Categorical, Normal

COVERAGES = (0.5, 0.8, 0.9, 0.95)


def conformal(head: AnyHead, answer: dict[str, np.ndarray], target: np.ndarray) -> list[Conformal]:
    """A head's thresholds at COVERAGES; none for a head whose rows hold neither a set nor an interval.

    answer: calibrated predictive mean and total, [n, classes] and [n], or [n, outputs] both.
    target: what is true, of examples that have a target; [n] class numbers, or [n, outputs].
    A coverage that so few examples cannot promise, ceil((n + 1) c) > n, is left out.
    """
    if head.per_position:
        return []  # the positions of an image are not exchangeable
    if isinstance(head, Categorical):
        return _at_coverages("lac", _unlikeliness(answer["mean"], target))
    if isinstance(head, Normal):
        return _at_coverages("scaled", _deviation(answer["mean"], answer["total"], target))
    return []


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where that is more than n."""
    # Rounded first, because 0.95 * 20 must not become a hair more than 19.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def members(probabilities: np.ndarray, one: Conformal) -> np.ndarray:
    """Which classes are in each example's set, bool [n, classes]; the likeliest always is.

    lac: all with 1 - p at most the threshold (Sadinle et al. 2019); aps: the likeliest until their sum reaches the
    threshold (Romano et al. 2020, without randomisation).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    if one.method == "lac":
        inside = 1.0 - probabilities <= one.threshold
    else:
        ranked = np.take_along_axis(probabilities, order, axis=1)
        inside = np.empty(probabilities.shape, bool)
        np.put_along_axis(inside, order, np.cumsum(ranked, axis=1) - ranked < one.threshold, axis=1)
    inside[np.arange(len(inside)), order[:, 0]] = True
    return inside


def ends(mean: np.ndarray, deviation: np.ndarray, one: Conformal) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of each interval, [n, outputs]."""
    half = deviation * one.threshold if one.method == "scaled" else one.threshold
    return mean - half, mean + half


def _at_coverages(method: str, scores: np.ndarray) -> list[Conformal]:
    found = {coverage: quantile(scores, coverage) for coverage in COVERAGES}
    return [Conformal(coverage=c, method=method, threshold=value) for c, value in found.items() if math.isfinite(value)]


def _unlikeliness(mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 - p of the true class, [n] (Sadinle et al. 2019)."""
    return 1.0 - np.take_along_axis(mean.astype(np.float64), target[:, None].astype(np.int64), axis=1)[:, 0]


def _deviation(mean: np.ndarray, total: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance from the mean in predictive standard deviations, [n] (Lei et al. 2018, section 5.2).

    The largest over the outputs, so that the intervals of all outputs hold together.
    """
    deviation = np.sqrt(total.astype(np.float64))
    return np.max(np.abs(target - mean.astype(np.float64)) / deviation, axis=-1, initial=0.0)
