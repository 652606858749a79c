"""A function as a SavedModel of constants: the way to TFLite and ONNX that keeps names and values.

Converting a Keras model directly leaves its variables as reads of uninitialised resources, and LiteRT
then answers NaN; converting the frozen function directly loses the names. So: freeze, wrap, save.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def frozen(function: Callable[..., dict[str, tf.Tensor]]) -> Callable[..., dict[str, tf.Tensor]]:
    """The same tf.function with every variable a constant; inputs and outputs keep their names."""
    concrete = function.get_concrete_function()
    constant = convert_variables_to_constants_v2(concrete)
    names = sorted(concrete.structured_outputs)
    shapes = {name: concrete.structured_outputs[name].shape for name in names}

    def answer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        found = constant(*inputs)
        return {
            name: tf.ensure_shape(value, shapes[name]) if value.shape != shapes[name] else value
            for name, value in zip(names, found, strict=True)
        }

    return tf.function(answer, input_signature=function.input_signature, autograph=False)


def save(function: Callable[..., dict[str, tf.Tensor]], folder: Path) -> None:
    """Writes a frozen function as a SavedModel with the one signature `serving_default`."""
    module = tf.Module()
    module.answer = function
    tf.saved_model.save(module, folder, signatures={"serving_default": module.answer})
