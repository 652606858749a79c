"""One class of several, without an order or with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.classes import ClassHead


class CategoricalHead(ClassHead, frozen=True, kw_only=True, tag="categorical"):
    """One class of several; mean [batch, classes], uncertainties [batch], in nats.

    labels: the class names, in order, as the table writes them.
    """

    @property
    def channels(self) -> int:
        return len(self.labels)

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Categorical(logits=channels)

    def moments(self, channels: tf.Tensor) -> Moments:
        probabilities = tf.nn.softmax(channels)
        return Moments(probabilities, -tf.reduce_sum(probabilities * tf.nn.log_softmax(channels), axis=-1))

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        return channels / value


class OrdinalHead(ClassHead, frozen=True, kw_only=True, tag="ordinal"):
    """One class of several that have an order; mean [batch, classes], uncertainties [batch], in nats.

    The cumulative-logit model (McCullagh 1980): P(y > k) = sigmoid(location - cut k), the location from the
    image, the cuts learned and the same for every image.
    labels: the class names from the lowest to the highest.
    """

    @property
    def channels(self) -> int:
        return 1

    @property
    def learned(self) -> tuple[float, ...]:
        # The first cut, then the logarithm of the distance to each next cut; equal classes at location 0.
        shares = np.arange(1, len(self.labels)) / len(self.labels)
        cuts = np.log(shares / (1 - shares))
        return (float(cuts[0]), *(float(step) for step in np.log(np.diff(cuts))))

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        location, cuts = self._location_and_cuts(channels)
        return tfp.distributions.OrderedLogistic(cutpoints=cuts, loc=location[..., 0])

    def log_prob_per_position(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """As of every head. TFP's is the logarithm of a difference, whose gradient is NaN far from the cuts.

        With the cuts a < b around a class, it is a product: sigmoid(x - a) - sigmoid(x - b) = sigmoid(x - a)
        sigmoid(b - x) (1 - e^(a - b)), where the first class has no a and the last no b.
        """
        known = self.is_known(target)
        location, cuts = self._location_and_cuts(channels)
        zeros = tf.zeros_like(location)
        above = tf.concat([zeros, tf.math.log_sigmoid(location - cuts)], -1)
        below = tf.concat([tf.math.log_sigmoid(cuts - location), zeros], -1)
        between = tf.concat([zeros, tf.math.log(-tf.math.expm1(-self._distances(channels))), zeros], -1)
        is_class = tf.one_hot(self.fill_missing(target, known), len(self.labels), dtype=channels.dtype)
        return tf.where(known, tf.reduce_sum(is_class * (above + below + between), axis=-1), 0.0)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, cuts = self._location_and_cuts(channels)
        above = tf.sigmoid(location - cuts)
        ones = tf.ones_like(location)
        probabilities = tf.concat([ones, above], -1) - tf.concat([above, tf.zeros_like(location)], -1)
        return Moments(probabilities, self.entropy(probabilities))

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        location, first, steps = tf.split(channels, [1, 1, len(self.labels) - 2], axis=-1)
        cooler = tf.math.log(tf.cast(value, channels.dtype))
        return tf.concat([location / value, first / value, steps - cooler], axis=-1)

    def _location_and_cuts(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        location, first = channels[..., :1], channels[..., 1:2]
        distances = self._distances(channels)
        cuts, last = [first], first
        for step in range(len(self.labels) - 2):
            last = last + distances[..., step : step + 1]
            cuts.append(last)
        return location, tf.concat(cuts, axis=-1)

    @staticmethod
    def _distances(channels: tf.Tensor) -> tf.Tensor:
        """Returns the distances between cuts, [..., classes - 2].

        They are bounded, so that no cut drifts so far that its class becomes unreachable.
        """
        return tf.exp(tf.clip_by_value(channels[..., 2:], -6.9, 6.9))
