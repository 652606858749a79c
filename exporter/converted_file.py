"""The constants and operations of converted files, and the same files with other constants."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from probrt.exporter.drawn_constants import FileGraph, Floats, Operation


def read_tflite_graph(content: bytes) -> FileGraph:
    """Reads the graph of a TFLite file; its constants are named by the places of their tensors."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    constants: dict[Hashable, Floats] = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() == schema.TensorType.FLOAT32 and buffer.DataLength():
            shape = [tensor.Shape(axis) for axis in range(tensor.ShapeLength())]
            constants[index] = buffer.DataAsNumpy().view(np.float32).reshape(shape)
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    operations = [
        Operation(tuple(operator.InputsAsNumpy().tolist()), tuple(operator.OutputsAsNumpy().tolist()))
        for operator in operators
    ]
    return FileGraph(constants, operations)


def replace_tflite_constants(content: bytes, constants: Mapping[Hashable, Floats]) -> bytes:
    """Returns a TFLite file with other values in place of some constants, by the places of their tensors."""
    from ai_edge_litert import schema_py_generated as schema

    changed = bytearray(content)
    model = schema.Model.GetRootAsModel(changed, 0)
    graph = model.Subgraphs(0)
    for index, values in constants.items():
        data = model.Buffers(graph.Tensors(index).Buffer()).DataAsNumpy()  # a view of the bytes
        data[:] = np.frombuffer(values.tobytes(), np.uint8)
    return bytes(changed)


def read_onnx_graph(model: Any) -> FileGraph:
    """Reads the graph of an ONNX model; its constants are named as in the file."""
    from onnx import TensorProto, numpy_helper

    constants: dict[Hashable, Floats] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    operations = [Operation(tuple(filter(None, node.input)), tuple(node.output)) for node in model.graph.node]
    return FileGraph(constants, operations)


def replace_onnx_constants(model: Any, constants: Mapping[Hashable, Floats]) -> None:
    """Sets some constants of an ONNX model, by name, in place."""
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(numpy_helper.from_array(constants[tensor.name], tensor.name))
