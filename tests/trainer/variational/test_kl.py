"""KL: closed forms against Monte Carlo, signs, counting, the report, and a posterior known exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import POSTERIORS, PRIORS, weight

from probrt.trainer import layers
from probrt.trainer.variational import posteriors, priors
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler
from probrt.trainer.variational.kl_report import format_kl_report, kl_report
from probrt.trainer.variational.posteriors.base import log_prob
from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights

COUNT = 1500


def open_kl(random_weight: RandomWeight, count: int = COUNT) -> np.ndarray:
    """log posterior - log prior at draws, in nats."""
    values = {name: tf.convert_to_tensor(variable.value) for name, variable in random_weight.parameters.items()}
    prior_values = {
        name: tf.convert_to_tensor(variable.value) for name, variable in random_weight.prior_parameters.items()
    }

    @tf.function(autograph=False)
    def log_ratio(index):
        value = random_weight.draw(9, index)
        own = tf.reduce_sum(random_weight.posterior.distribution(values).log_prob(value))
        return own - log_prob(random_weight.prior.distribution(prior_values, random_weight.shape), value)

    return np.array([log_ratio(tf.constant(index)).numpy() for index in range(count)])


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [("normal", "normal"), ("normal", "learned_normal"), ("normal", "moped"), ("laplace", "laplace"),
     ("log_normal", "log_normal"), ("gamma", "gamma")],
)  # fmt: skip
def test_closed_forms_equal_monte_carlo(posterior, prior):
    random_weight = weight(POSTERIORS[posterior], PRIORS[prior])
    sampled = open_kl(random_weight)
    noise = random_weight.noise(1, 1)
    closed = float(random_weight.kl(random_weight.from_noise(noise), noise))
    # The same at any draw: it is closed.
    other = random_weight.noise(1, 2)
    assert closed == pytest.approx(float(random_weight.kl(random_weight.from_noise(other), other)), rel=1e-6)
    assert abs(sampled.mean() - closed) < 4.0 * sampled.std() / np.sqrt(COUNT)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_kl_is_finite_with_gradients_and_not_negative_on_average(posterior, prior):
    family, over = POSTERIORS[posterior], PRIORS[prior]
    inside = over.support[0] <= family.support[0] and over.support[1] >= family.support[1]
    if not inside or (posterior == "rank_one" and prior in ("learned_normal", "moped")):
        with pytest.raises(ValueError, match=r"^dense: kernel_prior: "):
            weight(family, over)
        return
    random_weight = weight(family, over)

    @tf.function(autograph=False)
    def estimate(index):
        noise = random_weight.noise(9, index)
        return random_weight.kl(random_weight.from_noise(noise), noise)

    with tf.GradientTape() as tape, use_handler(TrainingHandler(1, 1)) as fit:
        kl = fit.kl(random_weight)
    for gradient in tape.gradient(kl, [variable.value for variable in random_weight.parameters.values()]):
        assert gradient is None or np.isfinite(gradient.numpy()).all()
    estimates = np.array([estimate(tf.constant(index)).numpy() for index in range(100)])
    assert np.isfinite(estimates).all()
    if posterior != "vae":  # its KL has the reconstruction's density in it, which may pass 1
        assert estimates.mean() > -4.0 * estimates.std() / 10.0


def test_the_prior_of_a_mixture_takes_kernels_of_any_rank():
    layer = layers.Conv3D(2, 2, kernel_posterior=posteriors.NormalMixture(), kernel_prior=priors.ScaleMixture())
    layer.build((None, 4, 4, 4, 2))
    with use_handler(TrainingHandler(0, 0)) as fit:
        assert np.isfinite(float(fit.kl(layer.kernel)))


def test_vae_kl_holds_latent_and_reconstruction():
    """At the start's zero decoder, every term is a closed form."""
    import tensorflow_probability as tfp

    tfd = tfp.distributions
    random_weight = weight(posteriors.Vae(latent=2, hidden=8), priors.Normal(0.0, 1.0))
    for name in ("loc_kernel", "loc_bias", "rho_kernel", "latent_mean_kernel", "latent_rho_kernel"):
        random_weight.parameters[name].assign(tf.zeros_like(random_weight.parameters[name].value))
    noise = random_weight.noise(1, 1)
    scale = tf.math.softplus(random_weight.parameters["rho_bias"].value) + 1e-5
    latent = tf.math.softplus(random_weight.parameters["latent_rho_bias"].value) + 1e-5
    filters = 2.0 * tf.reduce_sum(tfd.Normal(0.0, scale).kl_divergence(tfd.Normal(0.0, 1.0)))
    latents = 2.0 * tf.reduce_sum(tfd.Normal(0.0, latent).kl_divergence(tfd.Normal(0.0, 1.0)))
    reconstruction = tfd.Normal(0.0, float(0.5 * np.sqrt(2.0 / 3.0))).log_prob(random_weight.parameters["anchor"].value)
    expected = float(filters + latents - tf.reduce_sum(reconstruction))
    assert float(random_weight.kl(random_weight.from_noise(noise), noise)) == pytest.approx(expected, rel=1e-5)


def test_the_report_counts_each_weight_once():
    images = keras.Input((4,))
    layer = layers.Dense(4, name="twice", bias_posterior=posteriors.Normal(), kernel_posterior=posteriors.Normal(0.5))
    model = keras.Model(images, layer(layer(images)))
    kernel, bias = kl_report(model)
    assert (kernel.name, kernel.weights, bias.name, bias.weights) == ("twice/kernel", 16, "twice/bias", 4)
    random_weight = find_random_weights(model)[0]
    noise = random_weight.noise(0, 0)
    assert kernel.nats == pytest.approx(float(random_weight.kl(random_weight.from_noise(noise), noise)), rel=1e-5)
    assert kernel.nats_per_weight == pytest.approx(kernel.nats / 16)
    exact = np.median(np.abs(random_weight.mean().numpy()) / random_weight.scale().numpy())
    assert kernel.signal_to_noise == pytest.approx(exact, rel=0.25)  # sd of 64 draws: 9% each
    assert [line.split()[0] for line in format_kl_report([kernel, bias])] == ["twice/kernel", "twice/bias"]


@pytest.mark.slow
def test_a_linear_model_reaches_its_exact_mean_field_posterior():
    """y = x w + noise with w ~ N(0, 1): the posterior precision is A = x'x / s^2 + 1, the best factorised one has
    mean A^-1 x'y / s^2 and variances 1 / A_ii (Bishop 2006, eq. 10.12 and 10.13)."""
    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])).astype(np.float32)
    sigma = 0.5
    y = (x @ np.array([[0.8], [-0.5], [0.3]]) + sigma * rng.normal(size=(60, 1))).astype(np.float32)
    precision = x.T @ x / sigma**2 + np.eye(3)
    mean, scale = np.linalg.solve(precision, x.T @ y / sigma**2)[:, 0], 1.0 / np.sqrt(np.diag(precision))
    layer = layers.Conv2D(1, 1, use_bias=False, kernel_prior=priors.Normal(0.0, 1.0))
    maps, targets = tf.constant(x[:, None, None, :]), tf.constant(y[:, None, None, :])
    layer.build(maps.shape)
    assert layer.estimator_in_use == "local_reparameterization"
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 4000)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(layer.trainable_variables)

    @tf.function(autograph=False)
    def step(step_index):
        with tf.GradientTape() as tape, use_handler(TrainingHandler(0, step_index)) as fit:
            loss = tf.reduce_sum(tf.square(layer(maps) - targets)) / (2.0 * sigma**2)
            loss += fit.kl(layer.kernel)
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)

    for step_index in range(4000):
        step(tf.constant(step_index))
    # The last steps' noise is some hundredths of a standard deviation.
    assert np.abs(layer.kernel.mean().numpy().ravel() - mean).max() < 0.1 * scale.min()
    np.testing.assert_allclose(layer.kernel.scale().numpy().ravel(), scale, rtol=0.05)
