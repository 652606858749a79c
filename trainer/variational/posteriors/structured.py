"""Families whose weights depend on each other."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
import tensorflow as tf
from msgspec import Meta

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
from probrt.trainer.variational.posteriors.base import Posterior, compute_kl, log_prob
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.priors.families import NormalPrior


class LowRankNormalPosterior(Posterior, frozen=True, tag="low_rank_normal"):
    """One normal over the whole weight, covariance = factor factor^T + diagonal (Ong, Nott and Smith 2018).

    Flipout flips the diagonal part; the low-rank part is shared by the batch.
    rank: columns of the factor. initial_scale: of each weight, half its variance from either part, as a
    part of the He scale.
    """

    symmetric: ClassVar[bool] = True
    rank: Annotated[int, Meta(ge=1)] = 2
    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        part = self.initial_scale * compute_he_scale(fan_in) / math.sqrt(2.0)
        return {
            "loc": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "rho": Parameter(shape, constant_start(softplus_inverse(part))),
            "factor": Parameter((math.prod(shape), self.rank), normal_start(part / math.sqrt(self.rank))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape) + self.rank,)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        centre, deviation = self.split(parameters, noise)
        return centre + deviation

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loc = parameters["loc"]
        shared = tf.matmul(parameters["factor"], noise[: self.rank, None])
        own = tf.reshape(noise[self.rank :], loc.shape)
        return loc + tf.reshape(shared, loc.shape), to_scale(parameters["rho"]) * own

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the distribution of the flattened weight."""
        import tensorflow_probability as tfp

        return tfp.distributions.MultivariateNormalDiagPlusLowRankCovariance(
            tf.reshape(parameters["loc"], [-1]),
            tf.square(tf.reshape(to_scale(parameters["rho"]), [-1])),
            parameters["factor"],
        )

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        return self.distribution(parameters).log_prob(tf.reshape(value, [-1])) - log_prob(prior, value)

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        part = np.asarray(scale) / math.sqrt(2.0)
        factor = np.repeat(part.reshape(-1, 1), self.rank, axis=1) / math.sqrt(self.rank)
        return {"loc": mean, "rho": to_rho(part), "factor": factor}


class RankOnePosterior(Posterior, frozen=True, tag="rank_one"):
    """A trained kernel times a normal vector over inputs and one over outputs (Dusenberry et al. 2020).

    weight[…, i, o] = kernel[…, i, o] in[i] out[o]. The prior is over the elements of the two vectors, which
    start at 1: give it a location of 1. initial_scale: of the vectors.
    """

    kernel_only: ClassVar[bool] = True
    initial_scale: Positive = 0.1

    def usual_prior(self) -> Prior:
        """Returns Normal(1, 0.1), over the elements of the two vectors."""
        return NormalPrior(1.0, 0.1)

    def explain_misfit(self, prior: Prior) -> str | None:
        if prior.fits_weight:
            return (
                f"{prior.title} is over weights, but RankOne's prior is over vectors around 1; "
                "use Normal(loc=1.0, scale=0.1)"
            )
        return super().explain_misfit(prior)

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        vectors = (shape[-2] + shape[-1],)
        return {
            "kernel": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "loc": Parameter(vectors, constant_start(1.0)),
            "rho": Parameter(vectors, constant_start(softplus_inverse(self.initial_scale))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[-2] + shape[-1],)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return self._multiply(parameters, parameters["loc"] + to_scale(parameters["rho"]) * noise)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return self._multiply(parameters, parameters["loc"])

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the distribution of the two vectors, inputs first."""
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(parameters["loc"], to_scale(parameters["rho"]))

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        vectors = parameters["loc"] + to_scale(parameters["rho"]) * noise
        return compute_kl(self.distribution(parameters), prior, vectors)

    def _multiply(self, parameters: Parameters, vectors: tf.Tensor) -> tf.Tensor:
        kernel = parameters["kernel"]
        inputs = kernel.shape[-2]
        return kernel * vectors[:inputs, None] * vectors[None, inputs:]
