"""TFLite files: graphs of builtin ops, one signature, names kept."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.exporter import constants as frozen
from probrt.runtime.errors import ParityError, one_line
from probrt.runtime.hush import hush

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_SMALL = 64


def tflite(
    function: Callable[..., dict[str, tf.Tensor]],
    name: str,
    precision: str = "float32",
    images: np.ndarray | None = None,
) -> bytes:
    """The bytes of a TFLite file for a frozen function; ParityError names the file and the op that does not convert.

    images: representative inputs, for int8.
    """
    with tempfile.TemporaryDirectory() as folder:
        frozen.save(function, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if precision in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "int8":
            converter.representative_dataset = lambda: _one_by_one(images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            with warnings.catch_warnings(), hush():  # its calibrator warns of the interpreter that it uses itself
                warnings.simplefilter("ignore")
                content: bytes = converter.convert()
        except Exception as error:  # the converter raises its own private classes
            raise ParityError(f"{name}: does not convert to TFLite: {one_line(error)[:300]}") from None
    return halved(content) if precision == "float16" else content


def halved(content: bytes) -> bytes:
    """The file with its weights stored in half precision; it computes in float32.

    The converter's own float16 halves every constant, and 1e-30, which keeps a logarithm finite, becomes 0.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = _unpacked(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that reads float16
    model.operatorCodes.append(code)
    restored = []
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        shape = [] if tensor.shape is None else list(tensor.shape)
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(shape) < 2 or np.prod(shape) < _SMALL:
            continue
        values = np.frombuffer(bytes(data), np.float32).astype(np.float16)
        half, buffer, operator = schema.TensorT(), schema.BufferT(), schema.OperatorT()
        half.shape, half.type, half.buffer = tensor.shape, schema.TensorType.FLOAT16, len(model.buffers)
        half.name = tensor.name + b"/half"
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [np.array([one], np.int32) for one in (len(graph.tensors), index)]
        model.buffers.append(buffer)
        graph.tensors.append(half)
        restored.append(operator)
        tensor.buffer = 0
    used = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    graph.operators = restored + graph.operators
    return _packed(model)


def joined(body: bytes, tail: bytes) -> bytes:
    """Two files as one: the outputs of `body` are the inputs of `tail`, by the names of their signatures."""
    first, second = _unpacked(body), _unpacked(tail)
    before, after = first.subgraphs[0], second.subgraphs[0]
    moved = {
        _index(second.signatureDefs[0].inputs, name): _index(first.signatureDefs[0].outputs, name)
        for name in _names(second.signatureDefs[0].inputs)
    }
    shift, buffers, codes = len(before.tensors), len(first.buffers), len(first.operatorCodes)

    def placed(index: int) -> int:
        return index if index < 0 else moved.get(index, index + shift)

    for tensor in after.tensors:
        tensor.buffer += buffers
    for operator in after.operators:
        operator.opcodeIndex += codes
        operator.inputs = np.array([placed(index) for index in operator.inputs], np.int32)
        operator.outputs = np.array([placed(index) for index in operator.outputs], np.int32)
    first.buffers += second.buffers
    first.operatorCodes += second.operatorCodes
    before.tensors += after.tensors
    before.operators += after.operators
    before.outputs = np.array([placed(index) for index in after.outputs], np.int32)
    first.signatureDefs[0].outputs = second.signatureDefs[0].outputs
    for output in first.signatureDefs[0].outputs:
        output.tensorIndex = placed(output.tensorIndex)
    return _packed(first)


def with_metadata(content: bytes, name: str, value: bytes) -> bytes:
    """The file with a metadata entry, which any TFLite reader can look up by its name."""
    from ai_edge_litert import schema_py_generated as schema

    model = _unpacked(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(value, np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return _packed(model)


def _one_by_one(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for image in images:
        yield {"images": image[None]}


def _names(maps: list[Any]) -> list[str]:
    return [one.name.decode() for one in maps]


def _index(maps: list[Any], name: str) -> int:
    return next(int(one.tensorIndex) for one in maps if one.name.decode() == name)


def _unpacked(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
