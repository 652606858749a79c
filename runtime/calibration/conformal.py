"""Conformal prediction: the score of a true value, and the set or interval that a threshold on the score gives.

Sets: `lac` (least ambiguous set-valued classifier, Sadinle et al. 2019), `aps` (adaptive prediction sets, Romano et
al. 2020, without randomization) and `raps` (regularized `aps`, Angelopoulos et al. 2021, equation 4, without
randomization). Intervals: split conformal prediction (Lei et al. 2018), `scaled` by the predictive standard deviation
or of one `absolute` width.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Conformal

SET_METHODS = ("lac", "aps", "raps")
INTERVAL_METHODS = ("scaled", "absolute")

Floats = npt.NDArray[np.float64]


def list_coverages(records: Iterable[Conformal]) -> list[float]:
    """The coverages of some thresholds, each once, in rising order."""
    return sorted({record.coverage for record in records})


def rank_classes(probabilities: Floats) -> npt.NDArray[np.intp]:
    """Class numbers from the likeliest to the least likely, [n, classes]; ties keep the order of the classes."""
    return np.argsort(-probabilities, axis=1, kind="stable")


def rank_sets(probabilities: Floats, conformal: Conformal) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ranks the classes of each example, [n, classes], and counts those in its set, [n].

    probabilities: [n, classes]. A set holds the first classes of the ranking, the likeliest class always. lac: all
    classes with 1 - p at most the threshold. aps, raps: all classes whose score is below the threshold.
    """
    order = rank_classes(probabilities)
    if conformal.method == "lac":
        sizes = (1.0 - probabilities <= conformal.threshold).sum(axis=1)
    else:
        scores = _score_ranked(probabilities, order, conformal.penalty, conformal.free_ranks)
        sizes = (scores < conformal.threshold).sum(axis=1)
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


def score_improbability(probabilities: Floats, target: npt.NDArray[np.integer]) -> Floats:
    """1 - p of the true class, [n]: the score of `lac`. target: class numbers [n]."""
    scores: Floats = 1.0 - np.take_along_axis(probabilities, target[:, None].astype(np.int64), axis=1)[:, 0]
    return scores


def score_rank(
    probabilities: Floats, target: npt.NDArray[np.integer], penalty: float = 0.0, free_ranks: int = 0
) -> Floats:
    """The score of `aps` and `raps`, [n]: the probability of all classes that are likelier than the true one.

    penalty, free_ranks: `raps` adds `penalty` for each rank of the true class after the first `free_ranks`.
    """
    order = rank_classes(probabilities)
    scores: Floats = _score_ranked(probabilities, order, penalty, free_ranks)[order == target[:, None]]
    return scores


def score_distance(mean: Floats, deviation: Floats, target: Floats) -> Floats:
    """The distance from the mean in predictive standard deviations (Lei et al. 2018, section 5.2), [n].

    mean, deviation, target: [n, outputs]. Takes the largest over the outputs, so that all intervals hold together.
    """
    scores: Floats = np.max(np.abs(target - mean) / deviation, axis=-1, initial=0.0)
    return scores


def _score_ranked(probabilities: Floats, order: npt.NDArray[np.intp], penalty: float, free_ranks: int) -> Floats:
    """The score that each class would have as the true one, in the order of the ranking, [n, classes]."""
    ranked = np.take_along_axis(probabilities, order, axis=1)
    likelier = np.concatenate([np.zeros((len(order), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
    ranks = np.arange(1, order.shape[1] + 1)
    scores: Floats = likelier + penalty * np.maximum(0, ranks - free_ranks)
    return scores
