"""Proportions between 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.real import RealHead


class BetaHead(RealHead, frozen=True, kw_only=True, tag="beta"):
    """Proportions strictly between 0 and 1 (Ferrari and Cribari-Neto 2004); aleatoric is m (1 - m) / (c + 1).

    The head predicts the mean m and the concentration c. centre, spread: of the targets' logits.
    """

    @property
    def channels(self) -> int:
        return 2 * self.size

    def check_support(self, values: np.ndarray) -> None:
        known = values[~np.isnan(values)]
        wrong = known[(known <= 0) | (known >= 1)]
        if wrong.size:
            raise ValueError(f"is {wrong[0]:g}, must be above 0 and below 1")

    def to_location_scale(self, targets: np.ndarray) -> np.ndarray:
        logits: np.ndarray = np.log(targets) - np.log1p(-targets)
        return logits

    def fill_missing(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        return tf.where(known[..., None], target, 0.5 * tf.ones_like(target))

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        mean, concentration = self._mean_and_concentration(channels)
        proportions = tfp.distributions.Beta(mean * concentration, (1.0 - mean) * concentration)
        return tfp.distributions.Independent(proportions, 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        mean, concentration = self._mean_and_concentration(channels)
        return Moments(mean, mean * (1.0 - mean) / (concentration + 1.0))

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        logit, log_concentration = tf.split(channels, 2, axis=-1)
        wider = 2.0 * tf.math.log(tf.cast(value, channels.dtype))
        return tf.concat([logit, log_concentration - wider], axis=-1)

    def _mean_and_concentration(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logit, log_concentration = tf.split(channels, 2, axis=-1)
        centre, spread = self.centres_and_spreads()
        # A mean at 0 or 1 in float32 would make a parameter of the distribution 0.
        mean = tf.sigmoid(tf.clip_by_value(logit * spread + centre, -12.0, 12.0))
        return mean, tf.exp(tf.clip_by_value(log_concentration, -7.0, 9.0))
