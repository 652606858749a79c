"""The risk-coverage curve: how often a class head errs on the examples it is most certain of.

El-Yaniv and Wiener (2010), definition 4; the empirical curve, with no bound on what is new.
"""

from __future__ import annotations

import numpy as np

from probrt.runtime.manifest import RiskPoint

POINTS = 50


def curve(uncertainty: np.ndarray, wrong: np.ndarray) -> list[RiskPoint]:
    """Points (threshold, kept, risk), all three rising; empty if there are no examples.

    uncertainty: [n]; wrong: [n] bool, whether the likeliest class was not the true one.

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
