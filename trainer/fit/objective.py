"""What a fit minimises, but for the KL: the heads' weighted negative log-likelihood and the weight penalty."""

from __future__ import annotations

from typing import Literal

import keras
import tensorflow as tf

from probrt.trainer.model import Model

LossWeights = Literal["fixed", "learned"]


class Objective:
    """The likelihood part of a model's loss.

    loss_weights: "fixed", each head's own `weight`; "learned", besides that a trained factor e^-s per head, with s
        added so that it cannot vanish: the homoscedastic weighting of Kendall, Gal and Cipolla (2018), eq. 10.
    l1, l2: penalties on deterministic kernels, per absolute value and per square.
    variables: the trained s, float32 [heads], if there are any; for the optimizer and checkpoints.
    """

    def __init__(self, model: Model, loss_weights: LossWeights = "fixed", l1: float = 0.0, l2: float = 0.0) -> None:
        self.model, self.l1, self.l2 = model, l1, l2
        self.variables: list[keras.Variable] = []
        if loss_weights == "learned":
            self.variables = [keras.Variable(tf.zeros(len(model.heads)), name="log_loss_weights")]

    def terms(self, channels: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Each head's log-likelihood in nats per example, [batch]; 0 where the target is missing."""
        return {head.name: head.log_prob(channels[head.name], targets[head.name]) for head in self.model.heads}

    def loss(self, terms: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weighted negative log-likelihood per example, [batch]."""
        each = [-head.weight * terms[head.name] for head in self.model.heads]
        if self.variables:
            log_weights = tf.unstack(tf.convert_to_tensor(self.variables[0]))
            each = [tf.exp(-s) * one + s for s, one in zip(log_weights, each, strict=True)]
        return tf.add_n(each)

    def penalty(self) -> tf.Tensor:
        """The L1 and L2 penalties on deterministic kernels, one number for the whole network."""
        # A random weight's parameters are named after it, such as kernel_loc: its prior takes the penalty's place.
        kernels = [one for one in self.model.network.trainable_variables if one.name in ("kernel", "pointwise")]
        total = tf.constant(0.0)
        for kernel in kernels if self.l1 or self.l2 else ():
            value = tf.cast(tf.convert_to_tensor(kernel), tf.float32)
            total += self.l1 * tf.reduce_sum(tf.abs(value)) + self.l2 * tf.reduce_sum(tf.square(value))
        return total
