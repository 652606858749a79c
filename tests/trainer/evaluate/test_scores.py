"""Scores against scikit-learn, TFP, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats
from sklearn import metrics

from probrt.runtime.bundle.manifest import Calibration, Conformal
from probrt.runtime.calibration.conformal import class_sets
from probrt.trainer import heads
from probrt.trainer.evaluate import scores
from probrt.trainer.evaluate.answers import Answers
from probrt.trainer.evaluate.measures import measure_head, risk_curve


def classes(count: int = 400, kinds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    probabilities = rng.dirichlet(np.full(kinds, 0.4), count)
    label = (rng.uniform(size=(count, 1)) > probabilities.cumsum(1)).sum(1).clip(0, kinds - 1)
    return probabilities, np.where(rng.uniform(size=count) < 0.2, rng.integers(0, kinds, count), label)


def test_class_scores_are_those_of_scikit_learn_and_tfp() -> None:
    """Float64 against float64: rounding; TFP's are float32."""
    p, label = classes()
    head = heads.Categorical(name="kind", labels=list("abcde"))
    total = -(p * np.log(p)).sum(1)
    nll = -np.log(p[np.arange(len(p)), label])
    answers = Answers(p, total, total * 0.7, total * 0.3, nll)
    measures = measure_head(head, answers, label.astype(np.int32), None)
    value = {name: score(np.arange(len(p))) for name, score in measures.scores.items()}
    assert value["accuracy"] == pytest.approx(metrics.accuracy_score(label, p.argmax(1)))
    assert value["NLL"] == pytest.approx(metrics.log_loss(label, p, labels=range(5)))
    assert value["Brier"] == pytest.approx(metrics.brier_score_loss(label, p, labels=range(5), scale_by_half=False))
    logits = tf.constant(np.log(p), tf.float32)
    ece = tfp.stats.expected_calibration_error(15, logits=logits, labels_true=tf.constant(label, tf.int32))
    assert value["ECE"] == pytest.approx(float(ece), abs=1e-5)
    assert value["ECE"] == pytest.approx(scores.expected_calibration_error(p.max(1), p.argmax(1) == label))
    assert (value["total"], value["epistemic"]) == pytest.approx((total.mean(), 0.3 * total.mean()))
    wrong = p.argmax(1) != label
    order = np.argsort(total)
    assert value["AURC"] == pytest.approx(np.mean([wrong[order[:k]].mean() for k in range(1, len(p) + 1)]))
    for coverage, risk, threshold in risk_curve(measures):
        assert (coverage, risk) == pytest.approx(((total <= threshold).mean(), wrong[total <= threshold].mean()))
    assert scores.area_under_risk(np.ones(len(p)), wrong) == pytest.approx(wrong.mean())


@pytest.mark.parametrize(("method", "threshold"), [("lac", 0.6), ("lac", 0.05), ("aps", 0.8), ("aps", 0.01)])
def test_sizes_of_sets_are_those_of_the_runtime(method: str, threshold: float) -> None:
    p, label = classes(60)
    conformal = Conformal(coverage=0.9, method=method, threshold=threshold)
    head = heads.Categorical(name="kind", labels=list("abcde"))
    total = -(p * np.log(p)).sum(1)
    calibration = Calibration(head="kind", conformal=[conformal])
    (sets,) = measure_head(head, Answers(p, total, total, total, total), label.astype(np.int32), calibration).sets
    assert (sets.method, sets.wanted) == (method, 0.9)
    assert sets.size(np.arange(60)) == pytest.approx(class_sets(p, conformal).sum(axis=1).mean())


def test_scores_of_samples_are_those_of_the_normal_they_come_from() -> None:
    """20,000 samples per example: 4 standard errors, 4 · 1.1 / sqrt(20000) = 0.03 of a deviation, for a mean score."""
    rng = np.random.default_rng(1)
    mean, scale = rng.normal(size=(40, 2)), rng.uniform(0.5, 2, (40, 2))
    target = mean + scale * rng.normal(size=(40, 2))
    samples = mean[:, None] + scale[:, None] * rng.normal(size=(40, 20000, 2))
    z = (target - mean) / scale
    # Gneiting and Raftery 2007, eq. 5.
    closed = scale * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(scores.crps(samples, target) / scale, closed / scale, atol=0.03)
    np.testing.assert_allclose(scores.probability_integral_transform(samples, target), stats.norm.cdf(z), atol=0.015)
    for coverage in (0.5, 0.9):
        low, high = scores.interval(samples, coverage)
        half = stats.norm.ppf(0.5 + coverage / 2)
        np.testing.assert_allclose((high - mean) / scale, half, atol=0.08)
        np.testing.assert_allclose((low - mean) / scale, -half, atol=0.08)
    few, y = rng.normal(size=(3, 7, 1)), rng.normal(size=(3, 1))
    for values, truth, score in zip(few[..., 0], y[:, 0], scores.crps(few, y)[:, 0], strict=True):
        pairs = [abs(a - b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
        assert score == pytest.approx(np.abs(values - truth).mean() - np.mean(pairs) / 2)


def test_a_count_s_transform_is_the_middle_of_its_step() -> None:
    samples = np.array([[0, 1, 1, 2]])[..., None]
    assert scores.probability_integral_transform(samples, np.array([[1]])).item() == 0.5


def test_the_false_positive_rate_at_95_percent_recall() -> None:
    """Against the point of scikit-learn's ROC curve where recall first reaches 95 %."""
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=300), rng.normal(1, 1, 200)
    fpr, tpr, _ = metrics.roc_curve(
        np.repeat([0, 1], [300, 200]), np.concatenate([inside, outside]), drop_intermediate=False
    )
    assert scores.false_positive_rate(inside, outside) == pytest.approx(fpr[np.flatnonzero(tpr >= 0.95)[0]])


def test_bootstrap_intervals_cover_a_known_mean_as_often_as_they_say() -> None:
    """200 data sets of 100 values: 95 % of intervals hold the mean, minus 1 % for their known optimism at n = 100;
    four binomial standard errors are 6 %."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        values = rng.normal(size=100)
        value, low, high = scores.bootstrap(lambda rows, v=values: float(v[rows].mean()), 100, seed, 200)
        assert low <= value <= high
        held += low <= 0 <= high
    assert held / 200 == pytest.approx(0.94, abs=0.06)


def test_masks_are_scored_over_their_known_pixels() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(12, 4, 4, 1))
    target = (rng.uniform(size=p.shape) < p).astype(np.float32)
    target[:, 0] = np.nan
    known, yes, predicted = ~np.isnan(target[:, 1:]), target[:, 1:] > 0.5, p[:, 1:] > 0.5
    head_scores = measure_head(
        heads.Bernoulli(name="ink", per_position=True), Answers(p, p, p, p, np.ones(12)), target, None
    ).scores
    rows = np.arange(12)
    assert known.all()
    assert head_scores["accuracy"](rows) == pytest.approx((yes == predicted).mean())
    assert head_scores["ECE"](rows) == pytest.approx(
        scores.expected_calibration_error(p[:, 1:].ravel(), yes.ravel().astype(float))
    )
    assert head_scores["Brier"](rows) == pytest.approx(metrics.mean_squared_error(yes.ravel(), p[:, 1:].ravel()))
    overlap = (yes & predicted).sum((1, 2, 3)) / (yes | predicted).sum((1, 2, 3))
    assert head_scores["IoU"](rows) == pytest.approx(overlap.mean())
