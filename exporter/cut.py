"""The network in two parts, so that what is quantised ends before the final convolution.

A quantiser that sees the whole graph rounds the logarithms and exponentials behind it too, and with them the
variances and entropies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from probrt.exporter.graphs import Outputs, images_spec, mean_outputs
from probrt.runtime.errors import UsageError
from probrt.trainer.keras_internals import producer
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import ConstantHandler, MeanHandler, compute_weights, use_handler


@dataclass(frozen=True)
class Parts:
    """`body`: images → {"features_0": …}; `tail`: these → the outputs of the `mean` variant."""

    body: Callable[..., Outputs]
    tail: Callable[..., Outputs]
    features: list[str]


def mean_parts(model: Model) -> Parts:
    """The `mean` variant in two functions; UsageError if there is nothing in front of the final layers."""
    cut = _features(model)
    names = [f"features_{number}" for number in range(len(cut))]
    body = keras.Model(model.network.inputs, cut)
    tail = dataclasses.replace(model, network=keras.Model(cut, model.network.output))
    values = compute_weights(model.network, MeanHandler())

    def made(images: tf.Tensor) -> Outputs:
        with use_handler(ConstantHandler(values)):
            found = tf.nest.flatten(body(images, training=False))
        return {name: tf.cast(one, tf.float32) for name, one in zip(names, found, strict=True)}

    def answered(*features: tf.Tensor) -> Outputs:
        with use_handler(ConstantHandler(values)):
            return mean_outputs(tail, list(features))

    specs = [tf.TensorSpec(one.shape, tf.float32, name=name) for name, one in zip(names, cut, strict=True)]
    return Parts(
        tf.function(made, input_signature=[images_spec(model)], autograph=False),
        tf.function(answered, input_signature=specs, autograph=False),
        names,
    )


def _features(model: Model) -> list[keras.KerasTensor]:
    """What the last layers with weights take, each once: behind them there is only splitting and pooling."""
    found: dict[int, keras.KerasTensor] = {}
    waiting = list(model.network.outputs)
    while waiting:
        tensor = waiting.pop()
        operation, inputs, _ = producer(tensor)
        if not inputs:
            raise UsageError(
                f"{model.name}: a head reads the images themselves, so there is nothing to quantise; "
                "leave dynamic and int8 out of --precisions"
            )
        last = getattr(operation, "variables", []) and not isinstance(operation, HeadSplit)
        if last:
            found |= {id(one): one for one in inputs}
        else:
            waiting += inputs
    return list(found.values())
