"""Conformal thresholds: sets and intervals that hold the truth as often as they promise.

One answer per example: with n calibration scores the threshold at coverage c is the ceil((n + 1) c)-th smallest; a
new example from the same source scores at most that with probability c or more, whatever the model (Papadopoulos et
al. 2002; Lei et al. 2018, theorem 2.2). One answer per position: positions of an image are not exchangeable, images
are. The threshold is the smallest at which the share of an image's positions that are missed is at most 1 - c on
average over images, with a correction for their number: conformal risk control (Angelopoulos et al. 2024, theorem 1).
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.calibration.conformal import Floats, rank_classes, rank_sets, score_rank

COVERAGES = (0.5, 0.8, 0.9, 0.95)
# With fewer examples the third that chooses the penalty of `raps` is too small to choose.
RAPS_EXAMPLES = 60
PENALTIES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)


def fit_quantiles(method: str, scores: npt.NDArray[np.floating]) -> list[Conformal]:
    """Fits the thresholds of a method at COVERAGES from the scores of examples, [n]; see `conformal.py`.

    Leaves out a coverage that so few examples cannot promise.
    """
    return _fit_each(method, lambda coverage: quantile(scores, coverage))


def fit_positions(method: str, scores: npt.NDArray[np.floating]) -> list[Conformal]:
    """Fits the thresholds of a per-position head at COVERAGES by conformal risk control.

    scores: of each position, [n, items]; NaN without a target. Leaves out a coverage that so few images cannot promise.
    """
    return _fit_each(method, lambda coverage: control_misses(scores, coverage))


def fit_regularized_sets(probabilities: Floats, target: npt.NDArray[np.integer]) -> list[Conformal]:
    """Fits `raps` at COVERAGES; none for fewer than RAPS_EXAMPLES examples.

    probabilities: [n, classes]; target: class numbers [n]. Every third example chooses the free ranks and the penalty,
    the others give the threshold, so that its promise holds (Angelopoulos et al. 2021, section 2.2 and appendix E).
    """
    if len(target) < RAPS_EXAMPLES:
        return []
    choosing = np.arange(len(target)) % 3 == 0
    records = []
    for coverage in COVERAGES:
        chosen = _choose_penalty(probabilities[choosing], target[choosing], coverage)
        scores = score_rank(probabilities[~choosing], target[~choosing], chosen.penalty, chosen.free_ranks)
        threshold = quantile(scores, coverage)
        if math.isfinite(threshold):
            records.append(_make_regularized(coverage, threshold, chosen.penalty, chosen.free_ranks))
    return records


def quantile(scores: npt.NDArray[np.floating], coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where that is more than n."""
    # Rounded first, because 0.95 * 20 must not become a hair more than 19.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def control_misses(scores: npt.NDArray[np.floating], coverage: float) -> float:
    """Finds the threshold at a coverage by conformal risk control; infinity where there are too few images.

    scores: of each position, [n, items]; NaN without a target.
    """
    count, known = len(scores), ~np.isnan(scores)
    allowed = ((count + 1) * (1 - coverage) - 1) / max(1, count)
    if allowed < 0 or not count:
        return math.inf
    items = known.sum(axis=1)
    low, high = 0.0, float(np.nanmax(scores, initial=0.0))
    # The share missed falls with the threshold; 40 halvings are finer than float32.
    for _ in range(40):
        middle = (low + high) / 2
        if np.mean((scores > middle).sum(axis=1) / items) <= allowed:
            high = middle
        else:
            low = middle
    return high


def _fit_each(method: str, fit: Callable[[float], float]) -> list[Conformal]:
    """Fits a threshold at each coverage and keeps the finite ones."""
    thresholds = {coverage: fit(coverage) for coverage in COVERAGES}
    return [
        Conformal(coverage=coverage, method=method, threshold=_close_set(method, threshold))
        for coverage, threshold in thresholds.items()
        if math.isfinite(threshold)
    ]


def _close_set(method: str, threshold: float) -> float:
    """A class is in an `aps` or `raps` set if its score is below the threshold, not at it."""
    return math.nextafter(threshold, math.inf) if method in ("aps", "raps") else threshold


def _make_regularized(coverage: float, threshold: float, penalty: float, free_ranks: int) -> Conformal:
    return Conformal(
        coverage=coverage,
        method="raps",
        threshold=_close_set("raps", threshold),
        penalty=penalty,
        free_ranks=free_ranks,
    )


def _choose_penalty(probabilities: Floats, target: npt.NDArray[np.integer], coverage: float) -> Conformal:
    """Returns the `raps` threshold with the smallest sets on these examples, and among equals the least penalty."""
    ranks = np.nonzero(rank_classes(probabilities) == target[:, None])[1] + 1.0
    free_ranks = int(min(quantile(ranks, coverage), probabilities.shape[1]))
    records = [
        _make_regularized(
            coverage, quantile(score_rank(probabilities, target, penalty, free_ranks), coverage), penalty, free_ranks
        )
        for penalty in PENALTIES
    ]
    return min(records, key=lambda record: float(rank_sets(probabilities, record)[1].mean()))
