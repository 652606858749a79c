"""Finds the drawn weights among the constants of a converted file.

All chunks of a bank but the first are one graph with other weights. A converter moves the axes of a weight, and folds
the scale of a batch normalisation into it. A rule says which weight a constant holds and what was done to it; rules are
found by the values of one chunk, and then make the constants of the others without a conversion.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Draws = Sequence[Mapping[int, Floats]]
"""The random weights of each draw of a chunk, by weight id."""

# So many values tell whether a constant may hold a weight, before all of them are compared.
_PREFIX = 16
# By how much ratios of float32 values differ that were rounded once.
_CLOSE = 3e-7


@dataclass(frozen=True)
class Operation:
    """One operation of a file: the tensors that it reads and writes."""

    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]


@dataclass(frozen=True)
class FileGraph:
    """The graph of a file: its float32 constants by tensor, and its operations in their order."""

    constants: Mapping[Hashable, Floats]
    operations: Sequence[Operation]


@dataclass(frozen=True)
class Rule:
    """How a constant is made of a weight: its axes in another order, in another shape, times a scale.

    scale: broadcasts to `shape`, and is the same for all draws. factor: of one number, which comes after it.
    """

    draw: int
    weight: int
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    scale: Floats | None = None
    factor: np.float32 | float = 1.0

    def make_constant(self, draws: Draws) -> Floats:
        """Returns the constant for the weights of some chunk."""
        moved = draws[self.draw][self.weight].squeeze().transpose(self.axes).reshape(self.shape)
        return np.ascontiguousarray(moved if self.scale is None else moved * self.scale * self.factor)


Rules = Mapping[Hashable, Rule]


def find_rules(graph: FileGraph, draws: Draws, factor: float) -> Rules | None:
    """Returns the rule of each constant that depends on the draws; None where they cannot be told for certain.

    factor: by which the network multiplies images; a converter moves it into the weights that follow.
    A rule reproduces its constant bit by bit, every weight has one, and no constant without a rule acts on one draw
    alone, as it would if it had been computed from that draw's weights.
    """
    weights = {(draw, id): values for draw, by_id in enumerate(draws) for id, values in by_id.items()}
    if len({(values.shape, values.tobytes()) for values in weights.values()}) < len(weights):
        return None  # equal weights cannot be told apart
    moves = {}
    for key, constant in graph.constants.items():
        for place in [place for place, values in weights.items() if values.size == constant.size]:
            found = _find_moves(constant, weights[place])
            if len(found) > 1 or (found and key in moves):
                return None
            if found:
                moves[key] = Rule(*place, found[0], constant.shape)
    if sorted((rule.draw, rule.weight) for rule in moves.values()) != sorted(weights):
        return None
    rules: dict[Hashable, Rule] = {}
    for weight in draws[0]:
        same_weight = {key: rule for key, rule in moves.items() if rule.weight == weight}
        scaled = _find_scale(
            {key: (rule, graph.constants[key]) for key, rule in same_weight.items()}, draws, np.float32(factor)
        )
        if scaled is None:
            return None
        rules |= scaled
    return None if _find_computed_constants(graph, rules, len(draws)) else rules


def _find_moves(constant: Floats, weight: Floats) -> list[tuple[int, ...]]:
    """Returns the orders of the weight's axes in which the constant is it, but for a scale along one side."""
    squeezed = weight.squeeze()
    if squeezed.ndim < 2:
        return [tuple(range(squeezed.ndim))] if np.array_equal(squeezed.ravel(), constant.ravel()) else []
    found = []
    for axis in (0, constant.ndim - 1):
        if constant.size < 2 * constant.shape[axis]:
            continue  # nothing would tell a scale from other values
        orders, places = _list_orders(squeezed.shape, constant.shape, axis)
        head = np.take(constant, 0, axis).ravel()[:_PREFIX]
        for order in np.flatnonzero(_are_proportional(head, squeezed.ravel()[places], (1,))):
            moved = squeezed.transpose(orders[order]).reshape(constant.shape)
            others = tuple(side for side in range(constant.ndim) if side != axis)
            if orders[order] not in found and np.all(_are_proportional(constant, moved, others)):
                found.append(orders[order])
    return found


@functools.cache
def _list_orders(
    shape: tuple[int, ...], target: tuple[int, ...], axis: int
) -> tuple[list[tuple[int, ...]], npt.NDArray[np.intp]]:
    """Returns all orders of a weight's axes, and where the first values at place 0 of an axis of the target come from.

    shape: of the weight. target: of the constant. The places are [order, value], in the weight's flat values.
    """
    orders = list(itertools.permutations(range(len(shape))))
    flat = np.arange(math.prod(shape)).reshape(shape)
    moved = [np.take(flat.transpose(order).reshape(target), 0, axis).ravel()[:_PREFIX] for order in orders]
    return orders, np.stack(moved)


def _are_proportional(values: Floats, sources: Floats, axes: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Whether values are one multiple of others along some axes, but for rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = values.astype(np.float64) / sources
        ratios[np.broadcast_to(values == 0, ratios.shape) & (sources == 0)] = np.nan
        low, high = np.fmin.reduce(ratios, axes), np.fmax.reduce(ratios, axes)
        close: npt.NDArray[np.bool_] = np.asarray(high - low <= _CLOSE * np.abs(high))
    return close


def _find_scale(
    constants: Mapping[Hashable, tuple[Rule, Floats]], draws: Draws, factor: np.float32
) -> dict[Hashable, Rule] | None:
    """Returns the rules of one weight's constants with the scale that all draws share; None if there is no such one."""
    made = {key: rule.make_constant(draws) for key, (rule, _) in constants.items()}
    if all(np.array_equal(made[key], constant) for key, (_, constant) in constants.items()):
        return {key: rule for key, (rule, _) in constants.items()}
    pairs = [(made[key], constant) for key, (_, constant) in constants.items()]
    if len({constant.shape for _, constant in pairs}) > 1:
        return None
    axes = (0, pairs[0][1].ndim - 1)
    for axis, last in [(axis, last) for last in (np.float32(1), factor) for axis in axes]:
        scale = _solve_scale(pairs, axis, last)
        if scale is not None and all(np.array_equal(values * scale * last, constant) for values, constant in pairs):
            return {key: dataclasses.replace(rule, scale=scale, factor=last) for key, (rule, _) in constants.items()}
    return None


def _solve_scale(pairs: Sequence[tuple[Floats, Floats]], axis: int, factor: np.float32) -> Floats | None:
    """Returns the scale along an axis that, before the factor, takes the first of each pair to the second.

    Each rounding to float32 bounds the scale; the bounds of all values leave one float32. None if they do not.
    """
    low, high = np.array(-np.inf), np.array(np.inf)
    for values, constant in pairs:
        others = tuple(side for side in range(constant.ndim) if side != axis)
        middle = constant.astype(np.float64) / factor
        half = np.spacing(np.abs(constant)) / np.float64(factor) / 2
        if factor != 1:
            half += np.spacing(np.abs(middle).astype(np.float32)) / 2.0
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = np.stack([(middle - half) / values, (middle + half) / values])
        bounds[:, values == 0] = [[-np.inf], [np.inf]]
        low = np.maximum(low, bounds.min(0).max(others, keepdims=True))
        high = np.minimum(high, bounds.max(0).min(others, keepdims=True))
    if not np.all(np.isfinite(low) & np.isfinite(high)):
        return None
    scale: Floats = ((low + high) / 2).astype(np.float32)
    return None if np.any(high - low > np.spacing(np.abs(scale))) else scale


def _find_computed_constants(graph: FileGraph, rules: Rules, count: int) -> bool:
    """Whether a constant without a rule acts on one draw alone.

    Constants that do not depend on the draws are shared by all of them, or there once per draw with equal values.
    """
    if count == 1:
        return False
    readers: dict[Hashable, list[Operation]] = {}
    draws_in: dict[Hashable, frozenset[int]] = {key: frozenset({rule.draw}) for key, rule in rules.items()}
    for operation in graph.operations:
        draws = frozenset[int]().union(*(draws_in.get(name, frozenset()) for name in operation.reads))
        draws_in |= dict.fromkeys(operation.writes, draws)
        for name in operation.reads:
            readers.setdefault(name, []).append(operation)
    # An operation that no draw has reached yet acts on those of its readers.
    draws_of: dict[Hashable, frozenset[int]] = {}
    for operation in reversed(graph.operations):
        own = frozenset[int]().union(*(draws_in[name] for name in operation.writes))
        later = frozenset[int]().union(*(draws_of.get(name, frozenset()) for name in operation.writes))
        for name in operation.reads:
            draws_of[name] = draws_of.get(name, frozenset()) | (own or later)
    acting: dict[Any, frozenset[int]] = {}
    for key, constant in graph.constants.items():
        if key not in rules:
            content = (constant.shape, constant.tobytes())
            acting[content] = acting.get(content, frozenset()) | draws_of.get(key, frozenset())
    return any(len(draws) == 1 for draws in acting.values())
