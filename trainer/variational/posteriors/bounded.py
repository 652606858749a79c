"""Families on an interval or on the positive numbers, drawn from Gamma variates.

Gamma variates come from the rejection scheme of Marsaglia and Tsang (2000), unrolled to four candidates of fixed
noise, so that a draw is a plain function of its noise in every format. The last candidate is accepted without a
test. The scheme rejects the three before it in fewer than 1 of 8,000 draws near concentration 0 and 1 of 140,000 at 1;
above 10 it was never seen. Even then the distribution of the last candidate is right within a few percent.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import tensorflow as tf

from probrt.trainer.variational.parameters import (
    Parameter,
    Parameters,
    Positive,
    compute_he_scale,
    constant_start,
    normal_start,
    softplus_inverse,
)
from probrt.trainer.variational.posteriors.base import Posterior

_ROWS = 9


def draw_gamma(concentration: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draws Gamma(concentration, 1) from uniforms [9, *shape], without a gradient.

    Computes all candidates at once in flat rows: few operations, and no more dimensions than TFLite's take.
    """
    shape = concentration.shape
    concentration, rows = tf.reshape(concentration, [-1]), tf.reshape(uniforms, [_ROWS, -1])
    # Gamma(a) = Gamma(a + 1) U^(1 / a) spares a case for a < 1.
    d = concentration + 2.0 / 3.0
    radii, angles = tf.sqrt(-2.0 * tf.math.log(rows[:2])), 2.0 * math.pi * rows[2:4]
    normals = tf.reshape(tf.stack([tf.cos(angles) * radii, tf.sin(angles) * radii], axis=1), [4, -1])
    y = tf.math.rsqrt(9.0 * d) * normals
    candidates = _clamp(y)
    accepted = (y[:3] > -1.0) & (tf.math.log(rows[4:7]) < d * _compute_margin(candidates[:3]))
    chosen = candidates[3]
    for index in (2, 1, 0):
        chosen = tf.where(accepted[index], candidates[index], chosen)
    cubed = (1.0 + chosen) * (1.0 + chosen) * (1.0 + chosen)
    variates = tf.maximum(d * cubed * tf.exp(tf.math.log(rows[8]) / concentration), 1e-30)
    return tf.reshape(variates, shape)


def _clamp(y: tf.Tensor) -> tf.Tensor:
    return tf.maximum(y, -0.999)


def _compute_margin(y: tf.Tensor) -> tf.Tensor:
    """Computes 3 (log(1 + y) - y + y^2 / 2) - y^3, by its series near 0 where the terms cancel."""
    direct = 3.0 * (tf.math.log(1.0 + y) - y + 0.5 * y * y) - y * y * y
    small = tf.clip_by_value(y, -0.25, 0.25)
    series = tf.zeros_like(y)
    for power in range(12, 3, -1):
        series = series * small + (-3.0 if power % 2 == 0 else 3.0) / power
    return tf.where(tf.abs(y) < 0.25, series * small * small * small * small, direct)


def _draw_gamma_with_gradient(concentration: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draws as `draw_gamma`, with the implicit gradient for its concentration (Figurnov et al. 2018)."""
    value = draw_gamma(tf.stop_gradient(concentration), uniforms)
    slope = tf.raw_ops.RandomGammaGrad(alpha=tf.stop_gradient(concentration), sample=value)
    return value + tf.stop_gradient(slope) * (concentration - tf.stop_gradient(concentration))


class GammaPosterior(Posterior, frozen=True, tag="gamma"):
    """Positive weights; mean = exp(log_mean), concentration = softplus(rho) + 0.01.

    initial_scale: the standard deviation at the start, as a part of the mean.
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "uniform"
    initial_scale: Positive = 0.1

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {
            "log_mean": Parameter(shape, normal_start(0.5, math.log(compute_he_scale(fan_in)))),
            "rho": Parameter(shape, constant_start(_to_gamma_rho(self.initial_scale**-2))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (_ROWS, *shape)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        concentration = _to_concentration(parameters["rho"])
        return draw_gamma(concentration, noise) * self.mean(parameters) / concentration

    def sample(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        concentration = _to_concentration(parameters["rho"])
        return _draw_gamma_with_gradient(concentration, noise) * self.mean(parameters) / concentration

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return tf.exp(parameters["log_mean"])

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        concentration = _to_concentration(parameters["rho"])
        return tfp.distributions.Gamma(concentration, concentration / self.mean(parameters))


class BetaPosterior(Posterior, frozen=True, tag="beta"):
    """Beta distributions stretched to the interval (low, high).

    With m = sigmoid(logit) and t = softplus(rho) + 0.01 the concentrations are m t and (1 - m) t.
    initial_scale: the standard deviation at the start, as a part of the He scale.
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "uniform"
    low: float = -1.0
    high: float = 1.0
    initial_scale: Positive = 0.1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the interval ({self.low}, {self.high}) is empty: low must be below high")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        scale = min(compute_he_scale(fan_in) / (self.high - self.low), 0.25)
        total = max(0.25 / (self.initial_scale * scale) ** 2 - 1.0, 4.0)
        return {
            "logit": Parameter(shape, normal_start(4.0 * scale)),
            "rho": Parameter(shape, constant_start(_to_gamma_rho(total))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * _ROWS, *shape)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return self._stretch(draw_gamma(*self._gamma_arguments(parameters, noise)))

    def sample(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return self._stretch(_draw_gamma_with_gradient(*self._gamma_arguments(parameters, noise)))

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return self.low + (self.high - self.low) * tf.sigmoid(parameters["logit"])

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        stretch = tfp.bijectors.Shift(self.low)(tfp.bijectors.Scale(self.high - self.low))
        return tfp.distributions.TransformedDistribution(
            tfp.distributions.Beta(*_compute_concentrations(parameters)), stretch
        )

    def _gamma_arguments(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the concentrations [2, *shape] and the uniforms [9, 2, *shape] of both Gamma variates."""
        return tf.stack(_compute_concentrations(parameters)), tf.stack([noise[:_ROWS], noise[_ROWS:]], axis=1)

    def _stretch(self, variates: tf.Tensor) -> tf.Tensor:
        first, second = tf.unstack(variates)
        # Away from the ends by more than rounding: the density may be infinite there.
        return self.low + (self.high - self.low) * tf.clip_by_value(first / (first + second), 1e-6, 1.0 - 1e-6)


def _to_concentration(rho: tf.Tensor) -> tf.Tensor:
    return tf.math.softplus(rho) + 0.01


def _compute_concentrations(parameters: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
    total = _to_concentration(parameters["rho"])
    return total * tf.sigmoid(parameters["logit"]), total * tf.sigmoid(-parameters["logit"])


def _to_gamma_rho(concentration: float) -> float:
    return softplus_inverse(max(concentration - 0.01, 1e-3))
