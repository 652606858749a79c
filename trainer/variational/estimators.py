"""Estimators: how a layer uses a random weight while training.

Each takes `op`, linear in both its arguments, `affine`, which is `op` and the layer's bias, the inputs
[batch, …, channels], the weight and the `Fit` reading in force, and returns the outputs [batch, …, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from probrt.trainer.variational import philox
from probrt.trainer.variational.posteriors import Normal, Posterior

if TYPE_CHECKING:
    from probrt.trainer.variational.weights import Fit, Linear, RandomWeight


def reparameterization(op: Linear, affine: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """One draw shared by the whole batch (Kingma and Welling 2014)."""
    return affine(inputs, tf.cast(fit.value(weight), inputs.dtype))


def flipout(op: Linear, affine: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit) -> tf.Tensor:
    """Random signs per example and channel decorrelate the examples (Wen et al. 2018, eq. 4).

    y = op(x, centre) + op(x * r, deviation) * s; right only where a weight is symmetric about its centre.
    """
    centre, deviation = weight.split(fit.noise(weight))
    outputs = affine(inputs, tf.cast(centre, inputs.dtype))
    channels_in, channels_out = inputs.shape[-1], outputs.shape[-1]
    drawn = philox.row_signs(*_stream(weight, inputs, fit), channels_in + channels_out)
    turned = op(_times(inputs, drawn[:, :channels_in]), tf.cast(deviation, inputs.dtype))
    return outputs + _times(turned, drawn[:, channels_in:])


def local_reparameterization(
    op: Linear, affine: Linear, inputs: tf.Tensor, weight: RandomWeight, fit: Fit
) -> tf.Tensor:
    """Normal outputs drawn in place of normal weights (Kingma, Salimans and Welling 2015, eq. 6).

    y ~ Normal(op(x, mean), sqrt(op(x^2, variance))); exact where each weight meets an example once.
    """
    outputs = affine(inputs, tf.cast(weight.mean(), inputs.dtype))
    wide = tf.cast(inputs, tf.float32)
    variance = op(tf.square(wide), tf.square(weight.scale()))
    normals = philox.row_normals(*_stream(weight, wide, fit), outputs.shape[-1])
    # The square root has no gradient at 0, where an example's inputs are all 0.
    return outputs + tf.cast(_times(tf.sqrt(variance + 1e-12), normals), outputs.dtype)


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


def _stream(weight: RandomWeight, inputs: tf.Tensor, fit: Fit) -> tuple:
    """Where the examples' own noise comes from: keyed by the global example, apart from the weight's."""
    from probrt.trainer.variational.weights import noise_id

    return fit.seed, noise_id(str(weight.id), "examples"), fit.step, fit.first_row, tf.shape(inputs)[0]


def _times(values: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """[batch, *space, channels] times [batch, channels].

    By whole lines, for a product broadcast over the channels alone takes half as long again.
    """
    factors = tf.cast(factors, values.dtype)
    if len(values.shape) == 2:
        return values * factors
    channels = values.shape[-1]
    line = values.shape[-2] or tf.shape(values)[-2]
    lines = tf.reshape(values, [tf.shape(values)[0], -1, line * channels])
    return tf.reshape(lines * tf.tile(factors, [1, line])[:, None], tf.shape(values))


ESTIMATORS: dict[str, Callable[[Linear, Linear, tf.Tensor, RandomWeight, Fit], tf.Tensor]] = {
    "reparameterization": reparameterization,
    "flipout": flipout,
    "local_reparameterization": local_reparameterization,
}
