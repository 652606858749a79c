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
    variables: the trained s, float32 [heads], if there are any; for the optimizer and checkpoints.
    """

    def __init__(self, model: Model, loss_weights: LossWeights = "fixed") -> None:
        self.model = model
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
        """The L1 and L2 penalties on deterministic weights, one number for the whole network."""
        losses = self.model.network.losses
        return tf.add_n([tf.cast(one, tf.float32) for one in losses]) if losses else tf.constant(0.0)
