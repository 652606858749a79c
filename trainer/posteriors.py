"""Posterior families: the variational distributions that a weight can have.

A family is a frozen record of its settings, so that it is given by name and parameters in a config
and comes back after saving; its trained parameters are Keras variables, handed to its methods by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import tensorflow as tf
from msgspec import Meta, Struct

Parameters = Mapping[str, tf.Tensor]


class Parameter(Struct, frozen=True):
    """A trained parameter: its shape and how it starts."""

    shape: tuple[int, ...]
    start: Callable[[tuple[int, ...]], tf.Tensor]


class Posterior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """What every family states.

    noise: the distribution of the noise that `from_noise` takes, standard normal or uniform on (0, 1).
    symmetric: about its mean, as Flipout needs it.
    in_graph: whether `from_noise` can live in an exported graph (no rejection sampling).
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "normal"
    symmetric: ClassVar[bool] = False
    in_graph: ClassVar[bool] = True

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        """The trained parameters of a weight of that shape."""
        raise TypeError(f"{type(self).__name__} states no parameters")

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise of one draw."""
        return shape

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        """A draw of the weight's shape from noise of `noise_shape`."""
        raise TypeError(f"{type(self).__name__} makes no draws")

    def mean(self, parameters: Parameters) -> tf.Tensor:
        """The posterior mean, of the weight's shape."""
        raise TypeError(f"{type(self).__name__} states no mean")

    def distribution(self, parameters: Parameters) -> Any:
        """The TFP distribution over the weight, for its KL."""
        raise TypeError(f"{type(self).__name__} states no distribution")


class Normal(Posterior, frozen=True, tag="normal"):
    """Independent normals (mean field); scale = softplus(rho) + 1e-5.

    initial_scale: of each weight, as a part of the He scale sqrt(2 / fan_in) that its mean starts from.
    """

    symmetric: ClassVar[bool] = True
    initial_scale: Annotated[float, Meta(gt=0)] = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        he = math.sqrt(2.0 / fan_in)
        return {
            "loc": Parameter(shape, _he_normal(he)),
            "rho": Parameter(shape, _constant(softplus_inverse(self.initial_scale * he))),
        }

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return parameters["loc"] + _scale(parameters["rho"]) * noise

    def mean(self, parameters: Parameters) -> tf.Tensor:
        return parameters["loc"]

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(parameters["loc"], _scale(parameters["rho"]))


AnyPosterior = Normal


def posterior(settings: Mapping[str, Any]) -> Posterior:
    """The family that a saved or configured record names; msgspec.ValidationError says what is wrong."""
    return msgspec.convert(settings, AnyPosterior)


def softplus_inverse(value: float) -> float:
    """x with softplus(x) = value, for value > 0."""
    return value + math.log(-math.expm1(-value))


def _scale(rho: tf.Tensor) -> tf.Tensor:
    return tf.math.softplus(rho) + 1e-5


def _he_normal(scale: float) -> Callable[[tuple[int, ...]], tf.Tensor]:
    return lambda shape: scale * tf.random.truncated_normal(shape)


def _constant(value: float) -> Callable[[tuple[int, ...]], tf.Tensor]:
    return lambda shape: tf.fill(shape, tf.constant(value, tf.float32))
