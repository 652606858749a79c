"""Which draws go into the bank, and in which order: few that stand for many.

A long reference, the pool, is drawn on training images and on shifted ones. Of each draw we take its outputs, their
squares and its aleatoric uncertainty; a set of draws whose averages of these are the pool's has the pool's mean and
spread. In a space where the pool's average is the origin, the squared distance of a set's average from it is the
mean of the draws' inner products, so that choosing needs the matrix of these alone: greedily, then by swaps
(kernel herding: Chen, Welling and Smola 2010). The first chunk is chosen so, then each later one together with all
before it. The order is kept only if images of neither set, shifted in another way, show it better than plain order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import BankError, HeadRecord, Selection
from probrt.runtime.predict.combine import ENTROPIES
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import DrawHandler, use_handler

POOL = 1024
SECONDS = 20.0
# A pool that is not much larger than the bank leaves nothing to choose.
_LEAST = 4
# Per set of images: what one pass holds, and entries of one answer that are looked at.
_VALUES = 1 << 18
_MOST = 40
_ENTRIES = 16
# Of means, squares and aleatoric uncertainties: the spread is the hardest to match (seen on the digits example).
_WEIGHTS = (1.0, 2.0, 0.5)

Draws = dict[str, tuple[np.ndarray, np.ndarray]]  # per head: mean [draws, images, …] and aleatoric, float32


@dataclass(frozen=True)
class Chosen:
    """The bank's order, and how it was found to compare with plain order; None if there was nothing to compare."""

    order: list[int]
    selection: Selection | None


def chosen(
    model: Model,
    heads: Sequence[HeadRecord],
    kept: np.ndarray,
    seed: int,
    draws: int,
    chunk: int,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """The order of a bank of `draws` draws; kept are raw training images [count, *input.shape].

    Takes about `seconds`: as many draws are looked at as fit.
    """
    plain = list(range(draws))
    count = min(_MOST, len(kept) // 2, max(4, _VALUES // int(np.prod(kept.shape[1:]))))
    if count < 2:
        return Chosen(plain, None)
    low, high = model.input.range or (-np.inf, np.inf)
    sets = [kept[0::2][:count], _noisy(kept[0::2][:count]), kept[1::2][:count], _blurred(kept[1::2][:count])]
    images = np.clip(np.concatenate(sets), low, high).astype(np.float32)
    pool = _pool(model, images, seed, seconds, clock)
    size = len(next(iter(pool.values()))[0])
    if size < _LEAST * draws:
        return Chosen(plain, None)
    parts = [slice(number * count, (number + 1) * count) for number in range(4)]
    order = ordered(gram([_features(pool, part) for part in parts[:2]]), draws, chunk)
    errors = [
        BankError(
            draws=number,
            images=name,
            mean=_error(heads, pool, part, order[:number])[0],
            spread=_error(heads, pool, part, order[:number])[1],
            independent_mean=independent[0],
            independent_spread=independent[1],
        )
        for number in range(chunk, draws + 1, chunk)
        for name, part in (("training", parts[2]), ("shifted", parts[3]))
        for independent in [_independent(heads, pool, part, number)]
    ]
    better = all(
        one.mean + one.spread < one.independent_mean + one.independent_spread for one in errors if one.draws == chunk
    ) and sum(one.mean + one.spread for one in errors) < sum(
        one.independent_mean + one.independent_spread for one in errors
    )
    return Chosen(order if better else plain, Selection(pool=size, kept=better, errors=errors))


def gram(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Inner products of the draws [pool, pool]: each block [pool, features] centred, and of average length 1."""
    total = np.zeros((len(blocks[0]), len(blocks[0])))
    for block in blocks:
        centred = block - block.mean(0)
        length = np.square(centred).sum(1).mean()
        if length > 0:
            total += (centred @ centred.T) / length
    return total


def ordered(products: np.ndarray, draws: int, chunk: int) -> list[int]:
    """An order of draws whose every `chunk` more bring the average of all so far as near to the origin as swaps can."""
    order: list[int] = []
    diagonal = np.diag(products)
    for _ in range(0, draws, chunk):
        first = len(order)
        # Greedy: the one whose addition makes the sum of all inner products least.
        for _ in range(chunk):
            cost = 2.0 * products[:, order].sum(1) + diagonal
            cost[order] = np.inf
            order.append(int(np.argmin(cost)))
        improved = True
        while improved:
            improved = False
            for place in range(first, len(order)):
                others = [index for number, index in enumerate(order) if number != place]
                cost = 2.0 * products[:, others].sum(1) + diagonal
                cost[others] = np.inf
                best = int(np.argmin(cost))
                if cost[best] < cost[order[place]] - 1e-12:
                    order[place], improved = best, True
    return order


def _pool(model: Model, images: np.ndarray, seed: int, seconds: float, clock: Callable[[], float]) -> Draws:
    """As many draws as fit into the time, of some entries of each head's answer."""

    shared = model.shared_features(tf.constant(images))

    @tf.function(autograph=False)
    def drawn(index: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        with use_handler(DrawHandler(seed, index)):
            said = model.moments_from(shared)
        return {
            head.name: tuple(_some(values, len(model.positions(head))) for values in said[head.name][:2])
            for head in model.heads
        }

    drawn(tf.constant(0))  # tracing is not counted
    end = clock() + seconds
    found: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {head.name: ([], []) for head in model.heads}
    for index in range(POOL):
        for name, pair in drawn(tf.constant(index)).items():
            for kept, values in zip(found[name], pair, strict=True):
                kept.append(values.numpy())
        if clock() > end:
            break
    return {name: (np.stack(means), np.stack(aleatorics)) for name, (means, aleatorics) in found.items()}


def _some(values: tf.Tensor, sides: int) -> tf.Tensor:
    """[batch, entries, …]: of an answer with `sides` sides of positions some positions, evenly spread."""
    if not sides:
        return values
    flat = tf.reshape(values, [tf.shape(values)[0], -1, *values.shape[1 + sides :]])
    return flat[:, :: tf.maximum(1, tf.shape(flat)[1] // _ENTRIES)]


def _features(pool: Draws, part: slice) -> np.ndarray:
    """[draws, features]: means, their squares and aleatoric uncertainties, each head with the same weight."""
    blocks = []
    for mean, aleatoric in pool.values():
        squares = np.square(mean[:, part] - mean[:, part].mean(0))
        for weight, values in zip(_WEIGHTS, (mean[:, part], squares, aleatoric[:, part]), strict=True):
            flat = values.reshape(len(values), -1).astype(np.float64)
            flat = flat - flat.mean(0)
            blocks.append(weight * flat / max(np.sqrt(np.square(flat).sum(1).mean()), 1e-12))
    return np.concatenate(blocks, axis=1)


def _error(heads: Sequence[HeadRecord], pool: Draws, part: slice, order: Sequence[int]) -> tuple[float, float]:
    """Root mean square difference of mean and spread from the pool's, averaged over heads, as parts of its spread."""
    means, spreads = [], []
    for head in heads:
        mean, aleatoric = (values[:, part].astype(np.float64) for values in pool[head.name])
        deviation = np.sqrt(max(mean.var(0).mean(), 1e-30))
        means.append(_rms(mean[order].mean(0) - mean.mean(0)) / deviation)
        reference = _spread(head, mean, aleatoric)
        spreads.append(_rms(_spread(head, mean[order], aleatoric[order]) - reference) / max(_rms(reference), 1e-30))
    return float(np.mean(means)), float(np.mean(spreads))


def _independent(heads: Sequence[HeadRecord], pool: Draws, part: slice, number: int) -> tuple[float, float]:
    """The same of independent draws: the root mean square over disjoint groups of the plain order."""
    size = len(next(iter(pool.values()))[0])
    groups = [list(range(first, first + number)) for first in range(0, size - number + 1, number)][:8]
    found = np.array([_error(heads, pool, part, group) for group in groups])
    return tuple(float(value) for value in np.sqrt(np.square(found).mean(0)))


def _spread(head: HeadRecord, mean: np.ndarray, aleatoric: np.ndarray) -> np.ndarray:
    if head.kind == "real":
        return mean.var(0)
    return np.maximum(ENTROPIES[head.kind](mean.mean(0)) - aleatoric.mean(0), 0.0)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _noisy(images: np.ndarray) -> np.ndarray:
    """Images at less contrast, with noise of a third of their standard deviation."""
    noise = np.random.default_rng(0).normal(0.0, images.std() / 3.0, images.shape)
    return images.mean() + 0.7 * (images - images.mean()) + noise


def _blurred(images: np.ndarray) -> np.ndarray:
    """Images averaged with themselves a step further along their first side, then made brighter."""
    return 0.5 * (images + np.roll(images, 1, axis=1)) + 0.2 * images.std()
