"""Removes transposes of whole feature maps that tf2onnx leaves where a map has several readers.

ONNX convolutions have the channels first, TensorFlow's last. An average or a maximum over the positions needs no
transpose: it can take other axes instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def remove_transposes(model: Any) -> None:
    """Lets reductions read maps as convolutions write them, and joins a transpose with its inverse; in place."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    transposes = {
        node.output[0]: (node.input[0], _read_order(node)) for node in graph.node if node.op_type == "Transpose"
    }
    for node in graph.node:
        source, order = transposes.get(node.input[0] if node.input else "", ("", []))
        if not order:
            continue
        if node.op_type == "Transpose" and [order[axis] for axis in _read_order(node)] == list(range(len(order))):
            _rename(graph, node.output[0], source)
        elif node.op_type in ("ReduceMean", "ReduceMax") and len(node.input) == 2 and node.input[1] in constants:
            axes = [int(axis) % len(order) for axis in numpy_helper.to_array(constants[node.input[1]])]
            kept = [order[axis] for axis in range(len(order)) if axis not in axes]
            if _keeps_sides(node) or kept != sorted(kept):
                continue
            name = f"{node.output[0]}/axes"
            graph.initializer.append(numpy_helper.from_array(np.array([order[axis] for axis in axes], np.int64), name))
            node.input[0], node.input[1] = source, name
    while unused := _find_unused(graph):
        for node in unused:
            graph.node.remove(node)


def _find_unused(graph: Any) -> list[Any]:
    """Returns the transposes that nothing reads."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return [node for node in graph.node if node.op_type == "Transpose" and node.output[0] not in used]


def _read_order(node: Any) -> list[int]:
    return [int(axis) for attribute in node.attribute if attribute.name == "perm" for axis in attribute.ints]


def _keeps_sides(node: Any) -> bool:
    return all(attribute.i != 0 for attribute in node.attribute if attribute.name == "keepdims")


def _rename(graph: Any, old: str, new: str) -> None:
    """Lets every reader of one tensor read another; an output of the graph keeps its name."""
    if old in {output.name for output in graph.output}:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
