"""Combining draws in a graph: mean, total, aleatoric and epistemic uncertainty.

Variance heads follow the law of total variance (spread over S draws divides by S); entropy heads take
the entropy of the mean, the mean of the entropies, and their difference, the mutual information
(Depeweg et al. 2018). Two forms: from a stack of draws, and running, in memory independent of S.
"""

from __future__ import annotations

import tensorflow as tf

from probrt.trainer.heads import AnyHead

QUANTITIES = ("mean", "total", "aleatoric", "epistemic")
Moments = tuple[tf.Tensor, tf.Tensor]
Running = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def combined(head: AnyHead, draws: list[Moments]) -> dict[str, tf.Tensor]:
    """The four quantities of a fixed list of draws' (mean, aleatoric)."""
    count = float(len(draws))
    mean = tf.add_n([mean for mean, _ in draws]) / count
    aleatoric = tf.add_n([aleatoric for _, aleatoric in draws]) / count
    spread = mean if head.combine == "entropy" else tf.add_n([tf.square(m - mean) for m, _ in draws]) / count
    return _split(head, mean, aleatoric, spread)


def start(mean: tf.Tensor, aleatoric: tf.Tensor) -> Running:
    """Running moments of no draw, shaped like one draw's."""
    return tf.zeros_like(mean), tf.zeros_like(aleatoric), tf.zeros_like(mean)


def added(running: Running, count: tf.Tensor, draw: Moments) -> Running:
    """Running moments after one more draw (Welford 1962); count, float32, is the number with it."""
    mean, aleatoric, squares = running
    step = draw[0] - mean
    mean = mean + step / count
    return mean, aleatoric + (draw[1] - aleatoric) / count, squares + step * (draw[0] - mean)


def finished(head: AnyHead, running: Running, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """The four quantities of running moments over `count` draws (broadcast against the moments)."""
    mean, aleatoric, squares = running
    return _split(head, mean, aleatoric, squares / count)


def _split(head: AnyHead, mean: tf.Tensor, aleatoric: tf.Tensor, spread: tf.Tensor) -> dict[str, tf.Tensor]:
    if head.combine == "entropy":
        total = head.total(mean)
        # Rounding may put the entropy of the mean a hair below the mean entropy.
        epistemic = tf.maximum(total - aleatoric, 0.0)
        return {"mean": mean, "total": total, "aleatoric": aleatoric, "epistemic": epistemic}
    return {"mean": mean, "total": aleatoric + spread, "aleatoric": aleatoric, "epistemic": spread}
