"""Mixtures of normals, one per weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import tensorflow as tf
from msgspec import Meta

from probrt.trainer.variational.parameters import (
    Parameter,
    Parameters,
    Positive,
    compute_he_scale,
    constant_start,
    softplus_inverse,
    to_scale,
)
from probrt.trainer.variational.posteriors.base import Posterior, attach_implicit_gradient, log_prob


class NormalMixturePosterior(Posterior, frozen=True, tag="normal_mixture"):
    """Each weight is a mixture of normals with trained weights, locations and scales.

    A draw picks a component by one uniform number and a normal by two. Its gradients are implicit, through
    the mixture's distribution function (Figurnov et al. 2018), so that the component weights get theirs too.
    Given its component a weight is symmetric about that component's location, which is what Flipout needs:
    an example sees location + deviation or location - deviation, both draws of the mixture, and each
    carries its own implicit gradient.

    The weights' gradient grows with the gap between components that are several scales apart, where a draw
    is rare and has far to go (its size is 1 / density). The defaults start them within two or three scales.

    components: the number of components. spread: of the locations at the start, as a part of the He scale.
    initial_scale: of each component at the start, likewise.
    """

    noise: ClassVar[Literal["normal", "uniform"]] = "uniform"
    symmetric: ClassVar[bool] = True
    components: Annotated[int, Meta(ge=2, le=16)] = 2
    spread: Annotated[float, Meta(ge=0)] = 0.1
    initial_scale: Positive = 0.1

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        sizes = (*shape, self.components)
        scale = self.initial_scale * compute_he_scale(fan_in)
        return {
            "logits": Parameter(sizes, constant_start(0.0)),
            "loc": Parameter(sizes, _spread_start(compute_he_scale(fan_in), self.spread * compute_he_scale(fan_in))),
            "rho": Parameter(sizes, constant_start(softplus_inverse(scale))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (3, *shape)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        centre, deviation = self._choose_component(parameters, noise)
        return centre + deviation

    def sample(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        return self._attach_gradient(parameters, self.from_noise(parameters, noise))

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        centre, deviation = self._choose_component(parameters, noise)
        above = self._attach_gradient(parameters, centre + deviation)
        below = self._attach_gradient(parameters, centre - deviation)
        return 0.5 * (above + below), 0.5 * (above - below)

    def mean(self, parameters: Parameters) -> tf.Tensor:
        flat = self._flatten(parameters)
        mean = tf.reduce_sum(tf.nn.softmax(flat["logits"]) * flat["loc"], axis=-1)
        return tf.reshape(mean, parameters["loc"].shape[:-1])

    def distribution(self, parameters: Parameters) -> Any:
        import tensorflow_probability as tfp

        tfd = tfp.distributions
        normals = tfd.Normal(parameters["loc"], to_scale(parameters["rho"]))
        return tfd.MixtureSameFamily(tfd.Categorical(logits=parameters["logits"]), normals)

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        mixtures = self.distribution(self._flatten(parameters))
        return tf.reduce_sum(mixtures.log_prob(tf.reshape(value, [-1]))) - log_prob(prior, value)

    def _choose_component(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flat, shape = self._flatten(parameters), parameters["loc"].shape[:-1]
        choice, first, second = tf.unstack(tf.reshape(noise, [3, -1]))
        upper = tf.cumsum(tf.nn.softmax(flat["logits"]), axis=-1)
        # The last component takes what rounding leaves over, so that its own bound plays no part.
        past = tf.cast(choice[:, None] >= upper[:, :-1], tf.float32)
        end = tf.ones_like(past[:, :1])
        picked = tf.concat([end, past], axis=-1) - tf.concat([past, end - 1.0], axis=-1)
        standard = tf.sqrt(-2.0 * tf.math.log(first)) * tf.cos(2.0 * math.pi * second)
        deviation = tf.reduce_sum(picked * to_scale(flat["rho"]), axis=-1) * standard
        return tf.reshape(tf.reduce_sum(picked * flat["loc"], axis=-1), shape), tf.reshape(deviation, shape)

    def _attach_gradient(self, parameters: Parameters, value: tf.Tensor) -> tf.Tensor:
        mixtures = self.distribution(self._flatten(parameters))
        return tf.reshape(attach_implicit_gradient(tf.reshape(value, [-1]), mixtures), parameters["loc"].shape[:-1])

    def _flatten(self, parameters: Parameters) -> dict[str, tf.Tensor]:
        """Reshapes parameters to [weights, components]: softmax and TFP's mixtures stop at rank 5 or before."""
        return {name: tf.reshape(values, [-1, self.components]) for name, values in parameters.items()}


def _spread_start(scale: float, spread: float) -> Callable[[tuple[int, ...]], tf.Tensor]:
    """Returns an initializer: one truncated normal per weight, the components spread evenly around it."""

    def start(shape: tuple[int, ...]) -> tf.Tensor:
        middle = scale * tf.random.truncated_normal((*shape[:-1], 1))
        return middle + tf.linspace(-spread, spread, shape[-1])

    return start
