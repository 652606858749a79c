"""Probabilistic convolutions in one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.layers.base import ProbabilisticLayer, compute_fan_in
from probrt.trainer.layers.windows import convolve, output_length
from probrt.trainer.variational.handlers import apply_linear


class Window(ProbabilisticLayer):
    """A sliding window; see ProbabilisticLayer for its weights.

    kernel_size, strides, dilation_rate: one number, or one per side of space; strides and dilation_rate
        cannot both pass 1. padding: "same" or "valid" (and "causal" for Conv1D).
    """

    rank: int
    paddings: tuple[str, ...] = ("same", "valid")

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "same",
        dilation_rate: int | tuple[int, ...] = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = _expand_per_side(kernel_size, self.rank, f"{self.name}: kernel_size")
        self.strides = _expand_per_side(strides, self.rank, f"{self.name}: strides")
        self.dilation_rate = _expand_per_side(dilation_rate, self.rank, f"{self.name}: dilation_rate")
        self.padding = padding
        if padding not in self.paddings:
            raise ValueError(f"{self.name}: padding {padding!r} is none of {', '.join(map(repr, self.paddings))}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{self.name}: strides {self.strides} and dilation_rate {self.dilation_rate} cannot both pass 1"
            )

    def input_channels(self, input_shape: tuple[int | None, ...]) -> int:
        """Returns the input's channels; raises ValueError if they are unknown or the input has another rank."""
        if len(input_shape) != self.rank + 2 or input_shape[-1] is None:
            raise ValueError(
                f"{self.name}: the input must be [batch, {self.rank} sides, channels] with known channels, "
                f"got shape {input_shape}"
            )
        return input_shape[-1]

    def choose_window_estimator(self, input_shape: tuple[int | None, ...]) -> None:
        """Chooses the estimator: the weights of a window of size 1 on a map of size 1 meet an example once."""
        self.choose_estimator(
            self.uses_weights_once(input_shape),
            f"windows of size 1 on maps of size 1, not {self.kernel_size} on {tuple(input_shape[1:-1])}",
        )

    def uses_weights_once(self, input_shape: tuple[int | None, ...]) -> bool:
        """Returns whether each weight meets an example once."""
        return all(side == 1 for side in (*self.kernel_size, *input_shape[1:-1]))

    def output_sides(self, input_shape: tuple[int | None, ...]) -> list[int | None]:
        """Returns the sides of the output; None where the input's side is not known."""
        sides = zip(input_shape[1:-1], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return [
            output_length(size, window=window, stride=stride, dilation=dilation, padding=self.padding)
            for size, window, stride, dilation in sides
        ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }


class Conv(Window):
    """A convolution [batch, *space, in] → [batch, *space, filters]; kernel [*window, in / groups, filters].

    groups: divides the input's channels and the filters.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, ...], groups: int = 1, **kwargs: Any) -> None:
        super().__init__(kernel_size, **kwargs)
        self.filters = check_count(filters, f"{self.name}: filters")
        self.groups = check_count(groups, f"{self.name}: groups")
        if filters % groups:
            raise ValueError(f"{self.name}: groups {groups} does not divide the {filters} filters")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.input_channels(input_shape)
        if channels % self.groups:
            raise ValueError(f"{self.name}: groups {self.groups} does not divide the input's {channels} channels")
        self.choose_window_estimator(input_shape)
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_posterior_weight(
            "kernel", shape, fan_in=compute_fan_in(shape), posterior=self.kernel_posterior, prior=self.kernel_prior
        )
        self.bias = self.add_bias(self.filters, compute_fan_in(shape))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation(
            apply_linear(self.op, inputs, self.kernel, estimator=self.estimator_in_use, bias=self.bias)
        )

    def op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution itself, linear in inputs and kernel."""
        return convolve(inputs, kernel, strides=self.strides, dilation=self.dilation_rate, padding=self.padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.output_sides(input_shape), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}


@keras.saving.register_keras_serializable(package="probrt")
class Conv1D(Conv):
    """[batch, length, in] → [batch, length, filters]; padding may be "causal"."""

    rank = 1
    paddings = ("same", "valid", "causal")


@keras.saving.register_keras_serializable(package="probrt")
class Conv2D(Conv):
    """[batch, height, width, in] → [batch, height, width, filters]."""

    rank = 2


@keras.saving.register_keras_serializable(package="probrt")
class Conv3D(Conv):
    """[batch, depth, height, width, in] → [batch, depth, height, width, filters]."""

    rank = 3


def check_count(value: int, where: str) -> int:
    """Returns the value; raises ValueError below 1."""
    if value < 1:
        raise ValueError(f"{where} is {value}, must be at least 1")
    return value


def _expand_per_side(value: int | tuple[int, ...], rank: int, where: str) -> tuple[int, ...]:
    sides = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sides) != rank or any(side < 1 for side in sides):
        raise ValueError(f"{where} is {value}, must be a positive number or {rank} of them")
    return sides
