"""Choosing the bank: the order is nearly optimal, better on other images, and dropped where it is not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cases import BY_NAME
from scipy.stats import entropy

from probrt.exporter import bank
from probrt.exporter.bank_features import measure_contributions
from probrt.exporter.bank_images import make_bank_images
from probrt.exporter.records import make_head_records
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.trainer.model import Model

CHUNK = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return BY_NAME["conv2d_random_bias"].model()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (24, 8, 8, 2)).astype(np.float32)


def distance(features: np.ndarray, order: list[int]) -> float:
    """Squared distance of the average over some draws from the average over all."""
    centred = features - features.mean(0)
    return float(np.square(centred[order].mean(0)).sum())


def test_order_against_brute_force() -> None:
    """Greedy and swaps against all 3-subsets of 14: no swap of one draw helps, and few subsets are nearer."""
    features = np.random.default_rng(1).normal(size=(14, 5))
    order = bank.order_draws(bank.inner_products([features]), 6, 3)
    assert len(set(order)) == 6
    distances = sorted(distance(features, list(subset)) for subset in combinations(range(14), 3))
    nearest = distance(features, order[:3])
    assert nearest <= distances[len(distances) // 50]
    for place in range(3):
        for other in set(range(14)) - set(order[:3]):
            assert nearest <= distance(features, [*order[:place], *order[place + 1 : 3], other]) + 1e-12
    average = np.mean([distance(features, list(subset)) for subset in combinations(range(14), 6)])
    assert distance(features, order) < average / 3


def test_a_chosen_bank_is_nearer_on_images_not_used(model: Model, images: np.ndarray) -> None:
    chosen = bank.choose_bank(model, make_head_records(model), images, 3, 8, CHUNK, seconds=3.0)
    assert chosen.selection is not None
    assert chosen.selection.kept
    assert sorted(set(chosen.order)) == sorted(chosen.order)
    assert chosen.order != list(range(8))
    errors = chosen.selection.errors
    assert [(error.draws, error.images) for error in errors] == [
        (draws, name) for draws in (4, 8) for name in ("training", "shifted")
    ]
    for error in errors:
        # Independent draws: 1 / sqrt(n); groups of a pool of finite size scatter by a third or so.
        assert error.independent_mean == pytest.approx(error.draws**-0.5, rel=0.4)
    assert np.mean([error.mean / error.independent_mean for error in errors]) < 0.9


def test_plain_order_where_choosing_does_not_help(
    model: Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that looks good on its own images and is bad on others is reported and not kept."""
    monkeypatch.setattr(bank, "order_draws", lambda products, draws, chunk: [7, 7, 7, 7, 7, 7, 7, 8])
    chosen = bank.choose_bank(model, make_head_records(model), images, 3, 8, CHUNK, seconds=2.0)
    assert chosen.order == list(range(8))
    assert chosen.selection is not None
    assert not chosen.selection.kept


def test_plain_order_without_time_or_images(model: Model, images: np.ndarray) -> None:
    heads = make_head_records(model)
    assert bank.choose_bank(model, heads, images, 3, 8, CHUNK, seconds=0.0) == bank.Bank(list(range(8)), None)
    assert bank.choose_bank(model, heads, images[:3], 3, 8, CHUNK).selection is None


@pytest.mark.parametrize("kind", ["class", "binary", "real"])
def test_the_contributions_of_all_draws_average_to_their_epistemic_uncertainty(kind: str) -> None:
    random = np.random.default_rng(2)
    head = HeadRecord(name="head", likelihood="any", kind=kind, combine="entropy", labels=[], outputs={})
    p = random.dirichlet([0.3, 0.3, 0.3], (40, 5))
    if kind == "class":
        mean, aleatoric = p, entropy(p, axis=-1)
    elif kind == "binary":
        mean = p[..., :1]
        aleatoric = entropy(np.stack([mean, 1 - mean]), axis=0)
    else:
        mean, aleatoric = random.normal(size=(40, 5, 1)), np.ones((40, 5, 1))
    expected = {
        "class": lambda: entropy(mean.mean(0), axis=-1) - aleatoric.mean(0),
        "binary": lambda: entropy(np.stack([mean.mean(0), 1 - mean.mean(0)]), axis=0) - aleatoric.mean(0),
        "real": lambda: mean.var(0),
    }[kind]()
    np.testing.assert_allclose(measure_contributions(head, mean, aleatoric).mean(0), expected, atol=1e-9)


def test_all_sets_hold_the_images_on_which_draws_differ_most() -> None:
    """The number on each image tells how much; no image serves two purposes, and none leaves the range."""
    images = np.zeros((300, 4, 4, 1), np.uint8) + np.arange(300, dtype=np.uint16).reshape(-1, 1, 1, 1).astype(np.uint8)
    sets = make_bank_images(images, 0.0, 255.0, lambda candidates: candidates.mean((1, 2, 3)))
    like, mixed, noisy = (chosen.mean((1, 2, 3)) for chosen in sets.chosen_on)
    candidates = images[0::3].mean((1, 2, 3))
    assert like.tolist() == sorted(like.tolist(), key=candidates.tolist().index)
    np.testing.assert_array_equal(np.sort(like), np.sort(candidates)[-40:])
    assert noisy.mean() > candidates.mean()
    assert len(set(mixed) - set(candidates)) > 10
    assert {len(kind) for kind in sets.chosen_on} == {40}
    assert [len(kind) for kind in (*sets.kept_on, *sets.measured_on)] == [20, 20, 40, 40]
    for kind, third, size in ((sets.kept_on, images[1::3][:80], 20), (sets.measured_on, images[2::3][:160], 40)):
        np.testing.assert_array_equal(np.sort(kind[0].mean((1, 2, 3))), np.sort(third.mean((1, 2, 3)))[-size:])
    assert all(kind.dtype == np.float32 and kind.min() >= 0 and kind.max() <= 255 for kind in sets.list_sets())
