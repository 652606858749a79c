"""Every use of Keras's private API, behind names of our own: the only file that a new Keras version can break."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras


class GraphNode(NamedTuple):
    """One call of a layer or operation in a functional network."""

    operation: Any
    inputs: Sequence[keras.KerasTensor]
    outputs: Sequence[keras.KerasTensor]


def flatten_layers(operation: keras.Operation) -> list[keras.Layer]:
    """Returns a layer and all layers inside it, in order; an operation that is no layer has none."""
    return list(operation._flatten_layers()) if isinstance(operation, keras.Layer) else []


def is_functional(model: keras.Model) -> bool:
    """Returns whether a model has a graph of nodes: Functional, or a built Sequential."""
    return hasattr(model, "_nodes_by_depth")


def nodes_in_order(network: keras.Model) -> list[GraphNode]:
    """Returns the nodes of a functional network, inputs first."""
    return [
        GraphNode(node.operation, node.input_tensors, node.outputs)
        for depth in sorted(network._nodes_by_depth, reverse=True)
        for node in network._nodes_by_depth[depth]
    ]


def producer(tensor: keras.KerasTensor) -> GraphNode:
    """Returns the node whose output a tensor of a functional network is."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return GraphNode(node.operation, node.input_tensors, node.outputs)


def inline_layers(network: keras.Model, inputs: Any, skip: Callable[[Any], bool]) -> Any:
    """Calls the layers of a functional network, and of those nested in it, on new inputs one by one.

    skip: whether a layer is left out, so that its input is its output.
    """

    def choose(operation: Any) -> Callable[..., Any]:
        if skip(operation):
            return lambda tensor, *_, **__: tensor
        if isinstance(operation, keras.Sequential) and operation.built:
            operation = keras.Model(operation.inputs, operation.outputs)
        if isinstance(operation, keras.Model) and is_functional(operation):
            return lambda tensors, *_, **__: inline_layers(operation, tensors, skip)
        return operation  # type: ignore[no-any-return]

    return network._run_through_graph(inputs, choose)


def call_layers(network: keras.Model, inputs: Any) -> Mapping[str, keras.KerasTensor]:
    """Calls the layers of a functional network on new inputs one by one, so that they become the caller's nodes."""

    def keep(operation: Callable[..., Any]) -> Callable[..., Any]:
        return operation

    outputs: Mapping[str, keras.KerasTensor] = network._run_through_graph(inputs, keep)
    return outputs
