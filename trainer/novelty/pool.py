"""The features that novelty takes of the maps of a network, in sets that are compared together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import keras
import tensorflow as tf

from probrt.trainer.novelty.stages import Pooling, StageRef

# Positions of a map that one pooling window covers.
_MAX_WINDOW = 64 * 64

T = TypeVar("T")


def count_features(ref: StageRef, tensor: keras.KerasTensor) -> int:
    """Returns how many features `pool_positions` gives of a stage; 0 if the network leaves its channels open."""
    has_two = len(tensor.shape) > 2 and ref.pooling == "average and maximum"
    return (tensor.shape[-1] or 0) * (2 if has_two else 1)


def count_sets(refs: Sequence[StageRef]) -> int:
    """Returns the number of sets of features that some refs give; ValueError if the first joins none."""
    if refs and refs[0].joined:
        raise ValueError(f"stage {refs[0]} joins a set, but none is before it")
    return sum(not ref.joined for ref in refs)


def join_sets(refs: Sequence[StageRef], values: Sequence[T]) -> list[list[T]]:
    """Returns what belongs to each ref, grouped by the sets that they give."""
    groups: list[list[T]] = []
    for ref, value in zip(refs, values, strict=True):
        if ref.joined:
            groups[-1].append(value)
        else:
            groups.append([value])
    return groups


def pool_stages(stages: Sequence[tf.Tensor], refs: Sequence[StageRef]) -> list[tf.Tensor]:
    """Returns the pooled features of each set, float32 [batch, features], from the tensor of each ref."""
    pooled = [pool_positions(features, ref.pooling) for features, ref in zip(stages, refs, strict=True)]
    return [tf.concat(group, axis=1) if len(group) > 1 else group[0] for group in join_sets(refs, pooled)]


def pool_positions(features: tf.Tensor, pooling: Pooling) -> tf.Tensor:
    """Returns what is taken of each channel over the positions, float32 [batch, channels].

    [batch, 2 · channels] for averages and maxima. Feature vectors [batch, channels] have no positions and stay as they
    are.
    """
    features = tf.cast(features, tf.float32)
    positions = list(range(1, len(features.shape) - 1))
    if not positions:
        return features
    if pooling == "root mean square":
        return tf.sqrt(_average_positions(tf.square(features), positions))
    if pooling == "average":
        return _average_positions(features, positions)
    maximum = tf.reduce_max(features, positions)
    if pooling == "maximum":
        return maximum
    return tf.concat([_average_positions(features, positions), maximum], axis=-1)


def _average_positions(features: tf.Tensor, positions: list[int]) -> tf.Tensor:
    sides = features.shape[1:-1]
    if len(sides) == 2 and None not in sides and math.prod(sides) <= _MAX_WINDOW:
        # Of 64 images OpenVINO and LiteRT take less time for one window than for a reduction (docs/performance.md).
        pooled = tf.nn.avg_pool2d(features, sides, 1, "VALID")
        return tf.reshape(pooled, [-1, features.shape[-1]])
    return tf.reduce_mean(features, positions)
