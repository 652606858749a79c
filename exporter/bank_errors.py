"""How far the answers over some draws are from those over a pool of draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.draw_pool import Pool, size_of_pool
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.predict.combine import ENTROPIES

Floats = npt.NDArray[np.float64]
Summary = tuple[Floats, Floats]
"""Of one head: the mean over some draws, [images, …], and the epistemic uncertainty, [images, …]."""


@dataclass(frozen=True)
class PoolSummary:
    """The answers of a pool on some images.

    summaries: by head. deviations: by head, the standard deviation between its draws' means.
    """

    heads: Sequence[HeadRecord]
    summaries: dict[str, Summary]
    deviations: dict[str, float]

    def compute_error(self, summaries: dict[str, Summary]) -> tuple[float, float]:
        """Returns the root mean square differences of mean and spread, averaged over heads.

        That of the mean is in units of the standard deviation between draws, that of the spread in units of its size.
        """
        means, spreads = [], []
        for head in self.heads:
            (mean, spread), (reference, size) = summaries[head.name], self.summaries[head.name]
            means.append(_root_mean_square(mean - reference) / self.deviations[head.name])
            spreads.append(_root_mean_square(spread - size) / max(_root_mean_square(size), 1e-30))
        return float(np.mean(means)), float(np.mean(spreads))


def summarize_pool(heads: Sequence[HeadRecord], pool: Pool, images: slice) -> PoolSummary:
    """Summarizes all draws of a pool on some of its images."""
    everything = list(range(size_of_pool(pool)))
    variances = {head.name: pool[head.name][0][:, images].astype(np.float64).var(0).mean() for head in heads}
    deviations = {name: float(np.sqrt(max(variance, 1e-30))) for name, variance in variances.items()}
    return PoolSummary(heads, summarize_draws(heads, pool, images, everything), deviations)


def summarize_draws(heads: Sequence[HeadRecord], pool: Pool, images: slice, draws: Sequence[int]) -> dict[str, Summary]:
    """Returns the mean and the epistemic uncertainty of each head over some draws of a pool."""
    summaries = {}
    for head in heads:
        mean, aleatoric = (values[draws, images].astype(np.float64) for values in pool[head.name])
        summaries[head.name] = mean.mean(0), _compute_spread(head, mean, aleatoric)
    return summaries


def share_of_pool_error(tuned: int, draws: int) -> float:
    """Returns what of the pool's squared error is missing in that of draws of which `tuned` were moved, -1 to 1.

    Draws that were chosen to be near the pool's average share the pool's error, those tuned to other draws do not. With
    the part s of them tuned, the square of the pool's own error adds (1 - s)² to their error against the truth, but s²
    to that against the pool. Negative: that much is measured too much.
    """
    return 1.0 - 2.0 * min(tuned, draws) / draws


def sum_spreads(heads: Sequence[HeadRecord], pools: Sequence[Pool]) -> Floats:
    """Returns how much draws differ on each image of some pools, [images]; all heads weigh alike."""
    total = np.zeros(())
    for head in heads:
        summaries = [summarize_draws([head], pool, slice(None), range(size_of_pool(pool)))[head.name] for pool in pools]
        spread = np.concatenate([values.reshape(len(values), -1).mean(1) for _, values in summaries])
        total = total + spread / max(float(spread.mean()), 1e-30)
    return np.asarray(total)


def compute_independent_error(
    heads: Sequence[HeadRecord], pool: Pool, images: slice, draws: int, groups: int, summary: PoolSummary
) -> tuple[float, float]:
    """Returns the errors of independent draws: the root mean square over groups of the pool in random orders.

    In each order every draw is in one group, so that rare draws count as often as the others.
    """
    random, size = np.random.default_rng(0), size_of_pool(pool)
    chosen: list[list[int]] = []
    while len(chosen) < groups:
        shuffled = random.permutation(size)
        chosen += [shuffled[first : first + draws].tolist() for first in range(0, size - draws + 1, draws)]
    errors = np.array([summary.compute_error(summarize_draws(heads, pool, images, group)) for group in chosen[:groups]])
    mean, spread = np.sqrt(np.square(errors).mean(0))
    return float(mean), float(spread)


def _compute_spread(head: HeadRecord, mean: Floats, aleatoric: Floats) -> Floats:
    """Epistemic uncertainty over the draws of the first axis."""
    if head.kind == "real":
        return np.asarray(mean.var(0))
    return np.asarray(np.maximum(ENTROPIES[head.kind](mean.mean(0)) - aleatoric.mean(0), 0.0))


def _root_mean_square(values: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.square(values).mean()))
