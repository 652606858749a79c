"""Probabilistic transposed convolutions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.layers.conv import Conv
from probrt.trainer.layers.windows import convolve_transposed, transposed_output_length


class ConvTranspose(Conv):
    """The transpose of a convolution; kernel [*window, in / groups, filters] (Keras keeps [*window, out, in]).

    output_padding: what to add to each side's length, below its stride; left out, the shortest usual length.
    """

    def __init__(
        self, filters: int, kernel_size: int | tuple[int, ...], output_padding: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.output_padding = output_padding
        if output_padding is not None and not 0 <= output_padding < min(self.strides):
            raise ValueError(
                f"{self.name}: output_padding {output_padding} must be at least 0 and below the strides {self.strides}"
            )

    def op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The transposed convolution itself, linear in inputs and kernel."""
        return convolve_transposed(
            inputs,
            kernel,
            strides=self.strides,
            dilation=self.dilation_rate,
            padding=self.padding,
            extra=self.output_padding,
        )

    def output_sides(self, input_shape: tuple[int | None, ...]) -> list[int | None]:
        sides = zip(input_shape[1:-1], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return [
            transposed_output_length(
                size,
                window=window,
                stride=stride,
                dilation=dilation,
                padding=self.padding,
                extra=self.output_padding,
            )
            for size, window, stride, dilation in sides
        ]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_padding": self.output_padding}


@keras.saving.register_keras_serializable(package="probrt")
class Conv1DTranspose(ConvTranspose):
    """[batch, length, in] → [batch, length * stride, filters]."""

    rank = 1


@keras.saving.register_keras_serializable(package="probrt")
class Conv2DTranspose(ConvTranspose):
    """[batch, height, width, in] → [batch, height * stride, width * stride, filters]."""

    rank = 2


@keras.saving.register_keras_serializable(package="probrt")
class Conv3DTranspose(ConvTranspose):
    """[batch, depth, height, width, in] → [batch, depth * stride, height * stride, width * stride, filters]."""

    rank = 3
