"""Backbones and how models are put together."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import backbones, heads
from probrt.trainer.backbones.base import choose_widths
from probrt.trainer.build import build_model
from probrt.trainer.fit.objective import Objective
from probrt.trainer.layers.dropout import ChannelDropout
from probrt.trainer.layers.resampling import MaxPool, UpTo
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

DIGIT = heads.Categorical(name="digit", labels=["a", "b", "c"])
INK = heads.Bernoulli(name="ink", per_position=True)
SMALL = backbones.ConvStack(widths=(4, 6))
PLAIN = WeightSettings(bayesian="none")


def model(
    shape: list[int | None],
    chosen: list[heads.AnyHead],
    backbone: backbones.AnyBackbone = SMALL,
    making: WeightSettings = WeightSettings(),
    colour: str = "none",
) -> Model:
    keras.utils.set_random_seed(1)
    return build_model(
        "m", Input(shape=shape, colour=colour, resize="none", range=(0, 255)), chosen, backbone=backbone, weights=making
    )


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


@pytest.mark.parametrize("sides", [(16,), (7, 10), (9, 5), (5, 6, 7), (4, 9, 3)])
def test_unet_maps_have_the_inputs_size(sides: tuple[int, ...]) -> None:
    """Odd sides too, of a fixed and of a dynamic network."""
    unet = backbones.UNet(widths=(3, 4, 5), depth=1)
    for shape in ([*sides, 1], [*[None] * len(sides), 1]):
        built = model(shape, [INK], unet)
        with use_handler(DrawHandler(0, 0)):
            assert built.moments(images(2, *sides, 1))["ink"].mean.shape == (2, *sides, 1)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("sides", [(7,), (7, 4), (5, 4, 7)])
def test_pooling_is_that_of_keras(sides: tuple[int, ...], padding: str) -> None:
    kind = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)[len(sides) - 1]
    values = tf.random.stateless_normal([2, *sides, 3], [0, 1])
    np.testing.assert_array_equal(MaxPool(padding)(values), kind(2, padding=padding)(values))


def test_doubling_is_that_of_keras() -> None:
    low, high = tf.random.stateless_normal([2, 3, 2, 4, 3], [0, 1]), tf.zeros([2, 5, 4, 7, 1])
    np.testing.assert_array_equal(UpTo()([low, high]), keras.layers.UpSampling3D(2)(low)[:, :5, :4, :7])


def test_a_fused_final_convolution_is_as_good_as_separate_ones() -> None:
    """The same weights in one convolution and in one per head: equal but for rounding, 1e-6 of values of order one."""
    other = heads.Normal(name="slant")
    fused = model([8, 8, 2], [DIGIT, other, INK], making=PLAIN)
    own = heads.Own()
    apart = model(
        [8, 8, 2],
        [heads.Categorical(name="digit", labels=["a", "b", "c"], own=own), heads.Normal(name="slant", own=own), INK],
        making=PLAIN,
    )
    for layer in apart.network.layers:
        if layer.name in {layer.name for layer in fused.network.layers} and layer.name != "final":
            layer.set_weights(fused.network.get_layer(layer.name).get_weights())
    kernel, bias = fused.network.get_layer("final").get_weights()
    for name, low, high in (("head--digit--final", 0, 3), ("head--slant--final", 3, 5), ("final", 5, 9)):
        apart.network.get_layer(name).set_weights([kernel[..., low:high], bias[low:high]])
    given = images(3, 8, 8, 2)
    with use_handler(MeanHandler()):
        fused_channels, own_channels = fused.channels(given), apart.channels(given)
    for name in fused_channels:
        np.testing.assert_allclose(fused_channels[name], own_channels[name], rtol=1e-5, atol=1e-6)


def test_gradients_of_several_heads_are_the_weighted_sum() -> None:
    """Of the heads' own: rounding of float32 sums, 1e-5."""
    chosen = [
        heads.Categorical(name="digit", labels=["a", "b", "c"], weight=0.7),
        heads.Normal(name="slant", weight=0.2),
        heads.Poisson(name="count", weight=1.5),
    ]
    built = model([8, 8, 2], chosen, making=PLAIN)
    targets = {"digit": tf.constant([0, 2, -1]), "slant": tf.constant([[1.0], [np.nan], [0.5]])}
    targets["count"] = tf.constant([[1.0], [0.0], [3.0]])
    objective = Objective(built)
    variables = [variable.value for variable in built.network.trainable_variables]
    with tf.GradientTape(persistent=True) as tape, use_handler(MeanHandler()):
        terms = objective.log_likelihoods(built.channels(images(3, 8, 8, 2)), targets)
        whole = tf.reduce_mean(objective.loss(terms))
        single = {name: -tf.reduce_mean(term) for name, term in terms.items()}
    parts = {name: tape.gradient(term, variables, unconnected_gradients="zero") for name, term in single.items()}
    for position, gradient in enumerate(tape.gradient(whole, variables)):
        expected = sum(head.weight * parts[head.name][position].numpy() for head in chosen)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_learned_loss_weights_settle_at_each_heads_noise() -> None:
    """The minimum of e^-s L + s is at s = ln L: gradient 0 there."""
    built = model([8, 8, 2], [DIGIT, heads.Normal(name="slant")], making=PLAIN)
    objective = Objective(built, "learned")
    terms = {"digit": tf.constant([-2.0, -4.0]), "slant": tf.constant([-0.5, -0.5])}
    objective.variables[0].assign(np.log([3.0, 0.5]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective.loss(terms))
    np.testing.assert_allclose(loss, 1 + np.log(3.0) + 1 + np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, objective.variables[0].value), [0, 0], atol=1e-6)


def test_penalties_are_on_deterministic_kernels_only() -> None:
    half = model([8, 8, 2], [DIGIT], making=WeightSettings(bayesian="final"))
    kernels = [variable.numpy() for variable in half.network.trainable_variables if variable.path.endswith("/kernel")]
    assert len(kernels) == 4
    expected = sum(0.1 * np.abs(kernel).sum() + 0.01 * np.square(kernel).sum() for kernel in kernels)
    np.testing.assert_allclose(Objective(half, l1=0.1, l2=0.01).penalty(), expected, rtol=1e-5)


def test_part_of_a_network_is_bayesian_and_the_rest_is_run_once() -> None:
    """The cut network says what the whole one says, to rounding; what is shared holds the deterministic layers."""
    built = model([8, 8, 2], [DIGIT, INK], making=WeightSettings(bayesian="final"))
    assert [weight.name for weight in built.weights] == ["final/kernel"]
    given = images(3, 8, 8, 2)
    shared = built.shared_features(given)
    assert [tuple(features.shape) for features in shared] == [(3, 4, 4, 6)]
    with use_handler(DrawHandler(3, 4)):
        whole, cut = built.moments(given), built.moments_from(shared)
    for name in whole:
        np.testing.assert_allclose(whole[name].mean, cut[name].mean, rtol=1e-6, atol=1e-7)


def test_dropout_kept_on_is_one_mask_per_draw() -> None:
    """The same for all rows of a draw, another per draw, 30 % of 4,000 channels within 4 standard errors; per
    example while fitting; nothing at the mean."""
    layer = ChannelDropout(0.3, in_draws=True)
    ones = tf.ones([2, 3, 3, 4000])
    with use_handler(DrawHandler(0, 1)):
        first = layer(ones).numpy()
    with use_handler(DrawHandler(0, 2)):
        second = layer(ones).numpy()
    assert (first == first[:1, :1, :1]).all()
    assert (first[0, 0, 0] != second[0, 0, 0]).any()
    assert abs((first[0, 0, 0] == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.7)}
    with use_handler(MeanHandler()):
        np.testing.assert_array_equal(layer(ones), ones)
    with use_handler(TrainingHandler(0, 0)):
        fitted = layer(ones).numpy()
    assert (fitted[0] != fitted[1]).any()
    assert (fitted == fitted[:, :1, :1]).all()


def test_auxiliary_heads_are_left_out() -> None:
    built = model([8, 8, 2], [DIGIT, heads.Normal(name="help", stage="stage1", auxiliary=True)])
    slim = built.without_auxiliary()
    assert [head.name for head in slim.heads] == ["digit"]
    given = images(2, 8, 8, 2)
    with use_handler(DrawHandler(0, 0)):
        np.testing.assert_array_equal(built.moments(given)["digit"].mean, slim.moments(given)["digit"].mean)
        assert set(slim.moments(given)) == {"digit"}


def test_head_variables_are_its_own_layers() -> None:
    own = heads.Own(widths=(3,), learning_rate=0.1)
    built = model([8, 8, 2], [DIGIT, heads.Normal(name="dig", own=own), heads.Normal(name="digs", own=own)])
    names = {variable.path.split("/")[0] for variable in built.head_variables(built.heads[1])}
    assert names == {"head--dig--conv1", "head--dig--final"}
    assert built.head_variables(built.heads[0]) == []


@pytest.mark.slow
def test_pretrained_weights_from_a_file(tmp_path: Path) -> None:
    """A file changes every kernel, what is frozen stays so, and one of another network is refused."""
    given = images(2, 32, 32, 3)
    keras.utils.set_random_seed(7)
    donor = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    donor.save_weights(tmp_path / "donor.weights.h5")
    backbone = backbones.Pretrained(model="MobileNetV2", weights="donor.weights.h5", frozen=True, bayesian_last=1)
    built = model([32, 32, 3], [DIGIT], backbone.resolve_paths(tmp_path), colour="rgb")
    np.testing.assert_array_equal(
        built.network.get_layer("Conv1").get_weights()[0], donor.get_layer("Conv1").get_weights()[0]
    )
    assert {variable.path.split("/")[0] for variable in built.network.trainable_variables} == {"Conv_1", "final"}
    assert [weight.name for weight in built.weights] == ["Conv_1/kernel", "final/kernel"]
    np.testing.assert_allclose(built.weights[0].mean(), donor.get_layer("Conv_1").get_weights()[0])
    with use_handler(MeanHandler()):
        expected = donor(keras.applications.mobilenet_v2.preprocess_input(given.copy()), training=False)
        # The Bayesian layer stands at its mean: the same features, but for rounding through fifty layers.
        reached = keras.Model(built.network.input, built.network.get_layer("final").input)(given, training=False)
    np.testing.assert_allclose(reached, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    other = keras.Sequential([keras.Input([8]), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    wrong = backbones.Pretrained(model="MobileNetV2", weights=str(tmp_path / "other.weights.h5"))
    with pytest.raises(ConfigError, match=r"backbone\.weights: .*other\.weights\.h5"):
        model([32, 32, 3], [DIGIT], wrong, colour="rgb")


@pytest.mark.parametrize(
    ("shape", "chosen", "backbone", "reason"),
    [
        ([8, 8, 1], [heads.Normal(name="a", stage="top")], SMALL, "no stage 'top'; the backbone has stage1, stage2"),
        ([9, 9, 1], [INK], SMALL, r"needs sides that it divides, not \[9, 9\]"),
        ([None, None, 1], [INK], SMALL, "needs fixed two-dimensional images"),
        ([6], [DIGIT], SMALL, r"'conv' takes inputs of shape \[length, channels\] or"),
        ([6], [INK], backbones.DenseStack(), "per_position needs a feature map"),
        ([32, 32, 1], [DIGIT], backbones.Pretrained(model="MobileNetV2"), "take three channels"),
        ([32, 32, 3], [DIGIT], backbones.Pretrained(model="MobileNet9"), "no network 'MobileNet9'; keras has"),
        ([32, 32, 3], [DIGIT], backbones.Pretrained(model="MobileNetV2", taps=("x",)), "no layer 'x'; it has"),
        ([8, 8, 1], [DIGIT], backbones.Custom(function="nowhere:f"), "nowhere:f: no such function"),
    ],
)
def test_what_cannot_be_built(
    shape: list[int | None], chosen: list[heads.AnyHead], backbone: backbones.AnyBackbone, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        model(shape, chosen, backbone)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="give dropout above 0"):
        backbones.ConvStack(mc_dropout=True)
    with pytest.raises(ValueError, match="not a regular expression"):
        WeightSettings(bayesian="(")


@pytest.mark.parametrize(
    ("sides", "widths"),
    [
        ([8, 8], (32, 64, 128)),
        ([28, 28], (32, 64, 128)),
        ([32, 20], (32, 64, 128)),
        ([64, 64], (16, 32, 64, 128)),
        ([224, 160], (16, 32, 64, 128, 256, 256)),
        ([1000], (16, 32, 64, 128, 256, 256, 256, 256)),
        ([None, None], (32, 64, 128)),
        ([1000, 12], (16, 32, 64, 128)),
        ([2, 2], (32, 64)),
        ([1], (32,)),
    ],
    ids=str,
)
def test_the_stages_suit_the_size_of_the_input(sides: list[int | None], widths: tuple[int, ...]) -> None:
    assert choose_widths(sides) == widths
