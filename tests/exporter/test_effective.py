"""What draws are worth: the law of independent draws in closed form, and known cases on synthetic pools."""

from __future__ import annotations

import numpy as np
import pytest

from probrt.exporter.bank import inner_products, order_draws
from probrt.exporter.bank_errors import share_of_pool_error
from probrt.exporter.bank_features import describe_draws
from probrt.exporter.effective import ErrorLaw, Yardstick, fit_law, make_yardstick
from probrt.runtime.bundle.manifest import HeadRecord

SIZE, IMAGES, FACTORS = 1024, 24, 6


def make_head(kind: str) -> HeadRecord:
    entries = 3 if kind == "class" else 1
    scalar = [] if kind == "class" else [1]
    return HeadRecord(
        name=kind,
        likelihood=kind,
        kind=kind,
        combine="variance" if kind == "real" else "entropy",
        labels=[str(i) for i in range(entries)],
        outputs={"mean": [entries], "total": scalar, "aleatoric": scalar, "epistemic": scalar},
    )


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    """A class and a real head whose draws are linear in a few normal factors."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(SIZE, FACTORS))
    logits = np.einsum("df,fic->dic", factors, rng.normal(0, 0.3, (FACTORS, 2 * IMAGES, 3)))
    logits += rng.normal(size=(2 * IMAGES, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    real = np.einsum("df,fic->dic", factors, rng.normal(0, 1, (FACTORS, 2 * IMAGES, 1)))
    pool = {"class": (p, -(p * np.log(p)).sum(-1)), "real": (real, np.full_like(real, 0.2))}
    heads = [make_head("class"), make_head("real")]
    images = np.zeros((2 * IMAGES, 4, 4, 1), np.float32)
    halves = slice(0, IMAGES), slice(IMAGES, 2 * IMAGES)
    return make_yardstick(heads, {"class": 0, "real": 0}, pool, images, halves)


def test_the_law_goes_through_both_points_and_back() -> None:
    law = fit_law(8, 0.5 / 8 + 0.3 / 64, 64, 0.5 / 64 + 0.3 / 4096)
    assert (law.a, law.b) == (pytest.approx(0.5), pytest.approx(0.3))
    for draws in (1, 7.5, 32, 1000):
        assert law.count(law.square(draws)) == pytest.approx(draws)
    assert ErrorLaw(1.0, 0.0).count(0.0) == np.inf
    assert fit_law(8, 0.1, 64, 0.05) == ErrorLaw(0.05 * 64, 0.0)  # falls more slowly than 1 / n
    assert fit_law(8, 1.0, 64, 1e-4) == ErrorLaw(8.0, 0.0)  # falls faster than 1 / n²


@pytest.mark.parametrize("tuned", [0, 2, 4, 6, 8])
def test_what_of_the_pools_error_is_missing_where_some_draws_are_tuned(tuned: int) -> None:
    """Averages of eight numbers: the first ones off the truth, which is 0, the others off the pool. 1 % of 400,000."""
    rng = np.random.default_rng(0)
    pool = rng.normal(0, 0.5, 400_000)
    off = rng.normal(0, 0.7, (8, len(pool)))
    off[tuned:] += pool
    average = off.mean(0)
    missing = np.square(average).mean() - np.square(average - pool).mean()
    assert missing == pytest.approx(share_of_pool_error(tuned, 8) * 0.25, abs=0.0025)


@pytest.mark.parametrize("draws", [8, 32])
def test_independent_draws_are_worth_their_number(yardstick: Yardstick, draws: int) -> None:
    """The median over groups; the worst of four errors is below the number, for it is the worst."""
    groups = [yardstick.measure_order(range(first, first + draws)) for first in range(0, SIZE, draws)]
    assert 0.4 * draws < np.median([group.effective for group in groups]) < 1.1 * draws
    squares = np.mean([np.square((*group.mean, *group.spread)) for group in groups], axis=0)
    laws = [law for pair in yardstick.laws for law in pair]
    places = (0, 2, 1, 3)  # of the mean and the spread on the first set, then on the second
    for place, law in zip(places, laws, strict=True):
        assert squares[place] == pytest.approx(law.square(draws) * (1 - draws / SIZE), rel=0.2)


def test_chosen_draws_are_worth_more_and_never_more_than_the_pool(yardstick: Yardstick) -> None:
    order = order_draws(inner_products(describe_draws(yardstick.heads, yardstick.pool, slice(None))), 16, 8)
    eight, sixteen = yardstick.measure_order(order[:8]), yardstick.measure_order(order)
    assert eight.effective > 24
    assert sixteen.effective > eight.effective
    assert yardstick.measure_order(range(SIZE)).effective == pytest.approx(SIZE, rel=0.01)


def test_answers_that_are_off_are_worth_less(yardstick: Yardstick) -> None:
    """A coarser precision: the whole pool's answers, but with an error of 1 / 10 of the deviation between draws."""
    rng = np.random.default_rng(1)
    answers = [
        {
            name: (mean + rng.normal(0, 0.1 * summary.deviations[name], mean.shape), spread)
            for name, (mean, spread) in summary.summaries.items()
        }
        for summary in yardstick.summaries
    ]
    record = yardstick.compare("bfloat16", 8, answers)
    assert (record.precision, record.draws) == ("bfloat16", 8)
    assert record.mean == (pytest.approx(0.1, rel=0.3), pytest.approx(0.1, rel=0.3))
    assert record.effective == pytest.approx(1 / (0.1**2 + 1 / SIZE), rel=0.6)


def test_answers_are_split_into_the_two_sets(yardstick: Yardstick) -> None:
    values = np.arange(2 * IMAGES, dtype=np.float32)[:, None]
    like, shifted = yardstick.split({"real": (values, values)})
    assert like["real"][0][:, 0].tolist() == list(range(IMAGES))
    assert shifted["real"][1][:, 0].tolist() == list(range(IMAGES, 2 * IMAGES))
