"""Real values: a location and a scale per output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.bundle.manifest import Combine
from probrt.trainer.heads.base import Head, Moments, Positive, Shapes, Sides, four, per_example

# A scale lies within e^-6.9 … e^6.9 (1e-3 … 1e3) spreads: a likelihood must not reach infinity on a lucky example.
LOG_SCALE = 6.9


class RealHead(Head, frozen=True, kw_only=True):
    """A head of real values; every quantity [batch, outputs], uncertainties are variances.

    labels: names of the outputs, each a column of the table; one, named like the head, unless given.
    unit: of the values.
    centre, spread: mean and standard deviation of the training targets, filled in from the data;
        channels are in these units, so that any target trains alike.
    """

    combine: ClassVar[Combine] = "variance"
    metric_name: ClassVar[str] = "MAE"
    higher_is_better: ClassVar[bool] = False
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "scale"

    labels: list[str] = []
    unit: str = ""
    centre: list[float] = []
    spread: list[Positive] = []

    @property
    def size(self) -> int:
        """Number of outputs."""
        return max(1, len(self.labels))

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,) if self.per_position or not self.labels else tuple(self.labels)

    def from_map(self, values: np.ndarray, high: float) -> np.ndarray:
        if values.shape[-1] != self.size:
            raise ValueError(f"has {values.shape[-1]} channels, needs {self.size}")
        return super().from_map(values, high)

    def missing(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full([*positions, self.size], np.nan, np.float32)

    def standardised(self, targets: np.ndarray) -> Self:
        if self.centre:
            return self
        values = self.unbounded(targets.reshape(-1, self.size).astype(np.float64))
        known = values[np.isfinite(values).all(axis=-1)]
        if not len(known):
            return self
        spread = np.maximum(known.std(axis=0), 1e-6)
        return msgspec.structs.replace(self, centre=known.mean(axis=0).tolist(), spread=spread.tolist())

    def unbounded(self, targets: np.ndarray) -> np.ndarray:
        """Targets on the scale of the location."""
        return targets

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return per_example(tf.reduce_mean(tf.abs(mean - target), axis=-1), self.known(target))

    def outputs(self, positions: Sides) -> Shapes:
        return four([*positions, self.size], [*positions, self.size])

    def centres_and_spreads(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The targets' mean and standard deviation, float32 [outputs]."""
        centre = tf.constant(self.centre or [0.0] * self.size, tf.float32)
        return centre, tf.constant(self.spread or [1.0] * self.size, tf.float32)


class LocationScaleHead(RealHead, frozen=True, kw_only=True):
    """A real head with one location and one scale per output.

    scale: "predicted" from each image; "learned", one per output for all images; or a number, in the
        targets' unit.
    """

    scale: Literal["predicted", "learned"] | Positive = "predicted"

    @property
    def channels(self) -> int:
        return 2 * self.size if self.scale == "predicted" else self.size

    @property
    def learned(self) -> tuple[float, ...]:
        return (0.0,) * self.size if self.scale == "learned" else ()

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        location, log_scale = self._split(channels)
        return tf.concat([location, log_scale + tf.math.log(tf.cast(scale, channels.dtype))], axis=-1)

    def location_and_scale(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Location and scale of each output, in the targets' unit."""
        location, log_scale = self._split(channels)
        centre, spread = self.centres_and_spreads()
        if isinstance(self.scale, str):
            log_scale = tf.clip_by_value(log_scale, -LOG_SCALE, LOG_SCALE)
        return location * spread + centre, tf.exp(log_scale) * spread

    def _split(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Location and log scale in spreads; a fixed scale has no channels until calibration has added them."""
        if channels.shape[-1] == 2 * self.size:
            location, log_scale = tf.split(channels, 2, axis=-1)
            return location, log_scale
        fixed = np.log(np.asarray(self.scale) / np.asarray(self.spread or [1.0] * self.size))
        return channels, tf.zeros_like(channels) + tf.constant(fixed, tf.float32)


class NormalHead(LocationScaleHead, frozen=True, kw_only=True, tag="normal"):
    """Real values with normal noise; every quantity [batch, outputs], uncertainties are variances."""

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Normal(*self.location_and_scale(channels)), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, scale = self.location_and_scale(channels)
        return Moments(location, tf.square(scale))


class LaplaceHead(LocationScaleHead, frozen=True, kw_only=True, tag="laplace"):
    """Real values with Laplace noise, which minds outliers less; aleatoric is its variance, 2 scale²."""

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Laplace(*self.location_and_scale(channels)), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, scale = self.location_and_scale(channels)
        return Moments(location, 2.0 * tf.square(scale))


class StudentTHead(LocationScaleHead, frozen=True, kw_only=True, tag="student_t"):
    """Real values with heavy-tailed noise; aleatoric is its variance, scale² df / (df - 2).

    degrees: of freedom, more than 2, so that there is a variance.
    """

    degrees: Annotated[float, Meta(gt=2)] = 5.0

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        location, scale = self.location_and_scale(channels)
        return tfp.distributions.Independent(tfp.distributions.StudentT(self.degrees, location, scale), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, scale = self.location_and_scale(channels)
        return Moments(location, tf.square(scale) * (self.degrees / (self.degrees - 2.0)))


class LogNormalHead(LocationScaleHead, frozen=True, kw_only=True, tag="log_normal"):
    """Positive values whose logarithm is normal; `mean` and variances are of the value itself.

    centre, spread and scale are of the logarithm.
    """

    def check(self, values: np.ndarray) -> None:
        super().check(values)
        if (values[np.isfinite(values)] <= 0).any():
            raise ValueError(f"is {values[values <= 0][0]:g}, must be above 0")

    def unbounded(self, targets: np.ndarray) -> np.ndarray:
        return np.log(targets)

    def filled(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        return tf.where(known[..., None], target, tf.ones_like(target))

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.LogNormal(*self.location_and_scale(channels)), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, scale = self.location_and_scale(channels)
        square = tf.square(scale)
        # Var = (e^(s²) - 1) e^(2m + s²); the exponents are bounded so that float32 holds the square.
        mean = tf.exp(tf.minimum(location + square / 2.0, 40.0))
        return Moments(mean, (tf.exp(tf.minimum(square, 8.0)) - 1.0) * tf.square(mean))


class BoxHead(NormalHead, frozen=True, kw_only=True, tag="box"):
    """A bounding box: x_min, y_min, x_max, y_max as fractions of the image's width and height.

    Fractions, so that a box does not depend on the size an image is resized to; x grows to the right, y downwards,
    each from 0 to 1. The table's columns are <column>_x_min and so on. Noise is normal per coordinate.
    """

    SIDES: ClassVar[tuple[str, ...]] = ("x_min", "y_min", "x_max", "y_max")
    metric_name: ClassVar[str] = "box IoU"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.per_position:
            raise ValueError("a box is one per image: leave out per_position")
        if self.labels:
            raise ValueError("a box has outputs of its own: leave out labels")

    @property
    def size(self) -> int:
        return 4

    @property
    def names(self) -> tuple[str, ...]:
        return self.SIDES

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.target}_{side}" for side in self.SIDES)

    def check(self, values: np.ndarray) -> None:
        super().check(values)
        for left, top, right, bottom in np.atleast_2d(values):
            if np.isnan([left, top, right, bottom]).all():
                continue
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(
                    f"box ({left:g}, {top:g}, {right:g}, {bottom:g}) is not x_min < x_max and y_min < y_max inside the "
                    "image; coordinates are fractions of its width and height, 0 to 1"
                )

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        low, high = tf.maximum(mean[..., :2], target[..., :2]), tf.minimum(mean[..., 2:], target[..., 2:])
        both = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
        areas = [tf.reduce_prod(tf.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (mean, target)]
        return tf.boolean_mask(both / tf.maximum(tf.add_n(areas) - both, 1e-9), self.known(target))
