"""Combining draws in a graph: mean, total, aleatoric and epistemic uncertainty.

Means, aleatoric uncertainties and a head's extras are averages over draws. The head splits the uncertainty: real
values by the law of total variance, where the spread over S draws divides by S; probabilities into the entropy of the
mean, the mean entropy, and their difference, the mutual information (Depeweg et al. 2018). Three forms: from a list of
draws, from draws along the batch, and running, in memory independent of S.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from probrt.trainer.heads import AnyHead, Moments

QUANTITIES = ("mean", "total", "aleatoric", "epistemic")


class RunningMoments(NamedTuple):
    """Averages over the draws so far, and the sum of squared deviations of their means."""

    mean: tf.Tensor
    aleatoric: tf.Tensor
    squares: tf.Tensor
    extras: dict[str, tf.Tensor]


def combine_moments(head: AnyHead, draws: list[Moments]) -> dict[str, tf.Tensor]:
    """Combines a fixed list of draws' moments into the quantities of the predictive distribution."""
    count = float(len(draws))
    mean = tf.add_n([draw.mean for draw in draws]) / count
    aleatoric = tf.add_n([draw.aleatoric for draw in draws]) / count
    extras = {name: tf.add_n([draw.extras[name] for draw in draws]) / count for name in draws[0].extras}

    def spread() -> tf.Tensor:
        return tf.add_n([tf.square(draw.mean - mean) for draw in draws]) / count

    return _quantities(head, mean, aleatoric, spread, extras)


def combine_stacked(head: AnyHead, draws: Moments, count: int) -> dict[str, tf.Tensor]:
    """Combines the moments of `count` draws that follow one another along the batch, [count * batch, …]."""

    def split_draws(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [count, -1, *values.shape[1:]])

    means = split_draws(draws.mean)
    mean = tf.reduce_mean(means, 0)
    aleatoric = tf.reduce_mean(split_draws(draws.aleatoric), 0)
    extras = {name: tf.reduce_mean(split_draws(values), 0) for name, values in draws.extras.items()}
    return _quantities(head, mean, aleatoric, lambda: tf.reduce_mean(tf.square(means - mean), 0), extras)


def start_running(draw: Moments) -> RunningMoments:
    """Returns the running moments of one draw."""
    return RunningMoments(draw.mean, draw.aleatoric, tf.zeros_like(draw.mean), dict(draw.extras))


def add_draw(running: RunningMoments, count: tf.Tensor, draw: Moments) -> RunningMoments:
    """Returns the running moments after one more draw (Welford 1962); count, float32, includes that draw."""
    step = draw.mean - running.mean
    mean = running.mean + step / count
    aleatoric = running.aleatoric + (draw.aleatoric - running.aleatoric) / count
    extras = {name: value + (draw.extras[name] - value) / count for name, value in running.extras.items()}
    return RunningMoments(mean, aleatoric, running.squares + step * (draw.mean - mean), extras)


def finish_running(head: AnyHead, running: RunningMoments, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the quantities of running moments over `count` draws (broadcast against the moments)."""
    spread = running.squares / count
    return _quantities(head, running.mean, running.aleatoric, lambda: spread, running.extras)


def _quantities(
    head: AnyHead,
    mean: tf.Tensor,
    aleatoric: tf.Tensor,
    spread: Callable[[], tf.Tensor],
    extras: dict[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    total, epistemic = head.split_uncertainty(mean, aleatoric, spread)
    return {"mean": mean, "total": total, "aleatoric": aleatoric, "epistemic": epistemic, **extras}
