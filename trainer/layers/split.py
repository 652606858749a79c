"""Splitting one final convolution among the heads."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="probrt")
class HeadSplit(keras.Layer):
    """[batch, *positions, channels] → {head: its channels}.

    slices: per head its name, its channels, and its upsampling: 0 averages over positions and gives
        [batch, channels]; 1 leaves [batch, *positions, channels]; r > 1 turns r^2 channels per
        position into r by r positions (sub-pixel convolution, Shi et al. 2016; two dimensions only).
    """

    def __init__(self, slices: list[tuple[str, int, int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slices = [(name, int(channels), int(upsampling)) for name, channels, upsampling in slices]

    @property
    def channels(self) -> int:
        """Channels that the final convolution needs."""
        return sum(self._sizes())

    def call(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = tf.split(inputs, self._sizes(), axis=-1)
        answers = {}
        for (name, _, upsampling), part in zip(self.slices, parts, strict=True):
            if upsampling == 0:
                part = tf.reduce_mean(part, axis=list(range(1, len(part.shape) - 1)))
            elif upsampling > 1:
                part = tf.nn.depth_to_space(part, upsampling)
            answers[name] = part
        return answers

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slices": self.slices}

    def _sizes(self) -> list[int]:
        return [channels * max(1, upsampling) ** 2 for _, channels, upsampling in self.slices]
