"""Explains a fit that failed: which heads and which layer first produced NaN or infinity, or whose loss diverged."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.fit.objective import Objective
from probrt.trainer.fit.optimizers import trained_variables
from probrt.trainer.fit.step import StepResult
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler


def explain_nonfinite(step: int, result: StepResult, location: str, newest_checkpoint: int | None) -> str:
    """Returns the error message for a step, counted from 1, whose loss or gradient is not finite.

    location: the answer of `locate_nonfinite`. newest_checkpoint: its step, or None if there is no checkpoint.
    """
    fault = f"gradient is {result.norm}" if math.isfinite(result.loss) else f"loss is {result.loss}"
    where = f" ({location})" if location else ""
    remaining = "" if newest_checkpoint is None else f"; the checkpoint of step {newest_checkpoint} is kept"
    return f"fit: the {fault} at step {step}{where}: lower fit.learning_rate or raise fit.warmup{remaining}"


def explain_divergence(step: int, result: StepResult, start: float) -> str:
    """Returns the error message for a fit whose loss has grown far beyond that of its first step, `start`."""
    head = min(result.log_likelihood, key=lambda name: result.log_likelihood[name])
    return (
        f"fit: the loss has grown from {start:.3g} to {result.loss:.3g} at step {step}, most in head {head}: lower "
        "fit.learning_rate or raise fit.warmup, and start again with --overwrite"
    )


def locate_nonfinite(model: Model, objective: Objective, batch: dict[str, Any], handler: TrainingHandler) -> str:
    """Returns the heads and the first layer that are not finite on a batch, in words; empty if all are finite.

    Checks the outputs of the layers in the order of the network, then the KL of each weight, then the gradients.
    """
    with tf.GradientTape() as tape, use_handler(handler):
        layers = [layer for layer in model.network.layers if not isinstance(layer, keras.layers.InputLayer)]
        probe = keras.Model(model.network.input, [layer.output for layer in layers])
        outputs = probe(batch["images"], training=True)
        channels = model.channels(batch["images"], training=True)
        log_likelihoods = objective.log_likelihoods(channels, batch["targets"])
        loss = tf.reduce_mean(objective.loss(log_likelihoods))
        divergences = {weight.name: handler.kl(weight) for weight in model.weights}
        loss += tf.add_n([tf.constant(0.0), *divergences.values()])
    variables = trained_variables(model, objective)
    gradients = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
    heads = [name for name, values in log_likelihoods.items() if not _is_finite(values)]
    places = [f"head{'s' if len(heads) > 1 else ''} {', '.join(heads)}"] if heads else []
    for layer, output in zip(layers, outputs, strict=True):
        if not all(_is_finite(tensor) for tensor in tf.nest.flatten(output)):
            return ", ".join([*places, f"layer {layer.name}"])
    for name, nats in divergences.items():
        if not _is_finite(nats):
            return ", ".join([*places, f"the KL of {name}"])
    for variable, gradient in zip(variables, gradients, strict=True):
        if not _is_finite(gradient):
            return ", ".join([*places, f"the gradient of {variable.path}"])
    return ", ".join(places)


def _is_finite(values: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tf.cast(values, tf.float32))))
