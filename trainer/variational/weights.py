"""How a layer gets its weights: one model, several readings.

A probabilistic layer never samples by itself. Its `call` asks for its weights, and the reading in
force answers: while fitting, the estimator; at export, the posterior mean or draw (seed, index). The
idea is that of effect handlers in NumPyro and Edward2.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer.variational import philox
from probrt.trainer.variational import threefry as noise
from probrt.trainer.variational.posteriors import Posterior
from probrt.trainer.variational.priors import Prior

Linear = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_in_force: ContextVar["Reading"] = ContextVar("reading")


@dataclass(eq=False)
class RandomWeight:
    """A weight with a posterior and a prior.

    id: names its noise; stored with the model, so that a draw survives renaming and reloading.
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
        """The posterior mean, float32 `shape`."""
        return self.posterior.mean(_values(self.parameters))

    def noise(self, seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """The noise of draw (seed, index); index [draws] gives that of several, one after the other."""
        return made_noise([self], seed, index)[self.id]

    def from_noise(self, made: tf.Tensor) -> tf.Tensor:
        """The draw that one draw's noise makes, float32 `shape`."""
        return self.posterior.from_noise(_values(self.parameters), made)

    def draw(self, seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Draw (seed, index), float32 `shape`; `Fit` has the one whose every parameter gets a gradient."""
        return self.from_noise(self.noise(seed, index))

    def sample(self, made: tf.Tensor) -> tf.Tensor:
        """The draw of that noise with a gradient for every parameter, float32 `shape`."""
        return self.posterior.sample(_values(self.parameters), made)

    def split(self, made: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(centre, deviation) of the draw of that noise, for a symmetric posterior."""
        return self.posterior.split(_values(self.parameters), made)

    def scale(self) -> tf.Tensor:
        """The standard deviation of each weight of an independent posterior, float32 `shape`."""
        return self.posterior.distribution(_values(self.parameters)).stddev()

    def kl(self, value: tf.Tensor, made: tf.Tensor | None = None) -> tf.Tensor:
        """KL(posterior || prior) in nats, a scalar: closed form where TFP has one, else from `value`.

        made: the noise of that draw; left out, that of the step of the `Fit` reading in force.
        """
        in_force = _in_force.get(None)
        if made is None and isinstance(in_force, Fit):
            made = in_force.noise(self)
        prior = self.prior.distribution(_values(self.prior_parameters), self.shape)
        return self.posterior.kl(_values(self.parameters), prior, value, made)


class Reading:
    """Answers the layers' questions; each reading is made inside the function that it is used in."""

    def value(self, weight: RandomWeight) -> tf.Tensor:
        """The weight under this reading, float32 `weight.shape`."""
        raise TypeError(f"{type(self).__name__} gives no weights")

    def apply(self, op: Linear, affine: Linear, inputs: tf.Tensor, weight: RandomWeight, estimator: str) -> tf.Tensor:
        """`affine(inputs, weight)`, which is `op` and a bias; only `Fit` looks at the estimator."""
        return affine(inputs, tf.cast(self.value(weight), inputs.dtype))


class Mean(Reading):
    """Every weight at its posterior mean."""

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return weight.mean()


@dataclass(frozen=True)
class Draw(Reading):
    """Every weight at draw (seed, index): int32 scalars or Python integers."""

    seed: tf.Tensor | int
    index: tf.Tensor | int

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return weight.draw(self.seed, self.index)


@dataclass(frozen=True)
class Noise(Reading):
    """Every weight as the draw that its noise makes, by weight id; see `draws`."""

    noise: Mapping[int, tf.Tensor]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return weight.from_noise(self.noise[weight.id])


@dataclass(frozen=True)
class Constant(Reading):
    """Every weight at a value computed before tracing, by weight id: a graph with frozen draws."""

    values: Mapping[int, np.ndarray]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return tf.constant(self.values[weight.id])


@dataclass(frozen=True)
class Fit(Reading):
    """One training step: a draw of its own, named by (seed, step), used as each layer's estimator says.

    first_row: global position of the batch's first row, so that Flipout's signs do not depend on
        how a batch is split among replicas.
    """

    seed: tf.Tensor | int
    step: tf.Tensor | int
    first_row: tf.Tensor | int = 0
    drawn: dict[int, tf.Tensor] = field(default_factory=dict)
    made: dict[int, tf.Tensor] = field(default_factory=dict)

    def noise(self, weight: RandomWeight) -> tf.Tensor:
        """The noise of this step's draw: Philox, for no step's draw is ever exported."""
        if weight.id not in self.made:
            source = philox.normal if weight.posterior.noise == "normal" else philox.uniform
            shape = weight.posterior.noise_shape(weight.shape)
            self.made[weight.id] = source(self.seed, weight.id, self.step, shape)
        return self.made[weight.id]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        if weight.id not in self.drawn:
            self.drawn[weight.id] = weight.sample(self.noise(weight))
        return self.drawn[weight.id]

    def apply(self, op: Linear, affine: Linear, inputs: tf.Tensor, weight: RandomWeight, estimator: str) -> tf.Tensor:
        from probrt.trainer.variational.estimators import ESTIMATORS

        return ESTIMATORS[estimator](op, affine, inputs, weight, self)


@contextmanager
def reading(chosen: Reading) -> Iterator[Reading]:
    """Puts a reading in force for the block."""
    token = _in_force.set(chosen)
    try:
        yield chosen
    finally:
        _in_force.reset(token)


def current() -> Reading:
    """The reading in force; RuntimeError if there is none, for a default would be a silent choice."""
    try:
        return _in_force.get()
    except LookupError:
        raise RuntimeError(
            "no reading in force: call the model inside `with reading(Mean())`, Draw(seed, index) or Fit(seed, step)"
        ) from None


def read(weight: "RandomWeight | keras.Variable | None") -> tf.Tensor | None:
    """A layer's weight under the reading in force; a deterministic one is itself, None stays None."""
    if isinstance(weight, RandomWeight):
        return current().value(weight)
    return None if weight is None else tf.convert_to_tensor(weight)


def applied(
    op: Linear,
    inputs: tf.Tensor,
    weight: "RandomWeight | keras.Variable",
    estimator: str,
    bias: "RandomWeight | keras.Variable | None" = None,
) -> tf.Tensor:
    """`op(inputs, weight) + bias` under the reading in force; `op` is linear in both arguments."""
    added = read(bias)

    def affine(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # The bias is added right behind the product, where TensorFlow fuses the two.
        outputs = op(inputs, kernel)
        return outputs if added is None else tf.nn.bias_add(outputs, tf.cast(added, outputs.dtype))

    if isinstance(weight, RandomWeight):
        return current().apply(op, affine, inputs, weight, estimator)
    return affine(inputs, tf.cast(tf.convert_to_tensor(weight), inputs.dtype))


def random_weights(model: keras.Layer) -> list[RandomWeight]:
    """Every random weight of a model, once each, in the order of its layers.

    ValueError if two weights share an id: their noise would be the same.
    """
    found: dict[int, RandomWeight] = {}
    for layer in model._flatten_layers():
        for weight in getattr(layer, "random_weights", ()):
            other = found.setdefault(weight.id, weight)
            if other is not weight:
                raise ValueError(f"{weight.name} and {other.name} have the same noise id {weight.id}: rename one layer")
    return list(found.values())


def made_noise(weights: Sequence[RandomWeight], seed: tf.Tensor | int, index: tf.Tensor) -> dict[int, tf.Tensor]:
    """Each weight's noise of draw (seed, index), by id; index [draws] gives that of several."""
    found = {}
    for kind, source in (("normal", noise.normal), ("uniform", noise.uniform)):
        shapes = {
            weight.id: weight.posterior.noise_shape(weight.shape)
            for weight in weights
            if weight.posterior.noise == kind
        }
        found |= source(seed, shapes, index)
    return found


def draws(model: keras.Layer, seed: tf.Tensor | int, indices: tf.Tensor, count: int) -> list[Noise]:
    """Readings of `count` draws (seed, indices[i]); the noise is made for all of them and all weights at once."""
    several = made_noise(random_weights(model), seed, indices)
    made = {id: tf.unstack(one, num=count) for id, one in several.items()}
    return [Noise({id: one[draw] for id, one in made.items()}) for draw in range(count)]


def constants(model: keras.Layer, chosen: Reading) -> dict[int, np.ndarray]:
    """Every random weight under a reading as NumPy arrays, by weight id; call it outside a trace."""
    return {weight.id: chosen.value(weight).numpy() for weight in random_weights(model)}


def noise_id(layer: str, weight: str) -> int:
    """The id of a new weight: positive, from its layer's name and its own."""
    return zlib.crc32(f"{layer}/{weight}".encode()) & 0x7FFFFFFF


def _values(variables: Mapping[str, keras.Variable]) -> dict[str, tf.Tensor]:
    # Float32 even under a mixed-precision policy: scales and densities need it.
    return {name: tf.convert_to_tensor(variable.value) for name, variable in variables.items()}
