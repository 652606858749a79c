"""Checks the classes that a saved network names, before Keras sees the file.

Keras makes an object of everything in a network's JSON that has a `class_name`. Some classes run a function that the
file names, or read other files. So a model directory may name only the classes of this page, probrt's own layers, and
classes that installed packages or the user's own program have registered with Keras.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras

# Keras's own layers, apart from those that call code or read files which the network names: Lambda, the layers of other
# frameworks and the look-up tables.
SAFE_LAYERS = {
    "Activation", "ActivityRegularization", "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D", "Add",
    "AdditiveAttention", "AlphaDropout", "Attention", "Average", "AveragePooling1D", "AveragePooling2D",
    "AveragePooling3D", "BatchNormalization", "Bidirectional", "CategoryEncoding", "CenterCrop", "Concatenate",
    "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "ConvLSTM1D", "ConvLSTM2D",
    "ConvLSTM3D", "Cropping1D", "Cropping2D", "Cropping3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D",
    "Discretization", "Dot", "Dropout", "ELU", "EinsumDense", "Embedding", "Flatten", "GRU", "GRUCell",
    "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GroupNormalization", "GroupQueryAttention",
    "HashedCrossing", "Hashing", "Identity", "InputLayer", "LSTM", "LSTMCell", "LayerNormalization", "LeakyReLU",
    "Masking", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum", "MelSpectrogram", "Minimum",
    "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "RMSNormalization", "RNN", "ReLU",
    "RepeatVector", "Rescaling", "Reshape", "Resizing", "ReversibleEmbedding", "STFTSpectrogram", "SeparableConv1D",
    "SeparableConv2D", "SimpleRNN", "SimpleRNNCell", "Softmax", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "SpectralNormalization", "StackedRNNCells", "Subtract", "TimeDistributed", "UnitNormalization",
    "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
_NETWORKS = frozenset(("Functional", "Model", "Sequential"))
# Values and tensors in JSON; `__lambda__`, which holds code, is not among them.
_VALUES = frozenset(("__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__", "__bytes__"))
# The settings of layers.
_SETTINGS: Mapping[str, type] = {
    "keras": keras.dtype_policies.DTypePolicy,
    "keras.dtype_policies": keras.dtype_policies.DTypePolicy,
    "keras.initializers": keras.initializers.Initializer,
    "keras.regularizers": keras.regularizers.Regularizer,
    "keras.constraints": keras.constraints.Constraint,
}
# The nodes of a network that `keras.ops` or an operator such as `+` made.
_OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("numpy", "nn", "image", "math", "linalg"))
# Networks of keras.applications with layers of their own.
_APPLICATIONS = tuple(f"keras.src.applications.{name}" for name in ("convnext", "inception_resnet_v2"))
_FUNCTION_MODULES = ("builtins", "keras.activations")


def vet_architecture(text: str, more_layers: Collection[str] = ()) -> str:
    """Returns the JSON of a network, written anew so that every reader understands it alike.

    more_layers: names of layers of Keras that are allowed besides SAFE_LAYERS. Raises ValueError, with the class, if it
    names one that is not allowed; RecursionError if it nests without end.
    """
    content = json.loads(text)
    for record in _find_objects(content):
        if not (_is_allowed(record) or _is_one_of(record, more_layers)):
            raise ValueError(
                f"it names the class {str(record['class_name'])[:80]!r} of {str(record.get('module'))[:80]!r}, which "
                "may call code or read files; a model directory holds Keras's and probrt's layers, and those that "
                "installed packages register"
            )
    return json.dumps(content)


def _find_objects(content: Any) -> Iterator[dict[str, Any]]:
    """Yields everything that Keras could take for a serialised object."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += value.values()


def _is_allowed(record: dict[str, Any]) -> bool:
    name, module, registered = record["class_name"], record.get("module"), record.get("registered_name")
    if not isinstance(name, str):
        return False
    if name in _VALUES:
        return True
    if not isinstance(module, str):  # a record of Keras 2, whose names Keras looks up elsewhere
        return False
    custom = keras.saving.get_custom_objects()
    if name == "function":
        function = record.get("config")
        return isinstance(function, str) and (function in custom or _is_activation(function, module))
    if isinstance(registered, str) and registered in custom:
        return getattr(custom[registered], "__name__", "") == name
    if name in _NETWORKS:
        return module in ("keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential")
    if module == "keras.layers":
        return name in SAFE_LAYERS
    if module in _APPLICATIONS:
        return _is_class(importlib.import_module(module), name, keras.Layer)
    if module in _OPERATIONS:
        return _is_class(importlib.import_module(module), name, keras.Operation)
    return module in _SETTINGS and _is_class(importlib.import_module(module), name, _SETTINGS[module])


def _is_one_of(record: dict[str, Any], layers: Collection[str]) -> bool:
    name, registered = record["class_name"], record.get("registered_name")
    return record.get("module") == "keras.layers" and isinstance(name, str) and name in layers and not registered


def _is_activation(name: str, module: str) -> bool:
    return module in _FUNCTION_MODULES and name in vars(keras.activations) and not name.startswith("_")


def _is_class(module: Any, name: str, base: type) -> bool:
    value = vars(module).get(name)
    return isinstance(value, type) and issubclass(value, base)
