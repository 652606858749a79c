"""The fused batch normalisation computes what Keras's own does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from probrt.trainer.layers.normalisation import BatchNorm


@pytest.mark.parametrize("shape", [(8, 3), (8, 5, 3), (8, 6, 6, 4), (2, 4, 4, 4, 3), (1, 1, 1, 3)], ids=str)
def test_equals_the_layer_of_keras_in_outputs_gradients_and_statistics(shape: tuple[int, ...]) -> None:
    x = 2.0 * tf.random.stateless_normal(shape, [1, 2]) + 1.0
    results = []
    for layer_class in (keras.layers.BatchNormalization, BatchNorm):
        layer = layer_class(momentum=0.9)
        layer.build(shape)
        layer.gamma.assign(layer.gamma * 1.5)
        layer.beta.assign(layer.beta + 0.2)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(outputs))
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        statistics = [layer.moving_mean.value, layer.moving_variance.value]
        results.append([outputs, *gradients, *statistics, layer(x, training=False)])
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-4)
