"""The network split before its final layers, so that quantisation ends there.

A quantiser that sees the whole graph also rounds the logarithms and exponentials behind the final layers, and with
them the variances and entropies.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import keras
import tensorflow as tf

from probrt.exporter.constants import freeze_variables
from probrt.exporter.graphs import GraphFunction, NamedTensors, compile_function, images_spec, name_moments
from probrt.runtime.errors import UsageError
from probrt.trainer.keras_internals import producer
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import ConstantHandler, MeanHandler, compute_weights, use_handler


@dataclass(frozen=True)
class SplitNetwork:
    """The `mean` variant as two frozen functions.

    body: images → {"features_0": …}. tail: these features → the outputs of the `mean` variant. features: their names.
    """

    body: GraphFunction
    tail: GraphFunction
    features: list[str]


def split_before_final_layers(model: Model) -> SplitNetwork:
    """Splits the `mean` variant in two; UsageError if no layers come before the final ones."""
    features = _final_inputs(model)
    names = [f"features_{position}" for position in range(len(features))]
    body_network = keras.Model(model.network.inputs, features)
    tail_model = dataclasses.replace(model, network=keras.Model(features, model.network.output))
    values = compute_weights(model.network, MeanHandler())

    def body(images: tf.Tensor) -> NamedTensors:
        with use_handler(ConstantHandler(values)):
            tensors = tf.nest.flatten(body_network(images, training=False))
        return {name: tf.cast(tensor, tf.float32) for name, tensor in zip(names, tensors, strict=True)}

    def tail(*tensors: tf.Tensor) -> NamedTensors:
        with use_handler(ConstantHandler(values)):
            return name_moments(tail_model.moments(list(tensors)))

    specs = [tf.TensorSpec(feature.shape, tf.float32, name=name) for name, feature in zip(names, features, strict=True)]
    return SplitNetwork(
        freeze_variables(compile_function(body, [images_spec(model)])),
        freeze_variables(compile_function(tail, specs)),
        names,
    )


def _final_inputs(model: Model) -> list[keras.KerasTensor]:
    """Returns the distinct inputs of the final layers with weights; behind those, heads only split and pool."""
    inputs_by_id: dict[int, keras.KerasTensor] = {}
    pending = list(model.network.outputs)
    while pending:
        operation, inputs, _ = producer(pending.pop())
        if not inputs:
            raise UsageError(
                f"{model.name}: a head reads the images directly, so there is nothing to quantise; "
                "leave dynamic and int8 out of --precisions"
            )
        if getattr(operation, "variables", []) and not isinstance(operation, HeadSplit):
            inputs_by_id |= {id(tensor): tensor for tensor in inputs}
        else:
            pending += inputs
    return list(inputs_by_id.values())
