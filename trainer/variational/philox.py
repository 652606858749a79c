"""The noise of a training step: one op of TensorFlow's own Philox per tensor.

A draw that is exported needs the same bits in every format (`noise.py`). The noise of a step needs them only
on every device and after a restart, which TensorFlow's stateless Philox-4x32 (Salmon, Moraes, Dror and Shaw
2011, 10 rounds) gives at a hundredth of the ops. Key = (seed, weight id), counter = (step, element / 4).
"""

import tensorflow as tf

_ALGORITHM = 1  # of TensorFlow's enumeration: Philox
_WORDS = 4  # that one counter gives


def normal(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, shape: tuple[int, ...]) -> tf.Tensor:
    """Standard normal noise, float32 `shape`."""
    return tf.raw_ops.StatelessRandomNormalV2(shape=shape, **_stream(seed, weight, step))


def uniform(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, shape: tuple[int, ...]) -> tf.Tensor:
    """Uniform noise in [2^-24, 1 - 2^-24], float32 `shape`: the middles of 2^23 equal cells."""
    return tf.raw_ops.StatelessRandomUniformV2(shape=shape, **_stream(seed, weight, step)) + 2.0**-24


def row_signs(
    seed: tf.Tensor | int,
    weight: int,
    step: tf.Tensor | int,
    first_row: tf.Tensor | int,
    rows: tf.Tensor,
    channels: int,
) -> tf.Tensor:
    """Random signs, float32 [rows, channels], one stream per example: row r is example first_row + r."""
    padded, stream = _rows(seed, weight, step, first_row, channels)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(shape=[rows, padded], **stream, dtype=tf.int32)
    return 1.0 - 2.0 * tf.cast(words[:, :channels] < 0, tf.float32)


def row_normals(
    seed: tf.Tensor | int,
    weight: int,
    step: tf.Tensor | int,
    first_row: tf.Tensor | int,
    rows: tf.Tensor,
    channels: int,
) -> tf.Tensor:
    """Standard normals, float32 [rows, channels], one stream per example: row r is example first_row + r."""
    padded, stream = _rows(seed, weight, step, first_row, channels)
    return tf.raw_ops.StatelessRandomNormalV2(shape=[rows, padded], **stream)[:, :channels]


def _rows(
    seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, first_row: tf.Tensor | int, channels: int
) -> tuple[int, dict]:
    """Channels rounded up to whole counters, so that every row begins at one, and the stream from `first_row` on."""
    counters = -(-channels // _WORDS)
    return counters * _WORDS, _stream(seed, weight, step, _word(first_row) * counters)


def _stream(seed: tf.Tensor | int, weight: int, step: tf.Tensor | int, first: tf.Tensor | int = 0) -> dict:
    key = _word(seed) * (1 << 32) + weight
    return {"key": key[None], "counter": tf.stack([_word(first), _word(step)]), "alg": _ALGORITHM}


def _word(value: tf.Tensor | int) -> tf.Tensor:
    return tf.cast(value, tf.uint64)
