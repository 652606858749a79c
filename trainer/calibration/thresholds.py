"""Conformal thresholds of a head."""

from __future__ import annotations

import numpy as np

from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.calibration.thresholds import fit_positions, fit_quantiles, fit_regularized_sets
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.base import Answer


def fit_thresholds(head: AnyHead, answer: Answer, target: np.ndarray) -> list[Conformal]:
    """Fits a head's thresholds at COVERAGES; none for a head whose rows hold neither a set nor an interval.

    answer: calibrated predictive mean and total, [n, classes] and [n], or [n, outputs] both, positions after n.
    target: of examples that have one; [n] class numbers, or [n, outputs], positions after n.
    Leaves out a coverage that so few examples cannot promise.
    """
    if head.per_position:
        return fit_positions(head.position_method, head.position_scores(answer, target))
    scores_by_method = head.conformal_scores(answer, target)
    records = [record for method, scores in scores_by_method.items() for record in fit_quantiles(method, scores)]
    if head.kind == "class":
        records += fit_regularized_sets(answer["mean"].astype(np.float64), target)
    return records
