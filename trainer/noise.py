"""The noise of a draw: Threefry-2x32 out of plain integer ops, the same bits in every format.

Source: Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", 20 rounds.
A draw's key is (seed, weight id), its counter (index, element). Only ops that reach TFLite builtins
and ONNX opset 18 are used: a left shift is a multiplication, an or of disjoint bits an xor.
"""

import math

import numpy as np
import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5


def threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Two words of random bits for each counter.

    Args: key and counter, pairs of uint32 tensors of shapes that broadcast.
    Returns: two uint32 tensors of the broadcast shape.
    """
    keys = (*key, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key[0], key[1]), tf.constant(_PARITY, tf.uint32)))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(_GROUPS):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = tf.bitwise.bitwise_xor(_rotated(second, rotation), first)
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return first, second


def normal(seed: tf.Tensor, weight: int, index: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Standard normal noise of draw (seed, index) for a weight, float32 `shape`, or [draws, *shape] for index [draws].

    Box and Muller (1958): the two words of counter e give element e (cosine) and element
    e + ceil(n / 2) (sine). The largest magnitude is sqrt(48 ln 2) = 5.77.
    """
    size = math.prod(shape)
    half = max(1, -(-size // 2))
    first, second = _words(seed, weight, index, half)
    radius = tf.sqrt(-2.0 * tf.math.log(_unit(first)))
    angle = (2.0 * math.pi) * _unit(second)
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=-1)
    return _shaped(pairs, size, shape)


def uniform(seed: tf.Tensor, weight: int, index: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Uniform noise in [2^-24, 1 - 2^-24] of draw (seed, index), float32 `shape`.

    An index [draws] gives [draws, *shape].
    """
    size = math.prod(shape)
    half = max(1, -(-size // 2))
    words = tf.concat(_words(seed, weight, index, half), axis=-1)
    return _shaped(_unit(words), size, shape)


def _words(seed: tf.Tensor, weight: int, index: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Words [count] of one index, or [draws, count] of several."""
    elements = tf.constant(np.arange(count, dtype=np.uint32))
    index = _word(index)
    return threefry(_key(seed, weight), (index[:, None] if index.shape.rank else index, elements))


def _shaped(values: tf.Tensor, size: int, shape: tuple[int, ...]) -> tf.Tensor:
    """The first `size` values of the last axis in a shape; draws stay in front."""
    draws = [] if values.shape.rank == 1 else [-1]
    return tf.reshape(values[..., :size], [*draws, *shape])


def _key(seed: tf.Tensor, weight: int) -> tuple[tf.Tensor, tf.Tensor]:
    return _word(seed), tf.constant(weight, tf.uint32)


def _word(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value, tf.int32), tf.uint32)


def _rotated(word: tf.Tensor, by: int) -> tf.Tensor:
    left = word * tf.constant(1 << by, tf.uint32)
    right = tf.bitwise.right_shift(word, tf.constant(32 - by, tf.uint32))
    return tf.bitwise.bitwise_xor(left, right)


def _unit(word: tf.Tensor) -> tf.Tensor:
    """The middle of one of 2^23 equal cells of (0, 1): exact in float32, never 0, never 1."""
    cell = tf.cast(tf.cast(tf.bitwise.right_shift(word, tf.constant(9, tf.uint32)), tf.int32), tf.float32)
    return cell * 2.0**-23 + 2.0**-24
