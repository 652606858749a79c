"""Families of one location and one scale per weight."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from probrt.trainer.variational.parameters import (
    Parameter,
    Parameters,
    Positive,
    compute_he_scale,
    constant_start,
    normal_start,
    softplus_inverse,
    to_rho,
    to_scale,
)
from probrt.trainer.variational.posteriors.base import Posterior


class NormalPosterior(Posterior, frozen=True, tag="normal"):
    """Independent normals (mean field); scale = softplus(rho) + 1e-5.

    initial_scale: of each weight, as a part of the He scale sqrt(2 / fan_in) that its mean starts from.
    """

    symmetric: ClassVar[bool] = True
    independent_normal: ClassVar[bool] = True
    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {
            "loc": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "rho": Parameter(shape, constant_start(softplus_inverse(self.initial_scale * compute_he_scale(fan_in)))),
        }

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return parameters["loc"] + to_scale(parameters["rho"]) * noise

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return parameters["loc"], to_scale(parameters["rho"]) * noise

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(parameters["loc"], to_scale(parameters["rho"]))

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        return {"loc": mean, "rho": to_rho(scale)}


class LaplacePosterior(Posterior, frozen=True, tag="laplace"):
    """Independent Laplace distributions, drawn by inverse distribution function; scale = softplus(rho) + 1e-5.

    initial_scale: as for Normal.
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "uniform"
    symmetric: ClassVar[bool] = True
    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return NormalPosterior(self.initial_scale).parameters(shape, fan_in)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        centre, deviation = self.split(parameters, noise)
        return centre + deviation

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Noise is the middle of a cell of width 2^-23, so the logarithm's argument is never 0.
        away = noise - 0.5
        standard = -tf.sign(away) * tf.math.log(1.0 - 2.0 * tf.abs(away))
        return parameters["loc"], to_scale(parameters["rho"]) * standard

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Laplace(parameters["loc"], to_scale(parameters["rho"]))

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        return {"loc": mean, "rho": to_rho(np.asarray(scale) / math.sqrt(2.0))}


class LogNormalPosterior(Posterior, frozen=True, tag="log_normal"):
    """Positive weights, the exponential of independent normals; scale (of the logarithm) = softplus(rho) + 1e-5.

    initial_scale: of the logarithm. Weights start around the He scale.
    """

    initial_scale: Positive = 0.1

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {
            "loc": Parameter(shape, normal_start(0.5, math.log(compute_he_scale(fan_in)))),
            "rho": Parameter(shape, constant_start(softplus_inverse(self.initial_scale))),
        }

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return tf.exp(parameters["loc"] + to_scale(parameters["rho"]) * noise)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return tf.exp(parameters["loc"] + 0.5 * tf.square(to_scale(parameters["rho"])))

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.LogNormal(parameters["loc"], to_scale(parameters["rho"]))
