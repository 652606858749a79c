"""Dropout as a posterior: each weight is either 0 or the same fixed value."""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal

import tensorflow as tf
from msgspec import Meta

from probrt.trainer.variational.parameters import Parameter, Parameters, constant_start
from probrt.trainer.variational.posteriors.base import Posterior


class DropoutPosterior(Posterior, frozen=True, tag="dropout"):
    """A mask of 0 with probability `rate`, else 1 / (1 - rate), so that its mean is 1; nothing is trained.

    Made by layers.dropout.ChannelDropout, not by configs: it masks channels and is no kernel's posterior.
    """

    rate: Annotated[float, Meta(gt=0, lt=1)]

    noise: ClassVar[Literal["normal", "uniform"]] = "uniform"

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {"mean": Parameter(shape, constant_start(1.0), trainable=False)}

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return tf.cast(noise > self.rate, tf.float32) / (1.0 - self.rate)

    def from_normal(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns the mask that standard normal noise makes."""
        return tf.cast(noise > NormalDist().inv_cdf(self.rate), tf.float32) / (1.0 - self.rate)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["mean"]

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Returns 0: nothing is trained. Dropout's KL is a constant plus weight decay (Gal and Ghahramani 2016)."""
        return tf.constant(0.0)
