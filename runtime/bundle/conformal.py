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


def rank_sets(probabilities: Floats, conformal: Conformal) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ranks the classes of each example, [n, classes], and counts those in its set, [n].

    probabilities: [n, classes]. A set holds the first classes of the ranking, the likeliest class always. lac: all
    classes with 1 - p at most the threshold. aps: the likeliest classes until their probabilities sum up to it.
    """
    order = rank_classes(probabilities)
    if conformal.method == "lac":
        sizes = (1.0 - probabilities <= conformal.threshold).sum(axis=1)
    else:
        ranked = probabilities[np.arange(len(order))[:, np.newaxis], order]
        likelier = np.cumsum(ranked[:, :-1], axis=1)  # of the second class and the following ones
        sizes = 1 + (likelier < conformal.threshold).sum(axis=1)
    return order, np.maximum(sizes, 1)


def class_sets(probabilities: Floats, conformal: Conformal) -> npt.NDArray[np.bool_]:
    """Whether each class is in the set of each example, bool [n, classes]; see `rank_sets`."""
    order, sizes = rank_sets(probabilities, conformal)
    inside = np.empty(probabilities.shape, bool)
    inside[np.arange(len(order))[:, np.newaxis], order] = np.arange(order.shape[1]) < sizes[:, np.newaxis]
    return inside


def intervals(mean: Floats, deviation: Floats, conformal: Conformal) -> tuple[Floats, Floats]:
    """Lower and upper ends of the shape of `mean`.

    scaled: mean ± threshold * deviation, the predictive standard deviation. absolute: mean ± threshold.
    """
    half = deviation * conformal.threshold if conformal.method == "scaled" else conformal.threshold
    return mean - half, mean + half
