"""What a SavedModel may hold, checked in its bytes before any framework sees the folder, and without one.

The bytes must be canonical (`protobuf.check_message`), so that TensorFlow reads what is checked here. Then:

* one graph, of listed operations alone, in functions too; a manifest may narrow the list and never widen it;
* operations that save and restore variables only in the two functions that the loader calls for it, as the exporter
  writes them: on the path that the loader gives, reached by nothing else;
* no main operation, initializer, asset or resource that a loader would run or open by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from probrt.runtime.bundle.operations import ALLOWED, SAVING
from probrt.runtime.bundle.protobuf import check_message, find_all, find_messages, read_fields, read_text
from probrt.runtime.bundle.protobuf_schemas import SAVED_MODEL
from probrt.runtime.errors import BundleError

ROOT = "tensorflow.SavedModel"
INIT = "__saved_model_init_op"
_MAIN = "saved_model_main_op"
# Fields of SavedObject that stand for something a loader opens or runs: assets, resources, custom savers, user protos.
_ACTIVE_OBJECTS = {
    5: "an asset",
    10: "a resource",
    11: "a saver",
    13: "a registered class",
    14: "a user proto",
    16: "a saver",
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Fields of AttrValue that can name a function: a list, and a function.
_CALLING_ATTRIBUTES = (1, 10)
# How many of an operation's first inputs are paths.
_PATH_INPUTS = {"RestoreV2": 1, "SaveV2": 1, "ShardedFilename": 1, "MergeV2Checkpoints": 2}
# What a save function puts behind the loader's prefix to make a path.
_ENDING = re.compile(r"[A-Za-z0-9_]*[./]part\Z")


@dataclass(frozen=True)
class Node:
    """A node of a graph or of a function's body.

    inputs: names of nodes (or of a function's arguments), control inputs included, without output numbers.
    functions: those that its attributes name, in whatever nesting.
    """

    operation: str
    inputs: tuple[str, ...]
    functions: frozenset[str]
    message: memoryview


Nodes = Mapping[str, Node]


@dataclass(frozen=True)
class Function:
    """A function: the name of its first argument, and its body."""

    argument: str
    body: Nodes


def vet_saved_model(content: bytes, where: str, narrowed: list[str] | None = None) -> None:
    """Raises BundleError for a saved_model.pb that may do more than compute.

    narrowed: the manifest's own, shorter list of operations.
    """
    allowed = ALLOWED
    if narrowed is not None:
        wider = sorted({*narrowed} - ALLOWED)
        if wider:
            raise BundleError(f"{where}: its manifest allows {', '.join(wider)}, which probrt does not")
        allowed = ALLOWED & {*narrowed}
    try:
        message = memoryview(content)
        check_message(message, ROOT, SAVED_MODEL)
        meta_graphs = list(find_messages(message, 2))
        if len(meta_graphs) != 1:
            raise BundleError(f"holds {len(meta_graphs)} graphs; a bundle's has one")
        graph = next(find_messages(meta_graphs[0], 2), memoryview(b""))
        nodes, functions = read_nodes(graph), read_functions(graph)
        _check_operations(nodes, functions, allowed)
        _check_loading(meta_graphs[0], nodes)
        _check_saving(meta_graphs[0], nodes, functions)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None


def saved_model_ops(content: bytes) -> list[str]:
    """Returns the operations of a saved_model.pb, functions included, sorted."""
    nodes = find_all(memoryview(content), ROOT, SAVED_MODEL, "tensorflow.NodeDef")
    return sorted({read_text(node, 2) for node in nodes})


def read_functions(graph: memoryview) -> dict[str, Function]:
    """Returns the functions of a GraphDef by name; BundleError for two of one name."""
    functions: dict[str, Function] = {}
    for message in find_messages(graph, 2, 1):
        signature = next(find_messages(message, 1), memoryview(b""))
        name = read_text(signature, 1)
        if name in functions:
            raise BundleError(f"holds two functions {name}")
        argument = next((read_text(argument, 1) for argument in find_messages(signature, 2)), "")
        functions[name] = Function(argument, read_nodes(message, 3))
    return functions


def read_nodes(message: memoryview, field: int = 1) -> dict[str, Node]:
    """Returns the nodes of a GraphDef, or with field 3 of a FunctionDef, by name; BundleError for two of one name."""
    nodes: dict[str, Node] = {}
    for node in find_messages(message, field):
        name = read_text(node, 1)
        if name in nodes:
            raise BundleError(f"holds two nodes {name}")
        inputs = tuple(_node_name(bytes(value).decode("utf-8", "replace")) for value in find_messages(node, 3))
        nodes[name] = Node(read_text(node, 2), inputs, frozenset(_read_calls(node)), node)
    return nodes


def _read_calls(node: memoryview) -> Iterator[str]:
    """Yields the functions that a node's attributes name."""
    for attribute in find_messages(node, 5, 2):
        if any(field in _CALLING_ATTRIBUTES for field, _ in read_fields(attribute)):
            for function in find_all(attribute, "tensorflow.AttrValue", SAVED_MODEL, "tensorflow.NameAttrList"):
                yield read_text(function, 1)


def _check_operations(nodes: Nodes, functions: Mapping[str, Function], allowed: frozenset[str]) -> None:
    for place, body in [("the graph", nodes), *((name, function.body) for name, function in functions.items())]:
        # By its operation alone: a function that bears an operation's name would hide it.
        outside = sorted({node.operation for node in body.values()} - allowed)
        if outside:
            raise BundleError(f"holds {', '.join(outside)} (in {place}), which a bundle may not")
        absent = sorted({name for node in body.values() for name in node.functions} - functions.keys())
        if absent:
            raise BundleError(f"calls {absent[0]} (in {place}), a function that it does not hold")


def _check_loading(meta_graph: memoryview, nodes: Nodes) -> None:
    """Nothing may run or be opened when the model is loaded."""
    initial: list[str] = []
    for entry in find_messages(meta_graph, 4):
        key = read_text(entry, 1)
        kinds = [field for value in find_messages(entry, 2) for field, _ in read_fields(value)]
        if key != _MAIN or kinds != [1]:
            raise BundleError(f"holds the collection {key}, which a bundle may not")
        initial += [bytes(name).decode("utf-8", "replace") for name in find_messages(entry, 2, 1, 1)]
    for signature in find_messages(meta_graph, 5):
        for output in (*find_messages(signature, 2, 2), *find_messages(signature, 2, 1)):
            tensors = [read_text(value, 1) for value in find_messages(output, 2)]
            if read_text(signature, 1) == INIT:
                initial += tensors
            elif not all(tensors) or not tensors:
                raise BundleError(
                    f"its signature {read_text(signature, 1)} has an input or output that is no plain tensor"
                )
    for name in initial:
        node = nodes.get(_node_name(name))
        if node is None or node.operation != "NoOp" or node.inputs:
            raise BundleError(f"runs {name} when it is loaded, which a bundle may not")
    if any(True for _ in find_messages(meta_graph, 6)):
        raise BundleError("holds assets, which a bundle may not")
    for saved_object in find_all(meta_graph, "tensorflow.MetaGraphDef", SAVED_MODEL, "tensorflow.SavedObject"):
        for field, _ in read_fields(saved_object):
            if field in _ACTIVE_OBJECTS:
                raise BundleError(f"its object graph holds {_ACTIVE_OBJECTS[field]}, which a bundle may not")


def _check_saving(meta_graph: memoryview, nodes: Nodes, functions: Mapping[str, Function]) -> None:
    """Operations that save or restore stand in the two functions that the loader calls, on the path it gives."""
    saver = next(find_messages(meta_graph, 3), memoryview(b""))
    prefix, entries = (
        _node_name(read_text(saver, 1)),
        {_node_name(read_text(saver, field)) for field in (2, 3)} - {""},
    )
    savers: set[str] = set()
    for name in sorted(entries):
        node = nodes.get(name)
        if node is None or node.operation not in _CALLS or node.inputs[:1] != (prefix,):
            raise BundleError(f"its saver names {name}, which is no call of a function on the loader's path")
        savers |= node.functions
    if entries and (prefix not in nodes or nodes[prefix].operation != "Placeholder"):
        raise BundleError(f"its saver takes the path from {prefix}, which is no placeholder")
    for place, body in [("", nodes), *((name, function.body) for name, function in functions.items())]:
        for name, node in body.items():
            if place not in savers and node.operation in SAVING:
                raise BundleError(f"holds {node.operation} outside of what the loader calls, which a bundle may not")
            if node.functions & savers and not (place == "" and name in entries):
                raise BundleError(f"{name} calls what saves and restores, which only the loader may")
            if place == "" and entries & {*node.inputs}:
                raise BundleError(f"{name} depends on what saves and restores, which only the loader may")
    for signature in find_messages(meta_graph, 5):
        for output in (*find_messages(signature, 2, 2), *find_messages(signature, 2, 1)):
            if entries & {_node_name(read_text(value, 1)) for value in find_messages(output, 2)}:
                raise BundleError(
                    f"its signature {read_text(signature, 1)} saves or restores, which a signature may not"
                )
    for name in savers:
        _check_paths(functions[name])


def _check_paths(function: Function) -> None:
    """Every path in a function that saves or restores begins with the function's first argument."""

    def begins_with_argument(name: str) -> bool:
        node = function.body.get(name)
        if node is None:
            return name == function.argument
        match node.operation:
            case "StringJoin":
                return begins_with_argument(node.inputs[0]) and all(is_ending(source) for source in node.inputs[1:])
            case "Pack" | "Identity" | "ShardedFilename":
                return begins_with_argument(node.inputs[0])
        return False

    def is_ending(name: str) -> bool:
        node = function.body.get(name)
        if node is None:
            return False
        if node.operation in ("Select", "SelectV2"):
            return all(is_ending(source) for source in node.inputs[1:3])
        strings = [bytes(value).decode("utf-8", "replace") for value in find_messages(node.message, 5, 2, 8, 8)]
        return node.operation == "Const" and bool(strings) and all(_ENDING.match(string) for string in strings)

    for node in function.body.values():
        for source in node.inputs[: _PATH_INPUTS.get(node.operation, 0)]:
            if not begins_with_argument(source):
                raise BundleError(f"{node.operation} takes a path that is not the loader's, which a bundle may not")


def _node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]
