"""TFLite files in int8: some layers compute in int8, or (`dynamic`) have their weights in int8; all else stays float32.

The float32 file is changed, so no converter runs again: weights become int8, and operators that round and restore come
before and behind each layer that computes in int8, but not between two of them. `onnx_int8.py` does the same for ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.int8_layers import (
    Array,
    GraphNode,
    Layer,
    LayerKey,
    MeasuredFile,
    Range,
    Tensor,
    correct_bias,
    find_layers,
    find_scale,
    measure_layers,
    round_weights,
)
from probrt.exporter.tflite_file import pack_model, unpack_model
from probrt.runtime.bundle.manifest import NOVELTY, Precision
from probrt.runtime.engines import Graph

# The versions of the operators that take int8, and of those that take float32 with weights in int8.
_VERSIONS = {"CONV_2D": 3, "FULLY_CONNECTED": 4, "MAX_POOL_2D": 2, "QUANTIZE": 1, "DEQUANTIZE": 2}
_VERSIONS_OF_WEIGHTS = {"CONV_2D": 5, "FULLY_CONNECTED": 3}
# A bias is a 32-bit integer in steps of the products.
_LARGEST_BIAS = 2.0**30
_THREADS = 2


def measure_file(content: bytes, images: Array, passes: int, names: Collection[str]) -> MeasuredFile:
    """Returns the layers of a TFLite file that come into question for int8, and what rounding takes of them.

    images: representative inputs [count, *input.shape]. passes: one per draw of a chunk, or 1. names: of the network's
    layers.
    """
    model = unpack_model(content)
    nodes = _describe_nodes(model)
    outputs = {output.name.decode(): int(output.tensorIndex) for output in model.signatureDefs[0].outputs}
    novelty = {index for name, index in outputs.items() if name.startswith(f"{NOVELTY}.")}
    layers = find_layers(nodes, {*outputs.values()} - novelty, novelty, passes, names)
    if not layers:
        return MeasuredFile(nodes, [], [], {})
    return MeasuredFile(nodes, layers, *measure_layers(layers, nodes, _make_run(content, layers, nodes), images))


def quantize(content: bytes, measured: MeasuredFile, keys: Collection[LayerKey], precision: Precision) -> bytes:
    """Returns the file with some layers in int8: their weights and values, or (`dynamic`) their weights alone."""
    model = unpack_model(content)
    _Rewriter(model, measured.ranges, precision).quantize(measured.list_nodes(keys))
    return pack_model(model)


def load(content: bytes) -> Graph:
    """Returns what runs a TFLite file."""
    from probrt.runtime.engines.litert import LiteRT

    return LiteRT(content, _THREADS)


def _describe_nodes(model: Any) -> list[GraphNode]:
    graph = model.subgraphs[0]
    constants = {index for index, tensor in enumerate(graph.tensors) if _read(model, tensor) is not None}
    nodes = []
    for operator in graph.operators:
        kind = _kind_of(model, operator)
        shapes = [tuple(graph.tensors[index].shape) if index in constants else None for index in operator.inputs]
        options = sorted(vars(operator.builtinOptions).items()) if operator.builtinOptions else []
        inputs = tuple(int(index) for index in operator.inputs if index >= 0 and index not in constants)
        outputs = tuple(map(int, operator.outputs))
        weights, terms = None, 0
        if kind in ("CONV_2D", "FULLY_CONNECTED") and operator.inputs[1] in constants:
            values = _read(model, graph.tensors[operator.inputs[1]])
            weights = values.reshape(len(values) if kind == "CONV_2D" else 1, -1)
            terms = values[0].size
        label = ";".join(graph.tensors[index].name.decode() for index in (*outputs, *operator.inputs))
        rounded = (*inputs[:1], *outputs[:1])
        nodes.append(GraphNode(f"{kind} {options} {shapes}", inputs, outputs, label, weights, rounded, terms=terms))
    return nodes


def _make_run(
    content: bytes, layers: Sequence[Layer], nodes: Sequence[GraphNode]
) -> Callable[[Array], Mapping[Tensor, npt.NDArray[Any]]]:
    """Returns a function that computes the inputs and outputs of some layers for images."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from probrt.runtime.hush import hush

    with hush():
        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    (source,) = interpreter.get_input_details()
    tensors = {tensor for layer in layers for place in layer.nodes for tensor in nodes[place].rounded}

    def run(images: Array) -> dict[Tensor, npt.NDArray[Any]]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return {tensor: interpreter.get_tensor(tensor) for tensor in tensors}

    return run


class _Rewriter:
    """Changes the operators of a model, in place.

    ranges: of the tensors that are rounded.
    """

    def __init__(self, model: Any, ranges: Mapping[Tensor, Range], precision: Precision) -> None:
        self._model = model
        self._precision = precision
        self._versions = _VERSIONS if precision == "int8" else _VERSIONS_OF_WEIGHTS
        self._graph = model.subgraphs[0]
        self._ranges = ranges
        self._rounded: dict[int, int] = {}  # the int8 tensor of a float32 tensor
        self._operators: list[Any] = []
        self._producers = {int(index): operator for operator in self._graph.operators for index in operator.outputs}

    def quantize(self, places: Collection[int]) -> None:
        """Lets the operators at some places compute in int8, or have their weights in int8."""
        chosen = set(places)
        for place, operator in enumerate(list(self._graph.operators)):
            if place in chosen and self._precision == "int8":
                self._quantize_product(operator)
            elif place in chosen:
                self._quantize_weights(operator)
            else:
                self._operators.append(operator)
        self._graph.operators = self._find_used()

    def _quantize_product(self, operator: Any) -> None:
        kind = _kind_of(self._model, operator)
        source, result = int(operator.inputs[0]), int(operator.outputs[0])
        input = self._round(source, self._ranges[source])
        (input_scale,) = self._graph.tensors[input].quantization.scale
        weights = _read(self._model, self._graph.tensors[operator.inputs[1]])
        bias = None
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = _read(self._model, self._graph.tensors[operator.inputs[2]])
        least = np.zeros(len(weights), np.float32) if bias is None else np.abs(bias) / (input_scale * _LARGEST_BIAS)
        axis = 0 if kind == "CONV_2D" else None
        integers, scales = round_weights(weights, axis, least if axis == 0 else least.max())
        inputs = [input, self._add_tensor(operator.inputs[1], integers, scales, np.zeros(scales.size, np.int64))]
        if bias is not None:
            bias = bias + self._find_shift(weights, integers, scales, source)
            products = (input_scale * scales).astype(np.float32)
            rounded = np.round(bias / products).astype(np.int32)
            inputs.append(self._add_tensor(operator.inputs[2], rounded, products, np.zeros(scales.size, np.int64)))
        output = self._add_rounded(result, self._ranges[result])
        self._add_operator(kind, inputs, output, operator)
        self._rounded[result] = output
        self._add_operator("DEQUANTIZE", [output], result)

    def _quantize_weights(self, operator: Any) -> None:
        """Lets an operator read weights in int8; it rounds its float32 input itself, by what each call brings."""
        kind = _kind_of(self._model, operator)
        weights = _read(self._model, self._graph.tensors[operator.inputs[1]])
        integers, scales = round_weights(weights, 0 if kind == "CONV_2D" else None)
        inputs = [int(index) for index in operator.inputs]
        inputs[1] = self._add_tensor(inputs[1], integers, scales, np.zeros(scales.size, np.int64))
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = _read(self._model, self._graph.tensors[inputs[2]])
            bias = bias + self._find_shift(weights, integers, scales, inputs[0])
            inputs[2] = self._add_tensor(inputs[2], bias.astype(np.float32))
        self._add_operator(kind, inputs, int(operator.outputs[0]), operator)

    def _find_shift(self, weights: Array, integers: npt.NDArray[np.int8], scales: Array, source: int) -> Array | float:
        """Returns what the bias must add, 0 where that is not known. source: the input."""
        errors = weights - integers * scales.reshape(-1, *[1] * (weights.ndim - 1))
        shift = correct_bias(errors.reshape(len(errors), -1, errors.shape[-1]).sum(1), self._ranges[source])
        return 0.0 if shift is None else shift

    def _round(self, index: int, values: Range) -> int:
        """Returns the int8 tensor of a float32 tensor."""
        if index not in self._rounded:
            producer = self._producers.get(index)
            if producer is not None and _kind_of(self._model, producer) == "MAX_POOL_2D":
                # The maximum of rounded values is the rounded maximum.
                source = self._round(int(producer.inputs[0]), values)
                self._rounded[index] = self._add_tensor(index, None, like=source)
                self._add_operator("MAX_POOL_2D", [source], self._rounded[index], producer)
            else:
                self._rounded[index] = self._add_rounded(index, values)
                self._add_operator("QUANTIZE", [index], self._rounded[index])
        return self._rounded[index]

    def _add_rounded(self, index: int, values: Range) -> int:
        scale, zero = find_scale(values)
        return self._add_tensor(index, None, np.array([scale], np.float32), np.array([zero - 128], np.int64))

    def _add_tensor(
        self,
        template: int,
        values: npt.NDArray[Any] | None,
        scales: Array | None = None,
        zeros: npt.NDArray[np.int64] | None = None,
        like: int | None = None,
    ) -> int:
        """Adds a tensor with the shape of another; one without values is computed, in int8."""
        from ai_edge_litert import schema_py_generated as schema

        tensors, original = self._graph.tensors, self._graph.tensors[template]
        tensor = schema.TensorT()
        tensor.name = original.name + b"/rounded"
        tensor.shape, tensor.shapeSignature = original.shape, original.shapeSignature
        tensor.hasRank = original.hasRank
        kind = "int8" if values is None else values.dtype.name
        tensor.type = getattr(schema.TensorType, kind.upper())
        if like is None and scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = np.atleast_1d(scales), zeros
        elif like is not None:
            tensor.quantization = tensors[like].quantization
        buffer = schema.BufferT()
        if values is not None:
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        tensor.buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        tensors.append(tensor)
        return len(tensors) - 1

    def _add_operator(self, kind: str, inputs: Sequence[int], output: int, like: Any = None) -> None:
        """Adds an operator with the options of another."""
        from ai_edge_litert import schema_py_generated as schema

        operator = schema.OperatorT()
        operator.opcodeIndex = self._find_code(kind)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if like is not None:
            operator.builtinOptionsType, operator.builtinOptions = like.builtinOptionsType, like.builtinOptions
        self._operators.append(operator)

    def _find_code(self, kind: str) -> int:
        """Returns the position of an operator code, which it adds if there is none."""
        from ai_edge_litert import schema_py_generated as schema

        builtin, codes = getattr(schema.BuiltinOperator, kind), self._model.operatorCodes
        for position, code in enumerate(codes):
            if code.builtinCode == builtin and code.version == self._versions[kind]:
                return position
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = self._versions[kind]
        codes.append(code)
        return len(codes) - 1

    def _find_used(self) -> list[Any]:
        """Returns the operators that the outputs need, and empties the buffers of constants that none of them reads."""
        needed = set(map(int, self._graph.outputs))
        used = []
        for operator in reversed(self._operators):
            if needed.intersection(map(int, operator.outputs)):
                needed |= {int(index) for index in operator.inputs if index >= 0}
                used.append(operator)
        read = {tensor.buffer for index, tensor in enumerate(self._graph.tensors) if index in needed}
        read |= {entry.buffer for entry in self._model.metadata or []}
        for position, buffer in enumerate(self._model.buffers):
            if position not in read:
                buffer.data = None
        return used[::-1]


def _kind_of(model: Any, operator: Any) -> str:
    """Returns the name of an operator's kind."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return str(next(name for name, value in vars(schema.BuiltinOperator).items() if value == builtin))


def _read(model: Any, tensor: Any) -> Any:
    """Returns the values of a constant of float32, the bytes of any other one, and None of what is computed."""
    from ai_edge_litert import schema_py_generated as schema

    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    if tensor.type != schema.TensorType.FLOAT32:
        return bytes(data)
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
