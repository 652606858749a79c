"""Posterior families against TFP: moments, densities, gradients. Tolerances are in standard errors."""

import math

import numpy as np
import pytest
import tensorflow as tf
from families import INDEPENDENT, POSTERIORS, assert_mean, draws, weight

from probrt.trainer.variational import priors
from probrt.trainer.variational.random_weight import RandomWeight

COUNT = 4000


def values(random_weight: RandomWeight) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(variable.value) for name, variable in random_weight.parameters.items()}


@pytest.mark.parametrize("name", POSTERIORS)
def test_draws_average_to_the_stated_mean(name):
    random_weight = weight(POSTERIORS[name])
    assert_mean(draws(random_weight, COUNT), random_weight.mean().numpy())


@pytest.mark.parametrize("name", INDEPENDENT)
def test_draws_have_the_moments_and_quantiles_of_tfp(name):
    random_weight = weight(POSTERIORS[name])
    samples = draws(random_weight, COUNT)
    distribution = random_weight.posterior.distribution(values(random_weight))
    assert_mean(samples, distribution.mean().numpy())
    assert_mean(np.square(samples - distribution.mean().numpy()), distribution.variance().numpy())
    # Kolmogorov and Smirnov: the largest gap passes 1.95 / sqrt(n) once in 1,000; there are 6 weights.
    below = np.sort(distribution.cdf(samples).numpy(), axis=0)
    gap = np.abs(below - (np.arange(COUNT) + 0.5)[:, None, None] / COUNT).max()
    assert gap < 2.2 / math.sqrt(COUNT)


@pytest.mark.parametrize("name", ["low_rank_normal", "full_normal"])
def test_joint_draws_have_the_covariance_of_tfp(name):
    random_weight = weight(POSTERIORS[name])
    samples = draws(random_weight, COUNT).reshape(COUNT, -1)
    centred = samples - random_weight.mean().numpy().reshape(-1)
    products = centred[:, :, None] * centred[:, None, :]
    assert_mean(products, random_weight.posterior.distribution(values(random_weight)).covariance().numpy())


def test_kronecker_draws_have_the_covariance_of_rotated_normals():
    random_weight = weight(POSTERIORS["kronecker_normal"])
    inputs, outputs = (np.linalg.qr(np.random.default_rng(size).normal(size=(size, size)))[0] for size in (3, 2))
    random_weight.parameters["inputs_rotation"].assign(inputs)
    random_weight.parameters["outputs_rotation"].assign(outputs)
    variance = random_weight.posterior.distribution(values(random_weight)).variance().numpy()
    rotation = np.kron(inputs, outputs)
    expected = rotation @ np.diag(variance.reshape(-1)) @ rotation.T
    centred = (draws(random_weight, COUNT) - random_weight.mean().numpy()).reshape(COUNT, -1)
    assert_mean(centred[:, :, None] * centred[:, None, :], expected)


def test_rank_one_draws_have_the_variance_of_a_product():
    random_weight = weight(POSTERIORS["rank_one"])
    kernel, loc = random_weight.parameters["kernel"].numpy(), random_weight.parameters["loc"].numpy()
    scale = random_weight.posterior.distribution(values(random_weight)).stddev().numpy()
    second = loc**2 + scale**2
    expected = kernel**2 * (np.outer(second[:3], second[3:]) - np.outer(loc[:3], loc[3:]) ** 2)
    assert_mean(np.square(draws(random_weight, COUNT) - random_weight.mean().numpy()), expected)


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
    random_weight = weight(POSTERIORS[name])
    grid, step = _grid(random_weight)
    density = random_weight.posterior.distribution(values(random_weight)).prob(grid).numpy()
    # Trapezoids of width 0.0005: 1e-3 holds for every density here, Laplace's corner included.
    assert np.abs(density.sum(0) * step - 1.0).max() < 1e-3


@pytest.mark.parametrize("name", INDEPENDENT)
def test_gradients_of_the_elbo_match_quadrature(name):
    """The average of single-draw gradients is the gradient of the ELBO integrated on a grid."""
    random_weight = weight(POSTERIORS[name], priors.Normal(0.2, 0.7))
    variables = [variable.value for variable in random_weight.parameters.values()]
    grid, step = _grid(random_weight)
    with tf.GradientTape() as tape:
        distribution = random_weight.posterior.distribution(values(random_weight))
        log_q = distribution.log_prob(grid)
        inside = tf.where(log_q > -60.0, tf.exp(log_q) * (_likelihood(grid) - log_q + _log_prior(grid)), 0.0)
        elbo = tf.reduce_sum(inside) * step
    expected = tape.gradient(elbo, variables)
    for estimates, exact in zip(_gradients(random_weight, 1500), expected, strict=True):
        assert estimates.std() > 0
        _assert_gradient(estimates, exact.numpy())


@pytest.mark.parametrize("name", ["low_rank_normal", "full_normal", "kronecker_normal", "rank_one", "vae"])
def test_gradients_of_the_elbo_match_finite_differences(name):
    """Smooth in the noise, so a many-sample estimate on fixed noise has a derivative to compare with."""
    random_weight = weight(POSTERIORS[name], priors.Normal(1.0, 0.7))
    trained = [variable for variable in random_weight.parameters.values() if variable.trainable]
    noise = random_weight.noise(11, tf.range(64))

    @tf.function(autograph=False)
    def estimate() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            elbos = tf.map_fn(lambda noise: _elbo(random_weight, noise), noise)
            elbo = tf.reduce_mean(elbos)
        return elbo, tape.gradient(elbo, [variable.value for variable in trained])

    _, gradients = estimate()
    for variable, gradient in zip(trained, gradients, strict=True):
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


def _elbo(random_weight: RandomWeight, noise: tf.Tensor) -> tf.Tensor:
    value = random_weight.sample(noise)
    return tf.reduce_sum(_likelihood(value)) - random_weight.kl(value, noise)


def _likelihood(value: tf.Tensor) -> tf.Tensor:
    return tf.cos(3.0 * value) - 0.5 * tf.square(value)


def _log_prior(value: tf.Tensor) -> tf.Tensor:
    import tensorflow_probability as tfp

    return tfp.distributions.Normal(0.2, 0.7).log_prob(value)


def _gradients(random_weight: RandomWeight, count: int) -> list[np.ndarray]:
    variables = [variable.value for variable in random_weight.parameters.values()]

    @tf.function(autograph=False)
    def single(index: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            elbo = _elbo(random_weight, random_weight.noise(5, index))
        return tape.gradient(elbo, variables)

    per_draw = [single(tf.constant(index)) for index in range(count)]
    return [np.stack([gradients[i].numpy() for gradients in per_draw]) for i in range(len(variables))]


def _assert_gradient(estimates: np.ndarray, exact: np.ndarray) -> None:
    assert np.isfinite(estimates).all()
    # 5 standard errors, plus the grid's own error of some 1e-3.
    away = np.abs(estimates.mean(0) - exact)
    assert (away < 5.0 * estimates.std(0) / math.sqrt(len(estimates)) + 2e-3 * (1 + np.abs(exact))).all(), away.max()


def _grid(random_weight: RandomWeight) -> tuple[tf.Tensor, float]:
    low, high = max(random_weight.posterior.support[0], -12.0), min(random_weight.posterior.support[1], 12.0)
    step = 5e-4
    return tf.range(low + step / 2, high, step)[:, None, None], step
