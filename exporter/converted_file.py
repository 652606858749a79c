"""The constants and operations of converted files; the same files with other constants, or without some outputs."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from probrt.exporter.drawn_constants import FileGraph, Floats, Operation
from probrt.exporter.tflite_file import pack_model, unpack_model


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


def remove_tflite_outputs(content: bytes, prefix: str) -> bytes:
    """Returns a TFLite file without the outputs whose names begin so, and without what only they need."""
    model = unpack_model(content)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    signature.outputs = [output for output in signature.outputs if not output.name.decode().startswith(prefix)]
    results = {output.tensorIndex for output in signature.outputs}
    needed, operators = set(results), []
    for operator in reversed(graph.operators):
        if needed & {*operator.outputs.tolist()}:
            operators.append(operator)
            needed |= {*operator.inputs.tolist(), *operator.outputs.tolist()}
    kept = sorted(index for index in {*needed, *graph.inputs.tolist()} if index >= 0)
    places = {-1: -1, **{index: place for place, index in enumerate(kept)}}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.operators = operators[::-1]
    for operator in graph.operators:
        operator.inputs = np.array([places[index] for index in operator.inputs], np.int32)
        operator.outputs = np.array([places[index] for index in operator.outputs], np.int32)
    graph.inputs = np.array([places[index] for index in graph.inputs], np.int32)
    graph.outputs = np.array([places[index] for index in graph.outputs if index in results], np.int32)
    for entry in (*signature.inputs, *signature.outputs):
        entry.tensorIndex = places[entry.tensorIndex]
    _remove_unused_codes(model)
    _remove_unused_buffers(model)
    return pack_model(model)


def _remove_unused_codes(model: Any) -> None:
    operators = model.subgraphs[0].operators
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)


def _remove_unused_buffers(model: Any) -> None:
    users = [*model.subgraphs[0].tensors, *(model.metadata or [])]
    used = sorted({0, *(user.buffer for user in users)})  # the first stands for no buffer
    places = {index: place for place, index in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for user in users:
        user.buffer = places[user.buffer]


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


def remove_onnx_outputs(model: Any, prefix: str) -> None:
    """Removes the outputs of an ONNX model whose names begin so, and what only they need, in place."""
    graph = model.graph
    kept = [output for output in graph.output if not output.name.startswith(prefix)]
    needed, nodes = {output.name for output in kept}, []
    for node in reversed(graph.node):
        if needed & {*node.output}:
            nodes.append(node)
            needed |= {*node.input, *node.output}
    kept_by_field = (
        (graph.output, kept),
        (graph.node, nodes[::-1]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.value_info, [value for value in graph.value_info if value.name in needed]),
    )
    for field, values in kept_by_field:
        copies = [copy.deepcopy(value) for value in values]
        del field[:]
        field.extend(copies)
