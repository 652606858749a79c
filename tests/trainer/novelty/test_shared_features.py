"""Novelty from the features that all draws share is the novelty of the whole network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import DIGIT, INK

from probrt.runtime.bundle.manifest import Input
from probrt.trainer import backbones
from probrt.trainer.build import build_model
from probrt.trainer.calibration.novelty import add_novelty
from probrt.trainer.data.read import Examples
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.variational.handlers import MeanHandler, use_handler


def frozen_then_random(images: Any, making: WeightSettings) -> Any:
    """Two deterministic resolutions, and a third with random weights."""
    for level in (1, 2):
        images = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name=f"frozen{level}")(images)
    return keras.layers.ReLU(name="random_relu")(making.conv(2, 5, 3, "random", strides=2)(images))


@pytest.mark.parametrize(
    ("backbone", "heads", "bayesian"),
    [
        (backbones.Custom(function="test_shared_features:frozen_then_random"), (DIGIT,), "all"),
        (backbones.ConvStack(widths=(4, 6)), (DIGIT,), "all"),
        (backbones.ConvStack(widths=(4, 6)), (DIGIT,), "final"),
        (backbones.ConvStack(widths=(4, 6)), (DIGIT,), "none"),
        (backbones.UNet(widths=(4, 6), depth=1), (DIGIT, INK), "all"),
        (backbones.UNet(widths=(4, 6), depth=1), (INK,), "final"),
    ],
)
def test_it_is_that_of_the_whole_network(
    backbone: backbones.AnyBackbone,
    heads: Any,
    bayesian: Any,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.syspath_prepend(str(request.path.parent))
    input = Input(shape=[32, 32, 1], colour="none", resize="none", range=(-1.0, 1.0))
    model = build_model("net", input, heads, backbone=backbone, weights=WeightSettings(bayesian=bayesian))
    rng = np.random.default_rng(0)
    splits = [
        Examples(tuple(map(str, range(60))), rng.uniform(-0.5, 0.5, (60, 32, 32, 1)).astype(np.float32), {})
        for _ in range(2)
    ]
    model = add_novelty(model, *splits, seed=0)
    images = tf.constant(rng.uniform(-1, 1, (5, 32, 32, 1)), tf.float32)
    features = model.shared_features(images)
    with use_handler(MeanHandler()):
        whole, shared = model.moments_and_novelty(images)[1], model.novelty_from(features)
    assert set(shared) == {"score", "p_value"} | ({"map"} if INK in heads else set())
    for quantity, values in shared.items():
        np.testing.assert_allclose(values, whole[quantity], rtol=1e-5)  # the same float32 operations, split in two
