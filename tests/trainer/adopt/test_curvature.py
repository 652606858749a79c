"""The curvature and its inverse against closed forms and finite differences."""

import keras
import numpy as np
import pytest

from probrt.trainer import heads
from probrt.trainer.adopt import curvature as module
from probrt.trainer.adopt.attach import attach_heads
from probrt.trainer.adopt.curvature import Curvature, choose_precision, sum_curvature
from probrt.trainer.adopt.laplace import _compute_hessians


def features(count: int = 40, inputs: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, inputs))


def channels_of(head: heads.Head) -> keras.Model:
    outputs = keras.Input((head.channels,))
    return keras.Model(outputs, attach_heads(outputs, [head], {}))


def test_a_linear_model_with_normal_noise_has_the_posterior_of_bayesian_regression() -> None:
    """Bishop (2006), eq. 3.54: the covariance is (tau + X^T X / sigma^2)^-1 for each output."""
    head = heads.Normal(name="y", labels=["a", "b"], scale=0.5, centre=[0.0, 0.0], spread=[1.0, 1.0])
    x = features()
    targets = {"y": np.random.default_rng(1).normal(size=(len(x), 2)).astype(np.float32)}
    hessians = _compute_hessians([head], channels_of(head), x @ np.ones((4, 2)), targets)
    np.testing.assert_allclose(hessians, np.tile(np.eye(2) / 0.25, (len(x), 1, 1)), rtol=1e-5)
    factor = Curvature.of(x, hessians).factor(3.0)
    expected = np.kron(np.linalg.inv(x.T @ x / 0.25 + 3.0 * np.eye(4)), np.eye(2))
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-5, atol=1e-9)


def test_multinomial_regression_has_the_curvature_of_finite_differences() -> None:
    head = heads.Categorical(name="y", labels=["a", "b", "c"])
    x = features()
    weights = np.random.default_rng(2).normal(size=(4, 3))
    labels = np.random.default_rng(3).integers(0, 3, len(x))

    def loss(flat: np.ndarray) -> float:
        logits = x @ flat.reshape(4, 3)
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]).sum())

    hessians = _compute_hessians([head], channels_of(head), x @ weights, {"y": labels.astype(np.int32)})
    steps = 1e-4 * np.eye(12)
    expected = np.array([
        [
            loss(weights.ravel() + a + b) - loss(weights.ravel() + a - b) - loss(weights.ravel() - a + b)
            + loss(weights.ravel() - a - b)
            for b in steps
        ]
        for a in steps
    ]) / 4e-8  # fmt: skip
    # The loss of some 60 nats has 1e-14 of rounding, over 4e-8: 4e-5; the curvature is up to 10.
    np.testing.assert_allclose(sum_curvature(x, hessians), expected, rtol=1e-4, atol=1e-4)


def test_a_missing_target_adds_no_curvature() -> None:
    head = heads.Categorical(name="y", labels=["a", "b"])
    hessians = _compute_hessians([head], channels_of(head), np.ones((2, 2)), {"y": np.array([-1, 0], np.int32)})
    assert not hessians[0].any()
    assert hessians[1].any()


def test_a_kronecker_product_is_exact_where_all_examples_curve_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features()
    hessians = np.tile(np.array([[2.0, 0.5], [0.5, 1.0]]), (len(x), 1, 1))
    full = Curvature.of(x, hessians)
    monkeypatch.setattr(module, "MAX_WEIGHTS", 1)
    factored = Curvature.of(x, hessians)
    noise = np.eye(8).reshape(8, 4, 2)
    for curvature in (full, factored):
        directions = curvature.deviate(noise, 0.7).reshape(8, 8)
        expected = np.linalg.inv(np.kron(x.T @ x, hessians[0]) + 0.7 * np.eye(8))
        np.testing.assert_allclose(directions.T @ directions, expected, rtol=1e-8, atol=1e-12)


def test_the_precision_is_the_smallest_that_costs_nothing() -> None:
    """A posterior as wide as the prior spoils the predictions of a good model; a point predicts as well as any."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 4))
    weights = np.array([[1.0], [-2.0], [0.5], [0.0]])
    y = (x @ weights)[:, 0] + 0.3 * rng.normal(size=400)
    curvature = Curvature.of(np.tile(x, (10, 1)), np.full((4000, 1, 1), 1 / 0.09))

    def log_likelihood(outputs: np.ndarray) -> np.ndarray:
        return -0.5 * np.square((outputs[:, 0] - y) / 0.3)

    precision = choose_precision(curvature, weights, x, log_likelihood, seed=0)
    assert precision == module.PRECISIONS[0]  # 4,000 examples of 4 weights leave no room for harm
    few = Curvature.of(x[:1], np.full((1, 1, 1), 1 / 0.09))
    assert choose_precision(few, weights, x, log_likelihood, seed=0) > 10
