"""Models of TFP's own layers, made in the legacy Keras, as probrt models.

Importing TFP's layers needs the legacy Keras package, tf_keras, which lives beside Keras 3 in one process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, DataError, one_line
from probrt.runtime.functions import load_function
from probrt.trainer import layers, store
from probrt.trainer.extensions import convert_record
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model
from probrt.trainer.variational.parameters import rho_of
from probrt.trainer.variational.posteriors import Posterior
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior, LogNormalPosterior, NormalPosterior
from probrt.trainer.variational.priors import Prior
from probrt.trainer.variational.priors.families import NormalPrior, TfpPrior
from probrt.trainer.variational.random_weight import RandomWeight

_ESTIMATORS = {
    # First, for its name ends as the next one does. TFP has it for Dense, where auto takes it if it is exact.
    "LocalReparameterization": "auto",
    "Reparameterization": "reparameterization",
    "Flipout": "flipout",
}
# Those that have a location and a scale per weight, as ours have.
_FAMILIES = {"Normal": NormalPosterior, "Laplace": LaplacePosterior, "LogNormal": LogNormalPosterior}
_CONVS = {"Conv1D": layers.Conv1D, "Conv2D": layers.Conv2D, "Conv3D": layers.Conv3D}
_PLAIN = {
    "Activation", "Add", "Average", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "BatchNormalization",
    "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "Cropping1D",
    "Cropping2D", "Cropping3D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GlobalMaxPooling3D", "LayerNormalization", "LeakyReLU", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum",
    "Multiply", "PReLU", "Permute", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D",
    "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
# How a layer starts and is regularised; the legacy classes' records mean nothing to Keras 3.
_OLD = ("_initializer", "_regularizer", "_constraint", "batch_input_shape", "build_input_shape")


def adopt(
    builder: str, weights: Path, folder: Path, name: str, input: Input, heads: Sequence[AnyHead], images: np.ndarray
) -> Model:
    """Writes a model directory for a legacy model; its outputs are the heads' channels, in their order.

    builder: `module:function`, called without arguments for the tf_keras model (Functional or Sequential).
    weights: its `save_weights` file. images: some raw inputs [count, *input.shape] for checks at export.
    Raises ConfigError where something cannot be adopted, DataError where the weights do not load.
    """
    legacy = _built(builder)
    _load(legacy, weights)
    network = converted(legacy)
    split = HeadSplit([(head.name, head.channels, int(head.per_position)) for head in heads], name="heads")
    channels = network.output_shape[-1]
    if channels != split.channels:
        raise ConfigError(f"{builder}: the model gives {channels} channels, the heads need {split.channels}")
    if list(network.input_shape[1:]) != list(input.shape):
        raise ConfigError(f"{builder}: the model takes {list(network.input_shape[1:])}, the input says {input.shape}")
    whole = keras.Model(network.input, split(_positions(network.output)), name="network")
    model = Model(name, input, tuple(heads), whole)
    store.save(model, folder, images, {"adopted": builder})
    return model


def converted(legacy: Any) -> keras.Model:
    """The Keras 3 network of a legacy Functional or Sequential model, with the same weights and posteriors."""
    made: dict[str, keras.Layer] = {}
    tensors: dict[int, Any] = {}
    inputs = [keras.Input(each.shape[1:], name=f"input_{number}") for number, each in enumerate(legacy.inputs)]
    if len(inputs) != 1 or len(legacy.outputs) != 1:
        raise ConfigError(f"{legacy.name}: one input and one output can be adopted, not {len(inputs)} and more")
    tensors[id(legacy.inputs[0])] = inputs[0]
    for _, nodes in sorted(legacy._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if node.is_input:
                continue
            old = node.layer
            new = made.setdefault(old.name, _layer(old))
            arguments = [tensors[id(each)] for each in node.keras_inputs]
            tensors[id(node.outputs)] = new(arguments[0] if len(arguments) == 1 else arguments)
            _copy(old, new)
    return keras.Model(inputs[0], tensors[id(legacy.outputs[0])])


def _layer(old: Any) -> keras.Layer:
    kind = type(old).__name__
    if type(old).__module__.startswith("tensorflow_probability"):
        return _probabilistic(old, kind)
    if kind not in _PLAIN:
        raise ConfigError(f"{old.name}: a {kind} layer cannot be adopted; build the model without it")
    config = {key: value for key, value in old.get_config().items() if not key.endswith(_OLD)}
    if isinstance(config.get("axis"), list | tuple):
        config["axis"] = config["axis"][0]
    try:
        return getattr(keras.layers, kind).from_config(config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{old.name}: a {kind} layer cannot be adopted: {one_line(error)[:200]}") from None


def _probabilistic(old: Any, kind: str) -> keras.Layer:
    estimator = next((value for key, value in _ESTIMATORS.items() if kind.endswith(key)), None)
    family = "Dense" if kind.startswith("Dense") else next((name for name in _CONVS if kind.startswith(name)), None)
    if estimator is None or family is None:
        raise ConfigError(f"{old.name}: TFP's {kind} cannot be adopted; only its convolutions and Dense layers can")
    settings = {
        "name": old.name,
        "use_bias": old.bias_posterior is not None,
        "activation": _activation(old),
        "kernel_posterior": _family(old.kernel_posterior, f"{old.name}: kernel posterior"),
        "kernel_prior": _prior(old.kernel_prior, f"{old.name}: kernel"),
        "bias_posterior": _family(old.bias_posterior, f"{old.name}: bias posterior"),
        "bias_prior": _prior(old.bias_prior, f"{old.name}: bias"),
        "estimator": estimator,
    }
    try:
        if family == "Dense":
            return layers.Dense(old.units, **settings)
        if old.data_format != "channels_last":
            raise ConfigError(f"{old.name}: data_format {old.data_format!r} cannot be adopted; use channels_last")
        window = {key: getattr(old, key) for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        return _CONVS[family](old.filters, **window, **settings)
    except ValueError as error:  # a prior that does not hold the posterior, an estimator that it cannot have
        raise ConfigError(f"{one_line(error)}; it cannot be adopted") from None


def _activation(old: Any) -> str:
    name = getattr(old.activation, "__name__", "linear") if old.activation is not None else "linear"
    try:
        keras.activations.get(name)
    except ValueError:
        raise ConfigError(f"{old.name}: activation {name!r} cannot be adopted; use one that Keras names") from None
    return name


def _single(distribution: Any) -> Any:
    """The distribution of one weight, inside tfp.layers' Independent."""
    while type(distribution).__name__ == "Independent":  # a LogNormal has a distribution inside too
        distribution = distribution.distribution
    return distribution


def _family(distribution: Any, where: str) -> Posterior | None:
    """The family of a posterior; None for a deterministic weight."""
    kind = type(_single(distribution)).__name__
    if distribution is None or "Deterministic" in kind:
        return None
    if kind not in _FAMILIES:
        raise ConfigError(f"{where}: {kind} cannot be adopted; use one of {', '.join(_FAMILIES)} or Deterministic")
    return _FAMILIES[kind]()


def _prior(distribution: Any, where: str) -> Prior | None:
    """The layer's prior where it is one distribution for all weights; it matters to training alone."""
    if distribution is None:
        return None
    single = _single(distribution)
    kind = type(single).__name__
    settings = {}
    for name in type(single).parameter_properties():
        value = single.parameters.get(name)
        if value is not None:
            values = np.asarray(value, np.float32)
            if np.ptp(values) > 0:
                raise ConfigError(f"{where} prior: its {name} differs between weights; use one for all")
            settings[name] = float(values.flat[0])
    try:
        return TfpPrior(kind, settings) if kind != "Normal" else NormalPrior(**settings)
    except (ValueError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where} prior: {kind} cannot be adopted ({one_line(error)[:200]})") from None


def _copy(old: Any, new: keras.Layer) -> None:
    if not isinstance(new, ProbabilisticLayer):
        new.set_weights(old.get_weights())
        return
    _set(new.kernel, old.kernel_posterior)
    if new.bias is not None:
        _set(new.bias, old.bias_posterior)


def _set(weight: RandomWeight | keras.Variable, distribution: Any) -> None:
    single = _single(distribution)
    loc = np.asarray(single.loc, np.float32)
    if not isinstance(weight, RandomWeight):
        weight.assign(loc)
        return
    weight.parameters["loc"].assign(loc)
    weight.parameters["rho"].assign(rho_of(np.asarray(single.scale, np.float32)))


def _built(builder: str) -> Any:
    # TFP's layers are of the legacy Keras, whatever `tf.keras` is in this process.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    try:
        make = load_function(builder, Path.cwd())
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{builder}: no such function ({one_line(error)}); name it as module:function") from None
    model = make()
    if not hasattr(model, "_nodes_by_depth"):
        raise ConfigError(
            f"{builder}: gives a {type(model).__name__}, not a built Functional or Sequential tf_keras model"
        )
    return model


def _load(legacy: Any, weights: Path) -> None:
    before = [np.array(value) for value in legacy.get_weights()]
    try:
        legacy.load_weights(str(weights))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise DataError(f"{weights}: these weights do not fit the model ({one_line(error)[:200]})") from None
    # Loading by name can succeed and change no tensor.
    if before and all(np.array_equal(old, new) for old, new in zip(before, legacy.get_weights(), strict=True)):
        raise DataError(f"{weights}: loading changed no weight; save them again with save_weights")


def _positions(outputs: Any) -> Any:
    """Outputs [batch, channels] or per position, as the split takes them: at least one position."""
    return outputs if len(outputs.shape) > 2 else keras.layers.Reshape((1, outputs.shape[-1]))(outputs)


class AdoptionCard(Struct, frozen=True, forbid_unknown_fields=True):
    """What a legacy model does not say of itself: its name, its input and its heads, from a TOML file."""

    name: str
    input: Input
    heads: list[AnyHead]


def card(path: Path) -> AdoptionCard:
    """The card in a TOML file; ConfigError says what is wrong with it."""
    try:
        return convert_record(msgspec.toml.decode(path.read_bytes()), AdoptionCard)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({one_line(error)})") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from None
