"""The objective of a fit: the weighted negative log-likelihood of the heads, the KL, and penalties on kernels."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Literal

import keras
import msgspec
import tensorflow as tf

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler

# The KL of independent weights grows with their number, not with what they know. With this factor it adds about as much
# to the loss in every network: one or two tenths of a nat per example (docs/quality.md).
_KL_PER_WEIGHT = 0.03
# `epochs = "auto"`. With 80 digits, 80 steps gave an accuracy of 57 % and 750 gave 91 % (benchmarks/labelling.py).
_EPOCHS, _FEWEST_STEPS, _MOST_EPOCHS = 30, 1000, 300

LossWeights = Literal["fixed", "learned"]


class Objective:
    """The part of a model's loss that the likelihoods and the penalties make up.

    loss_weights: "fixed" uses each head's own `weight`. "learned" multiplies it by a trained factor e^-s per head and
        adds s, so that the factor cannot vanish: the homoscedastic weighting of Kendall, Gal and Cipolla (2018),
        eq. 10.
    l1, l2: factors of the penalties on deterministic kernels, for absolute values and for squares.
    variables: the trained s, float32 [heads], or empty; optimizers and checkpoints include it.
    """

    def __init__(self, model: Model, loss_weights: LossWeights = "fixed", l1: float = 0.0, l2: float = 0.0) -> None:
        self.model, self.l1, self.l2 = model, l1, l2
        self.variables: list[keras.Variable] = []
        if loss_weights == "learned":
            self.variables = [keras.Variable(tf.zeros(len(model.heads)), name="log_loss_weights")]

    def log_likelihoods(self, channels: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns each head's log-likelihood in nats per example, [batch]; 0 where the target is missing.

        It is weighted by class where the head says so.
        """
        return {head.name: head.fit_log_prob(channels[head.name], targets[head.name]) for head in self.model.heads}

    def loss(self, log_likelihoods: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted negative log-likelihood per example, [batch]."""
        losses = [-(head.weight or 1.0) * log_likelihoods[head.name] for head in self.model.heads]
        if self.variables:
            log_weights = tf.unstack(tf.convert_to_tensor(self.variables[0]))
            losses = [tf.exp(-s) * loss + s for s, loss in zip(log_weights, losses, strict=True)]
        return tf.add_n(losses)

    def penalty(self) -> tf.Tensor:
        """Returns the L1 and L2 penalties on deterministic kernels, a scalar for the whole network."""
        # The variables of a random weight have other names, such as kernel_loc: its prior replaces the penalty.
        kernels = [
            variable for variable in self.model.network.trainable_variables if variable.name in ("kernel", "pointwise")
        ]
        total = tf.constant(0.0)
        for kernel in kernels if self.l1 or self.l2 else ():
            value = tf.cast(tf.convert_to_tensor(kernel), tf.float32)
            total += self.l1 * tf.reduce_sum(tf.abs(value)) + self.l2 * tf.reduce_sum(tf.square(value))
        return total


def resolve_epochs(settings: FitSettings, train_count: int) -> FitSettings:
    """Returns the settings with a number for `epochs` of "auto": a few images need more passes to take enough steps."""
    if settings.epochs != "auto":
        return settings
    steps_per_epoch = math.ceil(train_count / settings.batch)
    epochs = min(max(_EPOCHS, math.ceil(_FEWEST_STEPS / steps_per_epoch)), _MOST_EPOCHS)
    return msgspec.structs.replace(settings, epochs=epochs)


def resolve_kl_weight(settings: FitSettings, model: Model, train_count: int) -> FitSettings:
    """Returns the settings with a number for a `kl_weight` of "auto": 0.03 examples per weight, at most 1."""
    if settings.kl_weight != "auto":
        return settings
    weight_count = sum(math.prod(weight.shape) for weight in model.weights)
    return msgspec.structs.replace(settings, kl_weight=min(1.0, _KL_PER_WEIGHT * train_count / max(1, weight_count)))


def total_kl(model: Model, handler: TrainingHandler, constant: Container[int] = ()) -> tf.Tensor:
    """Returns KL(posterior || prior) summed over all weights, in nats.

    Where the KL has no closed form it is estimated on the handler's draw. constant: ids of the weights whose KL has no
    gradient.
    """
    terms = {weight.id: handler.kl(weight) for weight in model.weights}
    return tf.add_n([tf.stop_gradient(kl) if id in constant else kl for id, kl in terms.items()] or [tf.constant(0.0)])
