"""Probabilistic depthwise and separable convolutions."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from probrt.trainer.layers.base import compute_fan_in
from probrt.trainer.layers.conv import Window, check_count
from probrt.trainer.layers.windows import convolve, convolve_depthwise
from probrt.trainer.variational.estimators import explain_refusal, resolve_estimator
from probrt.trainer.variational.handlers import apply_linear
from probrt.trainer.variational.resolve import PosteriorLike, PriorLike, resolve_posterior, resolve_prior, to_record


class _Depthwise(Window):
    """A depthwise window; depth_multiplier: output channels per input channel. Both strides must be equal."""

    rank = 2

    def __init__(self, kernel_size: int | tuple[int, int], depth_multiplier: int = 1, **kwargs: Any) -> None:
        super().__init__(kernel_size, **kwargs)
        self.depth_multiplier = check_count(depth_multiplier, f"{self.name}: depth_multiplier")
        if self.strides[0] != self.strides[1]:
            raise ValueError(f"{self.name}: strides {self.strides} must be equal for a depthwise convolution")

    def add_depthwise(self, name: str, channels: int) -> Any:
        """Adds the kernel [*window, 1, channels * depth_multiplier]."""
        shape = (*self.kernel_size, 1, channels * self.depth_multiplier)
        window = math.prod(self.kernel_size)
        return self.add_posterior_weight(
            name, shape, fan_in=window, posterior=self.kernel_posterior, prior=self.kernel_prior
        )

    def depthwise_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The depthwise convolution, linear in inputs and kernel."""
        return convolve_depthwise(
            inputs, kernel, strides=self.strides, dilation=self.dilation_rate, padding=self.padding
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depth_multiplier": self.depth_multiplier}


@keras.saving.register_keras_serializable(package="probrt")
class DepthwiseConv2D(_Depthwise):
    """[batch, height, width, in] → [batch, height, width, in * depth_multiplier], each channel on its own."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.input_channels(input_shape)
        self.choose_window_estimator(input_shape)
        self.kernel = self.add_depthwise("kernel", channels)
        self.bias = self.add_bias(channels * self.depth_multiplier, math.prod(self.kernel_size))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation(
            apply_linear(self.depthwise_op, inputs, self.kernel, estimator=self.estimator_in_use, bias=self.bias)
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        channels = self.input_channels(input_shape) * self.depth_multiplier
        return (input_shape[0], *self.output_sides(input_shape), channels)


@keras.saving.register_keras_serializable(package="probrt")
class SeparableConv2D(_Depthwise):
    """A depthwise convolution, then 1x1 filters: [batch, height, width, in] → [batch, height, width, filters].

    kernel_posterior and kernel_prior are the depthwise kernel's. pointwise_posterior, pointwise_prior: the 1x1
        kernel's, likewise; left at "kernel" they are of the same family, with parameters of their own.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        pointwise_posterior: PosteriorLike | Literal["kernel"] = "kernel",
        pointwise_prior: PriorLike | Literal["kernel"] = "kernel",
        **kwargs: Any,
    ) -> None:
        super().__init__(kernel_size, **kwargs)
        self.filters = check_count(filters, f"{self.name}: filters")
        family = self.kernel_posterior if pointwise_posterior == "kernel" else pointwise_posterior
        self.pointwise_posterior = resolve_posterior(family, f"{self.name}: pointwise_posterior")
        prior = kwargs.get("kernel_prior") if pointwise_prior == "kernel" else pointwise_prior
        self.pointwise_prior = resolve_prior(prior, self.pointwise_posterior, f"{self.name}: pointwise_prior")
        if reason := explain_refusal(self.estimator, self.pointwise_posterior, self.pointwise_prior):
            raise ValueError(f"{self.name}: pointwise_posterior: {reason}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self.input_channels(input_shape)
        self.choose_window_estimator(input_shape)
        self.pointwise_estimator = resolve_estimator(
            self.estimator, self.pointwise_posterior, self.uses_weights_once(input_shape)
        )
        self.kernel = self.add_depthwise("depthwise", channels)
        shape = (1, 1, channels * self.depth_multiplier, self.filters)
        self.pointwise = self.add_posterior_weight(
            "pointwise",
            shape,
            fan_in=compute_fan_in(shape),
            posterior=self.pointwise_posterior,
            prior=self.pointwise_prior,
        )
        self.bias = self.add_bias(self.filters, compute_fan_in(shape))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        features = apply_linear(self.depthwise_op, inputs, self.kernel, estimator=self.estimator_in_use)
        return self.activation(
            apply_linear(
                self.pointwise_op, features, self.pointwise, estimator=self.pointwise_estimator, bias=self.bias
            )
        )

    def pointwise_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The 1x1 convolution, linear in inputs and kernel."""
        return convolve(inputs, kernel, strides=(1, 1), dilation=(1, 1), padding="valid")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.output_sides(input_shape), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "pointwise_posterior": to_record(self.pointwise_posterior),
            "pointwise_prior": to_record(self.pointwise_prior),
        }
