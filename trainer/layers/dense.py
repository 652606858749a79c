"""A probabilistic dense layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.layers.base import ProbabilisticLayer, add_bias
from probrt.trainer.weights import linear, read


@keras.saving.register_keras_serializable(package="probrt")
class Dense(ProbabilisticLayer):
    """[batch, …, in] → [batch, …, units]; see ProbabilisticLayer for the rest."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        if units < 1:
            raise ValueError(f"{self.name}: units is {units}, must be at least 1")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(f"{self.name}: the input's last side must be known, got shape {input_shape}")
        self.kernel = self.add_posterior_weight(
            "kernel", (inputs, self.units), inputs, self.kernel_posterior, self.kernel_prior
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_posterior_weight("bias", (self.units,), inputs, self.bias_posterior, self.bias_prior)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = linear(self.op, inputs, self.kernel, self.estimator)
        return self.activation(add_bias(outputs, read(self.bias)))

    def op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The product itself, linear in inputs and kernel."""
        return tf.tensordot(inputs, kernel, 1) if len(inputs.shape) > 2 else tf.matmul(inputs, kernel)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
