"""Coordinate channels: the position of each pixel."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="probrt")
class Coordinates(keras.Layer):
    """Adds one channel per dimension to [batch, *space, channels]: the position from -1 to 1.

    Global pooling discards location; coordinate channels restore it (Liu et al. 2018).
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        sides = [tf.shape(inputs)[axis] if side is None else side for axis, side in enumerate(inputs.shape)][1:-1]
        channels = [inputs]
        for axis, side in enumerate(sides):
            steps = (tf.cast(tf.range(side), inputs.dtype) + 0.5) * (2.0 / tf.cast(side, inputs.dtype)) - 1.0
            shape = [1] * (len(sides) + 2)
            shape[axis + 1] = side
            channels.append(tf.zeros_like(inputs[..., :1]) + tf.reshape(steps, shape))
        return tf.concat(channels, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        channels = input_shape[-1]
        return (*input_shape[:-1], None if channels is None else channels + len(input_shape) - 2)
