"""Which draws go into the bank, and in which order, so that few stand for many.

First a long reference, the pool, is drawn on training images and on shifted ones. Each draw is described by features
whose averages over the pool are its mean and its spread (`bank_features.py`): a set of draws whose averages are the
same has the same mean and spread. Put the pool's average at the origin; then the squared distance of a set's average is
the mean of the draws' inner products, so the matrix of these is all that the choice needs. Draws are chosen greedily,
then improved by swaps (kernel herding: Chen, Welling and Smola 2010), from this start and from random ones: the first
chunk, then each later chunk together with all before it. The order is kept only if it beats plain order on other
images, shifted in another way. What its first draws are worth is measured on images of neither (`effective.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.bank_errors import sum_spreads
from probrt.exporter.bank_features import describe_draws
from probrt.exporter.bank_images import count_images, make_bank_images
from probrt.exporter.bank_trial import Trial, make_trial
from probrt.exporter.draw_pool import Pool, compile_draws, count_within, size_of_pool
from probrt.exporter.effective import Yardstick, make_yardstick
from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import HeadRecord, Selection

# Of processor time, so that other programs on the machine do not make the bank worse.
SECONDS = 12.0
# A pool that is not this many times larger than the bank leaves nothing to choose.
_MIN_POOL_RATIO = 4
# How many draws tell on which images draws differ, and from how many random starts each chunk is sought.
_TRIAL_DRAWS = 16
_STARTS = 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bank:
    """The order of a bank's draws.

    selection: how it compares with independent draws. trial: compares other draws with them. answers: of the bank's
    draws, on the trial's images. yardstick: measures what draws are worth. All are None if there was nothing to choose
    from.
    """

    order: list[int]
    selection: Selection | None
    trial: Trial | None = None
    answers: Pool | None = None
    yardstick: Yardstick | None = None


def choose_bank(
    model: Exportable,
    heads: Sequence[HeadRecord],
    images: npt.NDArray[Any],
    seed: int,
    draws: int,
    chunk: int,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.process_time,
) -> Bank:
    """Chooses the order of a bank of `draws` draws in chunks of `chunk`.

    images: raw training images [count, *input.shape]. Takes about `seconds` of processor time: the pool
    has as many draws as fit.
    """
    plain = list(range(draws))
    count = count_images(images)
    if count < 2:
        return Bank(plain, None)
    evaluate_draws = compile_draws(model, images.astype(np.float32), seed)

    def measure_spread(candidates: npt.NDArray[Any]) -> Floats:
        batches = [candidates[first : first + count] for first in range(0, len(candidates), count)]
        return sum_spreads(heads, [evaluate_draws(batch, range(_TRIAL_DRAWS)) for batch in batches])

    low, high = model.input.range or (-np.inf, np.inf)
    bank_images = make_bank_images(images, low, high, measure_spread)
    sets = list(bank_images.list_sets())
    pool_images = np.concatenate(sets)
    pool = evaluate_draws(pool_images, count_within(seconds, clock))
    size = size_of_pool(pool)
    if size < _MIN_POOL_RATIO * draws:
        return Bank(plain, None)
    ends = np.cumsum([len(images) for images in sets]).tolist()
    slices = [slice(first, end) for first, end in zip([0, *ends], ends, strict=False)]
    *chosen_on, kept, kept_shifted, measured, measured_shifted = slices
    products = inner_products([block for rows in chosen_on for block in describe_draws(heads, pool, rows)])
    order = order_draws(products, draws, chunk)
    trial = make_trial(heads, pool, pool_images, (kept, kept_shifted), draws, chunk)
    rows = slice(kept.start, kept_shifted.stop)

    def take_answers(order: Sequence[int]) -> Pool:
        return {name: (mean[order, rows], other[order, rows]) for name, (mean, other) in pool.items()}

    errors = trial.measure(take_answers(order))
    better = trial.is_better_than_independent(errors)
    kept_order = order if better else plain
    sides = {head.name: len(model.positions(head)) for head in model.heads}
    yardstick = make_yardstick(heads, sides, pool, pool_images, (measured, measured_shifted))
    selection = Selection(pool=size, kept=better, errors=errors)
    return Bank(kept_order, selection, trial, take_answers(kept_order), yardstick)


def inner_products(blocks: Sequence[Floats]) -> Floats:
    """Returns the inner products of the draws [pool, pool]; blocks: features [pool, features], which are centred."""
    features = np.concatenate(blocks, axis=1)
    centred = features - features.mean(0)
    return np.asarray(centred @ centred.T)


def order_draws(products: Floats, draws: int, chunk: int) -> list[int]:
    """Orders `draws` draws so that after each `chunk` the average of all so far is as near to the origin as swaps get.

    products: inner products [pool, pool].
    """
    random = np.random.default_rng(0)
    order: list[int] = []
    for _ in range(0, draws, chunk):
        free = np.setdiff1d(np.arange(len(products)), order)
        starts = [_choose_greedily(products, order, chunk)]
        starts += [random.choice(free, chunk, replace=False).tolist() for _ in range(_STARTS)]
        sets = [_swap_draws(products, order, start) for start in starts]
        order += min(sets, key=lambda chosen: products[np.ix_([*order, *chosen], [*order, *chosen])].sum())
    return order


def _choose_greedily(products: Floats, before: Sequence[int], count: int) -> list[int]:
    """Returns `count` draws: each makes the sum of all inner products least."""
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(_find_best(products, [*before, *chosen])[0])
    return chosen


def _swap_draws(products: Floats, before: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Replaces chosen draws by better ones, one at a time, until none is better."""
    chosen, improved = list(chosen), True
    while improved:
        improved = False
        for place, draw in enumerate(chosen):
            others = [*before, *chosen[:place], *chosen[place + 1 :]]
            best, costs = _find_best(products, others)
            if costs[best] < costs[draw] - 1e-12:
                chosen[place], improved = best, True
    return chosen


def _find_best(products: Floats, others: Sequence[int]) -> tuple[int, Floats]:
    """Returns the draw to add to others, and what each would add to the sum of all inner products."""
    costs = 2.0 * products[others].sum(0) + np.diag(products)
    costs[others] = np.inf
    return int(np.argmin(costs)), costs
