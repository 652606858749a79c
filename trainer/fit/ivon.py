"""IVON: a natural-gradient step for independent normal posteriors, from one draw per step.

Shen et al. 2024, "Variational Learning is Effective for Large Deep Networks", algorithm 1. The posterior of each weight
is Normal(m, s^2) with s^2 = 1 / (N' (h + d)): N' is the number of training examples over the weight of the KL, d the
prior's precision over N', and h a running estimate of the loss's diagonal Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.model import Model
from probrt.trainer.variational.parameters import invert_scale, to_scale
from probrt.trainer.variational.random_weight import RandomWeight

# Decay of the mean gradient, and the number of time constants of the Hessian's average in a whole fit.
_GRADIENT_DECAY, _HESSIAN_CONSTANTS = 0.9, 5.0
# An IVON step of the config's learning rate, whose default suits Adam.
_RATE_FACTOR = 100.0


class Ivon:
    """Updates the posteriors of some weights from the gradients of the loss without its KL.

    Every replica receives the same gradients. They are those for each weight's `loc` and `rho`, in pairs, of the loss
    averaged over draws. By reparameterization the gradient for the standard deviation divided by it is the Hessian
    estimate of the paper, g (w - m) / s^2, so one backward pass gives both.

    variables: the state: finished steps, and each weight's average gradient and Hessian.
    """

    def __init__(self, weights: Sequence[RandomWeight], rate: Any, settings: FitSettings, *, count: int, steps: int):
        self.weights, self.rate = weights, rate
        self.effective_count = count / settings.kl_factor
        self.hessian_decay = math.exp(-_HESSIAN_CONSTANTS / max(1, steps))
        self.iterations = keras.Variable(0, dtype="int64", trainable=False, name="ivon_iterations")
        self.gradients = [_make_state(tf.zeros(weight.shape), weight, "gradient") for weight in weights]
        self.hessians = [_make_state(self._initial_hessian(weight), weight, "hessian") for weight in weights]
        self.variables = [self.iterations, *self.gradients, *self.hessians]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Does nothing: the state exists already."""

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> None:
        """Updates `loc` and `rho` of every weight; gradients are in the order of `variables`, loc and rho in turn."""
        del variables
        step = tf.cast(self.iterations.value, tf.float32)
        rate = tf.cast(self.rate(step), tf.float32) * _RATE_FACTOR
        _assign(self.iterations, self.iterations.value + 1)
        correction = 1.0 - tf.pow(_GRADIENT_DECAY, step + 1.0)
        for index, weight in enumerate(self.weights):
            self._update(weight, index, gradients[2 * index : 2 * index + 2], rate, correction)

    def _update(
        self, weight: RandomWeight, index: int, pair: Sequence[tf.Tensor], rate: tf.Tensor, correction: tf.Tensor
    ) -> None:
        loc, rho = weight.parameters["loc"], weight.parameters["rho"]
        gradient, hessian = self.gradients[index], self.hessians[index]
        prior_loc, precision = self._prior(weight)
        scale = to_scale(rho.value)
        # d scale / d rho is the logistic function of rho.
        estimate = pair[1] / (tf.sigmoid(rho.value) * scale)
        average = _GRADIENT_DECAY * gradient.value + (1.0 - _GRADIENT_DECAY) * pair[0]
        _assign(gradient, average)
        decay = self.hessian_decay
        curvature = hessian.value + precision
        # The last term keeps h + d positive (Lin et al. 2020).
        updated = (
            decay * hessian.value
            + (1.0 - decay) * estimate
            + 0.5 * (1.0 - decay) ** 2 * tf.square(hessian.value - estimate) / curvature
        )
        _assign(hessian, updated)
        curvature = updated + precision
        _assign(loc, loc.value - rate * (average / correction + precision * (loc.value - prior_loc)) / curvature)
        _assign(rho, invert_scale(tf.math.rsqrt(self.effective_count * curvature)))

    def _initial_hessian(self, weight: RandomWeight) -> tf.Tensor:
        """Returns the Hessian at which the posterior has its initial scale; never negative."""
        _, precision = self._prior(weight)
        variance = tf.square(to_scale(weight.parameters["rho"].value))
        return tf.maximum(1.0 / (self.effective_count * variance) - precision, 0.0)

    def _prior(self, weight: RandomWeight) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the prior's mean, and its precision over the effective number of examples."""
        prior = weight.prior_distribution()
        return prior.loc, 1.0 / (self.effective_count * tf.square(prior.scale))


def find_ivon_weights(model: Model) -> list[RandomWeight]:
    """Returns the trained random weights whose layer has the estimator "ivon"."""
    weights: dict[int, RandomWeight] = {}
    for layer in flatten_layers(model.network):
        # A separable convolution has two kernels.
        for name, estimator in (("kernel", "estimator_in_use"), ("pointwise", "pointwise_estimator")):
            weight = getattr(layer, name, None)
            if getattr(layer, estimator, "") == "ivon" and layer.trainable and isinstance(weight, RandomWeight):
                weights[weight.id] = weight
    return list(weights.values())


def check_ivon(model: Model, settings: FitSettings) -> None:
    """Raises ConfigError for what IVON cannot do: a KL of weight 0, and optimizers of a head's own."""
    if settings.kl_factor == 0:
        raise ConfigError(
            "weights.estimator: ivon needs a fit.kl_weight above 0, which sets the width of the posterior"
        )
    for head in model.heads:
        if head.own is not None and (head.own.optimizer or head.own.learning_rate != 1):
            raise ConfigError(
                f"heads: {head.name}: own.optimizer and own.learning_rate do not apply to ivon; leave them out, or "
                "give own.weights another estimator"
            )


def _assign(variable: keras.Variable, value: tf.Tensor) -> None:
    """Assigns a value that every replica has computed alike."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        variable.assign(value)
        return

    def update(strategy: tf.distribute.Strategy, value: Any) -> None:
        strategy.extended.update(variable.value, lambda copy, own: copy.assign(own), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=(value,))


def _make_state(value: tf.Tensor, weight: RandomWeight, name: str) -> keras.Variable:
    return keras.Variable(value, dtype="float32", trainable=False, name=f"{weight.name}_{name}".replace("/", "_"))
