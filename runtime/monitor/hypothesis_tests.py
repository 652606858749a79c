"""Tests whether two samples have one source, from NumPy and the standard library alone.

Each returns a statistic and the probability of one at least as large if the source is the same. None needs a
distribution of the values. Ties make the Kolmogorov-Smirnov test conservative, never too eager.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer]

# Up to so many pairs of values the distribution of the Kolmogorov-Smirnov statistic is counted, path by path.
_EXACT_PAIRS = 25_000_000
# Below it the counted probability is the difference of two nearly equal numbers.
_SMALLEST_EXACT = 1e-9
# A class that is expected fewer times joins the other rare ones: chi-square holds for expected counts from 5 on
# (Cochran 1954).
_LEAST_EXPECTED = 5.0


def compare_samples(first: Floats, second: Floats) -> tuple[float, float]:
    """Returns the two-sample Kolmogorov-Smirnov statistic of two samples, and its p-value.

    The statistic is the largest difference between the shares of both samples up to a value.
    """
    values = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    return statistic, ks_p_value(statistic, len(first), len(second))


def compare_conformal_p_values(p_values: Floats, calibrated: int) -> tuple[float, float]:
    """Returns how far conformal p-values are from uniform, and the probability of that.

    p_values: each (1 + k) / (calibrated + 1), where k of the calibration values are at least as large as its own. The
    k are ranks, so this is the two-sample Kolmogorov-Smirnov test of the values against those of the calibration. A
    one-sample test against the uniform distribution would take the chance of the calibration values for drift.
    """
    ranks = np.rint(p_values * (calibrated + 1)).astype(np.int64) - 1
    below = np.bincount(np.clip(ranks, 0, calibrated), minlength=calibrated + 1).cumsum() / len(p_values)
    shares = np.arange(calibrated + 1) / calibrated
    before = np.concatenate([[0.0], below[:-1]])
    statistic = float(max(np.abs(below - shares).max(), np.abs(before - shares).max()))
    return statistic, ks_p_value(statistic, calibrated, len(p_values))


def ks_p_value(statistic: float, first: int, second: int) -> float:
    """Returns the probability that the two-sample Kolmogorov-Smirnov statistic is at least as large.

    first, second: the sizes of the samples. Exact for small samples of continuous values; else the limit of Kolmogorov
    (1933) with Stephens's correction (1970) for finite sizes.
    """
    if statistic <= 0:
        return 1.0
    if first * second <= _EXACT_PAIRS:
        exact = _count_paths(statistic, first, second)
        if exact > _SMALLEST_EXACT:
            return exact
    root = math.sqrt(first * second / (first + second))
    return _kolmogorov((root + 0.12 + 0.11 / root) * statistic)


def _count_paths(statistic: float, first: int, second: int) -> float:
    """Returns the share of all orders of both samples whose statistic is at least as large.

    An order is a path from (0, 0) to (first, second) in steps of one. Counts the paths that stay below the statistic
    (Hodges 1958), line by line, each line scaled so that its numbers stay finite.
    """
    if first > second:
        first, second = second, first
    # The differences of shares are multiples of 1 / (first * second): half of that keeps rounding out.
    limit = statistic * first * second - 0.5
    counts = np.zeros(second + 1)
    width = limit / first
    counts[: min(second, math.floor(width)) + 1] = 1.0
    logarithm = 0.0
    for line in range(1, first + 1):
        centre = line * second / first
        low, high = max(0, math.ceil(centre - width)), min(second, math.floor(centre + width))
        if low > high:
            return 1.0
        counts[:low] = 0.0
        counts[low : high + 1] = counts[low : high + 1].cumsum()
        counts[high + 1 :] = 0.0
        largest = counts[high]
        if largest == 0:
            return 1.0
        if largest > 1e200:
            counts /= largest
            logarithm += math.log(largest)
    if counts[second] == 0:
        return 1.0
    orders = math.lgamma(first + second + 1) - math.lgamma(first + 1) - math.lgamma(second + 1)
    return max(0.0, -math.expm1(math.log(counts[second]) + logarithm - orders))


def _kolmogorov(value: float) -> float:
    """Returns the limit's probability of a larger value: 2 sum (-1)^(k-1) exp(-2 k^2 value^2)."""
    if value < 0.2:
        return 1.0
    terms = ((-1.0) ** (k - 1) * math.exp(-2 * k * k * value * value) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def compare_counts(first: Counts, second: Counts) -> tuple[float, float]:
    """Returns the chi-square statistic of the counts of classes in two samples, [classes] each, and its p-value.

    Classes too rare for the distribution are counted as one. With two classes, left or given, the p-value is that of
    Fisher's exact test.
    """
    table = np.stack([first, second]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    expected = _expect(table)
    rare = (expected < _LEAST_EXPECTED).any(axis=0)
    if table.shape[1] > 2 and rare.any():
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
        expected = _expect(table)
    if table.shape[1] < 2:
        return 0.0, 1.0
    statistic = float((np.square(table - expected) / expected).sum())
    if table.shape[1] == 2:
        return statistic, fisher_p_value(int(table[0, 0]), int(table[0].sum()), int(table[1, 0]), int(table[1].sum()))
    return statistic, chi_square_p_value(statistic, table.shape[1] - 1)


def _expect(table: Floats) -> Floats:
    return np.asarray(table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum())


def chi_square_p_value(statistic: float, freedom: int) -> float:
    """Returns the probability of a larger chi-square value, for any whole number of degrees of freedom.

    The closed form of the incomplete gamma function at whole and half numbers (Abramowitz and Stegun 1964, 26.4.4 and
    26.4.5).
    """
    half = statistic / 2
    if half <= 0:
        return 1.0
    total, power = (0.0, 0.0) if freedom % 2 == 0 else (math.erfc(math.sqrt(half)), 0.5)
    while power < freedom / 2:
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
        power += 1
    return min(1.0, total)


def fisher_p_value(first_count: int, first: int, second_count: int, second: int) -> float:
    """Returns the two-sided p-value of Fisher's exact test (1935) for two shares, counts out of sizes.

    The probability of all tables with the same margins that are at most as likely as this one.
    """
    total = first_count + second_count
    low, high = max(0, total - second), min(total, first)
    logs = np.array([_log_choose(first, k) + _log_choose(second, total - k) for k in range(low, high + 1)])
    weights = np.exp(logs - logs.max())
    here = weights[first_count - low]
    return float(min(1.0, weights[weights <= here * (1 + 1e-9)].sum() / weights.sum()))


def _log_choose(size: int, count: int) -> float:
    return math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)


def correct_for_several(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of several tests, corrected by Holm (1979) in the same order.

    The smallest at or below a level is a false alarm with at most that probability, however the tests depend on each
    other.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
