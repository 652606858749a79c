"""What every head states.

A head is a frozen record, so that it is its own entry in a config and in a saved model. Its channels are
[batch, channels] for a pooled head, [batch, *positions, channels] for a head per position. Likelihoods are
TFP's; moments are written in plain ops, because they live in exported graphs, and are tested against TFP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import tensorflow as tf
from msgspec import Meta, Struct

from probrt.runtime.bundle.manifest import Combine, HeadName
from probrt.trainer.layers.weight_settings import Activation, WeightSettings

Positive = Annotated[float, Meta(gt=0)]
Sides = Sequence[int | None]
Shapes = dict[str, list[int | None]]


class Moments(NamedTuple):
    """What one draw says: mean, aleatoric uncertainty, and what else the head gives, by name.

    Extras are such that their average over draws is the predictive distribution's (probabilities, for example).
    """

    mean: tf.Tensor
    aleatoric: tf.Tensor
    extras: dict[str, tf.Tensor] = {}


class OwnLayers(Struct, frozen=True, forbid_unknown_fields=True):
    """Layers of a head's own, instead of a share of the final convolution.

    widths: filters of convolutions before its final one. kernel: their window. final_kernel: the final one's.
    weights: how they get their weights; as the rest of the network unless given.
    learning_rate: a factor on the fit's, for these layers.
    optimizer: of these layers; the fit's unless given.
    """

    widths: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    kernel: Annotated[int, Meta(ge=1)] = 3
    final_kernel: Annotated[int, Meta(ge=1)] = 1
    activation: Activation = "relu"
    weights: WeightSettings | None = None
    learning_rate: Positive = 1.0
    optimizer: Literal["adam", "adamw", "sgd"] | None = None


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="likelihood"):
    """What every head states.

    column: of the table that holds its target; the head's name unless given.
    weight: of its negative log-likelihood in the loss.
    per_position: one answer per pixel instead of one per image.
    stage: of the backbone, whose features the head reads; the last unless given.
    own: layers of its own; without, it shares the final convolution of all heads on its stage.
    auxiliary: only helps to train: left out of bundles unless asked for.
    """

    combine: ClassVar[Combine]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "nothing"

    name: HeadName
    column: str = ""
    weight: Positive = 1.0
    per_position: bool = False
    stage: str = ""
    own: OwnLayers | None = None
    auxiliary: bool = False

    @property
    def channels(self) -> int:
        """Channels of the final convolution that the head needs, per position."""
        raise TypeError(f"{type(self).__name__} states no channels")

    @property
    def learned(self) -> tuple[float, ...]:
        """Initial values of the channels that are the same for every image; they follow the convolution's."""
        return ()

    @property
    def target(self) -> str:
        """The table's column with the target, as messages name it."""
        return self.column or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """What the entries of `mean` are called: the labels, or the head's own name."""
        return tuple(getattr(self, "labels", ())) or (self.name,)

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns with the target, one per output where there are several."""
        return (self.target,)

    def parse(self, cells: Sequence[str]) -> np.ndarray:
        """The target in the cells of `columns`; ValueError if they hold no value of the likelihood's support."""
        values = np.array([float(cell) if cell.strip() else np.nan for cell in cells], np.float32)
        self.check(values)
        return values

    def from_map(self, values: np.ndarray, high: float) -> np.ndarray:
        """The target of a head per position, [*positions, outputs], from a mask file's values.

        values: [*positions, channels]; high: the highest value that the file's type holds (255 for an 8-bit
        picture), 1 for arrays. ValueError if a value is out of the likelihood's support.
        """
        del high
        self.check(values.reshape(-1, values.shape[-1]))
        return values.astype(np.float32)

    def missing(self, positions: Sequence[int] = ()) -> np.ndarray:
        """A target that is not there: NaN, or -1 for classes."""
        return np.full([*positions, len(self.columns)], np.nan, np.float32)

    def check(self, values: np.ndarray) -> None:
        """ValueError for a value (last axis: outputs; NaN is missing) out of the likelihood's support."""
        if np.isinf(values).any():
            raise ValueError("is infinite")

    def standardised(self, targets: np.ndarray) -> Self:
        """The head with what it needs to know of the training targets filled in."""
        del targets
        return self

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
        """The target with a value of the support where it is missing, so that no NaN meets a gradient."""
        return tf.where(known[..., None], target, tf.zeros_like(target))

    def moments(self, channels: tf.Tensor) -> Moments:
        """Mean, aleatoric uncertainty and extras of one draw."""
        raise TypeError(f"{type(self).__name__} states no moments")

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        """Entropy of a mean of probabilities, in nats (entropy heads only)."""
        raise TypeError(f"{type(self).__name__} has a variance, no entropy")

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        """The channels after calibration by what `calibrates` names."""
        del temperature, scale
        return channels

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The score of each example that has a target, a vector."""
        raise TypeError(f"{type(self).__name__} states no metric")

    def outputs(self, positions: Sides) -> Shapes:
        """Shape of each quantity without the batch."""
        raise TypeError(f"{type(self).__name__} states no outputs")


def four(value: Sides, uncertainty: Sides) -> Shapes:
    """The shapes of the four quantities that every head has."""
    shapes = {"total": uncertainty, "aleatoric": uncertainty, "epistemic": uncertainty}
    return {name: list(shape) for name, shape in {"mean": value, **shapes}.items()}


def per_example(score: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """The average of [batch, *positions] over an example's known positions, for the examples that have any."""
    axes = list(range(1, len(score.shape)))
    count = tf.reduce_sum(tf.cast(known, tf.float32), axes)
    sums = tf.reduce_sum(tf.where(known, score, 0.0), axes)
    return tf.boolean_mask(sums / tf.maximum(count, 1.0), count > 0)


def x_log_x(x: tf.Tensor) -> tf.Tensor:
    """x ln x, 0 at 0."""
    # 1e-30 keeps the logarithm finite and changes nothing that float32 can hold.
    return x * tf.math.log(tf.maximum(x, 1e-30))


def softplus(x: tf.Tensor) -> tf.Tensor:
    """ln(1 + e^x), in ops that every format has."""
    return tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))
