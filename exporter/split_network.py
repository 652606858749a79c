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
from probrt.exporter.graphs import (
    GraphFunction,
    NamedTensors,
    compile_function,
    images_spec,
    name_moments,
    name_novelty,
)
from probrt.runtime.errors import UsageError
from probrt.trainer.model import Model
from probrt.trainer.novelty.stages import final_inputs
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
    """Splits the `mean` variant in two; UsageError if no layers come before the final ones.

    The features of novelty leave the body too, so that nothing of its distances is quantised.
    """
    inputs = final_inputs(model.network)
    if any(tensor is image for tensor in inputs for image in model.network.inputs):
        raise UsageError(
            f"{model.name}: a head reads the images directly, so there is nothing to quantise; "
            "leave dynamic and int8 out of --precisions"
        )
    features = list({id(tensor): tensor for tensor in (*inputs, *model.stages)}.values())
    names = [f"features_{position}" for position in range(len(features))]
    places = [next(place for place, tensor in enumerate(features) if tensor is stage) for stage in model.stages]
    body_network = keras.Model(model.network.inputs, features)
    tail_network = keras.Model(inputs, model.network.output)
    tail_model = dataclasses.replace(model, network=tail_network, novelty=None)
    values = compute_weights(model.network, MeanHandler())

    def body(images: tf.Tensor) -> NamedTensors:
        with use_handler(ConstantHandler(values)):
            tensors = tf.nest.flatten(body_network(images, training=False))
        return {name: tf.cast(tensor, tf.float32) for name, tensor in zip(names, tensors, strict=True)}

    def tail(*tensors: tf.Tensor) -> NamedTensors:
        with use_handler(ConstantHandler(values)):
            outputs = name_moments(tail_model.moments(list(tensors[: len(inputs)])))
        return outputs | name_novelty(model.score_stages([tensors[place] for place in places]))

    specs = [tf.TensorSpec(feature.shape, tf.float32, name=name) for name, feature in zip(names, features, strict=True)]
    return SplitNetwork(
        freeze_variables(compile_function(body, [images_spec(model)])),
        freeze_variables(compile_function(tail, specs)),
        names,
    )
