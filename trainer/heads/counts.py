"""Counts: 0, 1, 2 and so on."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.real import RealHead


class CountHead(RealHead, frozen=True, kw_only=True):
    """A head of counts; every quantity [batch, outputs], uncertainties are variances.

    centre: the training targets' average; a channel of 0 predicts it.
    """

    def check_support(self, values: np.ndarray) -> None:
        super().check_support(values)
        known = values[np.isfinite(values)]
        wrong = known[(known < 0) | (known % 1 != 0)]
        if wrong.size:
            raise ValueError(f"is {wrong[0]:g}, must be 0, 1, 2 …")

    def rate(self, log_rate: tf.Tensor) -> tf.Tensor:
        """The expected count."""
        average = tf.maximum(self.centres_and_spreads()[0], 0.1)
        return average * tf.exp(tf.clip_by_value(log_rate, -10.0, 10.0))


class PoissonHead(CountHead, frozen=True, kw_only=True, tag="poisson"):
    """Counts whose variance is their mean."""

    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "nothing"

    @property
    def channels(self) -> int:
        return self.size

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Poisson(self.rate(channels)), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        rate = self.rate(channels)
        return Moments(rate, tf.identity(rate))


class NegativeBinomialHead(CountHead, frozen=True, kw_only=True, tag="negative_binomial"):
    """Counts that vary more than Poisson counts: variance = mean + mean² / size, the size predicted too."""

    @property
    def channels(self) -> int:
        return 2 * self.size

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        rate, count = self._rate_and_size(channels)
        counts = tfp.distributions.NegativeBinomial(count, logits=tf.math.log(rate) - tf.math.log(count))
        return tfp.distributions.Independent(counts, 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        rate, count = self._rate_and_size(channels)
        return Moments(rate, rate + tf.square(rate) / count)

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        log_rate, log_size = tf.split(channels, 2, axis=-1)
        return tf.concat([log_rate, log_size - 2.0 * tf.math.log(tf.cast(value, channels.dtype))], axis=-1)

    def _rate_and_size(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        log_rate, log_size = tf.split(channels, 2, axis=-1)
        return self.rate(log_rate), tf.exp(tf.clip_by_value(log_size, -7.0, 7.0))
