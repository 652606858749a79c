"""Normals over a whole weight with all covariances: in full, or through one rotation per side of the kernel."""

from __future__ import annotations

import math
from typing import Any, ClassVar

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
from probrt.trainer.variational.posteriors.base import Posterior, log_prob

# The factor has the square of that many entries, in every file of a bundle that makes its own draws.
MAX_WEIGHTS = 4096


class FullNormalPosterior(Posterior, frozen=True, tag="full_normal"):
    """One normal over the whole weight, covariance = factor factor^T; of at most 4096 elements.

    The posterior of a Laplace approximation (MacKay 1992). initial_scale: as for Normal; elements start independent.
    """

    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        size = math.prod(shape)
        if size > MAX_WEIGHTS:
            raise ValueError(
                f"full_normal has the covariance of at most {MAX_WEIGHTS} weights, a layer has {size}; "
                "use kronecker_normal"
            )
        scale = self.initial_scale * compute_he_scale(fan_in)
        return {
            "loc": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "factor": Parameter((size, size), lambda sides: scale * tf.eye(sides[0])),
        }

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        loc = parameters["loc"]
        return loc + tf.reshape(tf.matmul(parameters["factor"], tf.reshape(noise, [-1, 1])), loc.shape)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the distribution of the flattened weight."""
        import tensorflow_probability as tfp

        covariance = tf.matmul(parameters["factor"], parameters["factor"], transpose_b=True)
        return tfp.distributions.MultivariateNormalTriL(
            tf.reshape(parameters["loc"], [-1]), tf.linalg.cholesky(covariance)
        )

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        return self.distribution(parameters).log_prob(tf.reshape(value, [-1])) - log_prob(prior, value)

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        return {"loc": mean, "factor": np.diag(np.asarray(scale).reshape(-1))}


class KroneckerNormalPosterior(Posterior, frozen=True, tag="kronecker_normal"):
    """Independent normals in rotated coordinates: weight = loc + inputs_rotation (scale * noise) outputs_rotation^T.

    The rotations are orthogonal, one of all inputs of the kernel and one of its outputs, and are not trained. So a
    Kronecker-factored curvature has its exact inverse here (Ritter, Botev and Barber 2018; George et al. 2018).
    initial_scale: as for Normal; the rotations start as identities.
    """

    kernel_only: ClassVar[bool] = True
    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        sides = (math.prod(shape[:-1]), shape[-1])
        small = self.initial_scale * compute_he_scale(fan_in)
        return {
            "loc": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "rho": Parameter(sides, constant_start(softplus_inverse(small))),
            "inputs_rotation": Parameter((sides[0], sides[0]), lambda square: tf.eye(square[0]), trainable=False),
            "outputs_rotation": Parameter((sides[1], sides[1]), lambda square: tf.eye(square[0]), trainable=False),
        }

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        loc, scale = parameters["loc"], to_scale(parameters["rho"])
        rotated = tf.matmul(parameters["inputs_rotation"], scale * tf.reshape(noise, scale.shape))
        return loc + tf.reshape(tf.matmul(rotated, parameters["outputs_rotation"], transpose_b=True), loc.shape)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the distribution of the rotated deviations from the mean, [inputs, outputs]."""
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(0.0, to_scale(parameters["rho"]))

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        # A rotation leaves the density as it is.
        own = self.distribution(parameters)
        return tf.reduce_sum(own.log_prob(own.scale * tf.reshape(noise, own.scale.shape))) - log_prob(prior, value)

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        outputs = np.shape(mean)[-1]
        rho = to_rho(np.asarray(scale).reshape(-1, outputs))
        return {"loc": mean, "rho": rho, "inputs_rotation": np.eye(len(rho)), "outputs_rotation": np.eye(outputs)}
