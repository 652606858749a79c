"""Graphs that pass every check of their bytes and never come to an end, or take all memory."""

from __future__ import annotations

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

SIDE = 12


def endless_onnx() -> bytes:
    """A Loop whose condition stays true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Sin", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    constants = [
        helper.make_tensor("count", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    return _encode_onnx([helper.make_node("Loop", ["count", "true", "images"], ["slant.mean"], body=body)], constants)


def greedy_onnx() -> bytes:
    """A tensor of 4 GB, summed."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 30])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Expand", ["zeros", "shape"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["sum"]),
        helper.make_node("Add", ["images", "sum"], ["slant.mean"]),
    ]
    return _encode_onnx(nodes, [shape])


def endless_tflite() -> bytes:
    """A WHILE whose condition stays true."""
    images = _tensor("images", schema.TensorType.FLOAT32, [1, SIDE, SIDE, 1])
    going = _tensor("going", schema.TensorType.BOOL, [], 1)
    answer = _tensor("answer", schema.TensorType.FLOAT32, [1, SIDE, SIDE, 1])
    loop, sine = schema.BuiltinOperator.WHILE, schema.BuiltinOperator.SIN
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
    model = schema.ModelT()
    model.version = 3
    model.description = b""
    model.operatorCodes = [_code(loop), _code(sine)]
    model.buffers = [_buffer(b""), _buffer(b"\1")]
    model.subgraphs = [
        _subgraph("main", [images, answer], [0], [1], [_operator(0, [0], [1], options)]),
        _subgraph("condition", [images, going], [0], [1], []),
        _subgraph("body", [images, answer], [0], [1], [_operator(1, [0], [1], None)]),
    ]
    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    signature.subgraphIndex = 0
    signature.inputs, signature.outputs = [_named("images", 0)], [_named("slant.mean", 1)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _encode_onnx(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "endless",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("slant.mean", TensorProto.FLOAT, None)],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def _tensor(name: str, type: int, shape: list[int], buffer: int = 0) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name.encode(), type, buffer
    tensor.shape = np.array(shape, np.int32)
    return tensor


def _operator(code: int, inputs: list[int], outputs: list[int], options: schema.WhileOptionsT | None) -> object:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    if options is not None:
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.WhileOptions, options
    return operator


def _code(builtin: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
    return code


def _buffer(data: bytes) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8) if data else None
    return buffer


def _subgraph(
    name: str, tensors: list[object], inputs: list[int], outputs: list[int], operators: list[object]
) -> schema.SubGraphT:
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.inputs, graph.outputs = name.encode(), tensors, inputs, outputs
    graph.operators = operators
    return graph


def _named(name: str, tensor: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), tensor
    return entry
