"""Compares rows of predictions with a reference, quantity by quantity."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from probrt.runtime.bundle.manifest import NOVELTY, Manifest
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.monitor.hypothesis_tests import (
    Counts,
    Floats,
    compare_conformal_p_values,
    compare_counts,
    compare_samples,
    correct_for_several,
)
from probrt.runtime.monitor.row_values import RowValues

P_VALUE = f"{NOVELTY}.p_value"
SCORE = f"{NOVELTY}.score"


@dataclass(frozen=True)
class Comparison:
    """One quantity of both sides.

    before, after: what a table shows of it: medians, or the share that changed most. statistic: of `test`. p_value: of
    the test alone. corrected: by Holm, for all tests of the run. first, second: the numbers behind it; empty of shares.
    """

    name: str
    test: str
    before: str
    after: str
    statistic: float
    p_value: float
    corrected: float = 1.0
    first: Floats = field(default_factory=lambda: np.array([]))
    second: Floats = field(default_factory=lambda: np.array([]))


def compare_with_rows(reference: RowValues, new: RowValues) -> list[Comparison]:
    """Returns a comparison for each quantity that both sides have, the most surprising first.

    Raises UsageError for rows of different bundles, InputError for a side without good rows or without a common
    quantity.
    """
    _check_rows(reference, "REFERENCE")
    _check_rows(new, "NEW")
    if reference.bundles != new.bundles:
        raise UsageError(
            f"rows of {_list(reference.bundles)} and of {_list(new.bundles)}: the model itself has changed between "
            "them; predict both with one bundle"
        )
    comparisons = []
    for name, counts in reference.counts.items():
        if name in new.counts:
            labels = sorted(counts.keys() | new.counts[name].keys())
            sides = [np.array([side[label] for label in labels], np.int64) for side in (counts, new.counts[name])]
            comparisons.append(_compare_shares(name, labels, *sides))
    comparisons += [
        _compare_numbers(name, reference.get_numbers(name), new.get_numbers(name))
        for name in reference.numbers
        if name in new.numbers and name != P_VALUE
    ]
    return _correct(comparisons)


def compare_with_bundle(manifest: Manifest, label: str, new: RowValues) -> list[Comparison]:
    """Returns the comparison of novelty p-values with the calibration images that the bundle's own stand for.

    Raises UsageError for a bundle without novelty and for rows of another bundle, InputError for no good rows.
    """
    _check_rows(new, "NEW")
    if manifest.novelty is None:
        raise UsageError(f"{label}: holds no novelty to compare with; give rows of images like those of training")
    if new.bundles != {label}:
        raise UsageError(f"NEW holds rows of {_list(new.bundles)}, not of {label}; predict with this bundle")
    p_values = new.get_numbers(P_VALUE)
    if not p_values.size:
        raise InputError(f"NEW: its rows hold no {P_VALUE}; predict again with this version of probrt")
    statistic, p_value = compare_conformal_p_values(p_values, manifest.novelty.images)
    count = manifest.novelty.images
    uniform = np.arange(1, count + 2) / (count + 1)
    shown = f"{np.median(p_values):.4g}"
    return _correct([Comparison(P_VALUE, "KS", "0.5", shown, statistic, p_value, first=uniform, second=p_values)])


def _check_rows(values: RowValues, side: str) -> None:
    if not values.rows:
        raise InputError(f"{side}: holds no good rows")


def _compare_numbers(name: str, first: Floats, second: Floats) -> Comparison:
    statistic, p_value = compare_samples(first, second)
    before, after = (f"{np.median(side):.4g}" for side in (first, second))
    return Comparison(name, "KS", before, after, statistic, p_value, first=first, second=second)


def _compare_shares(name: str, labels: Sequence[str], first: Counts, second: Counts) -> Comparison:
    statistic, p_value = compare_counts(first, second)
    shares = [side / side.sum() for side in (first, second)]
    changed = int(np.abs(shares[1] - shares[0]).argmax())
    before, after = (f"{labels[changed]} {side[changed]:.1%}" for side in shares)
    test = "Fisher" if len(labels) <= 2 else "chi2"
    return Comparison(name, test, before, after, statistic, p_value)


def _correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    if not comparisons:
        raise InputError("both sides hold no common quantity; compare rows of the same heads")
    corrected = correct_for_several([comparison.p_value for comparison in comparisons])
    complete = [
        Comparison(**(vars(comparison) | {"corrected": p_value}))
        for comparison, p_value in zip(comparisons, corrected, strict=True)
    ]
    return sorted(complete, key=lambda comparison: comparison.p_value)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no bundle"
