"""Turns a finished Keras model into a flat functional network whose outputs are logits or values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer.adopt.keras_file import AUGMENTATIONS
from probrt.trainer.heads import AnyHead
from probrt.trainer.keras_internals import flatten_layers, inline_layers, is_functional, producer

# The last activation that a model of each kind of head may have besides none; heads take what comes before it.
_ACTIVATIONS = {"class": "softmax", "binary": "sigmoid"}


def to_functional(model: keras.Model, shape: Sequence[int | None]) -> keras.Model:
    """Returns a flat functional network with the layers and weights of a copy of the model.

    shape: of an input without the batch. Layers of augmentation are left out. A subclassed model is traced: its `call`
    may use layers and keras.ops only. Raises ConfigError for a model that has several inputs or cannot be traced.
    """
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    if not is_functional(model):
        return _trace(model, shape)
    if len(model.inputs) != 1:
        raise ConfigError(f"{model.name}: takes {len(model.inputs)} inputs; only models with one can be adopted")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    images = keras.Input(shape, name="images")
    try:
        flat = keras.Model(images, inline_layers(copy, images, _is_augmentation), name=model.name)
    except ValueError:  # two nested models have layers of one name: they stay nested
        flat = keras.Model(images, copy(images), name=model.name)
    for layer in flatten_layers(flat):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # its statistics belong to the trained weights
    return flat


def list_outputs(network: keras.Model, heads: Sequence[AnyHead]) -> list[Any]:
    """Returns the network's outputs: one for each head, or one for all of them.

    Outputs with names are found by the heads' names, others by their order.
    """
    outputs = network.output
    if isinstance(outputs, Mapping):
        missing = [head.name for head in heads if head.name not in outputs]
        if not missing:
            return [outputs[head.name] for head in heads]
        if len(outputs) > 1 or len(heads) > 1:
            raise ConfigError(f"heads: no output is named {missing[0]!r}; the model has {', '.join(outputs)}")
    tensors = list(outputs.values()) if isinstance(outputs, Mapping) else network.outputs
    if len(tensors) not in (1, len(heads)):
        raise ConfigError(
            f"heads: the model has {len(tensors)} outputs, the file {len(heads)} heads; write one for each"
        )
    return list(tensors)


def strip_activation(output: keras.KerasTensor, heads: Sequence[AnyHead]) -> keras.KerasTensor:
    """Returns the logits or values behind a final softmax or sigmoid; the layer itself becomes linear.

    heads: that read the output. Raises ConfigError for an activation that does not fit their likelihood.
    """
    operation, inputs, _ = producer(output)
    wanted = {_ACTIVATIONS.get(head.kind, "linear") for head in heads}
    name = _activation_name(operation)
    if name == "linear":
        return output
    if wanted != {name}:
        raise ConfigError(
            f"heads: {', '.join(head.name for head in heads)}: the model's last activation is {name}, and "
            f"{' and '.join(sorted({head.likelihood for head in heads}))} takes {' or '.join(sorted(wanted))} or none"
        )
    if getattr(operation, "weights", []):
        operation.activation = keras.activations.linear
        return output
    return inputs[0]


def _activation_name(operation: Any) -> str:
    """Returns the name of the activation that a layer or operation applies last."""
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    if not isinstance(operation, keras.Layer):
        name = type(operation).__name__.lower()
        return name if name in _ACTIVATIONS.values() else "linear"
    return getattr(getattr(operation, "activation", None), "__name__", "linear")


def _is_augmentation(operation: Any) -> bool:
    return type(operation).__name__ in AUGMENTATIONS and type(operation).__module__.startswith("keras.")


def _trace(model: keras.Model, shape: Sequence[int | None]) -> keras.Model:
    """Calls the `call` of a subclassed model on a symbolic input, so that its layers become nodes."""
    images = keras.Input(shape, name="images")
    try:
        network = keras.Model(images, model.call(images), name=model.name)
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
    except Exception as error:  # the user's own code
        raise ConfigError(
            f"{model.name}: is neither Functional nor Sequential and cannot be traced ({one_line(error)[:200]}); its "
            "call may use Keras layers and keras.ops only"
        ) from None
    if len(copy.layers) < 3 and any(layer is model for layer in network.layers):
        raise ConfigError(f"{model.name}: its call cannot be traced into layers; rebuild it as a functional model")
    return copy
