"""Conformal thresholds: sets and intervals that hold the truth as often as they say.

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
from probrt.trainer.heads.bernoulli import BinaryHead
from probrt.trainer.heads.categorical import ClassHead

COVERAGES = (0.5, 0.8, 0.9, 0.95)


def conformal(head: AnyHead, answer: dict[str, np.ndarray], target: np.ndarray) -> list[Conformal]:
    """A head's thresholds at COVERAGES; none for a head whose rows hold neither a set nor an interval.

    answer: calibrated predictive mean and total, [n, classes] and [n], or [n, outputs] both, positions after n.
    target: what is true, of examples that have a target; [n] class numbers, or [n, outputs], positions after n.
    Classes have two methods: `lac` first, whose sets are the smallest, and `aps`, whose sets suit each image better.
    A coverage that so few examples cannot promise is left out.
    """
    if head.per_position:
        method = "scaled" if head.combine == "variance" else "lac"
        return _where_finite(method, controlled(misses(head, answer, target)))
    if isinstance(head, ClassHead):
        mean = answer["mean"].astype(np.float64)
        unlikely = 1.0 - np.take_along_axis(mean, target[:, None].astype(np.int64), axis=1)[:, 0]
        # A class is in an `aps` set if its score is below the threshold, not at it.
        before = {c: math.nextafter(q, math.inf) for c, q in _quantiles(_likelier(mean, target)).items()}
        return _where_finite("lac", _quantiles(unlikely)) + _where_finite("aps", before)
    if head.combine == "variance":
        return _where_finite("scaled", _quantiles(_deviation(answer["mean"], answer["total"], target)))
    return []


def misses(head: AnyHead, answer: dict[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    """Of each position the threshold from which on the truth is held, float32 [n, items]; NaN without a target."""
    count = len(target)
    if isinstance(head, ClassHead):
        chosen = np.take_along_axis(answer["mean"], np.maximum(target, 0)[..., None].astype(np.int64), axis=-1)[..., 0]
        return np.where(target >= 0, 1.0 - chosen, np.nan).reshape(count, -1).astype(np.float32)
    mean, truth = answer["mean"].reshape(count, -1), target.reshape(count, -1)
    if isinstance(head, BinaryHead):
        return np.where(np.isnan(truth), np.nan, np.abs(truth - mean)).astype(np.float32)
    deviation = np.sqrt(np.maximum(answer["total"].reshape(count, -1), 1e-30))
    return (np.abs(truth - mean) / deviation).astype(np.float32)


def controlled(missed: np.ndarray) -> dict[float, float]:
    """The threshold at each coverage, from `misses`; infinity where there are too few images."""
    count, known = len(missed), ~np.isnan(missed)
    items = known.sum(axis=1)
    found = {}
    for coverage in COVERAGES:
        allowed = ((count + 1) * (1 - coverage) - 1) / max(1, count)
        low, high = 0.0, float(np.nanmax(missed, initial=0.0))
        if allowed < 0 or not count:
            found[coverage] = math.inf
            continue
        # The share missed falls with the threshold; 40 halvings are finer than float32.
        for _ in range(40):
            middle = (low + high) / 2
            if np.mean((missed > middle).sum(axis=1) / items) <= allowed:
                high = middle
            else:
                low = middle
        found[coverage] = high
    return found


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where that is more than n."""
    # Rounded first, because 0.95 * 20 must not become a hair more than 19.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _quantiles(scores: np.ndarray) -> dict[float, float]:
    return {coverage: quantile(scores, coverage) for coverage in COVERAGES}


def _where_finite(method: str, thresholds: dict[float, float]) -> list[Conformal]:
    return [
        Conformal(coverage=coverage, method=method, threshold=value)
        for coverage, value in thresholds.items()
        if math.isfinite(value)
    ]


def _likelier(mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sum of the probabilities of all classes before the true one, likeliest first, [n]."""
    order = np.argsort(-mean, axis=1, kind="stable")
    ranked = np.take_along_axis(mean, order, axis=1)
    before = np.concatenate([np.zeros((len(mean), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
    return before[order == target[:, None]]


def _deviation(mean: np.ndarray, total: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance from the mean in predictive standard deviations, [n] (Lei et al. 2018, section 5.2).

    The largest over the outputs, so that the intervals of all outputs hold together.
    """
    deviation = np.sqrt(total.astype(np.float64))
    return np.max(np.abs(target - mean.astype(np.float64)) / deviation, axis=-1, initial=0.0)
