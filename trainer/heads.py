"""Heads: named output tasks, each with a likelihood.

A head is a frozen record, so that it is its own entry in a config and in a saved model. Its channels
are a slice of the final convolution: [batch, channels] for a pooled head, [batch, *positions, channels]
for a head per position. Likelihoods are TFP's; moments are written in plain ops, because they live in
exported graphs, and are tested against TFP.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import tensorflow as tf
from msgspec import Meta, Struct

from probrt.runtime.manifest import Combine, HeadName

Positive = Annotated[float, Meta(gt=0)]


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="likelihood"):
    """What every head states.

    column: of the table that holds its target; the head's name unless given.
    weight: of its negative log-likelihood in the loss.
    per_position: one answer per pixel instead of one per image.
    """

    combine: ClassVar[Combine]
    metric_name: ClassVar[str]

    name: HeadName
    column: str = ""
    weight: Positive = 1.0
    per_position: bool = False

    @property
    def channels(self) -> int:
        """Channels of the final convolution that the head needs, per position."""
        raise TypeError(f"{type(self).__name__} states no channels")

    @property
    def target(self) -> str:
        """The table's column with the target."""
        return self.column or self.name

    def distribution(self, channels: tf.Tensor) -> Any:
        """The likelihood p(y | channels), a TFP distribution; its event is one position's outputs."""
        raise TypeError(f"{type(self).__name__} states no likelihood")

    def log_prob(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log-likelihood in nats, summed over positions, [batch]; 0 where the target is missing."""
        each = self.log_prob_each(channels, target)
        return tf.reduce_sum(each, axis=list(range(1, len(each.shape))))

    def log_prob_each(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log-likelihood in nats per position, [batch, *positions]; 0 where the target is missing."""
        known = self.known(target)
        return tf.where(known, self.distribution(channels).log_prob(self.filled(target, known)), 0.0)

    def known(self, target: tf.Tensor) -> tf.Tensor:
        """Where the target is there, bool [batch, *positions]."""
        return tf.reduce_all(tf.math.is_finite(target), axis=-1)

    def filled(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """The target with any valid value where it is missing, so that no NaN meets a gradient."""
        return tf.where(known[..., None], target, tf.zeros_like(target))

    def moments(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and aleatoric uncertainty of one draw."""
        raise TypeError(f"{type(self).__name__} states no moments")

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        """Entropy of a mean of probabilities, in nats (entropy heads only)."""
        raise TypeError(f"{type(self).__name__} has a variance, no entropy")

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        """The channels after calibration."""
        raise TypeError(f"{type(self).__name__} has no calibration ({temperature}, {scale})")

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The score of each example that has a target, a vector."""
        raise TypeError(f"{type(self).__name__} states no metric")

    def outputs(self, positions: list[int | None]) -> dict[str, list[int | None]]:
        """Shape of each quantity without the batch."""
        raise TypeError(f"{type(self).__name__} states no outputs")


class Categorical(Head, frozen=True, kw_only=True, tag="categorical"):
    """One class of several; mean [batch, classes], uncertainties [batch], in nats.

    labels: the class names, in order, as the table writes them.
    """

    combine: ClassVar[Combine] = "entropy"
    metric_name: ClassVar[str] = "accuracy"

    labels: Annotated[list[str], Meta(min_length=2)]

    @property
    def channels(self) -> int:
        return len(self.labels)

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Categorical(logits=channels)

    def known(self, target: tf.Tensor) -> tf.Tensor:
        return target >= 0

    def filled(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        return tf.where(known, target, tf.zeros_like(target))

    def moments(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = tf.nn.softmax(channels)
        return probabilities, -tf.reduce_sum(probabilities * tf.nn.log_softmax(channels), axis=-1)

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(_x_log_x(mean), axis=-1)

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        return channels / temperature

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        right = tf.cast(tf.argmax(mean, axis=-1, output_type=target.dtype) == target, tf.float32)
        return tf.boolean_mask(right, self.known(target))

    def outputs(self, positions: list[int | None]) -> dict[str, list[int | None]]:
        return _four([*positions, self.channels], list(positions))


class Bernoulli(Head, frozen=True, kw_only=True, tag="bernoulli"):
    """Independent yes or no per label; every quantity [batch, labels], uncertainties in nats.

    labels: names of the outputs; one, named like the head, unless given.
    """

    combine: ClassVar[Combine] = "entropy"
    metric_name: ClassVar[str] = "IoU"

    labels: list[str] = []

    @property
    def channels(self) -> int:
        return max(1, len(self.labels))

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Bernoulli(logits=channels), 1)

    def moments(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # H = softplus(x) - x sigmoid(x), with softplus in ops that every format has.
        probabilities = tf.sigmoid(channels)
        softplus = tf.maximum(channels, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(channels)))
        return probabilities, tf.maximum(softplus - channels * probabilities, 0.0)

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        return -(_x_log_x(mean) + _x_log_x(1.0 - mean))

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        return channels / temperature

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(mean.shape)))
        said, true = mean > 0.5, target > 0.5
        both = tf.reduce_sum(tf.cast(said & true, tf.float32), axes)
        either = tf.reduce_sum(tf.cast(said | true, tf.float32), axes)
        known = tf.reduce_all(tf.math.is_finite(target), axes)
        return tf.boolean_mask(tf.where(either > 0, both / tf.maximum(either, 1.0), 1.0), known)

    def outputs(self, positions: list[int | None]) -> dict[str, list[int | None]]:
        return _four([*positions, self.channels], [*positions, self.channels])


class Normal(Head, frozen=True, kw_only=True, tag="normal"):
    """Real values with a predicted scale; every quantity [batch, outputs], uncertainties are variances.

    columns: of the table, one per output; the head's column unless given. unit: of the values.
    centre, spread: mean and standard deviation of the training targets, filled in from the data;
        channels are in these units, so that any target trains alike.
    """

    combine: ClassVar[Combine] = "variance"
    metric_name: ClassVar[str] = "MAE"

    labels: list[str] = []
    unit: str = ""
    centre: list[float] = []
    spread: list[Positive] = []

    @property
    def size(self) -> int:
        """Number of outputs."""
        return max(1, len(self.labels))

    @property
    def channels(self) -> int:
        return 2 * self.size

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Normal(*self._location_and_scale(channels)), 1)

    def moments(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        location, scale = self._location_and_scale(channels)
        return location, tf.square(scale)

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        location, log_scale = tf.split(channels, 2, axis=-1)
        return tf.concat([location, log_scale + tf.math.log(tf.cast(scale, channels.dtype))], axis=-1)

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(tf.reduce_mean(tf.abs(mean - target), axis=-1), self.known(target))

    def outputs(self, positions: list[int | None]) -> dict[str, list[int | None]]:
        return _four([*positions, self.size], [*positions, self.size])

    def _location_and_scale(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        location, log_scale = tf.split(channels, 2, axis=-1)
        centre = tf.constant(self.centre or [0.0] * self.size, tf.float32)
        spread = tf.constant(self.spread or [1.0] * self.size, tf.float32)
        # Bounded to 1e-3 … 1e3 spreads: a likelihood must not reach infinity on a lucky example.
        bounded = tf.exp(tf.clip_by_value(log_scale, -6.9, 6.9))
        return location * spread + centre, bounded * spread


AnyHead = Categorical | Bernoulli | Normal


def saved(heads: tuple[AnyHead, ...]) -> list[dict[str, Any]]:
    """Heads as plain records."""
    return [msgspec.to_builtins(head) for head in heads]


def loaded(records: list[dict[str, Any]]) -> tuple[AnyHead, ...]:
    """Heads from plain records."""
    return tuple(msgspec.convert(record, AnyHead) for record in records)


def _four(value: list[int | None], uncertainty: list[int | None]) -> dict[str, list[int | None]]:
    return {"mean": value, "total": uncertainty, "aleatoric": uncertainty, "epistemic": uncertainty}


def _x_log_x(x: tf.Tensor) -> tf.Tensor:
    # 0 log 0 = 0; 1e-30 keeps the logarithm finite and changes nothing that float32 can hold.
    return x * tf.math.log(tf.maximum(x, 1e-30))
