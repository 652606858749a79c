"""The gap between probabilities and frequencies, estimated without the bias that noise in the bins adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float, float]

BINS = 15
# A bin of fewer examples tells little about its own noise.
_PER_BIN = 10


@dataclass(frozen=True)
class CalibrationError:
    """The root mean square gap of bins of equal mass, for some groups (classes) that are averaged.

    The squared gap of a bin of few examples is too large by its noise, however well calibrated the model is; the
    estimate subtracts the variance of each gap, so that it has no bias (Kumar et al. 2019, section 5).

    example, bin, count, gap: one entry per example and bin that it has items in: the number of items, and the sum of
    frequency minus confidence over them; each [entries]. bins: number of all bins. examples: number of examples.
    """

    example: np.ndarray
    bin: np.ndarray
    count: np.ndarray
    gap: np.ndarray
    bins: int
    examples: int

    def estimate(self, seed: int, resamples: int) -> Interval:
        """Returns the error and its 95 % basic bootstrap interval over examples (Davison and Hinkley 1997, eq. 5.6)."""
        rng = np.random.default_rng(seed)
        plain, corrected = self._mean_squares(np.ones(self.examples))
        shifts = []
        for _ in range(resamples):
            weights = np.bincount(rng.integers(0, self.examples, self.examples), minlength=self.examples)
            # A resample's truth is the sample, whose squared gaps are the plain ones.
            shifts.append(self._mean_squares(weights.astype(np.float64))[1] - plain)
        low, high = corrected - np.quantile(shifts, [0.975, 0.025])
        value, low, high = np.sqrt(np.maximum([corrected, min(low, corrected), max(high, corrected)], 0.0))
        return float(value), float(low), float(high)

    def _mean_squares(self, weights: np.ndarray) -> tuple[float, float]:
        """Returns the mean squared gap, plain and without its bias; weights: how often each example counts."""
        weight = weights[self.example]

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(self.bin, weight * values, self.bins)

        count, occupied = total(self.count), total(np.ones_like(self.count))
        mean = total(self.gap) / np.maximum(count, 1e-12)
        # The variance of a ratio of sums over examples; items of one example may depend on each other.
        squares = total(self.gap**2) - 2 * mean * total(self.gap * self.count) + mean**2 * total(self.count**2)
        variance = squares / np.maximum(count, 1e-12) ** 2 * occupied / np.maximum(occupied - 1, 1)
        share = count / max(count.sum(), 1e-12)
        return float((share * mean**2).sum()), float((share * (mean**2 - variance)).sum())


def compare_confidence(confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> CalibrationError:
    """Compares the confidence of answers with how often they are right; arrays of one shape [n, items]."""
    return _make([(confidence, right, known)])


def compare_classes(probabilities: np.ndarray, target: np.ndarray) -> CalibrationError:
    """Compares each class's probability with its frequency; probabilities [n, classes], target [n]."""
    known = np.ones((len(target), 1), bool)
    return _make([(probabilities[:, [k]], (target == k)[:, None], known) for k in range(probabilities.shape[1])])


def _make(groups: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> CalibrationError:
    examples, bins, counts, gaps = [], [], [], []
    first_bin = 0
    for confidence, right, known in groups:
        example, _ = np.nonzero(known)
        values, difference = confidence[known], right[known].astype(np.float64) - confidence[known]
        bin_count = max(1, min(BINS, len(confidence) // _PER_BIN))
        edges = np.unique(np.quantile(values, np.arange(1, bin_count) / bin_count)) if len(values) else np.zeros(0)
        bin_of = np.searchsorted(edges, values, side="right")
        # One entry per example and bin.
        place = example * (len(edges) + 1) + bin_of
        entries, entry_of = np.unique(place, return_inverse=True)
        examples.append(entries // (len(edges) + 1))
        bins.append(first_bin + entries % (len(edges) + 1))
        counts.append(np.bincount(entry_of, minlength=len(entries)).astype(np.float64))
        gaps.append(np.bincount(entry_of, difference, len(entries)))
        first_bin += len(edges) + 1
    example, bin, count, gap = map(np.concatenate, (examples, bins, counts, gaps))
    return CalibrationError(example, bin, count, gap, bins=first_bin, examples=len(groups[0][0]))
