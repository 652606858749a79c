"""Last-layer Laplace approximation: the posterior of the final dense layers in closed form, without any training.

At a trained network the posterior over the last layer is a normal around its weights, whose precision is the curvature
of the loss there, a sum over examples of Lambda kron phi phi^T, plus that of a normal prior; phi are the layer's inputs
and a 1 for the bias, Lambda is the Hessian of -log p(y | outputs) (MacKay 1992; Daxberger et al. 2021, eq. 6 to 8).
Up to 4096 weights keep all covariances. Beyond, the sum is approximated by one Kronecker product (Ritter, Botev and
Barber 2018).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer import data, layers
from probrt.trainer.adopt.assemble import Assembly
from probrt.trainer.adopt.curvature import Curvature, Floats, choose_precision
from probrt.trainer.data import Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.keras_internals import producer
from probrt.trainer.layers.append_one import AppendOne
from probrt.trainer.variational.parameters import to_rho
from probrt.trainer.variational.random_weight import RandomWeight

_BATCH = 64


@dataclass(frozen=True)
class LaplaceFit:
    """The posterior of a final layer: the number of weights, the form of the covariance, the precision of the prior."""

    layer: str
    weights: int
    form: str
    precision: float


def make_laplace(
    assembly: Assembly, train: Examples, validation: Examples, seed: int
) -> tuple[Assembly, list[LaplaceFit]]:
    """Returns the network with a posterior over its final layers, and what was fitted.

    train: should be the examples that the network was trained on; of fewer, the posterior is wider. validation: choose
    the precision of the prior. Raises ConfigError for an output that no dense layer on feature vectors gives.
    """
    finals = [_find_dense(output) for output in assembly.outputs]
    network = keras.Model(assembly.images, [inputs for _, inputs in finals])
    features, held_out = _compute_features(network, train), _compute_features(network, validation)
    outputs, fits = [], []
    for place, ((dense, inputs), group) in enumerate(zip(finals, assembly.groups, strict=True)):
        mean = _read_weights(dense)
        to_channels = assembly.to_channels(place)
        hessians = _compute_hessians(group, to_channels, features[place] @ mean, train.targets)
        curvature = Curvature.of(features[place], hessians)
        log_likelihood = _make_log_likelihood(group, to_channels, validation.targets)
        precision = choose_precision(curvature, mean, held_out[place], log_likelihood, seed)
        outputs.append(_replace_dense(dense, inputs, mean, curvature, precision))
        form = "Kronecker" if isinstance(curvature.vectors, tuple) else "full"
        fits.append(LaplaceFit(dense.name, mean.size, form, precision))
    return dataclasses.replace(assembly, outputs=tuple(outputs)), fits


def _find_dense(output: keras.KerasTensor) -> tuple[keras.layers.Dense, keras.KerasTensor]:
    operation, inputs, _ = producer(output)
    if type(operation) is not keras.layers.Dense or len(output.shape) != 2:
        raise ConfigError(
            f"the last layer is {operation.name} ({type(operation).__name__}), and the Laplace approximation needs a "
            "Dense layer on feature vectors; use --method moped"
        )
    return operation, inputs[0]


def _read_weights(dense: keras.layers.Dense) -> Floats:
    """Returns the kernel with the bias as its last row, [inputs + 1, units]."""
    kernel = np.asarray(dense.kernel, np.float64)
    bias = np.zeros(kernel.shape[1]) if dense.bias is None else np.asarray(dense.bias, np.float64)
    return np.concatenate([kernel, bias[None]])


def _compute_features(network: keras.Model, examples: Examples) -> list[Floats]:
    """Returns the inputs of each final layer with a 1 for the bias, [n, inputs + 1]."""

    @tf.function(reduce_retracing=True, autograph=False)
    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(tensor, tf.float32) for tensor in tf.nest.flatten(network(images, training=False))]

    batches = [compute(batch["images"]) for batch in data.evaluation_batches(examples, _BATCH)]
    features = [
        np.concatenate([part.numpy() for part in parts]).astype(np.float64) for parts in zip(*batches, strict=True)
    ]
    return [np.concatenate([values, np.ones((len(values), 1))], axis=1) for values in features]


def _compute_hessians(
    heads: Sequence[AnyHead], to_channels: keras.Model, outputs: Floats, targets: dict[str, np.ndarray]
) -> Floats:
    """Returns the Hessian of -log p by the outputs of each example, [n, units, units]; a missing target adds none."""

    @tf.function(reduce_retracing=True, autograph=False)
    def compute(outputs: tf.Tensor, targets: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(outputs)
            with tf.GradientTape() as inner:
                inner.watch(outputs)
                loss = -_log_prob(heads, to_channels, outputs, targets)
            gradient = inner.gradient(loss, outputs)
        return outer.batch_jacobian(gradient, outputs)

    parts = []
    for start in range(0, len(outputs), _BATCH):
        rows = slice(start, start + _BATCH)
        values = {head.name: tf.constant(targets[head.name][rows]) for head in heads}
        parts.append(compute(tf.constant(outputs[rows], tf.float32), values).numpy())
    return np.concatenate(parts).astype(np.float64)


def _make_log_likelihood(
    heads: Sequence[AnyHead], to_channels: keras.Model, targets: dict[str, np.ndarray]
) -> Callable[[Floats], Floats]:
    values = {head.name: tf.constant(targets[head.name]) for head in heads}

    @tf.function(autograph=False)
    def compute(outputs: tf.Tensor) -> tf.Tensor:
        return _log_prob(heads, to_channels, outputs, values)

    return lambda outputs: compute(tf.constant(outputs, tf.float32)).numpy().astype(np.float64)


def _log_prob(
    heads: Sequence[AnyHead], to_channels: keras.Model, outputs: tf.Tensor, targets: dict[str, tf.Tensor]
) -> tf.Tensor:
    channels = to_channels(outputs)
    return tf.add_n([head.log_prob(channels[head.name], targets[head.name]) for head in heads])


def _replace_dense(
    dense: keras.layers.Dense, inputs: keras.KerasTensor, mean: Floats, curvature: Curvature, precision: float
) -> keras.KerasTensor:
    """Returns the outputs of a layer with the posterior in place of a dense layer; the bias is a row of its kernel."""
    parameters: dict[str, Any] = {"loc": mean}
    if isinstance(curvature.vectors, tuple):
        family = "kronecker_normal"
        rotations = dict(zip(("inputs_rotation", "outputs_rotation"), curvature.vectors, strict=True))
        parameters |= {"rho": to_rho(curvature.deviations(precision)), **rotations}
    else:
        family = "full_normal"
        parameters["factor"] = curvature.factor(precision)
    layer = layers.Dense(
        mean.shape[1],
        use_bias=False,
        kernel_posterior={"name": family},
        kernel_prior={"name": "normal", "scale": precision**-0.5},
        name=dense.name,
    )
    outputs = layer(AppendOne(name=f"{dense.name}_bias")(inputs))
    assert isinstance(layer.kernel, RandomWeight)
    for name, value in parameters.items():
        layer.kernel.parameters[name].assign(value)
    return outputs
