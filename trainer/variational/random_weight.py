"""Random weights: a posterior, a prior, and the noise that names each draw."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.variational import threefry
from probrt.trainer.variational.posteriors.base import Posterior
from probrt.trainer.variational.priors.base import Prior


@dataclass(eq=False)
class RandomWeight:
    """A weight with a posterior and a prior.

    id: keys its noise; stored with the model, so that a draw survives renaming and reloading.
    parameters, prior_parameters: Keras variables by name.
    """

    id: int
    name: str
    shape: tuple[int, ...]
    posterior: Posterior
    prior: Prior
    parameters: Mapping[str, keras.Variable]
    prior_parameters: Mapping[str, keras.Variable]

    def mean(self) -> tf.Tensor:
        """Returns the posterior mean, float32 `shape`."""
        return self.posterior.mean(_to_tensors(self.parameters))

    def noise(self, seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Returns the noise of draw (seed, index); index [draws] gives [draws, *noise_shape]."""
        return make_noise([self], seed, index)[self.id]

    def from_noise(self, noise: tf.Tensor) -> tf.Tensor:
        """Transforms one draw's noise into the weight, float32 `shape`."""
        return self.posterior.from_noise(_to_tensors(self.parameters), noise)

    def draw(self, seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Returns draw (seed, index), float32 `shape`; training uses `sample`, whose gradient is complete."""
        return self.from_noise(self.noise(seed, index))

    def sample(self, noise: tf.Tensor) -> tf.Tensor:
        """Transforms noise into the weight with a gradient for every parameter, float32 `shape`."""
        return self.posterior.sample(_to_tensors(self.parameters), noise)

    def split(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (centre, deviation) of the draw made from `noise`; only for symmetric posteriors."""
        return self.posterior.split(_to_tensors(self.parameters), noise)

    def scale(self) -> tf.Tensor:
        """Returns each element's standard deviation, float32 `shape`; only for independent posteriors."""
        return self.posterior.distribution(_to_tensors(self.parameters)).stddev()

    def anchor_prior(self, mean: tf.Tensor) -> None:
        """Centres a prior that follows a trained weight, such as MOPED's, on `mean`; leaves others alone."""
        for name, value in self.prior.anchor(mean).items():
            self.prior_parameters[name].assign(value)

    def kl(self, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """Returns KL(posterior || prior) in nats, a scalar.

        Closed form where TFP registers one, else a Monte Carlo estimate on `value`, the draw made from `noise`.
        """
        return self.posterior.kl(_to_tensors(self.parameters), self.prior_distribution(), value, noise)

    def prior_distribution(self) -> Any:
        """Returns the prior as a TFP distribution whose batch shape broadcasts with the weight's."""
        return self.prior.distribution(_to_tensors(self.prior_parameters), self.shape)


def find_random_weights(model: keras.Layer) -> list[RandomWeight]:
    """Returns every random weight of a model, once each, in layer order.

    Raises ValueError if two weights share an id, for their noise would be the same.
    """
    weights: dict[int, RandomWeight] = {}
    for layer in flatten_layers(model):
        for weight in getattr(layer, "random_weights", ()):
            other = weights.setdefault(weight.id, weight)
            if other is not weight:
                raise ValueError(f"{weight.name} and {other.name} have the same noise id {weight.id}: rename one layer")
    return list(weights.values())


def make_noise(weights: Sequence[RandomWeight], seed: tf.Tensor | int, index: tf.Tensor) -> dict[int, tf.Tensor]:
    """Generates each weight's noise of draw (seed, index), by weight id; index [draws] adds a leading axis."""
    noise: dict[int, tf.Tensor] = {}
    for kind, generate in (("normal", threefry.normal), ("uniform", threefry.uniform)):
        shapes = {
            weight.id: weight.posterior.noise_shape(weight.shape)
            for weight in weights
            if weight.posterior.noise == kind
        }
        noise |= generate(seed, shapes, index)
    return noise


def make_noise_id(layer: str, weight: str) -> int:
    """Returns the id of a new weight: a positive int32 derived from its layer's name and its own."""
    return zlib.crc32(f"{layer}/{weight}".encode()) & 0x7FFFFFFF


def _to_tensors(variables: Mapping[str, keras.Variable]) -> dict[str, tf.Tensor]:
    # Float32 even under a mixed-precision policy: scales and densities need it.
    return {name: tf.convert_to_tensor(variable.value) for name, variable in variables.items()}
