"""A constant input for a final layer, so that its bias is a row of its kernel and has covariances with it."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="probrt")
class AppendOne(keras.Layer):
    """[batch, …, channels] → [batch, …, channels + 1]; the last channel is 1."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.concat([inputs, tf.zeros_like(inputs[..., :1]) + 1.0], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], (input_shape[-1] or 0) + 1)
