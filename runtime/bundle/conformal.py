"""What a conformal threshold of the manifest means: a set of classes, or an interval.

Sets: `lac` (least ambiguous set-valued classifier, Sadinle et al. 2019) and `aps` (adaptive prediction sets, Romano
et al. 2020, without randomization). Intervals: split conformal prediction (Lei et al. 2018), `scaled` by the
predictive standard deviation or of one `absolute` width.
"""

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Conformal

SET_METHODS = ("lac", "aps")
INTERVAL_METHODS = ("scaled", "absolute")

Floats = npt.NDArray[np.float64]


def rank_classes(probabilities: Floats) -> npt.NDArray[np.intp]:
    """Class numbers from the likeliest to the least likely, [n, classes]; ties keep the order of the classes."""
    return np.argsort(-probabilities, axis=1, kind="stable")


def class_sets(probabilities: Floats, conformal: Conformal) -> npt.NDArray[np.bool_]:
    """Which classes are in each example's set, bool [n, classes]; the likeliest class always is.

    lac: all classes with 1 - p at most the threshold. aps: the likeliest classes until their probabilities sum up to
    the threshold.
    """
    order = rank_classes(probabilities)
    if conformal.method == "lac":
        inside = 1.0 - probabilities <= conformal.threshold
    else:
        ranked = np.take_along_axis(probabilities, order, axis=1)
        before = np.concatenate([np.zeros((len(order), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
        inside = np.empty(probabilities.shape, bool)
        np.put_along_axis(inside, order, before < conformal.threshold, axis=1)
    inside[np.arange(len(inside)), order[:, 0]] = True
    return inside


def intervals(mean: Floats, deviation: Floats, conformal: Conformal) -> tuple[Floats, Floats]:
    """Lower and upper ends of the shape of `mean`.

    scaled: mean ± threshold * deviation, the predictive standard deviation. absolute: mean ± threshold.
    """
    half = deviation * conformal.threshold if conformal.method == "scaled" else conformal.threshold
    return mean - half, mean + half
