"""The functions that become graphs: one model traced under different handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import NOVELTY, PosteriorRecord
from probrt.trainer.heads import Moments
from probrt.trainer.variational.handlers import ConstantHandler, Handler, use_handler

NamedTensors = dict[str, tf.Tensor]  # by the bundle's names, `<head>.<quantity>` and `novelty.<quantity>`


class GraphFunction(Protocol):
    """A tf.function with one input signature that returns named outputs."""

    @property
    def input_signature(self) -> Sequence[tf.TensorSpec]:
        """One spec per input; its name is the input's name in the graph."""

    def get_concrete_function(self) -> Any:
        """Returns the function traced for its input signature."""

    def __call__(self, *inputs: tf.Tensor) -> NamedTensors:
        """Runs the graph."""


def compile_function(function: Callable[..., NamedTensors], input_signature: Sequence[tf.TensorSpec]) -> GraphFunction:
    """Compiles a Python function as a tf.function with one input signature."""
    compiled: GraphFunction = tf.function(function, input_signature=input_signature, autograph=False)
    return compiled


def images_spec(model: Exportable) -> tf.TensorSpec:
    """`images`, float32 [batch, *input.shape]."""
    return tf.TensorSpec([None, *model.input.shape], tf.float32, name="images")


def name_moments(moments: Mapping[str, Moments]) -> NamedTensors:
    """Returns one draw's `mean`, `aleatoric` and extras of every head by name; one draw has nothing epistemic."""
    outputs: NamedTensors = {}
    for head, values in moments.items():
        outputs |= {f"{head}.mean": values.mean, f"{head}.aleatoric": values.aleatoric}
        outputs |= {f"{head}.{extra}": value for extra, value in values.extras.items()}
    return outputs


def name_quantities(heads: Mapping[str, Mapping[str, tf.Tensor]]) -> NamedTensors:
    """Returns {head: {quantity: value}} by name."""
    return {f"{head}.{quantity}": value for head, values in heads.items() for quantity, value in values.items()}


def name_novelty(novelty: Mapping[str, tf.Tensor]) -> NamedTensors:
    """Returns the novelty by name."""
    return {f"{NOVELTY}.{quantity}": value for quantity, value in novelty.items()}


def evaluate_mean(model: Exportable, images: tf.Tensor) -> NamedTensors:
    """Computes every head's moments and the novelty; use a handler of the posterior mean."""
    moments, novelty = model.moments_and_novelty(images)
    return name_moments(moments) | name_novelty(novelty)


def combine_named(
    model: Exportable, handlers: Sequence[Handler], images: tf.Tensor, mean: Handler | None = None
) -> NamedTensors:
    """Computes all quantities of every head over the draws of some handlers, unrolled in one graph.

    mean: the handler of the posterior mean, to compute the novelty with; None leaves the novelty out.
    """
    features = model.shared_features(images)
    outputs = name_quantities(model.combine_draws(features, handlers))
    return outputs if mean is None else outputs | compute_novelty(model, features, mean)


def compute_novelty(model: Exportable, features: Any, mean: Handler) -> NamedTensors:
    """Computes the novelty by name from shared features, under the handler of the posterior mean."""
    with use_handler(mean):
        return name_novelty(model.novelty_from(features))


def make_mean_function(model: Exportable) -> GraphFunction:
    """Makes the `mean` variant: every weight is a constant at its posterior mean."""
    handler = model.constant_mean_handler()

    def mean(images: tf.Tensor) -> NamedTensors:
        with use_handler(handler):
            return evaluate_mean(model, images)

    return compile_function(mean, [images_spec(model)])


def make_draws_function(
    model: Exportable, seed: int, indices: Sequence[int], with_novelty: bool = True
) -> GraphFunction:
    """Makes one chunk of the `draws` variant: the weights of these draws are constants.

    with_novelty: in the first chunk. The others add draws to an answer that has its novelty already.
    """
    handlers = [model.constant_draw_handler(seed, index) for index in indices]
    mean = model.constant_mean_handler() if with_novelty and model.novelty else None

    def draws(images: tf.Tensor) -> NamedTensors:
        return combine_named(model, handlers, images, mean)

    return compile_function(draws, [images_spec(model)])


def compute_draws(model: Exportable, seed: int, indices: Sequence[int]) -> list[Mapping[int, npt.NDArray[np.float32]]]:
    """Computes the random weights of some draws, by weight id; of one model, not of an ensemble."""
    handlers = [model.constant_draw_handler(seed, index) for index in indices]
    return [handler.values for handler in handlers if isinstance(handler, ConstantHandler)]


def make_sampled_function(model: Exportable, posterior: PosteriorRecord) -> GraphFunction:
    """Makes the `sampled` variant: the graph makes one chunk of draws, at positions `start`, `start` + 1, …

    Its inputs seed and start are int32 vectors of length 1. With the bundle's seed a position means the bank's order,
    then the unused indices ascending; with any other seed, index = position.
    """
    chunk, table = posterior.chunk, tf.constant(index_table(posterior), tf.int32)
    mean = model.constant_mean_handler() if model.novelty else None

    def sampled(images: tf.Tensor, seed: tf.Tensor, start: tf.Tensor) -> NamedTensors:
        positions = start[0] + tf.range(chunk)
        bank_indices = tf.gather(table, tf.minimum(positions, posterior.max_samples - 1))
        in_table = (seed[0] == posterior.seed) & (positions < posterior.max_samples)
        handlers = model.draw_handlers(seed[0], tf.where(in_table, bank_indices, positions), chunk)
        return combine_named(model, handlers, images, mean)

    scalars = [tf.TensorSpec([1], tf.int32, name=name) for name in ("seed", "start")]
    return compile_function(sampled, [images_spec(model), *scalars])


def index_table(posterior: PosteriorRecord) -> npt.NDArray[np.int32]:
    """The draw index of each position under the bundle's own seed, [max_samples]."""
    used = set(posterior.order)
    unused = [index for index in range(posterior.max_samples + len(used)) if index not in used]
    return np.array([*posterior.order, *unused][: posterior.max_samples], np.int32)
