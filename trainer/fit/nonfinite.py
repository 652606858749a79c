"""Where a step first met NaN or infinity: the head, and the layer."""

from __future__ import annotations

import keras
import tensorflow as tf

from probrt.trainer.fit.objective import Objective
from probrt.trainer.fit.step import trained
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler


def culprit(model: Model, objective: Objective, one: dict, seed: int, index: int) -> str:
    """The heads and the first layer that are not finite on a batch and draw, in words; empty if all are.

    Layers are looked at in the order of the network: outputs, then divergences, then gradients.
    """
    with tf.GradientTape() as tape, use_handler(TrainingHandler(seed, index)) as handler:
        layers = [layer for layer in model.network.layers if not isinstance(layer, keras.layers.InputLayer)]
        outputs = keras.Model(model.network.input, [layer.output for layer in layers])(one["images"], training=True)
        channels = model.channels(one["images"], training=True)
        terms = objective.terms(channels, one["targets"])
        loss = tf.reduce_mean(objective.loss(terms))
        divergences = {weight.name: handler.kl(weight) for weight in model.weights}
        loss += tf.add_n([tf.constant(0.0), *divergences.values()])
    variables = trained(model, objective)
    gradients = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
    heads = [name for name, term in terms.items() if not _finite(term)]
    found = [f"head{'s' if len(heads) > 1 else ''} {', '.join(heads)}"] if heads else []
    for layer, output in zip(layers, outputs, strict=True):
        if not all(_finite(part) for part in tf.nest.flatten(output)):
            return ", ".join([*found, f"layer {layer.name}"])
    for name, nats in divergences.items():
        if not _finite(nats):
            return ", ".join([*found, f"the KL of {name}"])
    for variable, gradient in zip(variables, gradients, strict=True):
        if not _finite(gradient):
            return ", ".join([*found, f"the gradient of {variable.path}"])
    return ", ".join(found)


def _finite(value: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32))))
