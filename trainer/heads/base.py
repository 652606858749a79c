"""The interface of every head.

A head is a frozen record, so that it is its own entry in a config and in a saved model. Its channels are
[batch, channels] for a pooled head and [batch, *positions, channels] for a head per position. Likelihoods are TFP
distributions. Moments are plain ops, because exported graphs hold them; they are tested against TFP.

A head extends one of three base classes, one per kind: ClassHead, BinaryHead, RealHead. They define everything but the
channels, the likelihood, the moments and what calibration does to the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Meta, Struct

from probrt.runtime.bundle.manifest import COMBINE_OF, Calibration, HeadName, HeadRecord, Kind
from probrt.trainer.heads.formulas import Shapes, Sides, format_values, parse_number
from probrt.trainer.layers.weight_settings import Activation, WeightSettings

Positive = Annotated[float, Meta(gt=0)]
Answer = Mapping[str, np.ndarray]
# As how many answers per image a head per position counts by default.
_POSITION_TERMS = 10


class Moments(NamedTuple):
    """The moments of one draw: mean, aleatoric uncertainty, and a head's further outputs by name.

    The average of an extra over draws is the predictive distribution's (probabilities, for example).
    """

    mean: tf.Tensor
    aleatoric: tf.Tensor
    extras: dict[str, tf.Tensor] = {}


class TargetRange(NamedTuple):
    """The lowest and highest target of one output, and their unit."""

    output: str
    low: float
    high: float
    unit: str


class OwnLayers(Struct, frozen=True, forbid_unknown_fields=True):
    """Layers that belong to one head, instead of a share of the final convolution.

    widths: filters of the convolutions before the final one. kernel: their window. final_kernel: the final one's.
    weights: how these layers get their weights; as the rest of the network unless given.
    learning_rate: a factor on the learning rate of the fit, for these layers.
    optimizer: of these layers; the optimizer of the fit unless given.
    """

    widths: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    kernel: Annotated[int, Meta(ge=1)] = 3
    final_kernel: Annotated[int, Meta(ge=1)] = 1
    activation: Activation = "relu"
    weights: WeightSettings | None = None
    learning_rate: Positive = 1.0
    optimizer: Literal["adam", "adamw", "sgd"] | None = None


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="likelihood"):
    """A named output with a likelihood.

    name: of the head, and the first part of the names of its outputs.
    column: the table's column with the target; the head's name unless given.
    weight: of the head's negative log-likelihood in the loss. By default 1, and for a head per position 10 / positions:
        each position adds a term, and their sum would drown the heads with one answer per image.
    per_position: one answer per pixel instead of one per image.
    stage: the stage of the backbone whose features the head reads; the last unless given.
    own: layers of its own; without them the head shares the final convolution of all heads on its stage.
    auxiliary: the head only helps to train; bundles leave it out unless asked for.

    Class attributes, which a subclass may override:
    kind: what `mean` holds: "class" probabilities, "binary" probabilities, or "real" values.
    metric_name, higher_is_better: of the scores that `metric` returns.
    calibrates: the parameter that calibration fits.
    position_method: the conformal method of a head per position.
    needs_samples: evaluation draws samples of the predictive distribution, for CRPS and intervals.
    interpolation: how augmentation resamples a map of targets.
    target_is_box: the target is a box, which augmentation moves along with the image.
    accepts_class_folders: the target may be the name of the folder that holds an image.
    """

    kind: ClassVar[Kind]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "nothing"
    position_method: ClassVar[Literal["lac", "scaled"]]
    needs_samples: ClassVar[bool] = False
    interpolation: ClassVar[Literal["nearest", "bilinear"]] = "nearest"
    target_is_box: ClassVar[bool] = False
    accepts_class_folders: ClassVar[bool] = False

    name: HeadName
    column: str = ""
    weight: Positive | None = None
    per_position: bool = False
    stage: str = ""
    own: OwnLayers | None = None
    auxiliary: bool = False

    # The network's output.

    @property
    def channels(self) -> int:
        """Channels of the final convolution that the head needs, per position."""
        raise TypeError(f"{type(self).__name__} must define channels")

    @property
    def learned(self) -> tuple[float, ...]:
        """Initial values of the channels that are the same for every image; they follow the convolution's."""
        return ()

    # The likelihood and its moments.

    def distribution(self, channels: tf.Tensor) -> Any:
        """The likelihood p(y | channels), a TFP distribution; its event is one position's outputs."""
        raise TypeError(f"{type(self).__name__} must define distribution")

    def moments(self, channels: tf.Tensor) -> Moments:
        """Mean, aleatoric uncertainty and extras of one draw."""
        raise TypeError(f"{type(self).__name__} must define moments")

    def split_uncertainty(
        self, mean: tf.Tensor, aleatoric: tf.Tensor, spread: Callable[[], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns total and epistemic uncertainty of combined draws.

        mean, aleatoric: averages over the draws. spread: computes the variance of the draws' means; a function, so
        that no graph holds ops that its head does not use.
        """
        raise TypeError(f"{type(self).__name__} must define split_uncertainty")

    def log_prob(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log-likelihood in nats, summed over positions, [batch]; 0 where the target is missing."""
        per_position = self.log_prob_per_position(channels, target)
        return tf.reduce_sum(per_position, axis=list(range(1, len(per_position.shape))))

    def fit_log_prob(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """What a fit maximises for each example, [batch]: the log-likelihood, unless the head weighs its examples."""
        return self.log_prob(channels, target)

    def log_prob_per_position(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Log-likelihood in nats, [batch, *positions]; 0 where the target is missing."""
        known = self.is_known(target)
        return tf.where(known, self.distribution(channels).log_prob(self.fill_missing(target, known)), 0.0)

    # Targets.

    @property
    def target(self) -> str:
        """The name of the target in messages: its column in the table."""
        return self.column or self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns with the target, one per output where there are several."""
        return (self.target,)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the entries of `mean`: the labels, or the head's own name."""
        return (self.name,)

    def parse_cells(self, cells: Sequence[str]) -> np.ndarray:
        """Parses the target from the cells of `columns`.

        Raises ValueError if they hold no value of the likelihood's support.
        """
        values = np.array([parse_number(cell) if cell.strip() else np.nan for cell in cells], np.float32)
        self.check_support(values)
        return values

    def parse_mask(self, values: np.ndarray, high: float) -> np.ndarray:
        """Parses the target of a head per position, [*positions, outputs], from the values of a mask file.

        values: [*positions, channels]; high: the highest value that the file's type holds (255 for an 8-bit
        picture), 1 for arrays. Raises ValueError if a value is outside the likelihood's support.
        """
        del high
        self.check_support(values.reshape(-1, values.shape[-1]))
        return values.astype(np.float32)

    def missing_target(self, positions: Sequence[int] = ()) -> np.ndarray:
        """The target of an example without one: NaN, or -1 for classes."""
        return np.full([*positions, len(self.columns)], np.nan, np.float32)

    def check_support(self, values: np.ndarray) -> None:
        """Raises ValueError for a value outside the likelihood's support; last axis: outputs; NaN is missing."""
        if np.isinf(values).any():
            raise ValueError("is infinite")

    def is_known(self, target: tf.Tensor) -> tf.Tensor:
        """Where there is a target, bool [batch, *positions]."""
        return tf.reduce_all(tf.math.is_finite(target), axis=-1)

    def fill_missing(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """Replaces missing targets by a value of the support, so that no NaN reaches a gradient."""
        return tf.where(known[..., None], target, tf.zeros_like(target))

    def standardise(self, targets: np.ndarray) -> Self:
        """Returns the head with the statistics of the training targets that it needs."""
        del targets
        return self

    def weigh(self, targets: np.ndarray) -> Self:
        """Returns the head with the weight that it has by default; targets: of training examples."""
        if self.weight is not None:
            return self
        sides = targets.shape[1 : targets.ndim - self.missing_target().ndim] if self.per_position else ()
        return msgspec.structs.replace(self, weight=min(1.0, _POSITION_TERMS / math.prod(sides)) if sides else 1.0)

    def count_classes(self, targets: np.ndarray) -> dict[str, int]:
        """Counts each class in the targets of a split; empty for a head without classes."""
        del targets
        return {}

    def target_ranges(self, targets: np.ndarray) -> list[TargetRange]:
        """The range of each output's known targets in a split; empty for a head without real values."""
        del targets
        return []

    # Scores.

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The score of each example that has a target, a vector."""
        raise TypeError(f"{type(self).__name__} must define metric")

    def find_errors(self, mean: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Finds the answers that are wrong: bool arrays (wrong, known) of the target's shape.

        None for real values, which are more or less far off, but not right or wrong.
        """
        raise TypeError(f"{type(self).__name__} must define find_errors")

    def extra_scores(self, mean: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """Further scores for `probrt evaluate`, by name: one number per example, [n]."""
        del mean, target
        return {}

    def describe_target(self, target: np.ndarray) -> str:
        """Formats the target of one example for people; empty if it is missing."""
        return format_values(target) if np.isfinite(target).any() else ""

    def describe_mean(self, mean: np.ndarray) -> str:
        """Formats the predictive mean of one example for people."""
        return format_values(mean)

    def draw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Turns a map of means, [n, height, width, outputs], into a grey picture, [n, height, width, 1]."""
        return mean[..., :1]

    # Calibration.

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        """Applies a temperature or scale to the channels; the identity at 1, wider above."""
        del value
        return channels

    def calibration_record(self, value: float) -> Calibration:
        """The record of a calibration by `value`, a temperature or scale."""
        parameter = {} if self.calibrates == "nothing" else {self.calibrates: value}
        return Calibration(
            head=self.name, temperature=parameter.get("temperature", 1.0), scale=parameter.get("scale", 1.0)
        )

    def calibration_value(self, record: Calibration) -> float:
        """The temperature or scale in a record; 1 for a head without such a parameter."""
        return {"temperature": record.temperature, "scale": record.scale, "nothing": 1.0}[self.calibrates]

    def conformal_scores(self, answer: Answer, target: np.ndarray) -> dict[str, np.ndarray]:
        """The conformity score of each example, float64 [n], by conformal method; higher is stranger.

        answer: predictive mean and total of a pooled head. target: of examples that all have one. Empty for a head
        whose rows hold neither a set nor an interval.
        """
        raise TypeError(f"{type(self).__name__} must define conformal_scores")

    def position_scores(self, answer: Answer, target: np.ndarray) -> np.ndarray:
        """The conformity score of each position by `position_method`, float32 [n, items]; NaN without a target."""
        raise TypeError(f"{type(self).__name__} must define position_scores")

    # The manifest.

    @property
    def likelihood(self) -> str:
        """The name of the likelihood in configs and manifests."""
        return str(self.__struct_config__.tag)

    def output_shapes(self, positions: Sides) -> Shapes:
        """Shape of each output without the batch."""
        raise TypeError(f"{type(self).__name__} must define output_shapes")

    def to_record(self, positions: Sides) -> HeadRecord:
        """The head's entry in the manifest; positions: the sides of its answers, none for a pooled head."""
        return HeadRecord(
            name=self.name,
            likelihood=self.likelihood,
            kind=self.kind,
            combine=COMBINE_OF[self.kind],
            per_position=self.per_position,
            labels=list(self.names),
            outputs=self.output_shapes(positions),
        )
