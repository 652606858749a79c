"""Real values with a location and a scale per output."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.trainer.heads.base import Moments, Positive
from probrt.trainer.heads.real import LOG_SCALE, RealHead


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

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        location, log_scale = self._split(channels)
        return tf.concat([location, log_scale + tf.math.log(tf.cast(value, channels.dtype))], axis=-1)

    def location_and_scale(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Location and scale of each output, in the targets' unit."""
        location, log_scale = self._split(channels)
        centre, spread = self.centres_and_spreads()
        if isinstance(self.scale, str):
            log_scale = tf.clip_by_value(log_scale, -LOG_SCALE, LOG_SCALE)
        return location * spread + centre, tf.exp(log_scale) * spread

    def _split(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Location and log scale, in spreads; calibration turns a fixed scale into channels."""
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
    """Real values with Laplace noise, which is robust to outliers; aleatoric is its variance, 2 scale²."""

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Independent(tfp.distributions.Laplace(*self.location_and_scale(channels)), 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        location, scale = self.location_and_scale(channels)
        return Moments(location, 2.0 * tf.square(scale))


class StudentTHead(LocationScaleHead, frozen=True, kw_only=True, tag="student_t"):
    """Real values with heavy-tailed noise; aleatoric is its variance, scale² df / (df - 2).

    degrees: of freedom, more than 2, so that the variance is finite.
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

    def check_support(self, values: np.ndarray) -> None:
        super().check_support(values)
        if (values[np.isfinite(values)] <= 0).any():
            raise ValueError(f"is {values[values <= 0][0]:g}, must be above 0")

    def to_location_scale(self, targets: np.ndarray) -> np.ndarray:
        logarithms: np.ndarray = np.log(targets)
        return logarithms

    def fill_missing(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
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
