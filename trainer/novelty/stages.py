"""Finds the tensors of a network whose features tell new images from those of training.

A stage is the last feature map of each resolution, each hidden layer of a dense network, or what the final layers
read. The rule needs the graph of the network alone, so adopted, pretrained and custom networks have stages too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from msgspec import Struct
from msgspec.structs import replace

from probrt.trainer.keras_internals import GraphNode, nodes_in_order, producer
from probrt.trainer.layers.resampling import MaxPool
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.variational.handlers import MeanHandler, use_handler

# A network of more resolutions or layers keeps the last ones.
MAX_STAGES = 8
_MAX_POOLS = (MaxPool, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)

Sides = tuple[int, ...]
Change = Literal["smaller", "larger", "vector"]
# What is taken of each channel over the positions; models of before have averages and maxima of one map.
Pooling = Literal["average and maximum", "root mean square", "average", "maximum"]


class StageRef(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a tensor of a network: an output of a layer, and of which of its calls if there are several.

    pooling: what novelty takes of it over the positions, where it takes not each position.
    joined: whether its features stand in one set with those of the ref before.
    """

    layer: str
    call: int = 0
    output: int = 0
    pooling: Pooling = "average and maximum"
    joined: bool = False

    def __str__(self) -> str:
        return self.layer + (f" (call {self.call + 1})" if self.call else "")


class _Candidate(NamedTuple):
    """A tensor that may be a stage: what its reader does to it, and its sides."""

    change: Change
    sides: Sides
    ref: StageRef

    def replaces(self, earlier: _Candidate) -> bool:
        """Whether an earlier tensor has the same resolution but for padding, on the same way down or up."""
        if self.change != earlier.change or self.change == "vector":
            return False
        return _are_alike(self.sides, earlier.sides)


def find_stages(network: keras.Model, image: np.ndarray) -> list[StageRef]:
    """Finds the stages of a network without auxiliary heads, in order.

    image: one real image [1, *input.shape]; it gives dynamic sides a size.
    """
    finals = final_inputs(network)
    nodes = _find_ancestors(network, finals)
    sides = _measure_sides(network, nodes, image)
    changes = _find_changes(nodes, sides)
    final_ids = {id(tensor) for tensor in finals}
    fresh: set[int] = set()  # behind a layer with a kernel that comes after the last stage
    chosen: list[_Candidate] = []
    calls: Counter[str] = Counter()
    for node in nodes:
        call, calls[node.operation.name] = calls[node.operation.name], calls[node.operation.name] + 1
        if not (_has_kernel(node.operation) or any(id(tensor) in fresh for tensor in node.inputs)):
            continue
        for output, tensor in enumerate(node.outputs):
            change = changes.get(id(tensor))
            if id(tensor) not in final_ids and change is None:
                fresh.add(id(tensor))
                continue
            kind = "vector" if change is None or id(tensor) in final_ids else change
            candidate = _Candidate(kind, sides[id(tensor)], StageRef(node.operation.name, call, output))
            chosen = [*(earlier for earlier in chosen if not candidate.replaces(earlier)), candidate]
    return [candidate.ref for candidate in chosen[-MAX_STAGES:]] or [_find_ref(nodes, tensor) for tensor in finals]


def find_pooled_stages(network: keras.Model, image: np.ndarray) -> list[StageRef]:
    """Finds what the novelty of an image compares: of each stage, two maps, or the feature vector.

    The maps are the first of the resolution, of which the root mean square is taken, and the last, the stage itself, of
    which the maximum is taken. The first is what a second layer with a kernel reads; it holds what the later ones no
    longer need. Where a stage has one such layer, both are the same map, whose average and maximum are one set of
    features. Where a max-pool reads the last map, the maximum is that of its output: the same for a quarter of the
    work, but for the edge that a pool may leave out.
    network, image: as in `find_stages`.
    """
    refs = find_stages(network, image)
    nodes = _find_ancestors(network, final_inputs(network))
    sides = _measure_sides(network, nodes, image)
    pooled = []
    begin = 0
    for ref, stage in zip(refs, stage_tensors(network, refs), strict=True):
        end = 1 + next(place for place, node in enumerate(nodes) if any(output is stage for output in node.outputs))
        if sides[id(stage)]:
            first = _find_first_map(nodes[begin:end], sides, stage)
            is_last = first is stage
            pooled.append(replace(_find_ref(nodes, first), pooling="average" if is_last else "root mean square"))
            last = _find_ref(nodes, _find_pool(nodes, stage))
            pooled.append(replace(last, pooling="maximum", joined=is_last))
        else:
            pooled.append(ref)
        begin = end
    return pooled


def _find_first_map(nodes: Sequence[GraphNode], sides: Mapping[int, Sides], stage: keras.KerasTensor) -> Any:
    """Returns the first map with a stage's sides that one layer with a kernel makes and another reads, or the stage.

    nodes: from behind the stage before to this one.
    """
    behind_kernel: set[int] = set()
    for node in nodes:
        read = [tensor for tensor in node.inputs if id(tensor) in behind_kernel]
        if read and _has_kernel(node.operation):
            return read[0]
        if read or _has_kernel(node.operation):
            behind_kernel |= {id(tensor) for tensor in node.outputs if _are_alike(sides[id(tensor)], sides[id(stage)])}
    return stage


def _find_pool(nodes: Sequence[GraphNode], stage: keras.KerasTensor) -> Any:
    """Returns the output of a max-pool that reads a stage, or the stage."""
    for node in nodes:
        if isinstance(node.operation, _MAX_POOLS) and any(tensor is stage for tensor in node.inputs):
            return node.outputs[0]
    return stage


def find_position_stages(
    network: keras.Model, heads: Collection[str], refs: Sequence[StageRef], image: np.ndarray
) -> list[StageRef]:
    """Finds the stages that tell the novelty of each position of a two-dimensional image; empty if there are none.

    They are the feature map that the finest of some heads reads, and the stages `refs` with the same sides. The first
    stage of a U-Net is among them, which tells strange textures best.
    heads: the names of heads per position. refs: of `find_stages`. image: as there.
    """
    readers = keras.Model(network.input, {name: network.output[name] for name in heads})
    finals = [tensor for tensor in final_inputs(readers) if len(tensor.shape) == 4 and producer(tensor).inputs]
    if not finals:
        return []
    nodes = nodes_in_order(network)
    sides = _measure_sides(network, nodes, image)
    finest = max(finals, key=lambda tensor: np.prod(sides[id(tensor)]))
    tensors = {id(tensor): tensor for tensor in (*stage_tensors(network, refs), *finals)}
    same = [tensor for tensor in tensors.values() if sides[id(tensor)] == sides[id(finest)]]
    if None in finest.shape[1:-1]:  # of any size: what has the same sides for one image may not for another
        try:
            larger = _measure_sides(network, nodes, np.pad(image, [(0, 0), (0, 1), (0, 1), (0, 0)], mode="edge"))
            same = [tensor for tensor in same if larger[id(tensor)] == larger[id(finest)]]
        except (ValueError, tf.errors.InvalidArgumentError):  # a network that takes certain sizes only
            same = [finest]
    return [_find_ref(nodes, tensor) for tensor in same[-MAX_STAGES:]]


def stage_tensors(network: keras.Model, refs: Sequence[StageRef]) -> list[keras.KerasTensor]:
    """Returns the tensors that some stages name; KeyError for a name that the network does not have."""
    tensors: dict[tuple[str, int, int], keras.KerasTensor] = {}
    calls: Counter[str] = Counter()
    for node in nodes_in_order(network):
        call, calls[node.operation.name] = calls[node.operation.name], calls[node.operation.name] + 1
        for output, tensor in enumerate(node.outputs):
            tensors[node.operation.name, call, output] = tensor
    return [tensors[ref.layer, ref.call, ref.output] for ref in refs]


def final_inputs(network: keras.Model) -> list[keras.KerasTensor]:
    """Returns the distinct inputs of the final layers with weights; behind those, heads only split and pool.

    A head that reads the images directly has the network's input among them.
    """
    inputs_by_id: dict[int, keras.KerasTensor] = {}
    pending = list(network.outputs)
    while pending:
        tensor = pending.pop()
        operation, inputs, _ = producer(tensor)
        if not inputs:
            inputs_by_id[id(tensor)] = tensor
        elif getattr(operation, "variables", []) and not isinstance(operation, HeadSplit):
            inputs_by_id |= {id(tensor): tensor for tensor in inputs}
        else:
            pending += inputs
    return list(inputs_by_id.values())


def _find_ancestors(network: keras.Model, finals: Sequence[keras.KerasTensor]) -> list[GraphNode]:
    """Returns the nodes that the final inputs come from, inputs of the network first."""
    needed = {id(tensor) for tensor in finals}
    ancestors = []
    for node in reversed(nodes_in_order(network)):
        if any(id(tensor) in needed for tensor in node.outputs):
            needed |= {id(tensor) for tensor in node.inputs}
            ancestors.append(node)
    return ancestors[::-1]


def _measure_sides(network: keras.Model, nodes: Sequence[GraphNode], image: np.ndarray) -> Mapping[int, Sides]:
    """Returns the sides of each node's outputs for an image, by the tensors' ids."""
    tensors = [tensor for node in nodes for tensor in node.outputs]
    with use_handler(MeanHandler()):
        values = keras.Model(network.input, tensors)(tf.constant(image, tf.float32), training=False)
    values = list(values) if isinstance(values, list | tuple) else [values]  # Keras unwraps a list of one
    return {id(tensor): tuple(value.shape[1:-1]) for tensor, value in zip(tensors, values, strict=True)}


def _are_alike(sides: Sides, others: Sides) -> bool:
    """Whether two maps have the same resolution but for padding."""
    if len(sides) != len(others):
        return False
    pairs = zip(sides, others, strict=True)
    return all(max(pair) < 1.5 * min(pair) or max(pair) == 1 for pair in pairs)


def _find_changes(nodes: Sequence[GraphNode], sides: Mapping[int, Sides]) -> dict[int, Change]:
    """Returns the tensors, by their ids, that a node reduces, enlarges, or multiplies with a matrix."""
    changes: dict[int, Change] = {}
    for node in nodes:
        after = sides[id(node.outputs[0])]
        for tensor in node.inputs:
            change = _compare_sides(sides[id(tensor)], after, _has_kernel(node.operation))
            if change is not None:
                changes.setdefault(id(tensor), change)
    return changes


def _compare_sides(before: Sides, after: Sides, has_kernel: bool) -> Change | None:
    """Returns what a node does to the positions of its input; None for less than a factor of two."""
    if not before:
        return "vector" if has_kernel else None
    if len(after) != len(before):
        return "smaller"
    pairs = list(zip(before, after, strict=True))
    if any(new < old and 2 * new <= old + 1 for old, new in pairs):
        return "smaller"
    if max(before) > 1 and any(new > old and new >= 2 * old - 1 for old, new in pairs):
        return "larger"
    return None


def _has_kernel(operation: Any) -> bool:
    """Whether a layer mixes channels or positions by weights; a normalisation does not."""
    return any(len(variable.shape) > 1 for variable in getattr(operation, "variables", []))


def _find_ref(nodes: Sequence[GraphNode], tensor: keras.KerasTensor) -> StageRef:
    """Returns the name of a tensor that some node has as an output."""
    operation, _, outputs = producer(tensor)
    same = [node for node in nodes if node.operation is operation]
    call = next(index for index, node in enumerate(same) if any(output is tensor for output in node.outputs))
    return StageRef(operation.name, call, [id(output) for output in outputs].index(id(tensor)))
