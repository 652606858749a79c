"""Halves and doubles feature maps of one, two and three dimensions, in ops that every format has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="probrt")
class MaxPool(keras.Layer):
    """Max-pooling 2 wide with stride 2 over every dimension of [batch, *space, channels].

    padding: "valid" drops what is left of an odd side, "same" rounds it up.
    """

    def __init__(self, padding: str = "valid", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rank = len(inputs.shape) - 2
        pad = self.padding.upper()
        if rank == 2:
            return tf.nn.max_pool2d(inputs, 2, 2, pad)
        if rank == 1:
            return tf.nn.max_pool2d(inputs[:, :, None], [2, 1], [2, 1], pad)[:, :, 0]
        # TFLite pools in two dimensions only: height and width first, then depth.
        batch, depth, height, width, channels = _sides(inputs)
        planes = tf.nn.max_pool2d(tf.reshape(inputs, [-1, height, width, channels]), 2, 2, pad)
        _, low_height, low_width, _ = _sides(planes)
        columns = tf.reshape(planes, [batch, depth, low_height * low_width, channels])
        pooled = tf.nn.max_pool2d(columns, [2, 1], [2, 1], pad)
        low_depth = _sides(pooled)[1]
        return _with_channels(tf.reshape(pooled, [batch, low_depth, low_height, low_width, channels]), inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        more = 1 if self.padding == "same" else 0
        space = (None if side is None else (side + more) // 2 for side in input_shape[1:-1])
        return (input_shape[0], *space, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="probrt")
class UpTo(keras.Layer):
    """[low, high] → `low` doubled along every dimension by repeating values, and cut to the sides of `high`."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        low, high = inputs
        _, *wanted, _ = _sides(high)
        if len(wanted) == 1:
            return _repeat(low[:, :, None], (2, 1), (wanted[0], 1))[:, :, 0]
        if len(wanted) == 2:
            return _repeat(low, (2, 2), wanted)
        # Resizing knows two dimensions only: height and width first, then depth.
        _, depth, height, width, channels = _sides(low)
        planes = _repeat(tf.reshape(low, [-1, height, width, channels]), (2, 2), wanted[1:])
        area = wanted[1] * wanted[2]
        columns = tf.reshape(planes, [-1, depth, area, channels])
        larger = tf.reshape(_repeat(columns, (2, 1), (wanted[0], area)), [-1, *wanted, channels])
        return _with_channels(larger, low)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        low, high = input_shape
        return (*high[:-1], low[-1])


def _repeat(low: tf.Tensor, factors: Sequence[int], wanted: Sequence[Any]) -> tf.Tensor:
    """Repeats each value of [batch, height, width, channels] and cuts to the wanted height and width."""
    sides = [side * factor for side, factor in zip(_sides(low)[1:3], factors, strict=True)]
    larger = tf.image.resize(low, sides, "nearest")
    known = all(isinstance(side, int) for side in (*sides, *wanted))
    return larger if known and sides == list(wanted) else larger[:, : wanted[0], : wanted[1]]


def _with_channels(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Restores the static number of channels, which reshaping by tensors loses."""
    values.set_shape([None] * (len(like.shape) - 1) + [like.shape[-1]])
    return values


def _sides(values: tf.Tensor) -> list[Any]:
    """Returns the sides as numbers where they are known, else as tensors."""
    dynamic = tf.shape(values)
    return [dynamic[axis] if side is None else side for axis, side in enumerate(values.shape)]
