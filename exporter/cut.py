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
from probrt.trainer import weights
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model

FEATURES = "features"


@dataclass(frozen=True)
class Parts:
    """`body`: images → {"features"}; `tail`: features → the outputs of the `mean` variant."""

    body: Callable[..., Outputs]
    tail: Callable[..., Outputs]


def mean_parts(model: Model) -> Parts:
    """The `mean` variant in two functions; UsageError if the network has no one place to cut."""
    features = _features(model)
    body = keras.Model(model.network.inputs, features)
    tail = dataclasses.replace(model, network=keras.Model(features, model.network.output))
    values = weights.constants(model.network, weights.Mean())

    def made(images: tf.Tensor) -> Outputs:
        with weights.reading(weights.Constant(values)):
            return {FEATURES: tf.cast(body(images), tf.float32)}

    def answered(features: tf.Tensor) -> Outputs:
        with weights.reading(weights.Constant(values)):
            return mean_outputs(tail, features)

    spec = tf.TensorSpec(features.shape, tf.float32, name=FEATURES)
    return Parts(
        tf.function(made, input_signature=[images_spec(model)], autograph=False),
        tf.function(answered, input_signature=[spec], autograph=False),
    )


def _features(model: Model) -> keras.KerasTensor:
    """What the final layer, whose channels the heads share, takes."""
    split = next((layer for layer in model.network.layers if isinstance(layer, HeadSplit)), None)
    final = split.input._keras_history.operation if split is not None else None
    found = final.input if final is not None else None
    if not isinstance(found, keras.KerasTensor) or found in model.network.inputs:
        raise UsageError(
            f"{model.name}: no one layer in front of the final one, so nothing can be quantised; "
            "leave dynamic and int8 out of --precisions"
        )
    return found
