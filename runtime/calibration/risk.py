"""The risk-coverage curve: how wrong the answers are that a model is most certain of.

El-Yaniv and Wiener (2010), definition 4; the empirical curve, without a bound for new examples.
"""

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import RiskPoint

POINTS = 50

Floats = npt.NDArray[np.floating]


def risk_coverage(uncertainty: Floats, loss: Floats) -> tuple[Floats, Floats, Floats]:
    """The whole curve: thresholds, and coverage and mean loss of the examples at or below each, float64.

    uncertainty, loss: [n]. There is one threshold for each distinct uncertainty, in rising order.
    """
    order = np.argsort(uncertainty, kind="stable")
    ranked = uncertainty[order]
    counts = np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(np.diff(ranked) > 0, True)[: len(order)])  # of the examples of each uncertainty
    return ranked[last], counts[last] / max(1, len(order)), (np.cumsum(loss[order]) / counts)[last]


def fit_curve(uncertainty: Floats, wrong: Floats) -> list[RiskPoint]:
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
