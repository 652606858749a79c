"""Independent yes or no per label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.bundle.manifest import Combine
from probrt.trainer.heads.base import Head, Moments, Shapes, Sides, four, softplus, x_log_x


class BinaryHead(Head, frozen=True, kw_only=True):
    """A head of independent yes (1) or no (0) per label; every quantity [batch, labels], uncertainties in nats.

    labels: names of the outputs, each a column of the table; one, named like the head, unless given.
    Per position the target is a mask file: above half of what its type holds is yes.
    """

    combine: ClassVar[Combine] = "entropy"
    metric_name: ClassVar[str] = "IoU"
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "temperature"

    labels: list[str] = []

    @property
    def size(self) -> int:
        """Number of labels."""
        return max(1, len(self.labels))

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,) if self.per_position or not self.labels else tuple(self.labels)

    def from_map(self, values: np.ndarray, high: float) -> np.ndarray:
        if values.shape[-1] not in (1, self.size):
            raise ValueError(f"has {values.shape[-1]} channels, needs {self.size}")
        known = np.isfinite(values)
        return np.where(known, values > high / 2, np.nan).astype(np.float32)

    def missing(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full([*positions, self.size], np.nan, np.float32)

    def check(self, values: np.ndarray) -> None:
        wrong = values[np.isfinite(values) & (values != 0) & (values != 1)]
        if wrong.size or np.isinf(values).any():
            raise ValueError(f"is {wrong[0] if wrong.size else np.inf:g}, must be 0 or 1")

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        return -(x_log_x(mean) + x_log_x(1.0 - mean))

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(mean.shape)))
        said, true = mean > 0.5, target > 0.5
        both = tf.reduce_sum(tf.cast(said & true, tf.float32), axes)
        either = tf.reduce_sum(tf.cast(said | true, tf.float32), axes)
        known = tf.reduce_all(tf.math.is_finite(target), axes)
        return tf.boolean_mask(tf.where(either > 0, both / tf.maximum(either, 1.0), 1.0), known)

    def outputs(self, positions: Sides) -> Shapes:
        return four([*positions, self.size], [*positions, self.size])


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

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        return channels / temperature


class BernoulliMixtureHead(BinaryHead, frozen=True, kw_only=True, tag="bernoulli_mixture"):
    """A mixture of Bernoulli maps whose mixing weights are predicted too, at every position.

    Per position and label p = sum over k of weight k · p k: several soft maps, of which another one may rule in
    each region. components: how many. labels: as of `bernoulli`.
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
        return Moments(probabilities, tf.maximum(self.total(probabilities), 0.0))

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        mixing, logits = tf.split(channels, [self.components, self.components * self.size], axis=-1)
        return tf.concat([mixing, logits / temperature], axis=-1)

    def _mixing_and_logits(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixing logits [..., components] and the labels' logits [..., components, labels]."""
        mixing, logits = tf.split(channels, [self.components, self.components * self.size], axis=-1)
        outer = tf.shape(mixing)
        return mixing, tf.reshape(logits, tf.concat([outer, [self.size]], 0))
