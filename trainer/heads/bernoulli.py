"""Bernoulli outputs: independent yes or no per label."""

from __future__ import annotations

from typing import Annotated, Any

import tensorflow as tf
from msgspec import Meta

from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.binary import BinaryHead
from probrt.trainer.heads.formulas import softplus


class BernoulliHead(BinaryHead, frozen=True, kw_only=True, tag="bernoulli"):
    """Independent yes or no per label; every quantity [batch, labels], uncertainties in nats.

    labels: names of the outputs, each a column of the table; one, named like the head, unless given.
    """

    @property
    def channels(self) -> int:
        return self.size

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Bernoulli(logits=channels), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        # H = softplus(x) - x sigmoid(x).
        probabilities = tf.sigmoid(channels)
        return Moments(probabilities, tf.maximum(softplus(channels) - channels * probabilities, 0.0))

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        return channels / value


class BernoulliMixtureHead(BinaryHead, frozen=True, kw_only=True, tag="bernoulli_mixture"):
    """A mixture of Bernoulli maps whose mixing weights are predicted too, at every position.

    Per position and label p = sum over k of weight k · p k: several soft maps, each of which may dominate in some
    region. components: how many. labels: as of `bernoulli`.
    """

    components: Annotated[int, Meta(ge=2)] = 3

    @property
    def channels(self) -> int:
        return self.components * (1 + self.size)

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        tfd = tfp.distributions
        mixing, logits = self._mixing_and_logits(channels)
        # One weight per position for all labels: the labels of a position share their component.
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=mixing), tfd.Independent(tfd.Bernoulli(logits=logits, dtype=tf.float32), 1)
        )

    def moments(self, channels: tf.Tensor) -> Moments:
        mixing, logits = self._mixing_and_logits(channels)
        probabilities = tf.reduce_sum(tf.expand_dims(tf.nn.softmax(mixing), -1) * tf.sigmoid(logits), axis=-2)
        return Moments(probabilities, tf.maximum(self.entropy(probabilities), 0.0))

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        mixing, logits = tf.split(channels, [self.components, self.components * self.size], axis=-1)
        return tf.concat([mixing, logits / value], axis=-1)

    def _mixing_and_logits(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixing logits [..., components] and the labels' logits [..., components, labels]."""
        mixing, logits = tf.split(channels, [self.components, self.components * self.size], axis=-1)
        outer = tf.shape(mixing)
        return mixing, tf.reshape(logits, tf.concat([outer, [self.size]], 0))
