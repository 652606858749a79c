"""Estimators: how a layer uses a random weight while training.

Each takes `op`, linear in both its arguments, the inputs [batch, …, channels], the weight and the
`Fit` reading in force, and returns the layer's outputs [batch, …, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from probrt.trainer import noise

if TYPE_CHECKING:
    from probrt.trainer.weights import Fit, Linear, RandomWeight


def reparameterization(op: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """One draw shared by the whole batch (Kingma and Welling 2014)."""
    return op(inputs, tf.cast(fit.value(weight), inputs.dtype))


def flipout(op: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """Random signs per example and channel decorrelate the examples (Wen et al. 2018, eq. 4).

    y = op(x, mean) + op(x * r, draw - mean) * s; right only for a posterior symmetric about its mean.
    """
    mean = weight.mean()
    centred = tf.cast(fit.value(weight) - mean, inputs.dtype)
    outputs = op(inputs, tf.cast(mean, inputs.dtype))
    signs_in = _signs(weight, "in", inputs, inputs.shape[-1], fit)
    signs_out = _signs(weight, "out", inputs, outputs.shape[-1], fit)
    return outputs + op(inputs * signs_in, centred) * signs_out


def _signs(weight: RandomWeight, side: str, inputs: tf.Tensor, channels: int, fit: Fit) -> tf.Tensor:
    """Signs [batch, 1, …, channels], keyed by the global example."""
    from probrt.trainer.weights import noise_id

    stream = noise_id(str(weight.id), side)
    drawn = noise.signs(fit.seed, stream, fit.step, fit.first_row, tf.shape(inputs)[0], channels)
    rank = len(inputs.shape)
    return tf.cast(tf.reshape(drawn, [-1] + [1] * (rank - 2) + [channels]), inputs.dtype)


ESTIMATORS: dict[str, Callable[[Linear, tf.Tensor, RandomWeight, Fit], tf.Tensor]] = {
    "reparameterization": reparameterization,
    "flipout": flipout,
}
