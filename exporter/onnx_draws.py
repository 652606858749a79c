"""ONNX chunks of draws in int8: weights and inputs of the layers that allow it, by nodes that round and restore.

Sums along skip connections, the final layers and all behind them stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.drawn_layers import (
    Array,
    DrawnLayer,
    GraphNode,
    LayerKey,
    LayerSteps,
    Range,
    Tensor,
    choose_nodes,
    correct_bias,
    find_drawn_layers,
    find_scale,
    measure_layers,
    round_weights,
)
from probrt.runtime.bundle.manifest import NOVELTY


def quantize_draws(
    model: Any, images: Array, draws: int, names: Collection[str], chosen: Collection[LayerKey] | None
) -> list[LayerSteps]:
    """Lets layers of a chunk compute in int8, in place; returns what was measured of each layer.

    images: representative inputs [count, *input.shape]. draws: of the chunk. names: of the network's layers.
    chosen: the layers; None are those whose steps allow it.
    """
    nodes = _describe_nodes(model)
    outputs = [output.name for output in model.graph.output if output.name.startswith(f"{NOVELTY}.")]
    layers = find_drawn_layers(nodes, outputs, draws, names)
    if not layers:
        return []
    steps, ranges = measure_layers(layers, nodes, _make_run(model, layers, nodes), images)
    _insert_roundings(model, choose_nodes(layers, steps, chosen), ranges)
    return steps


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
    model: Any, layers: Sequence[DrawnLayer], nodes: Sequence[GraphNode]
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
        return {"images": images, **dict(zip(outputs, session.run(outputs, {"images": images}), strict=True))}

    return run


def _insert_roundings(model: Any, chosen: Sequence[int], ranges: Mapping[Tensor, Range]) -> None:
    """Inserts nodes that round the inputs and weights of some nodes to int8 and restore them."""
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
        node.input[0] = round_tensor(node.input[0], values)
        per_channel = node.op_type == "Conv"
        integers, scales = round_weights(weights, 0 if per_channel else None)
        if per_channel and len(node.input) > 2 and node.input[2] in constants:
            errors = weights - integers * scales.reshape(-1, *[1] * (weights.ndim - 1))
            shift = correct_bias(errors.reshape(*errors.shape[:2], -1).sum(2), values)
            if shift is not None:
                node.input[2] = add_constant(f"{node.name}/bias", constants[node.input[2]] + shift)
        name = f"{node.name}/weights"
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
