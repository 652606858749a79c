"""Handlers decide which value each random weight takes: one model, traced under different handlers.

A probabilistic layer never samples by itself. Its `call` asks the active handler for its weights. While training,
`estimators.TrainingHandler` answers with the layer's estimator; at export the handlers of this file answer with the
posterior mean or with draw (seed, index). The idea is that of effect handlers in NumPyro and Edward2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights, make_noise
from probrt.trainer.variational.tuned_draws import TunedDraws

LinearOp = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_active: ContextVar[Handler] = ContextVar("handler")


class Handler:
    """Base handler: decides which value a random weight takes. Create it inside the function that uses it."""

    def value(self, weight: RandomWeight) -> tf.Tensor:
        """Returns the weight's value under this handler, float32 `weight.shape`."""
        raise TypeError(f"{type(self).__name__} gives no weights")

    def apply(
        self, op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, *, estimator: str
    ) -> tf.Tensor:
        """Returns `affine(inputs, weight)`, which is `op` plus the bias; only training uses the estimator."""
        del op, estimator
        return affine(inputs, tf.cast(self.value(weight), inputs.dtype))

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Returns outputs [batch, …, channels] + bias [channels]."""
        return tf.nn.bias_add(outputs, bias)


class MeanHandler(Handler):
    """Sets every weight to its posterior mean."""

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return weight.mean()


@dataclass(frozen=True)
class DrawHandler(Handler):
    """Sets every weight to draw (seed, index): int32 scalars or Python integers.

    noise: by weight id, takes the place of what would be generated; see `tuned_draws.py`.
    """

    seed: tf.Tensor | int
    index: tf.Tensor | int
    noise: Mapping[int, tf.Tensor] = field(default_factory=dict)

    def value(self, weight: RandomWeight) -> tf.Tensor:
        if weight.id in self.noise:
            return weight.from_noise(self.noise[weight.id])
        return weight.draw(self.seed, self.index)


@dataclass(frozen=True)
class NoiseHandler(Handler):
    """Sets every weight to the draw made from its precomputed noise, by weight id; see `make_draw_handlers`."""

    noise: Mapping[int, tf.Tensor]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return weight.from_noise(self.noise[weight.id])


@dataclass(frozen=True)
class ValueHandler(Handler):
    """Sets every weight to a tensor of the graph that uses it, by weight id."""

    values: Mapping[int, tf.Tensor]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return self.values[weight.id]


@dataclass(frozen=True)
class ConstantHandler(Handler):
    """Sets every weight to a value computed before tracing, by weight id: a graph with frozen draws."""

    values: Mapping[int, np.ndarray]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        return tf.constant(self.values[weight.id])


@contextmanager
def use_handler(handler: Handler) -> Iterator[Handler]:
    """Makes a handler active for the block."""
    token = _active.set(handler)
    try:
        yield handler
    finally:
        _active.reset(token)


def active_handler() -> Handler:
    """Returns the active handler; raises RuntimeError if there is none: a default would be a silent choice."""
    try:
        return _active.get()
    except LookupError:
        raise RuntimeError(
            "no handler is active: call the model inside `with use_handler(MeanHandler())`, "
            "DrawHandler(seed, index) or TrainingHandler(seed, step), or use probrt.trainer.keras_model.BayesianModel"
        ) from None


def read_weight(weight: RandomWeight | keras.Variable | None) -> tf.Tensor | None:
    """Returns a layer's weight under the active handler; a deterministic one as it is, None for None."""
    if isinstance(weight, RandomWeight):
        return active_handler().value(weight)
    return None if weight is None else tf.convert_to_tensor(weight)


def apply_linear(
    op: LinearOp,
    inputs: tf.Tensor,
    weight: RandomWeight | keras.Variable,
    *,
    estimator: str,
    bias: RandomWeight | keras.Variable | None = None,
) -> tf.Tensor:
    """Returns `op(inputs, weight) + bias` under the active handler; `op` is linear in both arguments."""
    bias_value = read_weight(bias)
    handler = active_handler() if isinstance(weight, RandomWeight) else Handler()

    def affine(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # The bias is added right behind the product, where TensorFlow fuses the two.
        outputs = op(inputs, kernel)
        return outputs if bias_value is None else handler.add_bias(outputs, tf.cast(bias_value, outputs.dtype))

    if isinstance(weight, RandomWeight):
        return handler.apply(op, affine, inputs, weight, estimator=estimator)
    return affine(inputs, tf.cast(tf.convert_to_tensor(weight), inputs.dtype))


def make_draw_handlers(
    model: keras.Layer, seed: tf.Tensor | int, indices: tf.Tensor, count: int, tuned: TunedDraws | None = None
) -> list[NoiseHandler]:
    """Returns handlers of `count` draws (seed, indices[i]); makes the noise of all draws and weights at once.

    tuned: the draws whose noise is another.
    """
    noise = make_noise(find_random_weights(model), seed, indices)
    if tuned is not None:
        noise = tuned.replace_noise(noise, seed, indices)
    by_draw = {id: tf.unstack(values, num=count) for id, values in noise.items()}
    return [NoiseHandler({id: values[draw] for id, values in by_draw.items()}) for draw in range(count)]


def compute_weights(model: keras.Layer, handler: Handler) -> dict[int, np.ndarray]:
    """Computes every random weight under a handler, by weight id; call it outside a trace."""
    return {weight.id: handler.value(weight).numpy() for weight in find_random_weights(model)}
