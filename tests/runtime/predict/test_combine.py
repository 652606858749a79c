"""Compares moments accumulated over chunks with the same statistics over all draws at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.predict.combine import (
    ENTROPIES,
    LatestAnswer,
    binary_entropy,
    class_entropy,
    combine_chunks,
    stack_combiners,
    standard_error,
)

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
BINARY = HeadRecord(
    name="h",
    likelihood="bernoulli",
    kind="binary",
    combine="entropy",
    labels=["a", "b"],
    outputs={"mean": [2], "aleatoric": [2]},
)


def make_draws(head: HeadRecord, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means [draws, batch 5, outputs] and the expected spread of each draw."""
    rng = np.random.default_rng(seed)
    if head is REAL:
        return rng.normal(100, 3, (count, 5, 2)), rng.gamma(2, size=(count, 5, 2))
    p = rng.dirichlet(np.full(3, 0.4), (count, 5)) if head is CLASS else rng.beta(0.5, 0.5, (count, 5, 2))
    return p, ENTROPIES[head.kind](p)


def combine_at_once(head: HeadRecord, mean: np.ndarray, spread: np.ndarray) -> dict[str, np.ndarray]:
    overall_mean, aleatoric = mean.mean(0), spread.mean(0)
    if head is REAL:
        return {
            "mean": overall_mean,
            "aleatoric": aleatoric,
            "epistemic": mean.var(0),
            "total": aleatoric + mean.var(0),
        }
    total = ENTROPIES[head.kind](overall_mean)
    return {"mean": overall_mean, "aleatoric": aleatoric, "epistemic": total - aleatoric, "total": total}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([REAL, CLASS, BINARY]),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
def test_chunks_of_any_size_come_to_the_combine_at_once(head: HeadRecord, seed: int, sizes: list[int]) -> None:
    mean, spread = make_draws(head, seed, sum(sizes))
    combiner, first = combine_chunks(head), 0
    for size in sizes:
        part = combine_at_once(head, mean[first : first + size], spread[first : first + size])
        combiner.add({f"h.{name}": values.astype(np.float64) for name, values in part.items()}, size)
        first += size
    for name, values in combine_at_once(head, mean, spread).items():
        np.testing.assert_allclose(combiner.combine()[name], values, atol=1e-9)


def test_equal_float32_draws_have_no_epistemic_part() -> None:
    for head in (REAL, CLASS, BINARY):
        mean, spread = make_draws(head, 1, 1)
        combiner = combine_chunks(head)
        for _ in range(5):
            part = combine_at_once(head, mean.astype(np.float32), spread.astype(np.float32))
            combiner.add({f"h.{name}": values.astype(np.float32) for name, values in part.items()}, 8)
        epistemic = combiner.combine()["epistemic"]
        assert (epistemic >= 0).all()
        np.testing.assert_allclose(epistemic, 0, atol=1e-6)


def test_selected_and_stacked_rows_are_the_same_state() -> None:
    for head in (REAL, CLASS):
        mean, spread = make_draws(head, 2, 8)
        combiner = combine_chunks(head)
        combiner.add({f"h.{k}": v for k, v in combine_at_once(head, mean, spread).items()}, 8)
        stacked = stack_combiners([combiner.select(np.array([i])) for i in range(5)])
        assert stacked.draws == 8
        for name, values in combiner.combine().items():
            np.testing.assert_array_equal(stacked.combine()[name], values)


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
    (mean, spread), quantiles = make_draws(REAL, 4, 9), rng.normal(size=(9, 5, 2, 3))
    combiner = combine_chunks(head)
    for first, size in ((0, 2), (2, 4), (6, 3)):
        some = slice(first, first + size)
        part = {f"h.{name}": values for name, values in combine_at_once(REAL, mean[some], spread[some]).items()}
        combiner.add(part | {"h.quantiles": quantiles[some].mean(0)}, size)
    stacked = stack_combiners([combiner.select(np.array([i])) for i in range(5)]).combine()
    assert list(stacked) == ["mean", "total", "aleatoric", "epistemic", "quantiles"]
    np.testing.assert_allclose(stacked["quantiles"], quantiles.mean(0), atol=1e-12)
    np.testing.assert_allclose(stacked["mean"], mean.mean(0), atol=1e-12)


def test_entropy_at_the_borders() -> None:
    np.testing.assert_allclose(class_entropy(np.array([[1.0, 0.0], [0.5, 0.5]])), [0, np.log(2)])
    np.testing.assert_allclose(binary_entropy(np.array([0.0, 0.5, 1.0])), [0, np.log(2), 0])


def test_standard_error_is_that_of_the_mean_and_bounds_probabilities() -> None:
    values = np.random.default_rng(0).normal(size=(16, 4, 1))
    np.testing.assert_allclose(standard_error("real", values.var(0), 16), values.std(0, ddof=1)[:, 0] / 4)
    p, spread = make_draws(CLASS, 3, 16)
    bound = standard_error("class", combine_at_once(CLASS, p, spread)["epistemic"], 16)
    assert (p.std(0, ddof=1).max(-1) / 4 <= bound).all()
    assert np.isinf(standard_error("class", combine_at_once(CLASS, p[:1], spread[:1])["epistemic"], 1)).all()


def test_the_latest_answer_replaces_the_one_before() -> None:
    combiner = LatestAnswer(REAL)
    for count in (8, 16):
        combiner.add({"h.mean": np.full((3, 2), count, np.float32), "other.mean": np.zeros(3)}, count)
    assert combiner.draws == 16
    assert {name: values.tolist() for name, values in combiner.combine().items()} == {"mean": [[16.0, 16.0]] * 3}


def test_far_means_keep_their_spread() -> None:
    mean = 1e6 + np.array([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1) * np.ones((1, 1, 2))
    combiner = combine_chunks(REAL)
    for draw in mean:
        zero = np.zeros((1, 2))
        combiner.add({"h.mean": draw, "h.aleatoric": zero, "h.epistemic": zero}, 1)
    assert combiner.combine()["epistemic"] == pytest.approx(1.25)
