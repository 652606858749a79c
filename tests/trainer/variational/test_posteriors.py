"""Posterior families against TFP: moments, densities, gradients. Tolerances are in standard errors."""

import math

import numpy as np
import pytest
import tensorflow as tf
from families import INDEPENDENT, POSTERIORS, assert_mean, draws, weight

from probrt.trainer.variational import priors
from probrt.trainer.variational.random_weight import RandomWeight

COUNT = 4000


def values(one: RandomWeight) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(each.value) for name, each in one.parameters.items()}


@pytest.mark.parametrize("name", POSTERIORS)
def test_draws_average_to_the_stated_mean(name):
    one = weight(POSTERIORS[name])
    assert_mean(draws(one, COUNT), one.mean().numpy())


@pytest.mark.parametrize("name", INDEPENDENT)
def test_draws_have_the_moments_and_quantiles_of_tfp(name):
    one = weight(POSTERIORS[name])
    made = draws(one, COUNT)
    distribution = one.posterior.distribution(values(one))
    assert_mean(made, distribution.mean().numpy())
    assert_mean(np.square(made - distribution.mean().numpy()), distribution.variance().numpy())
    # Kolmogorov and Smirnov: the largest gap passes 1.95 / sqrt(n) once in 1,000; there are 6 weights.
    below = np.sort(distribution.cdf(made).numpy(), axis=0)
    gap = np.abs(below - (np.arange(COUNT) + 0.5)[:, None, None] / COUNT).max()
    assert gap < 2.2 / math.sqrt(COUNT)


def test_low_rank_draws_have_the_covariance_of_tfp():
    one = weight(POSTERIORS["low_rank_normal"])
    made = draws(one, COUNT).reshape(COUNT, -1)
    centred = made - one.mean().numpy().reshape(-1)
    products = centred[:, :, None] * centred[:, None, :]
    assert_mean(products, one.posterior.distribution(values(one)).covariance().numpy())


def test_rank_one_draws_have_the_variance_of_a_product():
    one = weight(POSTERIORS["rank_one"])
    kernel, loc = one.parameters["kernel"].numpy(), one.parameters["loc"].numpy()
    scale = one.posterior.distribution(values(one)).stddev().numpy()
    second = loc**2 + scale**2
    expected = kernel**2 * (np.outer(second[:3], second[3:]) - np.outer(loc[:3], loc[3:]) ** 2)
    assert_mean(np.square(draws(one, COUNT) - one.mean().numpy()), expected)


@pytest.mark.parametrize("concentration", [0.05, 0.3, 1.0, 3.0, 1e4])
def test_gamma_variates_follow_the_gamma_distribution(concentration):
    import tensorflow_probability as tfp

    from probrt.trainer.variational import threefry as noise
    from probrt.trainer.variational.posteriors.bounded import draw_gamma

    variates = draw_gamma(tf.fill([COUNT], concentration), noise.uniform(1, {2: (9, COUNT)}, 3)[2]).numpy()
    below = np.sort(tfp.distributions.Gamma(concentration, 1.0).cdf(variates).numpy())
    # Draws below 1e-30 are raised to it; at 0.05 that moves the distribution function there by 0.03 at most.
    floor = tfp.distributions.Gamma(concentration, 1.0).cdf(1e-30).numpy()
    gap = np.abs(np.maximum(below, floor) - np.maximum((np.arange(COUNT) + 0.5) / COUNT, floor)).max()
    assert gap < 1.95 / math.sqrt(COUNT)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_densities_integrate_to_one(name):
    one = weight(POSTERIORS[name])
    grid, step = _grid(one)
    density = one.posterior.distribution(values(one)).prob(grid).numpy()
    # Trapezoids of width 0.0005: 1e-3 holds for every density here, Laplace's corner included.
    assert np.abs(density.sum(0) * step - 1.0).max() < 1e-3


@pytest.mark.parametrize("name", INDEPENDENT)
def test_gradients_of_the_elbo_match_quadrature(name):
    """The average of single-draw gradients is the gradient of the ELBO integrated on a grid."""
    one = weight(POSTERIORS[name], priors.Normal(0.2, 0.7))
    variables = [each.value for each in one.parameters.values()]
    grid, step = _grid(one)
    with tf.GradientTape() as tape:
        distribution = one.posterior.distribution(values(one))
        log_q = distribution.log_prob(grid)
        inside = tf.where(log_q > -60.0, tf.exp(log_q) * (_likelihood(grid) - log_q + _log_prior(grid)), 0.0)
        elbo = tf.reduce_sum(inside) * step
    expected = tape.gradient(elbo, variables)
    for found, exact in zip(_gradients(one, 1500), expected, strict=True):
        assert found.std() > 0
        _assert_gradient(found, exact.numpy())


@pytest.mark.parametrize("name", ["low_rank_normal", "rank_one", "vae"])
def test_gradients_of_the_elbo_match_finite_differences(name):
    """Smooth in the noise, so a many-sample estimate on fixed noise has a derivative to compare with."""
    one = weight(POSTERIORS[name], priors.Normal(1.0, 0.7))
    noise = one.noise(11, tf.range(64))

    @tf.function(autograph=False)
    def estimate() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            each = tf.map_fn(lambda made: _elbo(one, made), noise)
            elbo = tf.reduce_mean(each)
        return elbo, tape.gradient(elbo, [variable.value for variable in one.parameters.values()])

    _, gradients = estimate()
    for variable, gradient in zip(one.parameters.values(), gradients, strict=True):
        start = variable.numpy()
        way = np.sign(np.random.default_rng(0).normal(size=start.shape)).astype(np.float32)
        ends = []
        for sign in (1.0, -1.0):
            variable.assign(start + sign * 1e-3 * way)
            ends.append(float(estimate()[0]))
        variable.assign(start)
        slope, expected = (ends[0] - ends[1]) / 2e-3, float(np.sum(gradient * way))
        # Float32 sums of some 100 nats carry 1e-5, over a step of 2e-3: 1e-2 of slope, plus curvature.
        assert abs(slope - expected) < 0.03 * (1.0 + abs(expected)), variable.name


def _elbo(one: RandomWeight, made: tf.Tensor) -> tf.Tensor:
    value = one.sample(made)
    return tf.reduce_sum(_likelihood(value)) - one.kl(value, made)


def _likelihood(value: tf.Tensor) -> tf.Tensor:
    return tf.cos(3.0 * value) - 0.5 * tf.square(value)


def _log_prior(value: tf.Tensor) -> tf.Tensor:
    import tensorflow_probability as tfp

    return tfp.distributions.Normal(0.2, 0.7).log_prob(value)


def _gradients(one: RandomWeight, count: int) -> list[np.ndarray]:
    variables = [each.value for each in one.parameters.values()]

    @tf.function(autograph=False)
    def single(index: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            elbo = _elbo(one, one.noise(5, index))
        return tape.gradient(elbo, variables)

    found = [single(tf.constant(index)) for index in range(count)]
    return [np.stack([each[i].numpy() for each in found]) for i in range(len(variables))]


def _assert_gradient(found: np.ndarray, exact: np.ndarray) -> None:
    assert np.isfinite(found).all()
    # 5 standard errors, plus the grid's own error of some 1e-3.
    away = np.abs(found.mean(0) - exact)
    assert (away < 5.0 * found.std(0) / math.sqrt(len(found)) + 2e-3 * (1 + np.abs(exact))).all(), away.max()


def _grid(one: RandomWeight) -> tuple[tf.Tensor, float]:
    low, high = max(one.posterior.support[0], -12.0), min(one.posterior.support[1], 12.0)
    step = 5e-4
    return tf.range(low + step / 2, high, step)[:, None, None], step
