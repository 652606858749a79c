"""Merges ONNX graphs of one input into one graph, in which equal constants and equal computations are there once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GraphMerger:
    """Collects graphs and further nodes; `finish` makes the model.

    The graphs share their input, opset and IR version. A node that computes what an earlier one does (same operation,
    attributes and inputs) is left out, and so is a constant of the same bytes as an earlier one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: Any = None
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}  # by type, shape and bytes
        self._computed: dict[tuple[Any, ...], list[str]] = {}  # outputs by operation, attributes and inputs
        self._count = 0

    def add(self, model: Any) -> dict[str, str]:
        """Adds a model's nodes; returns the tensor that holds each of its outputs, by the output's name."""
        if self._first is None:
            self._first = model
        names = {"": "", **{value.name: value.name for value in model.graph.input}}
        for constant in model.graph.initializer:
            names[constant.name] = self._add_tensor(constant)
        for node in model.graph.node:
            self._add_copy(node, names)
        return {output.name: names[output.name] for output in model.graph.output}

    def add_node(self, operation: str, *inputs: str | float | npt.NDArray[np.int64], **attributes: int) -> str:
        """Adds a node with one output and returns its name. inputs: names of tensors, or constants (float32, int64)."""
        from onnx import helper, numpy_helper

        names = [
            value
            if isinstance(value, str)
            else self._add_tensor(
                numpy_helper.from_array(value if isinstance(value, np.ndarray) else np.array(value, np.float32))
            )
            for value in inputs
        ]
        node = helper.make_node(operation, names, [self._new_name()], **attributes)
        self._nodes.append(node)
        return str(node.output[0])

    def finish(self, outputs: dict[str, str]) -> Any:
        """Returns the model (a ModelProto) with these outputs: tensors by name, of the types of the first model's."""
        from onnx import helper

        for name, tensor in outputs.items():
            self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        graph = helper.make_graph(
            self._nodes,
            self._name,
            list(self._first.graph.input),
            [value for value in self._first.graph.output if value.name in outputs],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=self._first.opset_import, ir_version=self._first.ir_version)

    def _new_name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _add_tensor(self, constant: Any) -> str:
        """Adds a constant unless it is there; returns its name."""
        from onnx import numpy_helper

        values = numpy_helper.to_array(constant)
        key = (constant.data_type, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(values, self._new_name())
        return str(self._constants[key].name)

    def _add_copy(self, node: Any, names: dict[str, str]) -> None:
        """Adds a node under the names of this graph unless it is there; adds its outputs to `names`."""
        copy = type(node)()
        copy.CopyFrom(node)
        _rename_inputs(copy, names)
        attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in copy.attribute))
        key = (copy.domain, copy.op_type, attributes, tuple(copy.input), tuple(map(bool, copy.output)))
        if key not in self._computed:
            copy.name = ""
            for place, name in enumerate(copy.output):
                copy.output[place] = self._new_name() if name else ""
            self._computed[key] = list(copy.output)
            self._nodes.append(copy)
        names |= zip(node.output, self._computed[key], strict=True)


def _rename_inputs(node: Any, names: dict[str, str]) -> None:
    """Renames what a node reads, in the graphs inside of it too; what those define themselves keeps its name."""
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for values in (graph.input, graph.initializer) for value in values}
            own |= {name for inner in graph.node for name in inner.output}
            outer = {name: renamed for name, renamed in names.items() if name not in own}
            for inner in graph.node:
                _rename_inputs(inner, outer)
            for output in graph.output:
                output.name = outer.get(output.name, output.name)
