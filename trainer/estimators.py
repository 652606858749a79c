"""Estimators: how a layer uses a random weight while training.

Each takes `op`, linear in both its arguments, the inputs [batch, …, channels], the weight and the
`Fit` reading in force, and returns the layer's outputs [batch, …, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from probrt.trainer import noise
from probrt.trainer.posteriors import Normal, Posterior

if TYPE_CHECKING:
    from probrt.trainer.weights import Fit, Linear, RandomWeight


def reparameterization(op: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """One draw shared by the whole batch (Kingma and Welling 2014)."""
    return op(inputs, tf.cast(fit.value(weight), inputs.dtype))


def flipout(op: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """Random signs per example and channel decorrelate the examples (Wen et al. 2018, eq. 4).

    y = op(x, centre) + op(x * r, deviation) * s; right only where a weight is symmetric about its centre.
    """
    centre, deviation = weight.split(fit.noise(weight))
    outputs = op(inputs, tf.cast(centre, inputs.dtype))
    signs_in = _per_example(noise.signs, weight, "in", inputs, inputs.shape[-1], fit)
    signs_out = _per_example(noise.signs, weight, "out", inputs, outputs.shape[-1], fit)
    return outputs + op(inputs * signs_in, tf.cast(deviation, inputs.dtype)) * signs_out


def local_reparameterization(op: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """Normal outputs drawn in place of normal weights (Kingma, Salimans and Welling 2015, eq. 6).

    y ~ Normal(op(x, mean), sqrt(op(x^2, variance))); exact where each weight meets an example once.
    """
    outputs = op(inputs, tf.cast(weight.mean(), inputs.dtype))
    wide = tf.cast(inputs, tf.float32)
    variance = op(tf.square(wide), tf.square(weight.scale()))
    normals = _per_example(noise.row_normals, weight, "out", wide, outputs.shape[-1], fit)
    # The square root has no gradient at 0, where an example's inputs are all 0.
    return outputs + tf.cast(tf.sqrt(variance + 1e-12) * normals, outputs.dtype)


def resolved(estimator: str, posterior: Posterior | None, once: bool) -> str:
    """The estimator that `auto` stands for; any other stands for itself.

    once: whether each weight meets an example once (dense rows, 1 x 1 windows on a 1 x 1 map).
    """
    if estimator != "auto":
        return estimator
    if once and isinstance(posterior, Normal):
        return "local_reparameterization"
    return "flipout" if posterior is not None and posterior.symmetric else "reparameterization"


def refusal(estimator: str, posterior: Posterior | None) -> str | None:
    """Why a posterior cannot be fitted with an estimator, and what would work; None if it can."""
    if estimator not in (*ESTIMATORS, "auto"):
        return f"estimator {estimator!r} is none of {', '.join((*ESTIMATORS, 'auto'))}"
    if posterior is None:
        return None
    family = type(posterior).__name__
    if estimator == "flipout" and not posterior.symmetric:
        return (
            f"flipout needs a posterior symmetric about its mean, {family} is not; use estimator 'reparameterization'"
        )
    if estimator == "local_reparameterization" and not isinstance(posterior, Normal):
        other = "flipout" if posterior.symmetric else "reparameterization"
        return f"local_reparameterization needs a Normal posterior, got {family}; use estimator {other!r}"
    return None


def _per_example(source: Callable, weight: RandomWeight, side: str, inputs: tf.Tensor, channels: int, fit: Fit):
    """Noise [batch, 1, …, channels] of the dtype of the inputs, keyed by the global example."""
    from probrt.trainer.weights import noise_id

    stream = noise_id(str(weight.id), side)
    drawn = source(fit.seed, stream, fit.step, fit.first_row, tf.shape(inputs)[0], channels)
    rank = len(inputs.shape)
    return tf.cast(tf.reshape(drawn, [-1] + [1] * (rank - 2) + [channels]), inputs.dtype)


ESTIMATORS: dict[str, Callable[[Linear, tf.Tensor, RandomWeight, Fit], tf.Tensor]] = {
    "reparameterization": reparameterization,
    "flipout": flipout,
    "local_reparameterization": local_reparameterization,
}
