"""A function as a SavedModel of constants: the way to TFLite and ONNX that keeps names and values.

The converters fail on the direct ways. From a Keras model, variables become reads of uninitialised resources, and
LiteRT answers NaN; from a frozen concrete function, the names of inputs and outputs are lost. So this file freezes
the function, wraps it in a new one, and saves that.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from probrt.exporter.graphs import GraphFunction, NamedTensors, compile_function


def freeze_variables(function: GraphFunction) -> GraphFunction:
    """Returns the same function with every variable replaced by a constant; inputs and outputs keep their names."""
    concrete = function.get_concrete_function()
    constant = convert_variables_to_constants_v2(concrete)
    names = sorted(concrete.structured_outputs)
    shapes = {name: concrete.structured_outputs[name].shape for name in names}

    def answer(*inputs: tf.Tensor) -> NamedTensors:
        outputs = constant(*inputs)
        return {
            name: tf.ensure_shape(value, shapes[name]) if value.shape != shapes[name] else value
            for name, value in zip(names, outputs, strict=True)
        }

    return compile_function(answer, function.input_signature)


def save_function(function: GraphFunction, folder: Path) -> None:
    """Writes a frozen function as a SavedModel with the one signature `serving_default`."""
    module = tf.Module()
    module.answer = function
    tf.saved_model.save(module, folder, signatures={"serving_default": module.answer})
