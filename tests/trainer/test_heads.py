"""Heads against TFP: moments, likelihoods, missing targets, calibration."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from probrt.trainer import heads, moments

HEADS = [
    heads.Categorical(name="digit", labels=["a", "b", "c"]),
    heads.Categorical(name="tissue", labels=["a", "b"], per_position=True),
    heads.Bernoulli(name="tags", labels=["x", "y"]),
    heads.Bernoulli(name="ink", per_position=True),
    heads.Normal(name="slant", centre=[2.0], spread=[0.3]),
    heads.Normal(name="place", labels=["x", "y"], centre=[2.0, -1.0], spread=[0.3, 4.0]),
]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)


def channels(head: heads.AnyHead, draw: int = 0) -> tf.Tensor:
    positions = [5, 4] if head.per_position else []
    return tf.random.stateless_normal([6, *positions, head.channels], [draw, 1], stddev=1.5)


@every_head
def test_moments_are_those_of_the_likelihood(head: heads.AnyHead) -> None:
    """Rounding only: 1e-5 of values of order one."""
    given = channels(head)
    mean, aleatoric, _ = head.moments(given)
    likelihood = head.distribution(given)
    if head.combine == "variance":
        np.testing.assert_allclose(mean, likelihood.mean(), atol=1e-5)
        np.testing.assert_allclose(aleatoric, likelihood.variance(), rtol=1e-5)
    elif isinstance(head, heads.Categorical):
        np.testing.assert_allclose(mean, likelihood.probs_parameter(), atol=1e-6)
        np.testing.assert_allclose(aleatoric, likelihood.entropy(), atol=1e-5)
    else:
        np.testing.assert_allclose(mean, likelihood.distribution.probs_parameter(), atol=1e-6)
        np.testing.assert_allclose(aleatoric, likelihood.distribution.entropy(), atol=1e-5)


@every_head
def test_total_of_many_draws_against_the_mixture(head: heads.AnyHead) -> None:
    """The predictive distribution is TFP's mixture of the draws' likelihoods: its variance, or its entropy."""
    import tensorflow_probability as tfp

    drawn = [channels(head, draw) for draw in range(5)]
    found = moments.combined(head, [head.moments(one) for one in drawn])
    np.testing.assert_allclose(found["total"], found["aleatoric"] + found["epistemic"], atol=1e-5)
    if head.combine == "variance":
        stacked = tf.stack([head.distribution(one).distribution.loc for one in drawn], -1)
        scales = tf.stack([head.distribution(one).distribution.scale for one in drawn], -1)
        mixture = tfp.distributions.MixtureSameFamily(
            tfp.distributions.Categorical(logits=tf.zeros(5)), tfp.distributions.Normal(stacked, scales)
        )
        np.testing.assert_allclose(found["mean"], mixture.mean(), atol=1e-5)
        np.testing.assert_allclose(found["total"], mixture.variance(), rtol=1e-4, atol=1e-5)
    else:
        kind = tfp.distributions.Categorical if isinstance(head, heads.Categorical) else tfp.distributions.Bernoulli
        np.testing.assert_allclose(found["total"], kind(probs=found["mean"]).entropy(), atol=1e-5)
        assert found["epistemic"].numpy().min() >= 0


@every_head
def test_running_moments_are_those_of_the_list(head: heads.AnyHead) -> None:
    drawn = [head.moments(channels(head, draw)) for draw in range(7)]
    running = moments.first(drawn[0])
    for count, draw in enumerate(drawn[1:], start=2):
        running = moments.added(running, tf.constant(float(count)), draw)
    for name, value in moments.combined(head, drawn).items():
        np.testing.assert_allclose(moments.finished(head, running, tf.constant(7.0))[name], value, rtol=1e-6, atol=2e-6)


@every_head
def test_a_missing_target_drops_its_term_only(head: heads.AnyHead) -> None:
    given = channels(head)
    if isinstance(head, heads.Categorical):
        target = tf.zeros(given.shape[:-1], tf.int32)
        missing = tf.tensor_scatter_nd_update(target, [[2]], tf.fill([1, *target.shape[1:]], -1))
    else:
        size = head.distribution(given).event_shape[0]
        target = tf.ones([*given.shape[:-1], size])
        missing = tf.tensor_scatter_nd_update(target, [[2]], tf.fill([1, *target.shape[1:]], np.nan))
    whole, dropped = head.log_prob(given, target), head.log_prob(given, missing)
    assert dropped[2] == 0
    np.testing.assert_array_equal(np.delete(dropped, 2), np.delete(whole, 2))
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(head.log_prob(given, missing))
    assert np.isfinite(tape.gradient(loss, given)).all()


@every_head
def test_calibration_of_one_changes_nothing_and_of_two_spreads(head: heads.AnyHead) -> None:
    given = channels(head)
    np.testing.assert_allclose(head.calibrated(given, 1.0, 1.0), given, atol=1e-6)
    before = head.moments(given).aleatoric
    after = head.moments(head.calibrated(given, 2.0, 2.0)).aleatoric
    assert (after.numpy() > before.numpy()).all()
