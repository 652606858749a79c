"""The risk-coverage curve: how wrong the answers are that a model is most certain of.

El-Yaniv and Wiener (2010), definition 4; the empirical curve, without a bound for new examples.
"""

from __future__ import annotations

import numpy as np

from probrt.runtime.bundle.manifest import RiskPoint
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.base import Answer

POINTS = 50


def risk_coverage(uncertainty: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The whole curve: thresholds, and coverage and mean loss of the examples at or below each, float64.

    uncertainty, loss: [n]. There is one threshold for each distinct uncertainty, in rising order.
    """
    order = np.argsort(uncertainty, kind="stable")
    ranked = uncertainty[order]
    counts = np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(np.diff(ranked) > 0, True)[: len(order)])  # of the examples of each uncertainty
    return ranked[last], counts[last] / max(1, len(order)), (np.cumsum(loss[order]) / counts)[last]


def example_errors(head: AnyHead, answer: Answer, target: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Each example's total uncertainty, averaged over outputs and positions, and the share of them that is wrong.

    answer: mean and total [n, …]. target: of examples that have one at some position. None for a head whose answers
    are not right or wrong.
    """
    errors = head.find_errors(answer["mean"], target)
    if errors is None:
        return None
    wrong, known = (values.reshape(len(target), -1).sum(axis=1) for values in errors)
    uncertainty = answer["total"].reshape(len(target), -1).mean(axis=1, dtype=np.float64)
    return uncertainty, wrong / np.maximum(known, 1)


def fit_curve(uncertainty: np.ndarray, wrong: np.ndarray) -> list[RiskPoint]:
    """Points (threshold, kept, risk), all three rising; empty if there are no examples.

    uncertainty: [n]; wrong: [n], whether the likeliest class was not the true one, or the share where it was not.

    The error rate of the examples at or below a threshold does not rise steadily. The curve holds the thresholds that
    no larger one beats, so every point is an error rate that was counted, the curve is monotone, and it includes the
    largest threshold for any risk. If there are more than POINTS, it holds POINTS of them, the last included.
    """
    thresholds, coverage, risk = risk_coverage(uncertainty, wrong)
    lowest_after = np.minimum.accumulate(np.append(risk[1:], np.inf)[::-1])[::-1][: len(risk)]
    unbeaten = np.flatnonzero(risk < lowest_after)
    chosen = unbeaten[np.unique(np.linspace(0, len(unbeaten) - 1, min(POINTS, len(unbeaten))).astype(int))]
    return [RiskPoint(threshold=float(thresholds[i]), kept=float(coverage[i]), risk=float(risk[i])) for i in chosen]
