"""TFLite files in less than float32: weights in half precision or int8, or weights and activations in int8.

`onnx_quantize.py` does the same for ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.tflite_file import pack_model, unpack_model
from probrt.runtime.bundle.manifest import Precision

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_MIN_SIZE = 64


def configure_int8(converter: Any, precision: Precision, images: npt.NDArray[np.float32] | None) -> None:
    """Sets a TFLite converter to int8 weights (`dynamic`), or int8 weights and activations (`int8`); else does nothing.

    images: representative inputs [count, *input.shape]; the ranges of the activations are measured on them.
    """
    if precision in ("dynamic", "int8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "int8" and images is not None:
        converter.representative_dataset = lambda: _batches_of_one(images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]


def store_weights_in_float16(content: bytes) -> bytes:
    """Returns the file with its weights stored in half precision; the model computes in float32.

    The converter's own float16 mode halves every constant, and 1e-30, which keeps a logarithm finite, becomes 0.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpack_model(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that reads float16
    model.operatorCodes.append(code)
    restoring = []
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        shape = [] if tensor.shape is None else list(tensor.shape)
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(shape) < 2 or np.prod(shape) < _MIN_SIZE:
            continue
        values = np.frombuffer(bytes(data), np.float32).astype(np.float16)
        half, buffer, operator = schema.TensorT(), schema.BufferT(), schema.OperatorT()
        half.shape, half.type, half.buffer = tensor.shape, schema.TensorType.FLOAT16, len(model.buffers)
        half.name = tensor.name + b"/half"
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs = np.array([len(graph.tensors)], np.int32)
        operator.outputs = np.array([index], np.int32)
        model.buffers.append(buffer)
        graph.tensors.append(half)
        restoring.append(operator)
        tensor.buffer = 0
    used = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    graph.operators = restoring + graph.operators
    return pack_model(model)


def join_models(body: bytes, tail: bytes) -> bytes:
    """Joins two files: the outputs of `body` become the inputs of `tail`, by the names of their signatures."""
    first, second = unpack_model(body), unpack_model(tail)
    body_graph, tail_graph = first.subgraphs[0], second.subgraphs[0]
    body_outputs = _tensor_indices(first.signatureDefs[0].outputs)
    replaced = {index: body_outputs[name] for name, index in _tensor_indices(second.signatureDefs[0].inputs).items()}
    tensor_shift, buffer_shift, code_shift = len(body_graph.tensors), len(first.buffers), len(first.operatorCodes)

    def move_index(index: int) -> int:
        return index if index < 0 else replaced.get(index, index + tensor_shift)

    for tensor in tail_graph.tensors:
        tensor.buffer += buffer_shift
    for operator in tail_graph.operators:
        operator.opcodeIndex += code_shift
        operator.inputs = np.array([move_index(index) for index in operator.inputs], np.int32)
        operator.outputs = np.array([move_index(index) for index in operator.outputs], np.int32)
    first.buffers += second.buffers
    first.operatorCodes += second.operatorCodes
    body_graph.tensors += tail_graph.tensors
    body_graph.operators += tail_graph.operators
    body_graph.outputs = np.array([move_index(index) for index in tail_graph.outputs], np.int32)
    first.signatureDefs[0].outputs = second.signatureDefs[0].outputs
    for output in first.signatureDefs[0].outputs:
        output.tensorIndex = move_index(output.tensorIndex)
    return pack_model(first)


def _batches_of_one(images: npt.NDArray[np.float32]) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    for image in images:
        yield {"images": image[None]}


def _tensor_indices(maps: list[Any]) -> dict[str, int]:
    """Returns the tensor index of each input or output of a signature, by name."""
    return {entry.name.decode(): int(entry.tensorIndex) for entry in maps}
