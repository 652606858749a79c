"""Which draws go into the bank, and in which order, so that few stand for many.

First a long reference, the pool, is drawn on training images and on shifted ones. Each draw is described by its
outputs, their squares and its aleatoric uncertainty: if a set of draws has the pool's averages of these, it has the
pool's mean and spread. Put the pool's average at the origin; then the squared distance of a set's average is the mean
of the draws' inner products, so the matrix of these is all that the choice needs. Draws are chosen greedily, then
improved by swaps (kernel herding: Chen, Welling and Smola 2010): the first chunk, then each later chunk together with
all before it. The order is kept only if it beats plain order on other images, shifted in another way. What its first
draws are worth is measured on images of neither (`effective.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from probrt.exporter.bank_errors import compute_independent_error, summarize_draws, summarize_pool
from probrt.exporter.draw_pool import Pool, draw_pool, size_of_pool
from probrt.exporter.effective import Yardstick, make_yardstick
from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import BankError, HeadRecord, Selection

SECONDS = 20.0
# A pool that is not this many times larger than the bank leaves nothing to choose.
_MIN_POOL_RATIO = 4
# Per set of images: how many values one pass holds, and how many images.
_MAX_VALUES = 1 << 18
_MAX_IMAGES = 32
# How many groups of independent draws the order is compared with.
_GROUPS = 8
# Of means, squares and aleatoric uncertainties: the spread is the hardest to match (seen on the digits example).
_WEIGHTS = (1.0, 2.0, 0.5)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bank:
    """The order of a bank's draws.

    selection: how it compares with plain order. yardstick: measures what draws are worth. Both are None if there was
    nothing to choose from.
    """

    order: list[int]
    selection: Selection | None
    yardstick: Yardstick | None = None


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
    count = min(_MAX_IMAGES, len(images) // 3, max(4, _MAX_VALUES // int(np.prod(images.shape[1:]))))
    if count < 2:
        return Bank(plain, None)
    low, high = model.input.range or (-np.inf, np.inf)
    chosen_on, kept_on, measured_on = (images[first::3][:count] for first in range(3))
    sets = [chosen_on, _add_noise(chosen_on), kept_on, _blur(kept_on), measured_on, _mirror(measured_on)]
    pool_images = np.clip(np.concatenate(sets), low, high).astype(np.float32)
    pool = draw_pool(model, pool_images, seed, seconds, clock)
    size = size_of_pool(pool)
    if size < _MIN_POOL_RATIO * draws:
        return Bank(plain, None)
    slices = [slice(position * count, (position + 1) * count) for position in range(len(sets))]
    products = inner_products([_describe_draws(pool, images_of_set) for images_of_set in slices[:2]])
    order = order_draws(products, draws, chunk)
    errors = _measure_errors(heads, pool, {"training": slices[2], "shifted": slices[3]}, order, chunk)
    better = _is_better(errors, chunk)
    sides = {head.name: len(model.positions(head)) for head in model.heads}
    yardstick = make_yardstick(heads, sides, pool, pool_images, (slices[4], slices[5]))
    return Bank(order if better else plain, Selection(pool=size, kept=better, errors=errors), yardstick)


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
    summaries = {name: summarize_pool(heads, pool, images) for name, images in sets.items()}
    for draws in range(chunk, len(order) + 1, chunk):
        for name, images in sets.items():
            summary = summaries[name]
            mean, spread = summary.compute_error(summarize_draws(heads, pool, images, order[:draws]))
            independent_mean, independent_spread = compute_independent_error(
                heads, pool, images, draws, _GROUPS, summary
            )
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


def _add_noise(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lowers the images' contrast and adds noise of a third of their standard deviation."""
    noise = np.random.default_rng(0).normal(0.0, images.std() / 3.0, images.shape)
    return np.asarray(images.mean() + 0.7 * (images - images.mean()) + noise)


def _blur(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Averages the images with themselves a step further along their first side, then makes them brighter."""
    return np.asarray(0.5 * (images + np.roll(images, 1, axis=1)) + 0.2 * images.std())


def _mirror(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Reverses the images along their first side and raises their contrast."""
    return np.asarray(images.mean() + 1.3 * (images[:, ::-1] - images.mean()))
