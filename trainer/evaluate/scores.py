"""Scores of answers against targets, in NumPy float64; every function names the source of its definition.

A `Score` takes `rows`, which of n examples to count and how often, so that a bootstrap resample is one more call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probrt.runtime.calibration.risk import risk_coverage

BINS = 15
Score = Callable[[np.ndarray], float]


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence (Naeini et al. 2015)."""
    counts, confident, correct = reliability(confidence, right, bins)
    return float(np.abs(confident - correct).sum() / max(1, counts.sum()))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, ...]:
    """Per equal bin of confidence: how many, and the sums of confidence and of being right, each [bins]."""
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return tuple(np.bincount(bin_of, values, bins) for values in (np.ones(len(bin_of)), confidence, right))


def area_under_risk(uncertainty: np.ndarray, loss: np.ndarray) -> float:
    """Area under the risk-coverage curve: the mean, over examples, of the risk at their threshold (Geifman et al.
    2019); examples of equal uncertainty share theirs."""
    _, coverage, risk = risk_coverage(uncertainty, loss)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())


def crps(samples: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each example and output, from samples [n, samples, outputs], target
    [n, outputs]: E|X - y| - E|X - X'| / 2 over the samples (Gneiting and Raftery 2007, eq. 21), [n, outputs]."""
    count = samples.shape[1]
    ranked = np.sort(samples.astype(np.float64), axis=1)
    rank = 2 * np.arange(1, count + 1) - count - 1
    # Sum over pairs of |x - x'| of sorted values; over count (count - 1) pairs it has no bias.
    spread = (ranked * rank[None, :, None]).sum(axis=1) / max(1, count * (count - 1))
    crps: np.ndarray = np.abs(samples - target[:, None]).mean(axis=1) - spread
    return crps


def probability_integral_transform(samples: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the target lies in the predictive distribution, 0 to 1, [n, outputs]; for counts the middle of the step
    (Czado et al. 2009). Uniform if the distribution is right."""
    below = (samples < target[:, None]).mean(axis=1)
    transform: np.ndarray = below + 0.5 * (samples == target[:, None]).mean(axis=1)
    return transform


def interval(samples: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """The central interval of the predictive distribution, both ends [n, outputs]."""
    low, high = np.quantile(samples, [(1 - coverage) / 2, (1 + coverage) / 2], axis=1)
    return low, high


def false_positive_rate(inside: np.ndarray, outside: np.ndarray, recall: float = 0.95) -> float:
    """Share of inside examples above the threshold at which `recall` of the outside ones are (FPR95)."""
    # Rounded first, because 0.95 * 20 must not become a hair more than 19.
    threshold = np.sort(outside)[len(outside) - int(np.ceil(round(recall * len(outside), 9)))]
    return float((inside >= threshold).mean())


def bootstrap(score: Score, count: int, seed: int, resamples: int = 500) -> tuple[float, float, float]:
    """A score and its 95 % percentile interval over resampled examples (Efron 1979); `score` takes row numbers."""
    rng = np.random.default_rng(seed)
    value = score(np.arange(count))
    values = [score(rng.integers(0, count, count)) for _ in range(resamples)]
    finite = [value for value in values if np.isfinite(value)]
    low, high = np.quantile(finite, [0.025, 0.975]) if finite else (np.nan, np.nan)
    return value, float(low), float(high)
