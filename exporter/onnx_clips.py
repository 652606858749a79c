"""Joins a minimum and a maximum with constants to one Clip, which the converter writes as two operations."""

from __future__ import annotations

from typing import Any


def join_clips(model: Any) -> None:
    """Replaces max(min(x, high), low) by Clip(x, low, high), in place, where nothing else reads the minimum.

    low, high: scalar constants. They are finite and in order: TensorFlow's `clip_by_value` has written them.
    """
    graph = model.graph
    scalars = {tensor.name for tensor in graph.initializer if not tensor.dims}
    names = [name for node in graph.node for name in node.input] + [output.name for output in graph.output]
    minima = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Min" and len(node.input) == 2 and node.input[1] in scalars
    }
    for node in list(graph.node):
        minimum = minima.get(node.input[0]) if node.op_type == "Max" and len(node.input) == 2 else None
        if minimum is None or node.input[1] not in scalars or names.count(minimum.output[0]) > 1:
            continue
        bounded, high, low = minimum.input[0], minimum.input[1], node.input[1]
        node.op_type = "Clip"
        node.input[:] = [bounded, low, high]
        graph.node.remove(minimum)
