"""Draws whose noise was moved after it was generated, so that few of them stand for many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True, eq=False)
class TunedDraws:
    """The moved noise of draws (seed, index), for some of the random weights; all other noise is as generated.

    indices: of the draws. noise: by weight id, float32 [draws, *noise_shape]; variables, which a SavedModel holds once
    for all its signatures.
    """

    seed: int
    indices: tuple[int, ...]
    noise: Mapping[int, tf.Variable]

    def find_noise(self, seed: int, index: int) -> dict[int, np.ndarray]:
        """Returns the moved noise of one draw by weight id; empty for a draw that was not moved."""
        if seed != self.seed or index not in self.indices:
            return {}
        return {id: values.numpy()[self.indices.index(index)] for id, values in self.noise.items()}

    def replace_noise(
        self, noise: Mapping[int, tf.Tensor], seed: tf.Tensor | int, indices: tf.Tensor
    ) -> dict[int, tf.Tensor]:
        """Returns the noise of draws (seed, indices[i]), by weight id [draws, *noise_shape], moved where it was.

        In ops that every export format has, and on tables, because the formats broadcast few dimensions.
        """
        matches = (indices[:, None] == tf.constant([self.indices], tf.int32)) & (seed == tf.constant(self.seed))
        moved = tf.reduce_any(matches, axis=1, keepdims=True)
        places = tf.argmax(tf.cast(matches, tf.int32), axis=1, output_type=tf.int32)
        replaced = dict(noise)
        for id, table in self.noise.items():
            rows = tf.gather(tf.reshape(table, [len(self.indices), -1]), places)
            values = tf.where(moved, rows, tf.reshape(noise[id], [-1, rows.shape[1]]))
            replaced[id] = tf.reshape(values, [-1, *table.shape[1:]])
        return replaced
