"""Heads that no random weight changes, beside heads that one does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import backbones, heads
from probrt.trainer.adopt.moped import spread_kernels
from probrt.trainer.build import build_model
from probrt.trainer.heads import Own
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler

INPUT = Input(shape=[6], colour="none", resize="none")
PLAIN = WeightSettings(bayesian="none")


def _spread_last(count: int) -> Model:
    """A finished network with two outputs whose last `count` layers have become random."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6,), name="images")
    features = keras.layers.Dense(8, activation="relu")(images)
    outputs = {"left": keras.layers.Dense(1)(features), "right": keras.layers.Dense(1)(features)}
    network = spread_kernels(keras.Model(images, outputs), last=count, delta=0.5)
    return Model("two", INPUT, (heads.Bernoulli(name="left"), heads.Bernoulli(name="right")), network)


def test_a_head_that_no_draw_changes_answers_as_in_the_whole_network() -> None:
    model = _spread_last(1)
    assert model.heads_left_out == ["left"]
    images = tf.constant(np.random.default_rng(0).normal(size=(5, 6)), tf.float32)
    answers = model.combine_draws(model.shared_features(images), model.draw_handlers(0, range(4), 4))
    with use_handler(MeanHandler()):
        expected = tf.sigmoid(model.channels(images)["left"])
    np.testing.assert_allclose(answers["left"]["mean"], expected, rtol=1e-5)
    assert np.abs(answers["left"]["epistemic"]).max() < 1e-6
    assert np.abs(answers["right"]["epistemic"]).max() > 1e-3


def test_enough_layers_leave_no_head_out() -> None:
    assert _spread_last(2).heads_left_out == []


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_config_leaves_out_auxiliary_heads_only(auxiliary: bool) -> None:
    own = heads.Normal(name="size", own=Own(weights=PLAIN), auxiliary=auxiliary)
    weights = WeightSettings(bayesian="final|size.*")

    def build() -> Model:
        return build_model(
            "two", INPUT, [heads.Normal(name="slant"), own], backbone=backbones.DenseStack(widths=[4]), weights=weights
        )

    if auxiliary:
        assert build().heads_left_out == []
    else:
        with pytest.raises(ConfigError, match=r"heads: size: reads no layer with random weights, while other heads do"):
            build()
