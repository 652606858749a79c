"""Which layers of a file can be in int8, and the numbers that rounding takes.

A layer comes into question if it sums enough products, and if it is none of the final ones and none of the novelty's
own products. Files of draws compute layers once more, at the posterior mean, for the novelty alone: each of these may
be in int8 by itself. Of draws, a layer's rounding must be small beside what they differ by: a draw differs from the
posterior mean by the posterior's scale, which may be less than a step of int8. So the steps are compared with it, layer
by layer. Rounding to a step s adds the variance s² / 12: a step as large as the standard deviation between draws adds a
twelfth to its square. What the rounding of the mean may do is measured at the outputs (`int8_files.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# The largest step that a layer in int8 may have, in standard deviations between draws. A draw shifts many positions
# alike, where rounding an activation does not, so that the sums of the next layer keep less of it.
LARGEST_WEIGHT_STEP, LARGEST_ACTIVATION_STEP = 1.0, 3.0
# Of a sum of fewer products the roundings hardly average out: in the first layer one shifts a draw for all images.
# Such a layer computes little.
LEAST_TERMS = 32
# Steps of int8 between 0 and the largest weight, and between the smallest and the largest activation.
WEIGHT_STEPS, ACTIVATION_STEPS = 127, 255

# What the name of a layer ends with that draws run once more at the posterior mean, for the novelty.
AT_MEAN = " at the mean"

Array = npt.NDArray[np.float32]
Tensor = Hashable  # the name or the index of a tensor
LayerKey = int


@dataclass(frozen=True)
class GraphNode:
    """A node of a graph, without what differs between draws.

    kind: its operation with the attributes, and the shapes of the constants among its inputs.
    inputs: the tensors that are no constants. label: paths that tell its layer, joined by semicolons.
    weights: of a convolution or matrix product that the format has in int8: [scales, weights per scale].
    rounded: the tensors that int8 rounds, its input and, if the format does, its output. channels: their axis.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    label: str
    weights: Array | None = None
    rounded: tuple[Tensor, ...] = ()
    channels: int = -1
    terms: int = 0


@dataclass(frozen=True)
class Layer:
    """A layer of a file: a node per pass through the network.

    key: the same in every chunk of a bank and format. nodes: their places in the graph.
    """

    key: LayerKey
    name: str
    nodes: tuple[int, ...]


@dataclass
class Range:
    """The smallest and the largest value of a tensor, where 0 is always inside, and the average of each channel."""

    low: float = 0.0
    high: float = 0.0
    _sums: npt.NDArray[np.float64] | float = 0.0
    _count: int = 0

    def add(self, values: npt.NDArray[Any], channels: int = -1) -> None:
        """Adds some values. channels: their axis."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._sums = self._sums + np.moveaxis(values, channels, -1).reshape(-1, values.shape[channels]).mean(
            0, np.float64
        )
        self._count += 1

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """The average of each channel."""
        return np.asarray(self._sums) / max(1, self._count)

    @property
    def step(self) -> float:
        """The step of int8."""
        return max((self.high - self.low) / ACTIVATION_STEPS, 1e-12)


@dataclass(frozen=True)
class LayerSteps:
    """How a layer's steps compare with the standard deviation between draws; None where draws do not differ.

    weights, activations: step / standard deviation, both as root mean squares. terms: how many products a sum has.
    """

    key: LayerKey
    name: str
    weights: float | None
    activations: float | None
    terms: int

    @property
    def fits(self) -> bool:
        """Whether the layer can compute in int8."""
        weights, activations = self.weights or 0.0, self.activations or 0.0
        fine = weights <= LARGEST_WEIGHT_STEP and activations <= LARGEST_ACTIVATION_STEP
        return fine and self.terms >= LEAST_TERMS


@dataclass(frozen=True)
class MeasuredFile:
    """A float32 file and what rounding it takes.

    steps: of each layer, in the same order. ranges: of the tensors that int8 rounds.
    """

    nodes: Sequence[GraphNode]
    layers: Sequence[Layer]
    steps: Sequence[LayerSteps]
    ranges: Mapping[Tensor, Range]

    def list_nodes(self, keys: Collection[LayerKey]) -> list[int]:
        """Returns the places of the nodes of some layers."""
        return [place for layer in self.layers if layer.key in keys for place in layer.nodes]


def find_layers(
    nodes: Sequence[GraphNode],
    outputs: Iterable[Tensor],
    novelty: Iterable[Tensor],
    passes: int,
    names: Collection[str],
) -> list[Layer]:
    """Returns the layers with weights that each pass runs once, but for the final ones, in the order of computation.

    Two nodes belong to one layer if all that leads to them is alike but for the values of constants. Left out is also
    what more or fewer nodes than passes have in common, and what only the novelty needs, but for the pass at the
    posterior mean that it takes in a file of draws: its layers follow, each by itself.
    nodes: in an order of computation. outputs: of the heads. novelty: the other outputs. passes: one per draw, or 1.
    names: of the network's layers, for messages.
    """
    producers = {tensor: place for place, node in enumerate(nodes) for tensor in node.outputs}
    kept = _find_ancestors(nodes, producers, novelty) - _find_ancestors(nodes, producers, outputs)
    groups: dict[int, list[int]] = defaultdict(list)
    at_mean: dict[int, int] = {}
    kinds: dict[Tensor, int] = {}
    for place, node in enumerate(nodes):
        kind = hash((node.kind, *(kinds.get(tensor) for tensor in node.inputs)))
        kinds |= {tensor: hash((kind, index)) for index, tensor in enumerate(node.outputs)}
        if node.weights is not None and place not in kept:
            groups[kind if passes > 1 else place].append(place)
        elif node.weights is not None and passes > 1 and node.terms >= LEAST_TERMS:
            at_mean[kind] = place
    layers = {key: places for key, places in groups.items() if len(places) == passes}
    products = {place for places in layers.values() for place in places}
    before_others = _find_ancestors(nodes, producers, (tensor for place in products for tensor in nodes[place].inputs))
    drawn = [
        Layer(key, _find_name(nodes[places[0]].label, names), tuple(places))
        for key, places in layers.items()
        if before_others.issuperset(places)
    ]
    return drawn + [
        Layer(hash((layer.key, AT_MEAN)), f"{layer.name}{AT_MEAN}", (at_mean[layer.key],))
        for layer in drawn
        if layer.key in at_mean
    ]


def measure_layers(
    layers: Sequence[Layer],
    nodes: Sequence[GraphNode],
    run: Callable[[Array], Mapping[Tensor, npt.NDArray[Any]]],
    images: Array,
) -> tuple[list[LayerSteps], dict[Tensor, Range]]:
    """Measures each layer's steps against the draws, if there are several, and the range of its inputs and outputs.

    run: computes those tensors for one image [1, *input.shape]. images: representative ones, [count, *input.shape].
    """
    ranges: dict[Tensor, Range] = defaultdict(Range)
    squares: dict[tuple[LayerKey, int], list[float]] = defaultdict(list)
    for image in images:
        values = run(image[None])
        for layer in layers:
            for index, tensors in enumerate(_list_rounded(layer, nodes)):
                for tensor in tensors:
                    ranges[tensor].add(values[tensor], nodes[layer.nodes[0]].channels)
                squares[layer.key, index].append(_compute_variance([values[tensor] for tensor in tensors]))
    steps = []
    for layer in layers:
        ratios = [
            _divide(_square_mean([ranges[tensor].step for tensor in tensors]), _root_mean(squares[layer.key, index]))
            for index, tensors in enumerate(_list_rounded(layer, nodes))
        ]
        weights = compare_weights([weight for place in layer.nodes if (weight := nodes[place].weights) is not None])
        activations = max((ratio for ratio in ratios if ratio is not None), default=None)
        steps.append(LayerSteps(layer.key, layer.name, weights, activations, nodes[layer.nodes[0]].terms))
    return steps, dict(ranges)


def compare_weights(weights: Sequence[Array]) -> float | None:
    """Returns step / standard deviation between draws of a layer's weights, a matrix [scales, weights] per draw.

    None where the draws do not differ.
    """
    steps = [np.abs(draw).max(axis=1) / WEIGHT_STEPS for draw in weights]
    return _divide(_square_mean(steps), float(np.sqrt(_compute_variance(weights))))


def find_scale(values: Range) -> tuple[float, int]:
    """Returns the scale and the zero point of a range in unsigned bytes."""
    return values.step, int(np.clip(round(-values.low / values.step), 0, ACTIVATION_STEPS))


def round_weights(values: Array, axis: int | None, least: Array | float = 1e-12) -> tuple[npt.NDArray[np.int8], Array]:
    """Returns weights in int8 and their scales: one per entry of an axis, [entries], or a single one, [].

    least: the smallest scales allowed.
    """
    others = None if axis is None else tuple(side for side in range(values.ndim) if side != axis)
    scales = np.maximum(np.abs(values).max(axis=others) / WEIGHT_STEPS, np.maximum(least, 1e-12)).astype(np.float32)
    shape = [-1 if side == axis else 1 for side in range(values.ndim)] if axis is not None else []
    return np.round(values / scales.reshape(shape)).astype(np.int8), scales


def correct_bias(errors: Array, values: Range) -> Array | None:
    """Returns what to add to the bias of each output for the rounding of weights, which shifts it on average.

    After Nagel et al. (2019, section 4.2). errors: weights less the rounded ones, [outputs, inputs]. values: of the
    inputs. None where each output has inputs of its own (groups).
    """
    means = values.means
    return (errors @ means).astype(np.float32) if len(means) == errors.shape[1] else None


def _list_rounded(layer: Layer, nodes: Sequence[GraphNode]) -> list[tuple[Tensor, ...]]:
    """Returns the tensors that int8 rounds, [rounded tensors per node][draws]."""
    return list(zip(*(nodes[place].rounded for place in layer.nodes), strict=True))


def _compute_variance(draws: Sequence[npt.NDArray[Any]]) -> float:
    """Returns the average variance between draws; 0 of a single one."""
    if len(draws) == 1:
        return 0.0
    return float(np.var(np.stack(draws).astype(np.float64), axis=0, ddof=1).mean())


def _root_mean(squares: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(squares)))


def _square_mean(values: Any) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _divide(step: float, deviation: float) -> float | None:
    return step / deviation if deviation > 0 else None


def _find_ancestors(nodes: Sequence[GraphNode], producers: Mapping[Tensor, int], tensors: Iterable[Tensor]) -> set[int]:
    """Returns the nodes that some tensors are computed from."""
    found: set[int] = set()
    pending = list(tensors)
    while pending:
        place = producers.get(pending.pop())
        if place is not None and place not in found:
            found.add(place)
            pending += nodes[place].inputs
    return found


def _find_name(label: str, names: Collection[str]) -> str:
    """Returns the layer that a node's label names last in a path, or the label's first path."""
    paths = label.split(";")
    for part in (part for path in paths for part in reversed(path.split("/"))):
        for name in (part, part.rpartition("_")[0]):  # Keras gives the second call of a layer a number
            if name in names:
                return name
    return paths[0]
