"""ONNX files in int8: weights, or weights and inputs, of some layers, by nodes that round and restore.

Sums along skip connections, the final layers and all behind them stay float32. `tflite_int8.py` does the same for
TFLite.
"""

from __future__ import annotations

import copy
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
from probrt.runtime.bundle.manifest import NOVELTY, Precision
from probrt.runtime.engines import Graph

_THREADS = 2


def measure_file(model: Any, images: Array, passes: int, names: Collection[str]) -> MeasuredFile:
    """Returns the layers of an ONNX model that come into question for int8, and what rounding takes of them.

    images: representative inputs [count, *input.shape]. passes: one per draw of a chunk, or 1. names: of the network's
    layers.
    """
    nodes = _describe_nodes(model)
    names_of_outputs = [output.name for output in model.graph.output]
    novelty = [name for name in names_of_outputs if name.startswith(f"{NOVELTY}.")]
    layers = find_layers(nodes, [name for name in names_of_outputs if name not in novelty], novelty, passes, names)
    if not layers:
        return MeasuredFile(nodes, [], [], {})
    return MeasuredFile(nodes, layers, *measure_layers(layers, nodes, _make_run(model, layers, nodes), images))


def quantize(model: Any, measured: MeasuredFile, keys: Collection[LayerKey], precision: Precision) -> Any:
    """Returns the model with some layers in int8: their weights and inputs, or (`dynamic`) their weights alone."""
    rounded = copy.deepcopy(model)
    _insert_roundings(rounded, measured.list_nodes(keys), measured.ranges, precision)
    return rounded


def load(model: Any) -> Graph:
    """Returns what runs an ONNX model."""
    from probrt.runtime.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(model.SerializeToString(), "CPUExecutionProvider", _THREADS)


def _describe_nodes(model: Any) -> list[GraphNode]:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        shapes = [tuple(constants[name].dims) if name in constants else None for name in node.input]
        attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
        weights, terms = None, 0
        if node.op_type == "Conv" and node.input[1] in constants:
            values = numpy_helper.to_array(constants[node.input[1]])
            weights = values.reshape(len(values), -1)
            terms = weights.shape[1]
        elif node.op_type == "MatMul" and node.input[1] in constants:
            # ONNX Runtime multiplies by a matrix with one scale.
            values = numpy_helper.to_array(constants[node.input[1]])
            weights, terms = values.reshape(1, -1), values.shape[-2] if values.ndim > 1 else 0
        inputs = tuple(name for name in node.input if name not in constants)
        kind = f"{node.op_type} {attributes} {shapes}"
        label = ";".join((node.name, *node.output, *node.input))
        nodes.append(GraphNode(kind, inputs, tuple(node.output), label, weights, inputs[:1], 1, terms))
    return nodes


def _make_run(
    model: Any, layers: Sequence[Layer], nodes: Sequence[GraphNode]
) -> Callable[[Array], Mapping[Tensor, npt.NDArray[Any]]]:
    """Returns a function that computes the inputs and outputs of some layers for images."""
    import onnx
    import onnxruntime

    names = {name for layer in layers for place in layer.nodes for name in nodes[place].rounded}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    known = {value.name for value in model.graph.input}
    watched.graph.output.extend(onnx.ValueInfoProto(name=str(name)) for name in sorted(map(str, names - known)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def run(images: Array) -> dict[Tensor, npt.NDArray[Any]]:
        values = session.run(outputs, {"images": images}) if outputs else []  # it refuses an empty list
        return {"images": images, **dict(zip(outputs, values, strict=True))}

    return run


def _insert_roundings(model: Any, chosen: Sequence[int], ranges: Mapping[Tensor, Range], precision: Precision) -> None:
    """Inserts nodes that round the weights of some nodes, and in int8 their inputs, and restore them."""
    from onnx import helper, numpy_helper

    graph = model.graph
    nodes = list(graph.node)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    roundings: dict[str, list[Any]] = {}  # by the tensor that they read

    def add_constant(name: str, values: npt.NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def round_tensor(name: str, values: Range) -> str:
        """Returns the name of a tensor that is another one rounded."""
        if name not in roundings:
            scale, zero = find_scale(values)
            parameters = [
                add_constant(f"{name}/scale", np.array(scale, np.float32)),
                add_constant(f"{name}/zero", np.array(zero, np.uint8)),
            ]
            roundings[name] = [
                helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}/int8"]),
                helper.make_node("DequantizeLinear", [f"{name}/int8", *parameters], [f"{name}/restored"]),
            ]
        return f"{name}/restored"

    for place in chosen:
        node = nodes[place]
        values, weights = ranges[node.input[0]], constants[node.input[1]]
        if precision == "int8":
            node.input[0] = round_tensor(node.input[0], values)
        per_channel = node.op_type == "Conv"
        integers, scales = round_weights(weights, 0 if per_channel else None)
        if per_channel and len(node.input) > 2 and node.input[2] in constants:
            errors = weights - integers * scales.reshape(-1, *[1] * (weights.ndim - 1))
            shift = correct_bias(errors.reshape(*errors.shape[:2], -1).sum(2), values)
            if shift is not None:
                node.input[2] = add_constant(f"{node.output[0]}/bias", constants[node.input[2]] + shift)
        name = f"{node.output[0]}/weights"
        inputs = [add_constant(f"{name}/int8", integers), add_constant(f"{name}/scale", scales)]
        axis = {"axis": 0} if per_channel else {}
        roundings.setdefault("", []).append(helper.make_node("DequantizeLinear", inputs, [f"{name}/restored"], **axis))
        node.input[1] = f"{name}/restored"
    del graph.node[:]
    graph.node.extend(roundings.pop("", []))
    for name in [input.name for input in graph.input]:
        graph.node.extend(roundings.pop(name, []))
    for node in nodes:
        graph.node.append(node)
        for name in node.output:
            graph.node.extend(roundings.pop(name, []))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
