"""Conformal thresholds: sets and intervals that hold the truth as often as they promise.

One answer per example: with n calibration scores the threshold at coverage c is the ceil((n + 1) c)-th smallest; a
new example from the same source scores at most that with probability c or more, whatever the model (Papadopoulos et
al. 2002; Lei et al. 2018, theorem 2.2). One answer per position: positions of an image are not exchangeable, images
are. The threshold is the smallest at which the share of an image's positions that are missed is at most 1 - c on
average over images, with a correction for their number: conformal risk control (Angelopoulos et al. 2024, theorem 1).
"""

from __future__ import annotations

import math

import numpy as np

from probrt.runtime.bundle.manifest import Conformal
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.base import Answer

COVERAGES = (0.5, 0.8, 0.9, 0.95)


def fit_thresholds(head: AnyHead, answer: Answer, target: np.ndarray) -> list[Conformal]:
    """Fits a head's thresholds at COVERAGES; none for a head whose rows hold neither a set nor an interval.

    answer: calibrated predictive mean and total, [n, classes] and [n], or [n, outputs] both, positions after n.
    target: of examples that have one; [n] class numbers, or [n, outputs], positions after n.
    Leaves out a coverage that so few examples cannot promise.
    """
    if head.per_position:
        return _where_finite(head.position_method, control_misses(head.position_scores(answer, target)))
    records = []
    for method, scores in head.conformal_scores(answer, target).items():
        thresholds = {coverage: quantile(scores, coverage) for coverage in COVERAGES}
        if method == "aps":  # a class is in an `aps` set if its score is below the threshold, not at it
            thresholds = {coverage: math.nextafter(value, math.inf) for coverage, value in thresholds.items()}
        records += _where_finite(method, thresholds)
    return records


def control_misses(scores: np.ndarray) -> dict[float, float]:
    """Finds the threshold at each coverage by conformal risk control; infinity where there are too few images.

    scores: of each position, [n, items]; NaN without a target.
    """
    count, known = len(scores), ~np.isnan(scores)
    items = known.sum(axis=1)
    thresholds = {}
    for coverage in COVERAGES:
        allowed = ((count + 1) * (1 - coverage) - 1) / max(1, count)
        low, high = 0.0, float(np.nanmax(scores, initial=0.0))
        if allowed < 0 or not count:
            thresholds[coverage] = math.inf
            continue
        # The share missed falls with the threshold; 40 halvings are finer than float32.
        for _ in range(40):
            middle = (low + high) / 2
            if np.mean((scores > middle).sum(axis=1) / items) <= allowed:
                high = middle
            else:
                low = middle
        thresholds[coverage] = high
    return thresholds


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where that is more than n."""
    # Rounded first, because 0.95 * 20 must not become a hair more than 19.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _where_finite(method: str, thresholds: dict[float, float]) -> list[Conformal]:
    return [
        Conformal(coverage=coverage, method=method, threshold=threshold)
        for coverage, threshold in thresholds.items()
        if math.isfinite(threshold)
    ]
