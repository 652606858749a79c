"""What of each draw the choice of a bank looks at: features whose averages over a set give its mean and its spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from probrt.exporter.draw_pool import Pool
from probrt.runtime.bundle.manifest import HeadRecord

# Of the mean and of the spread. The spread's error falls faster on the images of the choice than on others.
_WEIGHTS = (1.0, 1.5)

Floats = npt.NDArray[np.float64]


def describe_draws(heads: Sequence[HeadRecord], pool: Pool, images: slice) -> list[Floats]:
    """Returns the features of the pool's draws on some images: of the mean and of the spread, each [draws, features].

    Each is centred, all heads weigh alike, and the squared length of a draw's features is the weight on average.
    """
    means, spreads = [], []
    for head in heads:
        mean, aleatoric = (values[:, images].astype(np.float64) for values in pool[head.name])
        means.append(_flatten(mean, np.sqrt(mean.var(0).mean())))
        spread = measure_contributions(head, mean, aleatoric)
        spreads.append(_flatten(spread, np.sqrt(np.square(spread.mean(0)).mean())))
    return [_scale(np.concatenate(parts, 1), weight) for parts, weight in zip((means, spreads), _WEIGHTS, strict=True)]


def measure_contributions(head: HeadRecord, mean: Floats, aleatoric: Floats) -> Floats:
    """Returns what each draw adds to the epistemic uncertainty of all, [draws, images, …].

    The average over all draws is their epistemic uncertainty: of squared deviations the variance, of Kullback-Leibler
    divergences from the average the mutual information (Cover and Thomas 2006, equation 2.29). That of a few draws
    falls short of their average by the square, or the divergence, of their mean, which is small where the mean is good.
    """
    average = mean.mean(0)
    if head.kind == "real":
        return np.asarray(np.square(mean - average))
    cross_entropy = -mean * np.log(np.maximum(average, 1e-30))
    if head.kind == "class":
        return np.asarray(cross_entropy.sum(-1) - aleatoric)
    return np.asarray(cross_entropy - (1.0 - mean) * np.log(np.maximum(1.0 - average, 1e-30)) - aleatoric)


def _flatten(values: Floats, unit: float) -> Floats:
    """Returns centred values [draws, features], in a unit and independent of how many there are."""
    flat = values.reshape(len(values), -1)
    return np.asarray((flat - flat.mean(0)) / (max(float(unit), 1e-30) * np.sqrt(flat.shape[1])))


def _scale(features: Floats, weight: float) -> Floats:
    length = np.square(features).sum(1).mean()
    return features * np.sqrt(weight / length) if length > 0 else features
