"""The risk-coverage curve: how often a class or yes-or-no head errs on the examples it is most certain of.

El-Yaniv and Wiener (2010), definition 4; the empirical curve, with no bound on what is new.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from probrt.runtime.bundle.manifest import RiskPoint
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.categorical import ClassHead

POINTS = 50


def of_examples(head: AnyHead, answer: Mapping[str, np.ndarray], target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each example's total uncertainty, averaged over outputs and positions, and the share of them that is wrong.

    answer: mean and total [n, …] of a class or yes-or-no head. target: of examples that have one at some position.
    """
    count, mean = len(target), answer["mean"]
    if isinstance(head, ClassHead):
        wrong, known = mean.argmax(axis=-1) != target, target >= 0
    else:
        wrong, known = (mean > 0.5) != (target > 0.5), np.isfinite(target)
    items = known.reshape(count, -1).sum(axis=1)
    uncertainty = answer["total"].reshape(count, -1).mean(axis=1, dtype=np.float64)
    return uncertainty, (wrong & known).reshape(count, -1).sum(axis=1) / np.maximum(items, 1)


def curve(uncertainty: np.ndarray, wrong: np.ndarray) -> list[RiskPoint]:
    """Points (threshold, kept, risk), all three rising; empty if there are no examples.

    uncertainty: [n]; wrong: [n], whether the likeliest class was not the true one, or the share where it was not.

    The error rate of the examples at or below a threshold does not rise steadily. Kept are the thresholds that
    no larger one beats, so every point is an error rate that was counted, the curve is monotone, and the
    largest threshold of a risk is in it. Of many points POINTS stay, the last among them.
    """
    order = np.argsort(uncertainty, kind="stable")
    sorted_uncertainty = uncertainty[order]
    count = len(order)
    ends = np.flatnonzero(np.append(np.diff(sorted_uncertainty) > 0, True)[:count])  # of ties, which go together
    risk = (np.cumsum(wrong[order]) / np.arange(1, count + 1))[ends]
    lowest_after = np.minimum.accumulate(np.append(risk[1:], np.inf)[::-1])[::-1][: len(risk)]
    unbeaten = np.flatnonzero(risk < lowest_after)
    chosen = unbeaten[np.unique(np.linspace(0, len(unbeaten) - 1, min(POINTS, len(unbeaten))).astype(int))]
    return [
        RiskPoint(threshold=float(sorted_uncertainty[ends[i]]), kept=float(ends[i] + 1) / count, risk=float(risk[i]))
        for i in chosen
    ]
