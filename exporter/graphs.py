"""The functions that become graphs: one model traced under different handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import DrawHandler, Handler, MeanHandler, use_handler

Outputs = dict[str, tf.Tensor]
Values = Mapping[int, np.ndarray]


def images_spec(model: Model) -> tf.TensorSpec:
    """`images`, float32 [batch, *input.shape]."""
    return tf.TensorSpec([None, *model.input.shape], tf.float32, name="images")


def mean_outputs(model: Model, images: tf.Tensor) -> Outputs:
    """One pass under the handler in force: `mean`, `aleatoric` and extras of every head, nothing epistemic."""
    outputs = {}
    for name, said in model.moments(images).items():
        outputs |= {f"{name}.mean": said.mean, f"{name}.aleatoric": said.aleatoric}
        outputs |= {f"{name}.{extra}": value for extra, value in said.extras.items()}
    return outputs


def chunk_outputs(model: Model, handlers: Sequence[Handler], images: tf.Tensor) -> Outputs:
    """All quantities of every head over the draws of some handlers, unrolled in one graph."""
    return named(model.combine_draws(images, handlers))


def named(answers: Mapping[str, Mapping[str, tf.Tensor]]) -> Outputs:
    """{head: {quantity: …}} under the bundle's names, `<head>.<quantity>`."""
    return {f"{head}.{quantity}": value for head, answer in answers.items() for quantity, value in answer.items()}


def mean_function(model: Model) -> Callable[..., Outputs]:
    """The `mean` variant: every weight a constant at its posterior mean."""
    handler = model.constant_handler(MeanHandler())

    def mean(images: tf.Tensor) -> Outputs:
        with use_handler(handler):
            return mean_outputs(model, images)

    return tf.function(mean, input_signature=[images_spec(model)], autograph=False)


def draws_function(model: Model, seed: int, indices: Sequence[int]) -> Callable[..., Outputs]:
    """One chunk of the `draws` variant: the weights of these draws as constants."""
    handlers = [model.constant_handler(DrawHandler(seed, index)) for index in indices]

    def draws(images: tf.Tensor) -> Outputs:
        return chunk_outputs(model, handlers, images)

    return tf.function(draws, input_signature=[images_spec(model)], autograph=False)


def sampled_function(model: Model, posterior: PosteriorRecord) -> Callable[..., Outputs]:
    """The `sampled` variant: one chunk of draws made in the graph, those at positions `start`, `start` + 1, …

    seed and start are int32 vectors of length 1; with the bundle's seed a position means the bank's
    order, then the unused indices ascending; with any other seed, index = position.
    """
    chunk, table = posterior.chunk, tf.constant(index_table(posterior), tf.int32)

    def sampled(images: tf.Tensor, seed: tf.Tensor, start: tf.Tensor) -> Outputs:
        positions = start[0] + tf.range(chunk)
        listed = tf.gather(table, tf.minimum(positions, posterior.max_samples - 1))
        own = (seed[0] == posterior.seed) & (positions < posterior.max_samples)
        handlers = model.draw_handlers(seed[0], tf.where(own, listed, positions), chunk)
        return chunk_outputs(model, handlers, images)

    one = [tf.TensorSpec([1], tf.int32, name=name) for name in ("seed", "start")]
    return tf.function(sampled, input_signature=[images_spec(model), *one], autograph=False)


def index_table(posterior: PosteriorRecord) -> np.ndarray:
    """Index of each position up to `max_samples` for the bundle's own seed."""
    used = set(posterior.order)
    unused = [index for index in range(posterior.max_samples + len(used)) if index not in used]
    return np.array([*posterior.order, *unused][: posterior.max_samples], np.int32)
