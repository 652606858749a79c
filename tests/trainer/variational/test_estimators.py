"""Estimators against closed forms. Tolerances are in standard errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import assert_mean

from probrt.trainer import layers
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import MeanHandler, use_handler
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior, LogNormalPosterior, NormalPosterior
from probrt.trainer.variational.posteriors.mixture import NormalMixturePosterior
from probrt.trainer.variational.posteriors.structured import LowRankNormalPosterior
from probrt.trainer.variational.posteriors.vae import VaePosterior

COUNT = 1500
SYMMETRIC = [
    NormalPosterior(0.5),
    LaplacePosterior(0.5),
    NormalMixturePosterior(2, 0.3, 0.3),
    LowRankNormalPosterior(2, 0.5),
    VaePosterior(2, 8, 0.5),
]


def make_layer(estimator: str, posterior=NormalPosterior(0.5), kind=layers.Conv2D, shape=(4, 5, 5, 2), **settings):
    keras.utils.set_random_seed(4)
    layer = kind(3, 3, padding="valid", estimator=estimator, kernel_posterior=posterior, name="conv", **settings)
    layer.build(shape)
    return layer


def outputs(layer, x, count: int = COUNT) -> np.ndarray:
    """Outputs of steps 0 to count - 1, [count, batch, …]."""

    @tf.function(autograph=False)
    def step(index):
        with use_handler(TrainingHandler(3, index)):
            return layer(x)

    return np.stack([step(tf.constant(index)).numpy() for index in range(count)])


def moments(layer, x) -> tuple[np.ndarray, np.ndarray]:
    with use_handler(MeanHandler()):
        mean = layer(x).numpy()
    return mean, layer.op(tf.square(x), tf.square(layer.kernel.scale())).numpy()


@pytest.mark.parametrize("estimator", ["reparameterization", "flipout"])
@pytest.mark.parametrize(
    "posterior",
    [NormalPosterior(0.5), LaplacePosterior(0.5), NormalMixturePosterior(spread=0.8)],
    ids=lambda q: type(q).__name__,
)
def test_outputs_have_the_closed_form_moments(estimator, posterior):
    layer, x = make_layer(estimator, posterior), tf.random.stateless_normal((4, 5, 5, 2), [1, 1])
    samples = outputs(layer, x)
    mean, variance = moments(layer, x)
    assert_mean(samples, mean)
    assert_mean(np.square(samples - mean), variance, errors=5.5)  # 108 skewed averages


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(layers.Dense(3, estimator="local_reparameterization"), (6, 4)),
     (layers.Conv2D(3, 1, estimator="local_reparameterization"), (6, 1, 1, 4))],
    ids=["dense", "conv"],
)  # fmt: skip
def test_local_reparameterization_has_the_closed_form_moments_and_independent_examples(layer, shape):
    layer.build(shape)
    x = tf.ones(shape) * tf.random.stateless_normal(shape[1:], [1, 1])
    samples = outputs(layer, x)
    mean, variance = moments(layer, x)
    assert_mean(samples, mean)
    assert_mean(np.square(samples - mean), variance)
    _assert_uncorrelated(samples)


@pytest.mark.parametrize("posterior", [NormalPosterior(0.5), LaplacePosterior(0.5)], ids=lambda q: type(q).__name__)
def test_flipout_decorrelates_examples_and_reparameterization_shares(posterior):
    x = tf.ones((4, 1, 1, 1)) * tf.random.stateless_normal((5, 5, 2), [1, 1])
    _assert_uncorrelated(outputs(make_layer("flipout", posterior), x))
    shared = outputs(make_layer("reparameterization", posterior), x, 20)
    np.testing.assert_array_equal(shared, np.broadcast_to(shared[:, :1], shared.shape))


@pytest.mark.slow
@pytest.mark.parametrize("posterior", SYMMETRIC, ids=lambda q: type(q).__name__)
def test_both_estimators_have_one_gradient_and_flipout_varies_less(posterior):
    # Images share most of their brightness, so a shared draw moves all examples' gradients alike.
    x = 1.0 + 0.3 * tf.random.stateless_normal((64, 3, 3, 2), [1, 1])
    target = 0.3 * tf.random.stateless_normal((64, 1, 1, 3), [1, 2])

    def gradients(estimator):
        layer = make_layer(estimator, posterior, shape=x.shape)
        variables = [variable.value for variable in layer.kernel.parameters.values()]

        @tf.function(autograph=False)
        def step(index):
            with tf.GradientTape() as tape, use_handler(TrainingHandler(3, index)):
                loss = tf.reduce_mean(tf.square(tf.tanh(layer(x)) - target))
            return tf.concat([tf.reshape(gradient, [-1]) for gradient in tape.gradient(loss, variables)], 0)

        return np.stack([step(tf.constant(index)).numpy() for index in range(COUNT)])

    shared, flipped = gradients("reparameterization"), gradients("flipout")
    error = np.sqrt((shared.var(0) + flipped.var(0)) / COUNT) + 1e-6
    away = np.abs(shared.mean(0) - flipped.mean(0)) / error
    assert away.max() < 5.0
    if not isinstance(posterior, LowRankNormalPosterior | VaePosterior):  # whose shared part is shared by the batch
        assert flipped.var(0).sum() < 0.5 * shared.var(0).sum()


def test_every_mixture_parameter_has_a_gradient_in_a_flipout_conv3d():
    layer = make_layer("flipout", NormalMixturePosterior(), layers.Conv3D, (2, 4, 4, 4, 2))
    x = tf.random.stateless_normal((2, 4, 4, 4, 2), [1, 1])
    with tf.GradientTape(persistent=True) as tape, use_handler(TrainingHandler(3, 0)):
        loss = tf.reduce_sum(tf.square(layer(x)))
    for name, variable in layer.kernel.parameters.items():
        assert np.mean(tape.gradient(loss, variable.value).numpy() != 0) == 1.0, name


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(2), (None, 3), "local_reparameterization"),
        (layers.Dense(2), (None, 4, 3), "reparameterization"),
        (layers.Dense(2, kernel_posterior=LaplacePosterior()), (None, 3), "reparameterization"),
        (layers.Conv2D(2, 1), (None, 1, 1, 3), "local_reparameterization"),
        (layers.Conv2D(2, 1), (None, None, 1, 3), "reparameterization"),
        (layers.Conv2D(2, 3, estimator="flipout"), (None, 5, 5, 3), "flipout"),
        (layers.Conv2D(2, 3), (None, 5, 5, 3), "reparameterization"),
    ],
)
def test_auto_takes_the_best_that_is_exact(layer, shape, expected):
    layer.build(shape)
    assert layer.estimator_in_use == expected


def test_flipout_signs_do_not_depend_on_how_a_batch_is_split():
    layer, x = make_layer("flipout"), tf.random.stateless_normal((4, 5, 5, 2), [1, 1])
    with use_handler(TrainingHandler(3, 1)):
        whole = layer(x).numpy()
    with use_handler(TrainingHandler(3, 1, first_row=2)):
        half = layer(x[2:]).numpy()
    np.testing.assert_allclose(half, whole[2:], atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "moves"),
    [("reparameterization", True), ("flipout", True), ("local_reparameterization", True), ("ivon", False)],
)
def test_the_spread_moves_the_outputs_from_the_mean_to_the_draw(estimator: str, moves: bool) -> None:
    """Outputs are linear in the weights, so a quarter of the spread is a quarter of the way; IVON takes whole draws."""
    layer, x = layers.Dense(3, estimator=estimator), tf.random.stateless_normal((6, 4), [1, 1])
    layer.build(x.shape)
    answers, divergences = {}, set()
    for spread in (0.0, 0.25, 1.0):
        with use_handler(TrainingHandler(3, 1, spread=tf.constant(spread))) as handler:
            answers[spread] = layer(x).numpy()
            divergences.add(float(handler.kl(layer.kernel)))
    assert len(divergences) == 1
    with use_handler(TrainingHandler(3, 1)):
        np.testing.assert_allclose(answers[1.0], layer(x).numpy(), atol=1e-6)
    with use_handler(MeanHandler()):
        mean = layer(x).numpy()
    assert np.abs(answers[1.0] - mean).max() > 0.01
    for spread, answer in answers.items():
        expected = mean + spread * (answers[1.0] - mean) if moves else answers[1.0]
        np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("posterior", [*SYMMETRIC[:3], LogNormalPosterior()], ids=lambda q: type(q).__name__)
def test_without_spread_every_family_is_at_its_mean(posterior) -> None:
    layer, x = make_layer("auto", posterior), tf.random.stateless_normal((4, 5, 5, 2), [1, 1])
    with use_handler(TrainingHandler(3, 1, spread=tf.constant(0.0))):
        still = layer(x).numpy()
    with use_handler(MeanHandler()):
        np.testing.assert_allclose(still, layer(x).numpy(), atol=1e-5)


def _assert_uncorrelated(samples: np.ndarray) -> None:
    """The product of two examples' deviations averages to 0; its error is measured, for it is no product of normals."""
    away = (samples - samples.mean(0)).reshape(len(samples), samples.shape[1], -1)
    first, second = np.triu_indices(samples.shape[1], 1)
    assert_mean(away[:, first] * away[:, second], 0.0)


@pytest.mark.parametrize("shape", [(5, 2), (5, 4, 2), (5, 4, 3, 2), (5, 4, 3, 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_a_bias_is_that_of_a_sum(shape, dtype):
    outputs = tf.cast(tf.random.stateless_normal(shape, [1, 2]), dtype)
    target = tf.cast(tf.random.stateless_normal(shape, [3, 4]), dtype)
    bias = tf.cast([0.5, -1.0], dtype)
    with tf.GradientTape() as tape:
        tape.watch([outputs, bias])
        added = TrainingHandler(3, 0).add_bias(outputs, bias)
        loss = tf.reduce_sum(added * target)
    np.testing.assert_array_equal(added, outputs + bias)
    by_outputs, by_bias = tape.gradient(loss, [outputs, bias])
    np.testing.assert_array_equal(by_outputs, target)
    # Sums of 5 to 120 numbers of about 1 in another order; bfloat16 rounds them to 8 bits.
    tolerance = 1e-5 if dtype == "float32" else 0.2
    expected = tf.reduce_sum(tf.cast(target, tf.float32), axis=list(range(len(shape) - 1)))
    np.testing.assert_allclose(tf.cast(by_bias, tf.float32), expected, atol=tolerance)
