"""Splits one final convolution among the heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="probrt")
class HeadSplit(keras.Layer):
    """[batch, *positions, channels] → {head: its channels}.

    slices: per head its name, its channels, and its upsampling: 0 averages over positions and returns
        [batch, channels]; 1 keeps [batch, *positions, channels]; r > 1 turns r^2 channels per
        position into r by r positions (sub-pixel convolution, Shi et al. 2016; two dimensions only).
    learned: by head, the initial values of trained channels that are the same for every image; they follow the
        head's channels of the convolution.
    """

    def __init__(
        self,
        slices: Sequence[tuple[str, int, int]],
        learned: Mapping[str, Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.learned = {name: [float(value) for value in values] for name, values in (learned or {}).items()}
        self._values: dict[str, keras.Variable] = {}
        self.slices = [(name, int(channels), int(upsampling)) for name, channels, upsampling in slices]

    @property
    def channels(self) -> int:
        """Channels that the final convolution needs."""
        return sum(self._sizes())

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for name, values in self.learned.items():
            self._values[name] = self.add_weight(
                shape=[len(values)], initializer=_Given(values), dtype="float32", name=f"{name}_learned"
            )

    def call(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = tf.split(inputs, self._sizes(), axis=-1)
        answers = {}
        for (name, _, upsampling), part in zip(self.slices, parts, strict=True):
            if upsampling == 0:
                part = tf.reduce_mean(part, axis=list(range(1, len(part.shape) - 1)))
            elif upsampling > 1:
                part = tf.nn.depth_to_space(part, upsampling)
            if name in self._values:
                same = tf.cast(self._values[name], part.dtype)
                part = tf.concat([part, tf.zeros_like(part[..., :1]) + same], axis=-1)
            answers[name] = part
        return answers

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slices": self.slices, "learned": self.learned}

    def _sizes(self) -> list[int]:
        return [channels * max(1, upsampling) ** 2 for _, channels, upsampling in self.slices]


class _Given(keras.initializers.Initializer):
    """Fixed initial values."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        return tf.constant(self.values, dtype, shape)
