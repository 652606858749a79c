"""TFLite files with weights in half precision; `onnx_float16.py` does the same for ONNX."""

from __future__ import annotations

import numpy as np

from probrt.exporter.graph_walk import find_needed
from probrt.exporter.tflite_file import pack_model, unpack_model
from probrt.runtime.bundle.manifest import NOVELTY

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_MIN_SIZE = 64


def store_weights_in_float16(content: bytes) -> bytes:
    """Returns the file with its weights stored in half precision; the model computes in float32.

    What only the novelty needs stays float32: its logarithms magnify rounding.
    The converter's own float16 mode halves every constant, and 1e-30, which keeps a logarithm finite, becomes 0.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpack_model(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that reads float16
    model.operatorCodes.append(code)
    operations = [(operator.inputs.tolist(), operator.outputs.tolist()) for operator in graph.operators]
    outputs = model.signatureDefs[0].outputs
    heads = [output.tensorIndex for output in outputs if not output.name.decode().startswith(f"{NOVELTY}.")]
    needed = find_needed(operations, heads)
    restoring = []
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        shape = [] if tensor.shape is None else list(tensor.shape)
        if tensor.type != schema.TensorType.FLOAT32 or data is None or index not in needed:
            continue
        if len(shape) < 2 or np.prod(shape) < _MIN_SIZE:
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
