"""Choosing the bank: what is least is found, what is chosen is better, and what is not better is not kept."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cases import BY_NAME

from probrt.exporter import bank as select
from probrt.exporter.export import heads
from probrt.trainer.model import Model

CHUNK = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return BY_NAME["conv2d_random_bias"].model()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (24, 8, 8, 2)).astype(np.float32)


def distance(features: np.ndarray, order: list[int]) -> float:
    centred = features - features.mean(0)
    return float(np.square(centred[order].mean(0)).sum())


def test_order_against_brute_force() -> None:
    """Greedy and swaps against all 3-subsets of 14: no swap of one draw helps, and few subsets are nearer."""
    features = np.random.default_rng(1).normal(size=(14, 5))
    order = select.ordered(select.gram([features]), 6, 3)
    assert len(set(order)) == 6
    all_of_them = sorted(distance(features, list(subset)) for subset in combinations(range(14), 3))
    found = distance(features, order[:3])
    assert found <= all_of_them[len(all_of_them) // 50]
    for place in range(3):
        for other in set(range(14)) - set(order[:3]):
            assert found <= distance(features, [*order[:place], *order[place + 1 : 3], other]) + 1e-12
    assert distance(features, order) < np.mean([distance(features, list(s)) for s in combinations(range(14), 6)]) / 3


def test_a_chosen_bank_is_nearer_on_images_not_used(model: Model, images: np.ndarray) -> None:
    found = select.chosen(model, heads(model), images, 3, 8, CHUNK, seconds=3.0)
    assert found.selection is not None
    assert found.selection.kept
    assert sorted(set(found.order)) == sorted(found.order)
    assert found.order != list(range(8))
    assert [(one.draws, one.images) for one in found.selection.errors] == [
        (number, name) for number in (4, 8) for name in ("training", "shifted")
    ]
    for one in found.selection.errors:
        # Independent draws: 1 / sqrt(n); groups of a pool of finite size scatter by a third or so.
        assert one.independent_mean == pytest.approx(one.draws**-0.5, rel=0.4)
    assert np.mean([one.mean / one.independent_mean for one in found.selection.errors]) < 0.9


def test_plain_order_where_choosing_does_not_help(
    model: Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that looks good on its own images and is bad on others is reported and not kept."""
    monkeypatch.setattr(select, "ordered", lambda products, draws, chunk: [7, 7, 7, 7, 7, 7, 7, 8])
    found = select.chosen(model, heads(model), images, 3, 8, CHUNK, seconds=2.0)
    assert found.order == list(range(8))
    assert found.selection is not None
    assert not found.selection.kept


def test_plain_order_where_there_is_no_time_or_nothing_to_look_at(model: Model, images: np.ndarray) -> None:
    assert select.chosen(model, heads(model), images, 3, 8, CHUNK, seconds=0.0) == select.Chosen(list(range(8)), None)
    assert select.chosen(model, heads(model), images[:3], 3, 8, CHUNK).selection is None
