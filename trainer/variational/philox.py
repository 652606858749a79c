"""The noise of a training step: one op of TensorFlow's own Philox per tensor.

A draw that is exported needs the same bits in every format (`threefry.py`). The noise of a step needs them only
on every device and after a restart, which TensorFlow's stateless Philox-4x32 (Salmon, Moraes, Dror and Shaw
2011, 10 rounds) gives at a hundredth of the ops. Key = (seed, weight id), counter = (step, element / 4).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_ALGORITHM = 1  # Philox in TensorFlow's enumeration
_WORDS = 4  # per counter


def normal(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, shape: tuple[int, ...]) -> tf.Tensor:
    """Standard normal noise, float32 `shape`."""
    return tf.raw_ops.StatelessRandomNormalV2(shape=shape, **_arguments(seed, weight, step))


def uniform(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, shape: tuple[int, ...]) -> tf.Tensor:
    """Uniform noise in [2^-24, 1 - 2^-24], float32 `shape`: the middles of 2^23 equal cells."""
    return tf.raw_ops.StatelessRandomUniformV2(shape=shape, **_arguments(seed, weight, step)) + 2.0**-24


@dataclass(frozen=True)
class RowStream:
    """One stream of noise per example: row r is that of example first_row + r, however a batch is split.

    weight: the id that keys the stream. rows: how many examples there are.
    """

    seed: tf.Tensor | int
    weight: int
    step: tf.Tensor | int
    first_row: tf.Tensor | int
    rows: tf.Tensor


def row_signs(stream: RowStream, channels: int) -> tf.Tensor:
    """Random signs, float32 [rows, channels]."""
    padded, arguments = _row_arguments(stream, channels)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(shape=[stream.rows, padded], **arguments, dtype=tf.int32)
    return 1.0 - 2.0 * tf.cast(words[:, :channels] < 0, tf.float32)


def row_normals(stream: RowStream, channels: int) -> tf.Tensor:
    """Standard normals, float32 [rows, channels]."""
    padded, arguments = _row_arguments(stream, channels)
    return tf.raw_ops.StatelessRandomNormalV2(shape=[stream.rows, padded], **arguments)[:, :channels]


def _row_arguments(stream: RowStream, channels: int) -> tuple[int, dict[str, Any]]:
    """Returns the channels rounded up to whole counters, so that every row begins at one, and the op's arguments."""
    counters = -(-channels // _WORDS)
    first = _to_word(stream.first_row) * counters
    return counters * _WORDS, _arguments(stream.seed, stream.weight, stream.step, first)


def _arguments(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, first: tf.Tensor | int = 0) -> dict[str, Any]:
    key = _to_word(seed) * (1 << 32) + weight
    return {"key": key[None], "counter": tf.stack([_to_word(first), _to_word(step)]), "alg": _ALGORITHM}


def _to_word(value: tf.Tensor | int) -> tf.Tensor:
    return tf.cast(value, tf.uint64)
