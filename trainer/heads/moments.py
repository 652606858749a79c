"""Combining draws in a graph: mean, total, aleatoric and epistemic uncertainty.

Variance heads follow the law of total variance (spread over S draws divides by S); entropy heads take
the entropy of the mean, the mean of the entropies, and their difference, the mutual information
(Depeweg et al. 2018); a head's extras are averaged. Three forms: from a list of draws, from
draws along the batch, and running, in memory independent of S.
"""

from __future__ import annotations

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
    """The quantities of a fixed list of draws' moments."""
    count = float(len(draws))
    mean = tf.add_n([draw.mean for draw in draws]) / count
    aleatoric = tf.add_n([draw.aleatoric for draw in draws]) / count
    extras = {name: tf.add_n([draw.extras[name] for draw in draws]) / count for name in draws[0].extras}
    if head.combine == "entropy":
        return _split(head, mean, aleatoric, mean, extras)
    return _split(head, mean, aleatoric, tf.add_n([tf.square(draw.mean - mean) for draw in draws]) / count, extras)


def combine_stacked(head: AnyHead, draws: Moments, count: int) -> dict[str, tf.Tensor]:
    """The same of `count` draws' moments one after the other along the batch, [count * batch, …]."""

    def each(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [count, -1, *values.shape[1:]])

    drawn = each(draws.mean)
    mean = tf.reduce_mean(drawn, 0)
    aleatoric = tf.reduce_mean(each(draws.aleatoric), 0)
    extras = {name: tf.reduce_mean(each(values), 0) for name, values in draws.extras.items()}
    if head.combine == "entropy":
        return _split(head, mean, aleatoric, mean, extras)
    return _split(head, mean, aleatoric, tf.reduce_mean(tf.square(drawn - mean), 0), extras)


def start_running(draw: Moments) -> RunningMoments:
    """Running moments of one draw."""
    return RunningMoments(draw.mean, draw.aleatoric, tf.zeros_like(draw.mean), dict(draw.extras))


def add_draw(running: RunningMoments, count: tf.Tensor, draw: Moments) -> RunningMoments:
    """Running moments after one more draw (Welford 1962); count, float32, is the number with it."""
    step = draw.mean - running.mean
    mean = running.mean + step / count
    aleatoric = running.aleatoric + (draw.aleatoric - running.aleatoric) / count
    extras = {name: value + (draw.extras[name] - value) / count for name, value in running.extras.items()}
    return RunningMoments(mean, aleatoric, running.squares + step * (draw.mean - mean), extras)


def finish_running(head: AnyHead, running: RunningMoments, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """The quantities of running moments over `count` draws (broadcast against the moments)."""
    return _split(head, running.mean, running.aleatoric, running.squares / count, running.extras)


def _split(
    head: AnyHead, mean: tf.Tensor, aleatoric: tf.Tensor, spread: tf.Tensor, extras: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    if head.combine == "entropy":
        total = head.total(mean)
        # Rounding may put the entropy of the mean a hair below the mean entropy.
        epistemic = tf.maximum(total - aleatoric, 0.0)
        return {"mean": mean, "total": total, "aleatoric": aleatoric, "epistemic": epistemic, **extras}
    return {"mean": mean, "total": aleatoric + spread, "aleatoric": aleatoric, "epistemic": spread, **extras}
