"""The interface of posterior families."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf
from msgspec import Struct

from probrt.trainer.variational.parameters import Parameter, Parameters
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.priors.families import NormalPrior


class Posterior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """Base class of posterior families.

    noise: the distribution of the noise that `from_noise` takes, standard normal or uniform on (0, 1).
    symmetric: each weight is, given the centre that `split` names, independent and symmetric about it, as
        Flipout needs it.
    in_graph: whether `from_noise` can live in an exported graph.
    independent_normal: whether the weights are independent normals, for which local reparameterization is exact.
    kernel_only: whether the family needs a weight of the shape [*window, in, out].
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "normal"
    symmetric: ClassVar[bool] = False
    in_graph: ClassVar[bool] = True
    independent_normal: ClassVar[bool] = False
    kernel_only: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """The family's name, as messages write it."""
        return type(self).__name__.removesuffix("Posterior")

    @property
    def support(self) -> tuple[float, float]:
        """The interval (low, high) that holds every weight."""
        return -math.inf, math.inf

    def usual_prior(self) -> Prior:
        """Returns the prior that a weight has unless another is named: the standard normal.

        A trained scale narrows with the posterior: fitted with the whole KL, such a network learns next to nothing
        (docs/quality.md).
        """
        return NormalPrior()

    def explain_misfit(self, prior: Prior) -> str | None:
        """Returns why the family cannot have a prior and what would work; None if it can."""
        low, high = self.support
        if prior.support[0] <= low and prior.support[1] >= high:
            return None
        return (
            f"{prior.title} lives on {_interval(prior.support)}, which does not hold "
            f"{self.title}'s {_interval((low, high))}; use {_suggest_prior(low, high)}"
        )

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        """Returns the trained parameters of a weight of that shape, by name; fan_in: inputs per output."""
        raise TypeError(f"{type(self).__name__} must define parameters")

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of one draw's noise."""
        return shape

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        """Transforms noise of `noise_shape` into a draw of the weight, in ops that every export format has."""
        raise TypeError(f"{type(self).__name__} must define from_noise")

    def sample(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        """Returns the value of `from_noise` with a gradient for every parameter; only fitting needs it."""
        return self.from_noise(parameters, noise)

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Splits a draw of a symmetric family into (centre, deviation).

        Flipping the sign of any weight's deviation leaves the distribution as it is.
        """
        raise ValueError(f"{self.title} defines no split; only a symmetric posterior needs one")

    def mean(self, parameters: Parameters) -> tf.Tensor:
        """Returns the posterior mean, of the weight's shape."""
        raise TypeError(f"{type(self).__name__} must define mean")

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the TFP distribution over the weight, for its KL."""
        raise TypeError(f"{type(self).__name__} must define distribution")

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Returns KL(posterior || prior) in nats, a scalar; `value` and `noise` are those of the draw in use.

        Closed form where TFP registers one, else Monte Carlo on that draw.
        """
        return compute_kl(self.distribution(parameters), prior, value)

    def parameters_at(self, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the parameter values with that mean and standard deviation, by name; ValueError if there are none."""
        raise ValueError(f"{self.title} cannot be centred on given weights; use Normal, Laplace or LowRankNormal")


def compute_kl(posterior: Any, prior: Any, value: tf.Tensor) -> tf.Tensor:
    """Returns the summed KL of TFP distributions: closed form, or a log density ratio at `value` if TFP has none."""
    try:
        return tf.reduce_sum(posterior.kl_divergence(prior))
    except NotImplementedError:
        return tf.reduce_sum(posterior.log_prob(value)) - log_prob(prior, value)


def log_prob(prior: Any, value: tf.Tensor) -> tf.Tensor:
    """Returns a prior's log density at a weight, summed over its elements."""
    if prior.batch_shape.rank == 0:
        # Mixtures add dimensions of their own, and some kernels stop at rank 5.
        value = tf.reshape(value, [-1])
    return tf.reduce_sum(prior.log_prob(value))


def attach_implicit_gradient(value: tf.Tensor, distribution: Any) -> tf.Tensor:
    """Returns `value`, a draw of `distribution`, with gradients for its parameters by its distribution function.

    Figurnov, Mohamed and Mnih (2018), eq. 5: dz/dtheta = -(dF(z)/dtheta) / p(z).
    """
    value = tf.stop_gradient(value)
    below = distribution.cdf(value)
    return value - (below - tf.stop_gradient(below)) / tf.stop_gradient(distribution.prob(value))


def _interval(ends: tuple[float, float]) -> str:
    return f"({ends[0]:g}, {ends[1]:g})"


def _suggest_prior(low: float, high: float) -> str:
    if math.isinf(low) or math.isinf(high):
        return "Normal" if math.isinf(low) else "Normal, or Gamma with a posterior on positive numbers"
    return f"Uniform(low={low:g}, high={high:g}) or Normal"
