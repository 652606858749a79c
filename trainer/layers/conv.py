"""Probabilistic convolutions in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.layers.base import ProbabilisticLayer, add_bias, fan_in
from probrt.trainer.weights import linear, read

_OPS = {1: tf.nn.conv1d, 2: tf.nn.conv2d, 3: tf.nn.conv3d}


class Conv(ProbabilisticLayer):
    """A convolution [batch, *space, in] → [batch, *space, filters]; see ProbabilisticLayer for the rest.

    kernel_size, strides: one number, or one per side of space. padding: "same" or "valid".
    """

    rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "same",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = _per_side(kernel_size, self.rank, f"{self.name}: kernel_size")
        self.strides = _per_side(strides, self.rank, f"{self.name}: strides")
        self.padding = padding
        if filters < 1:
            raise ValueError(f"{self.name}: filters is {filters}, must be at least 1")
        if padding not in ("same", "valid"):
            raise ValueError(f"{self.name}: padding {padding!r} is none of 'same', 'valid'")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"{self.name}: the input's channels must be known, got shape {input_shape}")
        shape = (*self.kernel_size, channels, self.filters)
        inputs = fan_in(shape)
        self.kernel = self.add_posterior_weight("kernel", shape, inputs, self.kernel_posterior, self.kernel_prior)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_posterior_weight("bias", (self.filters,), inputs, self.bias_posterior, self.bias_prior)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = linear(self.op, inputs, self.kernel, self.estimator)
        return self.activation(add_bias(outputs, read(self.bias)))

    def op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution itself, linear in inputs and kernel."""
        strides = list(self.strides) if self.rank < 3 else [1, *self.strides, 1]
        return _OPS[self.rank](inputs, kernel, strides, self.padding.upper())

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return keras.src.ops.operation_utils.compute_conv_output_shape(
            input_shape, self.filters, self.kernel_size, self.strides, self.padding
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable(package="probrt")
class Conv1D(Conv):
    """[batch, length, in] → [batch, length, filters]."""

    rank = 1


@keras.saving.register_keras_serializable(package="probrt")
class Conv2D(Conv):
    """[batch, height, width, in] → [batch, height, width, filters]."""

    rank = 2


@keras.saving.register_keras_serializable(package="probrt")
class Conv3D(Conv):
    """[batch, depth, height, width, in] → [batch, depth, height, width, filters]."""

    rank = 3


def _per_side(value: int | tuple[int, ...], rank: int, where: str) -> tuple[int, ...]:
    sides = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sides) != rank or any(side < 1 for side in sides):
        raise ValueError(f"{where} is {value}, must be a positive number or {rank} of them")
    return sides
