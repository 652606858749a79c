"""Chunks added up against the same statistics over all draws at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.predict.combine import Sum, entropy, stacked, standard_error

REAL = HeadRecord(
    name="h",
    likelihood="normal",
    kind="real",
    combine="variance",
    labels=["a", "b"],
    outputs={"mean": [2], "aleatoric": [2]},
)
CLASS = HeadRecord(
    name="h",
    likelihood="categorical",
    kind="class",
    combine="entropy",
    labels=list("abc"),
    outputs={"mean": [3], "aleatoric": []},
)
FLAGS = HeadRecord(
    name="h",
    likelihood="bernoulli",
    kind="binary",
    combine="entropy",
    labels=["a", "b"],
    outputs={"mean": [2], "aleatoric": [2]},
)


def draws(head: HeadRecord, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Means [draws, batch 5, outputs] and expected spread of each draw."""
    rng = np.random.default_rng(seed)
    if head is REAL:
        return rng.normal(100, 3, (count, 5, 2)), rng.gamma(2, size=(count, 5, 2))
    p = rng.dirichlet(np.full(3, 0.4), (count, 5)) if head is CLASS else rng.beta(0.5, 0.5, (count, 5, 2))
    return p, entropy(p, head is CLASS)


def whole(head: HeadRecord, mean: np.ndarray, spread: np.ndarray) -> dict[str, np.ndarray]:
    total_mean, aleatoric = mean.mean(0), spread.mean(0)
    if head is REAL:
        return {"mean": total_mean, "aleatoric": aleatoric, "epistemic": mean.var(0), "total": aleatoric + mean.var(0)}
    total = entropy(total_mean, head is CLASS)
    return {"mean": total_mean, "aleatoric": aleatoric, "epistemic": total - aleatoric, "total": total}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([REAL, CLASS, FLAGS]),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
def test_chunks_of_any_size_come_to_the_whole(head: HeadRecord, seed: int, sizes: list[int]) -> None:
    mean, spread = draws(head, seed, sum(sizes))
    summed, first = Sum(head), 0
    for size in sizes:
        part = whole(head, mean[first : first + size], spread[first : first + size])
        summed.add({f"h.{name}": values.astype(np.float64) for name, values in part.items()}, size)
        first += size
    for name, values in whole(head, mean, spread).items():
        np.testing.assert_allclose(summed.answer()[name], values, atol=1e-9)


def test_equal_float32_draws_have_no_epistemic_part() -> None:
    for head in (REAL, CLASS, FLAGS):
        mean, spread = draws(head, 1, 1)
        summed = Sum(head)
        for _ in range(5):
            part = whole(head, mean.astype(np.float32), spread.astype(np.float32))
            summed.add({f"h.{name}": values.astype(np.float32) for name, values in part.items()}, 8)
        epistemic = summed.answer()["epistemic"]
        assert (epistemic >= 0).all()
        np.testing.assert_allclose(epistemic, 0, atol=1e-6)


def test_rows_taken_apart_and_stacked_are_the_same_sum() -> None:
    for head in (REAL, CLASS):
        mean, spread = draws(head, 2, 8)
        summed = Sum(head)
        summed.add({f"h.{k}": v for k, v in whole(head, mean, spread).items()}, 8)
        again = stacked([summed.rows(np.array([i])) for i in range(5)])
        assert again.draws == 8
        for name, values in summed.answer().items():
            np.testing.assert_array_equal(again.answer()[name], values)


def test_other_outputs_are_averaged_over_draws() -> None:
    head = HeadRecord(
        name="h",
        likelihood="mixture",
        kind="real",
        combine="variance",
        labels=["a", "b"],
        outputs={"mean": [2], "aleatoric": [2], "quantiles": [2, 3], "absent": [4]},
    )
    assert head.extra == ("quantiles", "absent")
    rng = np.random.default_rng(4)
    (mean, spread), quantiles = draws(REAL, 4, 9), rng.normal(size=(9, 5, 2, 3))
    summed = Sum(head)
    for first, size in ((0, 2), (2, 4), (6, 3)):
        some = slice(first, first + size)
        part = {f"h.{name}": values for name, values in whole(REAL, mean[some], spread[some]).items()}
        summed.add(part | {"h.quantiles": quantiles[some].mean(0)}, size)
    again = stacked([summed.rows(np.array([i])) for i in range(5)]).answer()
    assert list(again) == ["mean", "total", "aleatoric", "epistemic", "quantiles"]
    np.testing.assert_allclose(again["quantiles"], quantiles.mean(0), atol=1e-12)
    np.testing.assert_allclose(again["mean"], mean.mean(0), atol=1e-12)


def test_entropy_at_the_borders() -> None:
    np.testing.assert_allclose(entropy(np.array([[1.0, 0.0], [0.5, 0.5]]), True), [0, np.log(2)])
    np.testing.assert_allclose(entropy(np.array([0.0, 0.5, 1.0]), False), [0, np.log(2), 0])


def test_standard_error_is_that_of_the_mean_and_bounds_probabilities() -> None:
    rng = np.random.default_rng(0)
    one = HeadRecord(
        name="h",
        likelihood="normal",
        kind="real",
        combine="variance",
        labels=["a"],
        outputs={"mean": [1], "aleatoric": [1]},
    )
    values = rng.normal(size=(16, 4, 1))
    answer = {"epistemic": values.var(0)}
    np.testing.assert_allclose(standard_error(one, answer, 16), values.std(0, ddof=1)[:, 0] / 4)
    p, spread = draws(CLASS, 3, 16)
    bound = standard_error(CLASS, whole(CLASS, p, spread), 16)
    assert (p.std(0, ddof=1).max(-1) / 4 <= bound).all()
    assert np.isinf(standard_error(CLASS, whole(CLASS, p[:1], spread[:1]), 1)).all()


def test_far_means_keep_their_spread() -> None:
    mean = 1e6 + np.array([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1) * np.ones((1, 1, 2))
    summed = Sum(REAL)
    for one in mean:
        zero = np.zeros((1, 2))
        summed.add({"h.mean": one, "h.aleatoric": zero, "h.epistemic": zero}, 1)
    assert summed.answer()["epistemic"] == pytest.approx(1.25)
