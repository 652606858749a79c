"""Whether two computations rank the same images alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

# Rounding of float32, as a part of the largest value or of 1.
_ROUNDING = 1e-6
# Images whose values spread less than this are all alike.
_SMALL = 1e-4


def compute_ranking(values: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation over images of an uncertainty (averaged per image) with the model's.

    values, targets: [images, …]. Tied images share the average of their ranks. None where the
    model has all images alike, 0 where only `values` has.
    """
    scores, target_scores = (array.reshape(len(array), -1).mean(1) for array in (values, targets))
    # Where the model is sure, rounding alone would order the images.
    rounding = _ROUNDING * max(1.0, float(np.abs(target_scores).max()))
    rounded = np.where(np.abs(scores - target_scores) <= rounding, target_scores, scores)
    if target_scores.std() <= _SMALL:
        return None
    if rounded.std() == 0:
        return 0.0
    return float(np.clip(stats.spearmanr(rounded, target_scores).statistic, -1.0, 1.0))
