"""Which draws go into the bank, and in which order, so that few stand for many.

First a long reference, the pool, is drawn on training images and on shifted ones. Each draw is described by its
outputs, their squares and its aleatoric uncertainty: if a set of draws has the pool's averages of these, it has the
pool's mean and spread. Put the pool's average at the origin; then the squared distance of a set's average is the mean
of the draws' inner products, so the matrix of these is all that the choice needs. Draws are chosen greedily, then
improved by swaps (kernel herding: Chen, Welling and Smola 2010): the first chunk, then each later chunk together with
all before it. The order is kept only if it beats plain order on other images, shifted in another way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import BankError, HeadRecord, Selection
from probrt.runtime.predict.combine import ENTROPIES
from probrt.trainer.variational.handlers import DrawHandler, use_handler

POOL = 1024
SECONDS = 20.0
# A pool that is not this many times larger than the bank leaves nothing to choose.
_MIN_POOL_RATIO = 4
# Per set of images: how many values one pass holds, how many images, and how many entries of a map count.
_MAX_VALUES = 1 << 18
_MAX_IMAGES = 40
_MAX_ENTRIES = 16
# How many groups of independent draws the order is compared with.
_GROUPS = 8
# Of means, squares and aleatoric uncertainties: the spread is the hardest to match (seen on the digits example).
_WEIGHTS = (1.0, 2.0, 0.5)

Floats = npt.NDArray[np.float64]
Pool = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Per head: mean [draws, images, …] and aleatoric uncertainty [draws, images, …]."""


@dataclass(frozen=True)
class Bank:
    """The order of a bank's draws, and how it compares with plain order; None if there was nothing to choose from."""

    order: list[int]
    selection: Selection | None


def choose_bank(
    model: Exportable,
    heads: Sequence[HeadRecord],
    images: npt.NDArray[Any],
    seed: int,
    draws: int,
    chunk: int,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Bank:
    """Chooses the order of a bank of `draws` draws in chunks of `chunk`.

    images: raw training images [count, *input.shape]. Takes about `seconds`: the pool has as many draws as fit.
    """
    plain = list(range(draws))
    count = min(_MAX_IMAGES, len(images) // 2, max(4, _MAX_VALUES // int(np.prod(images.shape[1:]))))
    if count < 2:
        return Bank(plain, None)
    low, high = model.input.range or (-np.inf, np.inf)
    even, odd = images[0::2][:count], images[1::2][:count]
    sets = [even, _add_noise(even), odd, _blur(odd)]
    pool = _draw_pool(model, np.clip(np.concatenate(sets), low, high).astype(np.float32), seed, seconds, clock)
    size = len(next(iter(pool.values()))[0])
    if size < _MIN_POOL_RATIO * draws:
        return Bank(plain, None)
    slices = [slice(position * count, (position + 1) * count) for position in range(len(sets))]
    products = inner_products([_describe_draws(pool, images_of_set) for images_of_set in slices[:2]])
    order = order_draws(products, draws, chunk)
    errors = _measure_errors(heads, pool, {"training": slices[2], "shifted": slices[3]}, order, chunk)
    better = _is_better(errors, chunk)
    return Bank(order if better else plain, Selection(pool=size, kept=better, errors=errors))


def inner_products(blocks: Sequence[Floats]) -> Floats:
    """Returns the inner products of the draws [pool, pool].

    blocks: features [pool, features]; each is centred and scaled to an average length of 1.
    """
    total = np.zeros((len(blocks[0]), len(blocks[0])))
    for block in blocks:
        centred = block - block.mean(0)
        length = np.square(centred).sum(1).mean()
        if length > 0:
            total += (centred @ centred.T) / length
    return total


def order_draws(products: Floats, draws: int, chunk: int) -> list[int]:
    """Orders `draws` draws so that after each `chunk` the average of all so far is as near to the origin as swaps get.

    products: inner products [pool, pool].
    """
    order: list[int] = []
    diagonal = np.diag(products)
    for _ in range(0, draws, chunk):
        first = len(order)
        # Greedy: adds the draw that makes the sum of all inner products least.
        for _ in range(chunk):
            cost = 2.0 * products[:, order].sum(1) + diagonal
            cost[order] = np.inf
            order.append(int(np.argmin(cost)))
        improved = True
        while improved:
            improved = False
            for place in range(first, len(order)):
                others = [*order[:place], *order[place + 1 :]]
                cost = 2.0 * products[:, others].sum(1) + diagonal
                cost[others] = np.inf
                best = int(np.argmin(cost))
                if cost[best] < cost[order[place]] - 1e-12:
                    order[place], improved = best, True
    return order


def _draw_pool(
    model: Exportable, images: npt.NDArray[np.float32], seed: int, seconds: float, clock: Callable[[], float]
) -> Pool:
    """Evaluates as many draws as fit into the time; of maps only some entries."""
    features = model.shared_features(tf.constant(images))

    @tf.function(autograph=False)
    def evaluate_draw(index: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        with use_handler(DrawHandler(seed, index)):
            moments = model.moments_from(features)
        return {
            head.name: tuple(_thin_positions(values, len(model.positions(head))) for values in moments[head.name][:2])
            for head in model.heads
        }

    evaluate_draw(tf.constant(0))  # tracing does not count
    end = clock() + seconds
    arrays: dict[str, tuple[list[Any], list[Any]]] = {head.name: ([], []) for head in model.heads}
    for index in range(POOL):
        for name, (mean, aleatoric) in evaluate_draw(tf.constant(index)).items():
            arrays[name][0].append(mean.numpy())
            arrays[name][1].append(aleatoric.numpy())
        if clock() > end:
            break
    return {name: (np.stack(means), np.stack(aleatorics)) for name, (means, aleatorics) in arrays.items()}


def _thin_positions(values: tf.Tensor, sides: int) -> tf.Tensor:
    """Returns evenly spread positions of a map, [batch, entries, …]; `sides` is the number of its sides."""
    if not sides:
        return values
    flat = tf.reshape(values, [tf.shape(values)[0], -1, *values.shape[1 + sides :]])
    return flat[:, :: tf.maximum(1, tf.shape(flat)[1] // _MAX_ENTRIES)]


def _describe_draws(pool: Pool, images: slice) -> Floats:
    """Returns features [draws, features]: means, squares and aleatoric uncertainties; all heads weigh alike."""
    blocks = []
    for mean, aleatoric in pool.values():
        squares = np.square(mean[:, images] - mean[:, images].mean(0))
        for weight, values in zip(_WEIGHTS, (mean[:, images], squares, aleatoric[:, images]), strict=True):
            flat = values.reshape(len(values), -1).astype(np.float64)
            flat = flat - flat.mean(0)
            blocks.append(weight * flat / max(np.sqrt(np.square(flat).sum(1).mean()), 1e-12))
    return np.concatenate(blocks, axis=1)


def _measure_errors(
    heads: Sequence[HeadRecord],
    pool: Pool,
    sets: dict[Literal["training", "shifted"], slice],
    order: Sequence[int],
    chunk: int,
) -> list[BankError]:
    """Compares the first chunks of an order, and as many independent draws, with the pool on each set of images."""
    errors = []
    for draws in range(chunk, len(order) + 1, chunk):
        for name, images in sets.items():
            mean, spread = _compute_error(heads, pool, images, order[:draws])
            independent_mean, independent_spread = _compute_independent_error(heads, pool, images, draws)
            errors.append(
                BankError(
                    draws=draws,
                    images=name,
                    mean=mean,
                    spread=spread,
                    independent_mean=independent_mean,
                    independent_spread=independent_spread,
                )
            )
    return errors


def _is_better(errors: Sequence[BankError], chunk: int) -> bool:
    """Whether an order beats independent draws in its first chunk on every set of images, and in the sum over all."""
    gains = [error.independent_mean + error.independent_spread - error.mean - error.spread for error in errors]
    first_chunk = [gain for error, gain in zip(errors, gains, strict=True) if error.draws == chunk]
    return all(gain > 0 for gain in first_chunk) and sum(gains) > 0


def _compute_error(heads: Sequence[HeadRecord], pool: Pool, images: slice, order: Sequence[int]) -> tuple[float, float]:
    """Root mean square difference of mean and spread from the pool's, as parts of its spread, averaged over heads."""
    means, spreads = [], []
    for head in heads:
        mean, aleatoric = (values[:, images].astype(np.float64) for values in pool[head.name])
        deviation = np.sqrt(max(mean.var(0).mean(), 1e-30))
        means.append(_root_mean_square(mean[order].mean(0) - mean.mean(0)) / deviation)
        reference = _compute_spread(head, mean, aleatoric)
        difference = _compute_spread(head, mean[order], aleatoric[order]) - reference
        spreads.append(_root_mean_square(difference) / max(_root_mean_square(reference), 1e-30))
    return float(np.mean(means)), float(np.mean(spreads))


def _compute_independent_error(
    heads: Sequence[HeadRecord], pool: Pool, images: slice, draws: int
) -> tuple[float, float]:
    """The same for independent draws: the root mean square over disjoint groups of the plain order."""
    size = len(next(iter(pool.values()))[0])
    groups = [list(range(first, first + draws)) for first in range(0, size - draws + 1, draws)][:_GROUPS]
    errors = np.array([_compute_error(heads, pool, images, group) for group in groups])
    mean, spread = np.sqrt(np.square(errors).mean(0))
    return float(mean), float(spread)


def _compute_spread(head: HeadRecord, mean: Floats, aleatoric: Floats) -> Floats:
    """Epistemic uncertainty over the draws of the first axis."""
    if head.kind == "real":
        return np.asarray(mean.var(0))
    return np.asarray(np.maximum(ENTROPIES[head.kind](mean.mean(0)) - aleatoric.mean(0), 0.0))


def _root_mean_square(values: Floats) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _add_noise(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lowers the images' contrast and adds noise of a third of their standard deviation."""
    noise = np.random.default_rng(0).normal(0.0, images.std() / 3.0, images.shape)
    return np.asarray(images.mean() + 0.7 * (images - images.mean()) + noise)


def _blur(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Averages the images with themselves a step further along their first side, then makes them brighter."""
    return np.asarray(0.5 * (images + np.roll(images, 1, axis=1)) + 0.2 * images.std())
