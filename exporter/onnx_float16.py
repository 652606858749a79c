"""ONNX models with weights in half precision; `tflite_float16.py` does the same for TFLite."""

from __future__ import annotations

from typing import Any

import numpy as np

from probrt.exporter.graph_walk import find_needed
from probrt.runtime.bundle.manifest import NOVELTY

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_MIN_SIZE = 64


def store_weights_in_float16(model: Any) -> None:
    """Stores the weights of an ONNX model in half precision, in place; the model computes in float32.

    What only the novelty needs stays float32: its logarithms magnify rounding.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    heads = [output.name for output in graph.output if not output.name.startswith(f"{NOVELTY}.")]
    needed = find_needed([(node.input, node.output) for node in graph.node], heads)
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2 or weight.name not in needed:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < _MIN_SIZE:
            continue
        name = weight.name  # which other nodes go on reading
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
        graph.node.insert(0, helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
