"""Calibration finds what was put in; thresholds and the risk curve hold on fresh data and against counting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from cases import BY_NAME

from probrt.runtime.bundle.manifest import Calibration
from probrt.runtime.calibration.conformal import class_sets, intervals
from probrt.runtime.calibration.risk import fit_curve
from probrt.runtime.calibration.thresholds import COVERAGES, quantile
from probrt.trainer.calibration.calibrate import calibrate_model, predict_examples
from probrt.trainer.calibration.risk import example_errors
from probrt.trainer.calibration.thresholds import fit_thresholds
from probrt.trainer.data import Examples
from probrt.trainer.heads.bernoulli import BernoulliHead
from probrt.trainer.heads.categorical import CategoricalHead
from probrt.trainer.heads.location_scale import NormalHead
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler


@pytest.mark.slow
def test_targets_drawn_from_the_model_need_no_correction_and_spread_ones_do() -> None:
    """4,000 labels of the model's own predictive distribution: temperature and scale 1 within 10 %.

    The log-likelihood's curvature at 1 is about 1 nat per label for the scale (2 for a normal) and 0.2 for the
    temperature: standard errors of 1 % and 4 %, and the grid is 5 % wide.
    """
    model = BY_NAME["conv2d_random_bias"].model()
    rng = np.random.default_rng(0)
    images = rng.normal(0, 3, (4000, 8, 8, 2)).astype(np.float32)

    with use_handler(MeanHandler()):
        moments = model.moments(images)
    probabilities = moments["digit"][0].numpy()
    digit = (rng.uniform(size=(4000, 1)) > probabilities.cumsum(1)).sum(1).clip(0, 2).astype(np.int32)
    location, variance = (value.numpy() for value in moments["slant"][:2])
    for factor in (1.0, 2.0):
        slant = (location + factor * np.sqrt(variance) * rng.normal(size=location.shape)).astype(np.float32)
        examples = Examples(tuple(map(str, range(4000))), images, {"digit": digit, "slant": slant})
        for weight in model.weights:  # next to no spread, so that the mean is the predictive distribution
            weight.parameters["rho"].assign(np.full(weight.shape, -12.0, np.float32))
        records = _by_head(calibrate_model(model, examples, seed=0, draws=2))
        assert records["digit"].temperature == pytest.approx(1.0, abs=0.1)
        assert records["slant"].scale == pytest.approx(factor, rel=0.1)


@pytest.mark.slow
def test_a_few_labels_without_a_mistake_do_not_make_it_sure_of_everything() -> None:
    """Alone, their likelihood is highest at the sharpest temperature of all, exp(-1.5)."""
    model = BY_NAME["conv2d_random_bias"].model()
    images = np.random.default_rng(0).normal(0, 3, (20, 8, 8, 2)).astype(np.float32)
    names = tuple(map(str, range(20)))
    mean = predict_examples(model, Examples(names, images, {}), seed=0)["digit"]["mean"]
    targets = {"digit": mean.argmax(1).astype(np.int32), "slant": np.full((20, 1), np.nan, np.float32)}
    records = _by_head(calibrate_model(model, Examples(names, images, targets), seed=0))
    assert 0.3 < records["digit"].temperature < 1
    assert records["slant"].scale == 1  # nothing is known of it


def _by_head(model: Model) -> dict[str, Calibration]:
    return {record.head: record for record in model.calibration}


def _exchangeable(rng: np.random.Generator, count: int) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Answers that are wrong about their own certainty, with targets: class probabilities too sharp by a power
    of two, standard deviations too small by half."""
    logits = rng.normal(0, 1.5, (count, 4))
    truth, stated = (np.exp(power * logits) for power in (1, 2))
    truth, stated = truth / truth.sum(1, keepdims=True), stated / stated.sum(1, keepdims=True)
    classes = (rng.uniform(size=(count, 1)) > truth.cumsum(1)).sum(1).clip(0, 3)
    mean, deviation = rng.normal(size=(count, 2)), rng.uniform(0.5, 2, (count, 2))
    values = mean + 2 * deviation * rng.standard_t(4, (count, 2))
    return {
        "kind": ({"mean": stated.astype(np.float32), "total": -(stated * np.log(stated)).sum(1)}, classes),
        "size": ({"mean": mean, "total": deviation**2}, values),
    }


def test_conformal_sets_and_intervals_hold_on_fresh_data() -> None:
    """2,000 to calibrate, 20,000 fresh: the coverage of a threshold is Beta(k, n + 1 - k) about c, sd at most 1.1 %,
    and the count on fresh data adds 0.35 %; four standard errors below, and above for what has no floor."""
    rng = np.random.default_rng(5)
    fitting, fresh = _exchangeable(rng, 2000), _exchangeable(rng, 20000)
    heads = (CategoricalHead(name="kind", labels=list("abcd")), NormalHead(name="size", labels=["w", "h"]))
    for head in heads:
        answer, target = fresh[head.name]
        thresholds = fit_thresholds(head, *fitting[head.name])
        assert [conformal.coverage for conformal in thresholds] == [0.5, 0.8, 0.9, 0.95] * (
            3 if head.name == "kind" else 1
        )
        for conformal in thresholds:
            if head.name == "kind":
                held = class_sets(answer["mean"].astype(np.float64), conformal)[np.arange(len(target)), target]
            else:
                low, high = intervals(answer["mean"], np.sqrt(answer["total"]), conformal)
                held = ((low <= target) & (target <= high)).all(1)
            c = conformal.coverage
            count = 1333 if conformal.method == "raps" else 2000  # a third of the examples chooses its penalty
            error = 4 * np.sqrt(c * (1 - c) * (1 / (count + 2) + 1 / 20000))
            assert np.mean(held) > c - error
            # At 0.5 a set that would be empty holds the likeliest class; `aps` without randomisation holds too much.
            if head.name == "size" or (conformal.method == "lac" and c > 0.75):
                assert np.mean(held) < c + error


@pytest.mark.parametrize(("count", "coverage", "rank"), [(19, 0.95, 19), (18, 0.95, None), (99, 0.9, 90), (4, 0.8, 4)])
def test_the_quantile_is_that_of_a_finite_sample(count: int, coverage: float, rank: int | None) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert quantile(scores, coverage) == (rank or np.inf)


def test_few_examples_promise_less() -> None:
    answer, target = _exchangeable(np.random.default_rng(0), 10)["kind"]
    head = CategoricalHead(name="kind", labels=list("abcd"))
    assert [(conformal.method, conformal.coverage) for conformal in fit_thresholds(head, answer, target)] == [
        (method, coverage) for method in ("lac", "aps") for coverage in (0.5, 0.8, 0.9)
    ]
    assert fit_thresholds(head, {name: values[:0] for name, values in answer.items()}, target[:0]) == []


@pytest.mark.parametrize(("count", "levels"), [(0, 1), (1, 1), (30, 1), (30, 7), (200, 1000), (3000, 10**6)])
def test_the_risk_curve_is_what_counting_says(count: int, levels: int) -> None:
    """Every point counted anew; and for any risk no threshold, of all, beats the curve's by more than its steps."""
    rng = np.random.default_rng(count + levels)
    uncertainty = rng.integers(0, levels, count) / levels
    wrong = rng.uniform(size=count) < uncertainty / 2
    points = fit_curve(uncertainty, wrong)
    assert len(points) <= 50
    for point in points:
        kept = uncertainty <= point.threshold
        assert (point.kept, point.risk) == (kept.mean(), wrong[kept].mean())
    for a, b in pairwise(points):
        assert (a.threshold < b.threshold, a.kept < b.kept, a.risk < b.risk) == (True, True, True)
    counted = {t: wrong[uncertainty <= t].mean() for t in np.unique(uncertainty)}
    assert [point.threshold for point in points[-1:]] == sorted(counted)[-1:]
    if 0 < len(points) < 50:  # nothing was left out: the largest threshold of any risk is there
        for risk in (0.0, 0.05, 0.1, 0.2, 0.5, 1.0):
            best = max((t for t, r in counted.items() if r <= risk), default=None)
            assert max((p.threshold for p in points if p.risk <= risk), default=None) == best


def test_calibration_holds_thresholds_and_a_curve_of_the_targets_that_are_there() -> None:
    model = BY_NAME["conv2d_random_bias"].model()
    rng = np.random.default_rng(0)
    images = rng.normal(0, 3, (60, 8, 8, 2)).astype(np.float32)
    digit, slant = rng.integers(0, 3, 60).astype(np.int32), rng.normal(size=(60, 1)).astype(np.float32)
    digit[:10], slant[:50] = -1, np.nan
    examples = Examples(tuple(map(str, range(60))), images, {"digit": digit, "slant": slant})
    model = calibrate_model(model, examples, seed=3, draws=4)
    records = _by_head(model)
    both = [(method, c) for method in ("lac", "aps") for c in COVERAGES]
    assert [(conformal.method, conformal.coverage) for conformal in records["digit"].conformal] == both
    assert [(conformal.method, conformal.coverage) for conformal in records["slant"].conformal] == [
        ("scaled", c) for c in COVERAGES[:3]
    ]
    answer = predict_examples(model, examples, seed=3, draws=4)["digit"]
    wrong = answer["mean"].argmax(1)[10:] != digit[10:]
    assert records["digit"].risk == fit_curve(answer["total"][10:], wrong)
    assert records["digit"].risk[-1].kept == 1.0
    assert records["slant"].risk == []


def _masks(rng: np.random.Generator, count: int, kind: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Masks of 6 by 6 whose positions err together: each image has a difficulty of its own that the answer ignores."""
    difficulty = rng.uniform(0.2, 3, (count, 1, 1, 1))
    if kind == "height":
        mean = rng.normal(size=(count, 6, 6, 1))
        return {"mean": mean, "total": np.ones_like(mean)}, mean + difficulty * rng.normal(size=mean.shape)
    logits = rng.normal(0, 1.5, (count, 6, 6, 1 if kind == "ink" else 3))
    if kind == "ink":
        true, stated = (1 / (1 + np.exp(-factor * logits)) for factor in (1 / difficulty, 1))
        target = (rng.uniform(size=true.shape) < true).astype(np.float32)
    else:
        true, stated = (np.exp(factor * logits) for factor in (1 / difficulty, 1))
        true, stated = true / true.sum(-1, keepdims=True), stated / stated.sum(-1, keepdims=True)
        target = (rng.uniform(size=(count, 6, 6, 1)) > true.cumsum(-1)).sum(-1).clip(0, 2)
    return {"mean": stated.astype(np.float32), "total": stated}, target


@pytest.mark.parametrize("kind", ["ink", "part", "height"])
def test_the_share_of_positions_missed_is_controlled_on_fresh_images(kind: str) -> None:
    """400 images to calibrate, 4,000 fresh: the share held has a standard deviation of at most 0.25 between images,
    so 0.25 / 20 for the threshold and 0.004 for the fresh ones; four of both below, and above for what is not cut."""
    rng = np.random.default_rng(7)
    head = {
        "ink": BernoulliHead(name="ink", per_position=True),
        "part": CategoricalHead(name="part", labels=list("abc"), per_position=True),
        "height": NormalHead(name="height", per_position=True),
    }[kind]
    fitting, (answer, target) = _masks(rng, 400, kind), _masks(rng, 4000, kind)
    if kind == "ink":
        fitting[1][:, 0] = np.nan  # not labelled, not counted
    thresholds = fit_thresholds(head, *fitting)
    assert [(conformal.coverage, conformal.method) for conformal in thresholds] == [
        (c, "scaled" if kind == "height" else "lac") for c in COVERAGES
    ]
    for conformal in thresholds:
        held = (head.position_scores(answer, target) <= conformal.threshold).mean()
        assert held == pytest.approx(conformal.coverage, abs=4 * (0.25 / 20 + 0.004))
    assert [conformal.coverage for conformal in fit_thresholds(head, *_masks(rng, 8, kind))] == [0.5, 0.8]


def test_the_curve_of_a_mask_counts_its_known_pixels() -> None:
    rng = np.random.default_rng(0)
    answer, target = _masks(rng, 30, "ink")
    target[:, 0] = np.nan
    uncertainty, wrong = example_errors(BernoulliHead(name="ink", per_position=True), answer, target)
    predicted, true = answer["mean"][:, 1:] > 0.5, target[:, 1:] > 0.5
    np.testing.assert_allclose(wrong, (predicted != true).mean((1, 2, 3)))
    np.testing.assert_allclose(uncertainty, answer["total"].mean((1, 2, 3)))
    assert 0 < fit_curve(uncertainty, wrong)[-1].risk == pytest.approx(wrong.mean())
