"""A probabilistic dense layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.layers.conv import check_count
from probrt.trainer.variational.handlers import apply_linear


@keras.saving.register_keras_serializable(package="probrt")
class Dense(ProbabilisticLayer):
    """[batch, …, in] → [batch, …, units]; see ProbabilisticLayer for the rest."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check_count(units, f"{self.name}: units")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(f"{self.name}: the input's last side must be known, got shape {input_shape}")
        once = all(side == 1 for side in input_shape[1:-1])
        self.choose_estimator(once, f"inputs [batch, channels], not shape {tuple(input_shape)}")
        self.kernel = self.add_posterior_weight(
            "kernel", (inputs, self.units), fan_in=inputs, posterior=self.kernel_posterior, prior=self.kernel_prior
        )
        self.bias = self.add_bias(self.units, inputs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation(
            apply_linear(self.op, inputs, self.kernel, estimator=self.estimator_in_use, bias=self.bias)
        )

    def op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The product itself, linear in inputs and kernel."""
        if len(inputs.shape) > 2:
            return tf.tensordot(inputs, kernel, 1)
        # In three dimensions: of a plain product with a kernel made in the graph, the TFLite converter
        # drops the relu that follows it.
        return tf.squeeze(tf.matmul(tf.expand_dims(inputs, 0), tf.expand_dims(kernel, 0)), 0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
