"""Converts the layers of a legacy network and copies their weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer import layers
from probrt.trainer.adopt.distributions import convert_posterior, convert_prior, strip_independent
from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.variational.parameters import to_rho
from probrt.trainer.variational.random_weight import RandomWeight

# Our estimators by the ending of the name of TFP's layer. LocalReparameterization is the first, because its name ends
# as the next one's does. TFP has it for Dense only, where "auto" chooses local reparameterization if it is exact.
_ESTIMATORS = {
    "LocalReparameterization": "auto",
    "Reparameterization": "reparameterization",
    "Flipout": "flipout",
}
_CONVS = {"Conv1D": layers.Conv1D, "Conv2D": layers.Conv2D, "Conv3D": layers.Conv3D}
_DETERMINISTIC = {
    "Activation", "Add", "Average", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "BatchNormalization",
    "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "Cropping1D",
    "Cropping2D", "Cropping3D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GlobalMaxPooling3D", "LayerNormalization", "LeakyReLU", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum",
    "Multiply", "PReLU", "Permute", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D",
    "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
# Endings of settings that say how a layer starts and is regularised. Keras 3 cannot read the legacy classes there, and
# an adopted model does not need them.
_DROPPED_SETTINGS = ("_initializer", "_regularizer", "_constraint", "batch_input_shape", "build_input_shape")


def convert_network(legacy: Any) -> keras.Model:
    """Returns the Keras 3 network of a legacy Functional or Sequential model, with the same weights and posteriors.

    Raises ConfigError if the model has several inputs or outputs, or a layer that cannot be adopted.
    """
    if len(legacy.inputs) != 1 or len(legacy.outputs) != 1:
        raise ConfigError(
            f"{legacy.name}: has {len(legacy.inputs)} inputs and {len(legacy.outputs)} outputs; only models with one "
            "input and one output can be adopted"
        )
    images = keras.Input(legacy.inputs[0].shape[1:], name="input_0")
    tensors: dict[int, Any] = {id(legacy.inputs[0]): images}
    new_layers: dict[str, keras.Layer] = {}
    for _, nodes in sorted(legacy._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if node.is_input:
                continue
            old = node.layer
            if old.name not in new_layers:  # a layer can have several nodes
                new_layers[old.name] = _convert_layer(old)
            new = new_layers[old.name]
            inputs = [tensors[id(tensor)] for tensor in node.keras_inputs]
            tensors[id(node.outputs)] = new(inputs[0] if len(inputs) == 1 else inputs)
            _copy_weights(old, new)
    return keras.Model(images, tensors[id(legacy.outputs[0])])


def _convert_layer(old: Any) -> keras.Layer:
    class_name = type(old).__name__
    if type(old).__module__.startswith("tensorflow_probability"):
        return _convert_probabilistic(old, class_name)
    if class_name not in _DETERMINISTIC:
        raise ConfigError(f"{old.name}: a {class_name} layer cannot be adopted; build the model without it")
    config = {key: value for key, value in old.get_config().items() if not key.endswith(_DROPPED_SETTINGS)}
    if isinstance(config.get("axis"), list | tuple):
        config["axis"] = config["axis"][0]
    try:
        return getattr(keras.layers, class_name).from_config(config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{old.name}: a {class_name} layer cannot be adopted: {one_line(error)[:200]}") from None


def _convert_probabilistic(old: Any, class_name: str) -> keras.Layer:
    estimator = next((value for ending, value in _ESTIMATORS.items() if class_name.endswith(ending)), None)
    conv = next((layer for name, layer in _CONVS.items() if class_name.startswith(name)), None)
    is_dense = class_name.startswith("Dense")
    if estimator is None or not (is_dense or conv):
        raise ConfigError(
            f"{old.name}: TFP's {class_name} cannot be adopted; only its convolutions and Dense layers can"
        )
    settings = {
        "name": old.name,
        "use_bias": old.bias_posterior is not None,
        "activation": _activation_name(old),
        "kernel_posterior": convert_posterior(old.kernel_posterior, f"{old.name}: kernel posterior"),
        "kernel_prior": convert_prior(old.kernel_prior, f"{old.name}: kernel"),
        "bias_posterior": convert_posterior(old.bias_posterior, f"{old.name}: bias posterior"),
        "bias_prior": convert_prior(old.bias_prior, f"{old.name}: bias"),
        "estimator": estimator,
    }
    try:
        if conv is None:
            return layers.Dense(old.units, **settings)
        if old.data_format != "channels_last":
            raise ConfigError(f"{old.name}: data_format {old.data_format!r} cannot be adopted; use channels_last")
        window = {key: getattr(old, key) for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        return conv(old.filters, **window, **settings)
    except ValueError as error:  # the prior's support does not hold the posterior's, or the estimator does not suit it
        raise ConfigError(f"{one_line(error)}; it cannot be adopted") from None


def _activation_name(old: Any) -> str:
    name = "linear" if old.activation is None else getattr(old.activation, "__name__", "linear")
    try:
        keras.activations.get(name)
    except ValueError:
        raise ConfigError(f"{old.name}: activation {name!r} cannot be adopted; use one that Keras names") from None
    return name


def _copy_weights(old: Any, new: keras.Layer) -> None:
    if not isinstance(new, ProbabilisticLayer):
        new.set_weights(old.get_weights())
        return
    _assign(new.kernel, old.kernel_posterior)
    if new.bias is not None:
        _assign(new.bias, old.bias_posterior)


def _assign(weight: RandomWeight | keras.Variable, distribution: Any) -> None:
    """Assigns location and scale of a legacy posterior; a deterministic weight takes the location."""
    single = strip_independent(distribution)
    loc = np.asarray(single.loc, np.float32)
    if not isinstance(weight, RandomWeight):
        weight.assign(loc)
        return
    weight.parameters["loc"].assign(loc)
    weight.parameters["rho"].assign(to_rho(np.asarray(single.scale, np.float32)))
