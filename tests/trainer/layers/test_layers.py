"""Layers against Keras's own, dynamic sizes, mixed precision, saving, and draws."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import POSTERIORS, PRIORS

from probrt.trainer import layers
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, compute_weights, use_handler
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior, NormalPosterior
from probrt.trainer.variational.random_weight import find_random_weights

_1D, _2D, _3D = (2, 9, 4), (2, 8, 7, 4), (2, 5, 6, 5, 4)
CONVS = [
    ("Conv1D", _1D, {"strides": 2, "padding": "same"}),
    ("Conv1D", _1D, {"padding": "causal", "dilation_rate": 2}),
    ("Conv1D", _1D, {"padding": "valid", "groups": 2}),
    ("Conv2D", _2D, {"strides": (2, 1), "padding": "valid"}),
    ("Conv2D", _2D, {"dilation_rate": 2, "padding": "same", "groups": 2}),
    ("Conv3D", _3D, {"strides": 2, "padding": "same"}),
    ("Conv3D", _3D, {"dilation_rate": 2, "padding": "same", "use_bias": False}),
    *[
        (f"Conv{len(shape) - 2}DTranspose", shape, settings)
        for shape in (_1D, _2D, _3D)
        for settings in (
            {"strides": 2, "padding": "same"},
            {"strides": 3, "padding": "valid"},
            {"strides": 4, "padding": "valid"},
            {"strides": 2, "padding": "same", "output_padding": 1},
            {"strides": 2, "padding": "valid", "output_padding": 1},
            {"dilation_rate": 2, "padding": "same"},
            {"dilation_rate": 2, "padding": "valid"},
        )
        if "dilation_rate" not in settings or len(shape) == 4
    ],
    ("DepthwiseConv2D", _2D, {"depth_multiplier": 2, "padding": "same", "strides": 2}),
    ("DepthwiseConv2D", _2D, {"dilation_rate": 2, "padding": "valid"}),
    ("SeparableConv2D", _2D, {"depth_multiplier": 2, "padding": "valid"}),
]


@pytest.mark.parametrize(("kind", "shape", "settings"), CONVS, ids=lambda v: str(v) if not isinstance(v, tuple) else "")
def test_means_and_shapes_equal_keras(kind, shape, settings):
    from probrt.trainer.layers.from_keras import to_bayesian

    filters = () if kind == "DepthwiseConv2D" else (6,)
    inputs = keras.Input(shape[1:])
    model = keras.Model(inputs, getattr(keras.layers, kind)(*filters, 3, bias_initializer="normal", **settings)(inputs))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    bayesian = to_bayesian(model)
    expected = np.asarray(model(x))
    assert bayesian.output_shape == (None, *expected.shape[1:])
    with use_handler(MeanHandler()):
        np.testing.assert_allclose(bayesian(x).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"])
def test_grouped_transposes_are_two_transposes_side_by_side(kind):
    shape = {"Conv1DTranspose": _1D, "Conv2DTranspose": _2D, "Conv3DTranspose": _3D}[kind]
    x = tf.random.stateless_normal(shape, [1, 2])
    layer = getattr(layers, kind)(6, 3, strides=2, groups=2, kernel_posterior=None, use_bias=False)
    outputs = layer(x)
    for group, part in enumerate(tf.split(x, 2, -1)):
        half = getattr(layers, kind)(3, 3, strides=2, kernel_posterior=None, use_bias=False)
        half.build(part.shape)
        half.kernel.assign(layer.kernel[..., 3 * group : 3 * group + 3])
        np.testing.assert_allclose(half(part), outputs[..., 3 * group : 3 * group + 3], atol=1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_grouped_conv3d_is_two_convolutions_side_by_side(dilation):
    x = tf.random.stateless_normal(_3D, [1, 2])
    layer = layers.Conv3D(6, 3, groups=2, dilation_rate=dilation, kernel_posterior=None, use_bias=False)
    outputs = layer(x)
    for group, part in enumerate(tf.split(x, 2, -1)):
        kernel = layer.kernel[..., 3 * group : 3 * group + 3]
        expected = tf.nn.conv3d(part, kernel, [1] * 5, "SAME", dilations=[1, *[dilation] * 3, 1])
        np.testing.assert_allclose(outputs[..., 3 * group : 3 * group + 3], expected, atol=1e-6)


@pytest.mark.parametrize("layer", ["Conv3D", "Conv3DTranspose"])
def test_dilated_groups_in_3d_are_one_convolution(layer):
    """TensorFlow's TFLite gives wrong answers for two of them side by side."""
    layer = getattr(layers, layer)(6, 3, groups=2, dilation_rate=2, kernel_posterior=None, use_bias=False)
    layer.build(_3D)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec(_3D)).graph
    assert [op.type for op in graph.get_operations()].count("Conv3D") == 1


def small(**settings) -> keras.Model:
    images = keras.Input((None, None, 2))
    features = layers.Conv2D(4, 3, strides=2, activation="relu", name="down", **settings)(images)
    features = layers.Conv2DTranspose(4, 3, strides=2, name="up", **settings)(features)
    features = layers.SeparableConv2D(4, 3, name="separable", bias_posterior=NormalPosterior())(features)
    return keras.Model(images, layers.DepthwiseConv2D(3, dilation_rate=2, name="depthwise")(features))


def test_height_and_width_may_change_between_calls():
    model = small()
    step = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec([None, None, None, 2])], autograph=False)
    with use_handler(DrawHandler(1, 2)):
        wide = step(tf.ones((1, 8, 12, 2)))
    assert wide.shape == (1, 8, 12, 4)
    np.testing.assert_allclose(step(tf.ones((3, 8, 12, 2)))[1], wide[0], atol=1e-6)
    assert step(tf.ones((2, 6, 6, 2))).shape == (2, 6, 6, 4)


def test_saved_and_loaded_models_draw_the_same(tmp_path):
    for name, family in POSTERIORS.items():
        images = keras.Input((6, 6, 2))
        layer = layers.Conv2D(3, 3, name="conv", kernel_posterior=family, bias_posterior=NormalPosterior())
        model = keras.Model(images, layer(images))
        model.save(tmp_path / f"{name}.keras")
        loaded = keras.models.load_model(tmp_path / f"{name}.keras")
        before, after = compute_weights(model, DrawHandler(3, 4)), compute_weights(loaded, DrawHandler(3, 4))
        assert before.keys() == after.keys()
        for key, value in before.items():
            np.testing.assert_array_equal(value, after[key])


@pytest.mark.parametrize("name", PRIORS)
def test_priors_come_back_from_a_config(name):
    family = {"name": "gamma"} if PRIORS[name].support[0] == 0 else {"name": "normal"}
    if name == "uniform":
        family = {"name": "beta", "low": -1.0, "high": 2.0}
    layer = layers.Conv1D(2, 3, name="conv", kernel_posterior=family, kernel_prior=PRIORS[name])
    again = layers.Conv1D.from_config(layer.get_config())
    assert again.kernel_prior == PRIORS[name]
    assert again.get_config() == layer.get_config()


def test_the_kernels_of_a_separable_convolution_have_families_of_their_own():
    layer = layers.SeparableConv2D(
        4, 3, name="s", kernel_posterior={"name": "gamma"}, kernel_prior={"name": "log_normal"},
        pointwise_posterior=LaplacePosterior(), pointwise_prior={"name": "student_t"},
    )  # fmt: skip
    again = layers.SeparableConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again.build((None, 6, 6, 2))
    assert [type(weight.posterior).__name__ for weight in again.random_weights] == [
        "GammaPosterior",
        "LaplacePosterior",
    ]
    assert [type(weight.prior).__name__ for weight in again.random_weights] == ["LogNormalPrior", "StudentTPrior"]
    assert (again.estimator_in_use, again.pointwise_estimator) == ("reparameterization", "reparameterization")
    with use_handler(TrainingHandler(3, 1)):
        assert again(tf.ones((2, 6, 6, 2))).shape == (2, 6, 6, 4)
    half = layers.SeparableConv2D(4, 3, pointwise_posterior=None)
    half.build((None, 6, 6, 2))
    assert [weight.name.split("/")[1] for weight in half.random_weights] == ["depthwise"]
    same = layers.SeparableConv2D(4, 3, kernel_posterior=LaplacePosterior(), kernel_prior={"name": "cauchy"})
    assert (same.pointwise_posterior, same.pointwise_prior) == (same.kernel_posterior, same.kernel_prior)
    with pytest.raises(ValueError, match="s: pointwise_posterior: flipout needs a posterior symmetric"):
        layers.SeparableConv2D(4, 3, name="s", estimator="flipout", pointwise_posterior={"name": "gamma"})
    with pytest.raises(ValueError, match="s: pointwise_prior: LogNormal lives on"):
        layers.SeparableConv2D(4, 3, name="s", pointwise_prior={"name": "log_normal"})


def test_mixed_bfloat16_trains():
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 1))
    features = layers.Conv2D(8, 3, activation="relu", dtype="mixed_bfloat16")(images)
    features = keras.layers.GlobalAveragePooling2D(dtype="mixed_bfloat16")(features)
    model = keras.Model(images, layers.Dense(2, dtype="mixed_bfloat16")(features))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32)
    y = (x.mean((1, 2, 3)) > 0).astype(np.int32)
    x += 0.5 * (2 * y - 1)[:, None, None, None]
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(index):
        with tf.GradientTape() as tape, use_handler(TrainingHandler(0, index)) as fit:
            logits = model(x)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.cast(logits, tf.float32)))
            loss += tf.add_n([fit.kl(weight) for weight in find_random_weights(model)]) * 1e-4
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss, logits

    losses = [float(step(tf.constant(index))[0]) for index in range(60)]
    assert step(tf.constant(0))[1].dtype == tf.bfloat16
    assert np.mean(losses[-5:]) < 0.3 < np.mean(losses[:5])


def test_draws_do_not_depend_on_batch_tracing_or_process():
    layer = layers.Conv2D(3, 3, name="conv")
    layer.build((None, 6, 6, 2))
    layer.kernel.parameters["loc"].assign(tf.zeros_like(layer.kernel.parameters["loc"].value))
    eager = layer.kernel.draw(5, 6).numpy()
    traced = tf.function(layer.kernel.draw, autograph=False)(tf.constant(5), tf.constant(6)).numpy()
    np.testing.assert_allclose(traced, eager, atol=1e-6)
    several = tf.map_fn(layer.kernel.from_noise, layer.kernel.noise(5, tf.range(4, 8))).numpy()
    np.testing.assert_allclose(several[2], eager, atol=1e-6)
    x = tf.random.stateless_normal((4, 6, 6, 2), [1, 1])
    with use_handler(DrawHandler(5, 6)):
        np.testing.assert_allclose(layer(x[:1]), layer(x)[:1], atol=1e-6)
    code = (
        "from probrt.trainer import layers\n"
        "layer = layers.Conv2D(3, 3, name='conv'); layer.build((None, 6, 6, 2))\n"
        "print(layer.kernel.noise(5, 6).numpy().tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == layer.kernel.noise(5, 6).numpy().tobytes().hex()


def test_layers_of_one_shape_start_apart_and_draw_apart():
    images = keras.Input((6, 6, 8))
    first, second = layers.Conv2D(8, 3, name="first"), layers.Conv2D(8, 3, name="second")
    model = keras.Model(images, second(first(images)))
    first, second = find_random_weights(model)
    assert not np.array_equal(first.mean(), second.mean())
    # 576 pairs: the correlation of independent noise has standard error 1 / 24.
    for index in range(3):
        noise = [weight.noise(1, index).numpy().ravel() for weight in (first, second)]
        assert abs(np.corrcoef(*noise)[0, 1]) < 4.5 / 24


def test_a_layer_used_twice_is_drawn_and_counted_once():
    images = keras.Input((4,))
    layer = layers.Dense(4, name="twice")
    model = keras.Model(images, layer(layer(images)))
    assert len(find_random_weights(model)) == 1
    with use_handler(DrawHandler(1, 1)):
        np.testing.assert_allclose(model(tf.eye(4)), layer(layer(tf.eye(4))), atol=1e-6)
