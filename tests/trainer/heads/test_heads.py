"""Heads against TFP: moments, likelihoods, missing targets, calibration, supports."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from head_examples import HEADS, channels, every_head

from probrt.trainer import heads
from probrt.trainer.heads.moments import add_draw, combine_moments, combine_stacked, finish_running, start_running

BY_NAME = {head.name: head for head in HEADS}


def class_probabilities(likelihood: object) -> np.ndarray:
    if hasattr(likelihood, "categorical_log_probs"):
        return np.exp(likelihood.categorical_log_probs())
    return likelihood.probs_parameter().numpy()


@every_head
def test_moments_are_those_of_the_likelihood(head: heads.AnyHead) -> None:
    """Rounding only: 1e-5 of values of order one."""
    given = channels(head)
    mean, aleatoric, extras = head.moments(given)
    likelihood = head.distribution(given)
    if head.kind == "real":
        np.testing.assert_allclose(mean, likelihood.mean(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(aleatoric, likelihood.variance(), rtol=2e-5)
    elif head.kind == "class":
        expected = class_probabilities(likelihood)
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        np.testing.assert_allclose(aleatoric, -(expected * np.log(expected)).sum(-1), atol=1e-5)
    else:
        import tensorflow_probability as tfp

        np.testing.assert_allclose(mean, likelihood.mean(), atol=1e-6)
        marginal = tfp.distributions.Bernoulli(probs=likelihood.mean())
        np.testing.assert_allclose(aleatoric, marginal.entropy(), atol=1e-5)
    if "covariance" in extras:
        np.testing.assert_allclose(extras["covariance"], likelihood.covariance(), rtol=1e-4, atol=1e-5)
    if "bins" in extras:
        below = [likelihood.distribution.cdf(np.array(edges, np.float32)) for edges in np.transpose(head.edges)]
        np.testing.assert_allclose(np.cumsum(extras["bins"], -1)[..., :-1], np.stack(below, -1), atol=1e-5)


@every_head
def test_quantities_against_brute_force(head: heads.AnyHead) -> None:
    """Total, aleatoric and epistemic of 4 draws against 20,000 values from each draw's likelihood.

    Tolerance: 6 standard errors, read off 20 blocks of the values, plus the float32 rounding of 1e-4.
    """
    draws = [channels(head, draw, spread=0.5) for draw in range(4)]
    quantities = combine_moments(head, [head.moments(draw) for draw in draws])
    np.testing.assert_allclose(
        quantities["total"], quantities["aleatoric"] + quantities["epistemic"], rtol=1e-5, atol=1e-5
    )
    assert quantities["epistemic"].numpy().min() >= 0
    blocks, size = 20, 1000
    values = np.stack([head.distribution(draw).sample(blocks * size, seed=(3, i)) for i, draw in enumerate(draws)])
    values = values.astype(np.float64).reshape(4, blocks, size, *values.shape[2:])
    if head.kind == "class":
        values = (values[..., None] == np.arange(len(head.labels))).astype(np.float64)

    def uncertainty(values: np.ndarray) -> np.ndarray:
        """Over the axis of values, 0."""
        if head.kind == "real":
            return values.var(0)
        p = values.mean(0)
        terms = -p * np.log(np.maximum(p, 1e-12))
        if head.kind == "class":
            return terms.sum(-1)
        return terms - (1 - p) * np.log(np.maximum(1 - p, 1e-12))

    per_block = []
    for block in range(blocks):
        pooled = values[:, block].reshape(-1, *values.shape[3:])
        aleatoric = np.mean([uncertainty(values[draw, block]) for draw in range(4)], axis=0)
        per_block.append((pooled.mean(0), uncertainty(pooled), aleatoric))
    for name, several in zip(("mean", "total", "aleatoric"), zip(*per_block, strict=True), strict=True):
        error = np.std(several, axis=0, ddof=1) / np.sqrt(blocks)
        # Entropies of counted shares are low by about (classes - 1) / 2n, variances by a share of 1 / n.
        bias = 0.0 if name == "mean" else 4.0 / size * (1.0 + np.abs(quantities[name]))
        away = np.abs(np.mean(several, axis=0) - quantities[name])
        assert (away <= 6 * error + bias + 1e-4).all(), (name, float((away - 6 * error - bias).max()))


@every_head
def test_running_moments_are_those_of_the_list(head: heads.AnyHead) -> None:
    drawn = [head.moments(channels(head, draw)) for draw in range(7)]
    running = start_running(drawn[0])
    for count, draw in enumerate(drawn[1:], start=2):
        running = add_draw(running, tf.constant(float(count)), draw)
    finished = finish_running(head, running, tf.constant(7.0))
    for name, value in combine_moments(head, drawn).items():
        np.testing.assert_allclose(finished[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@every_head
def test_moments_of_draws_along_the_batch_are_those_of_the_list(head: heads.AnyHead) -> None:
    """Rounding only: seven values of order one in another order."""
    draws = [channels(head, draw) for draw in range(7)]
    together = combine_stacked(head, head.moments(tf.concat(draws, 0)), 7)
    for name, value in combine_moments(head, [head.moments(draw) for draw in draws]).items():
        np.testing.assert_allclose(together[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@every_head
def test_a_missing_target_drops_its_term_only(head: heads.AnyHead) -> None:
    given = channels(head)
    target = head.distribution(given).sample(seed=(1, 2))
    target = tf.cast(target, tf.int32 if head.kind == "class" else tf.float32)
    absent = head.missing_target(given.shape[1:-1])
    missing = tf.tensor_scatter_nd_update(target, [[2]], tf.constant(absent, target.dtype)[None])
    whole, dropped = head.log_prob(given, target), head.log_prob(given, missing)
    assert np.isfinite(whole).all()
    assert dropped[2] == 0
    np.testing.assert_array_equal(np.delete(dropped, 2), np.delete(whole, 2))
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(head.log_prob(given, missing))
    assert np.isfinite(tape.gradient(loss, given)).all()
    assert len(head.metric(head.moments(given).mean, missing)) == 5


@every_head
@pytest.mark.parametrize("size", [0.0, 17.0, 60.0, 1000.0])
def test_the_gradient_is_finite_also_far_out(head: heads.AnyHead, size: float) -> None:
    """One step towards NaN ends a fit; a network that is certain of an answer gives large channels."""
    given = channels(head)
    predicted, learned = given[..., : head.channels], given[..., head.channels :]
    given = tf.concat([size * tf.sign(predicted), learned], -1)
    target = head.distribution(channels(head)).sample(seed=(1, 2))
    target = tf.cast(target, tf.int32 if head.kind == "class" else tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(head.fit_log_prob(given, target))
    assert np.isfinite(tape.gradient(loss, given)).all()


@pytest.mark.parametrize("name", ["mvn", "mvn_diagonal", "mvn_low_rank"])
def test_a_joint_normal_likelihood_is_that_of_its_covariance(name: str) -> None:
    """Against SciPy in float64; 1e-4 for the rounding of decompositions in float32."""
    head, given = BY_NAME[name], channels(BY_NAME[name])
    mean, _, extras = head.moments(given)
    target = mean + tf.random.stateless_normal(mean.shape, [5, 6])
    pairs = zip(target.numpy(), mean.numpy(), extras["covariance"].numpy(), strict=True)
    expected = [scipy.stats.multivariate_normal.logpdf(*map(np.float64, pair)) for pair in pairs]
    np.testing.assert_allclose(head.log_prob(given, target), expected, rtol=1e-4)


@pytest.mark.parametrize("location", [-30.0, -17.0, -3.0, 0.0, 2.0, 17.0, 30.0])
def test_an_ordinal_likelihood_is_that_of_the_logistic_distribution(location: float) -> None:
    """Against SciPy's tail probabilities in float64, of whichever tail is the smaller; float32 rounds by 1e-6."""
    head = BY_NAME["grade"]
    first, *steps = head.learned
    cuts = first + np.cumsum([0.0, *np.exp(steps)])
    edges = np.array([-np.inf, *cuts, np.inf]) - location
    tail = scipy.stats.logistic.cdf if location > 0 else scipy.stats.logistic.sf
    expected = np.log(np.abs(np.diff(tail(edges))))
    given = tf.constant([[location, *head.learned]] * 4, tf.float32)
    np.testing.assert_allclose(head.log_prob(given, tf.range(4)), expected, rtol=2e-6, atol=1e-6)


@every_head
def test_calibration_of_one_changes_nothing_and_of_two_spreads(head: heads.AnyHead) -> None:
    given = channels(head)
    before, same = head.moments(given), head.moments(head.calibrate_channels(given, 1.0))
    np.testing.assert_allclose(same.mean, before.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same.aleatoric, before.aleatoric, rtol=1e-5, atol=1e-6)
    after = head.moments(head.calibrate_channels(given, 2.0))
    if head.calibrates == "nothing":
        np.testing.assert_array_equal(after.aleatoric, before.aleatoric)
    elif isinstance(head, heads.Ordinal | heads.BernoulliMixture):
        assert after.aleatoric.numpy().mean() > before.aleatoric.numpy().mean()
    else:
        assert (after.aleatoric.numpy() > before.aleatoric.numpy()).all()


@every_head
def test_stated_outputs_are_the_moments_shapes(head: heads.AnyHead) -> None:
    given = channels(head)
    mean, aleatoric, extras = head.moments(given)
    stated = head.output_shapes(given.shape[1:-1])
    assert stated["mean"] == list(mean.shape[1:])
    assert all(stated[name] == list(aleatoric.shape[1:]) for name in ("total", "aleatoric", "epistemic"))
    assert set(stated) == {"mean", "total", "aleatoric", "epistemic", *extras}
    assert all(list(extras[name].shape[1:]) == stated[name] for name in extras)
    assert len(head.names) == mean.shape[-1] or head.kind != "real"


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("digit", ["d"], "class 'd' is none of a, b, c"),
        ("grade", ["best"], "class 'best' is none of low, middle, high, top"),
        ("tags", ["1", "0.4"], "is 0.4, must be 0 or 1"),
        ("size", ["1", "0"], "is 0, must be above 0"),
        ("count", ["2.5"], "is 2.5, must be 0, 1, 2"),
        ("spots", ["-1"], "is -1, must be 0, 1, 2"),
        ("share", ["1"], "is 1, must be above 0 and below 1"),
        ("slant", ["inf"], "is infinite"),
        ("slant", ["left"], "is 'left', not a number"),
        ("box", ["0.5", "0.2", "0.4", "0.9"], "box (0.5, 0.2, 0.4, 0.9) is not x_min < x_max"),
        ("box", ["0.5", "0.2", "20", "40"], "coordinates are fractions"),
    ],
)
def test_targets_out_of_the_support(name: str, cells: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        BY_NAME[name].parse_cells(cells)


@every_head
def test_an_empty_cell_is_missing(head: heads.AnyHead) -> None:
    if not head.per_position:
        np.testing.assert_array_equal(head.parse_cells([""] * len(head.columns)), head.missing_target())


def test_masks() -> None:
    """What a mask file's values mean."""
    tissue, ink, depth = BY_NAME["tissue"], BY_NAME["ink"], BY_NAME["depth_map"]
    picture = np.array([[[0], [1], [255]]], np.float32)
    np.testing.assert_array_equal(tissue.parse_mask(picture, 255.0), [[0, 1, -1]])
    with pytest.raises(ValueError, match="class number 7 is none of 0 to 1"):
        tissue.parse_mask(np.full([2, 2, 1], 7.0), 255.0)
    np.testing.assert_array_equal(ink.parse_mask(picture, 255.0)[..., 0], [[0, 0, 1]])
    np.testing.assert_array_equal(ink.parse_mask(np.array([[[0], [1], [np.nan]]]), 1.0)[..., 0], [[0, 1, np.nan]])
    np.testing.assert_array_equal(depth.parse_mask(picture, 255.0), picture)


def test_boxes_and_metrics() -> None:
    box = BY_NAME["box"]
    target = box.parse_cells(["0", "0", "0.5", "0.5"])[None]
    np.testing.assert_allclose(box.metric(tf.constant(target), target), [1.0])
    np.testing.assert_allclose(box.metric(tf.constant([[0.25, 0.0, 0.75, 0.5]]), target), [1 / 3], rtol=1e-6)
    with pytest.raises(ValueError, match="one per image"):
        heads.Box(name="box", per_position=True)
