"""The noise of a draw: Threefry-2x32 out of plain integer ops, the same bits in every format.

Source: Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", 20 rounds.
A draw's key is (seed, weight id), its counter (index, element). All ops are TFLite builtins and
in ONNX opset 18: a multiplication replaces a left shift, an xor replaces an or of disjoint bits.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5
# Words: small weights share a pass, a large one has its own, and tensors of 32 shared draws stay within 8.4 MB.
_PASS = 65_536

Pair = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns two words of random bits for each counter.

    Args: key and counter, pairs of uint32 tensors of shapes that broadcast.
    Returns: two uint32 tensors of the broadcast shape.
    """
    keys = (*key, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key[0], key[1]), tf.constant(_PARITY, tf.uint32)))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(_GROUPS):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = tf.bitwise.bitwise_xor(_rotate(second, rotation), first)
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return first, second


def normal(seed: tf.Tensor, shapes: Mapping[int, tuple[int, ...]], index: tf.Tensor) -> dict[int, tf.Tensor]:
    """Generates standard normal noise of draw (seed, index) for weights of these ids and shapes.

    Returns: by id float32 `shape`, or [draws, *shape] for index [draws].

    Box and Muller (1958): the two words of counter e give element e (cosine) and element
    e + ceil(n / 2) (sine). The largest magnitude is sqrt(48 ln 2) = 5.77.
    """

    def pair(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        radius = tf.sqrt(-2.0 * tf.math.log(_to_unit(first)))
        angle = (2.0 * math.pi) * _to_unit(second)
        return radius * tf.cos(angle), radius * tf.sin(angle)

    return _generate(pair, seed, shapes, index)


def uniform(seed: tf.Tensor, shapes: Mapping[int, tuple[int, ...]], index: tf.Tensor) -> dict[int, tf.Tensor]:
    """Generates uniform noise in [2^-24, 1 - 2^-24] of draw (seed, index) for weights of these ids and shapes.

    Returns: by id float32 `shape`, or [draws, *shape] for index [draws].
    """
    return _generate(lambda first, second: (_to_unit(first), _to_unit(second)), seed, shapes, index)


def _generate(
    pair: Pair, seed: tf.Tensor, shapes: Mapping[int, tuple[int, ...]], index: tf.Tensor
) -> dict[int, tf.Tensor]:
    """Transforms each weight's words by `pair` and joins the first halves and the second halves."""
    index = _to_word(index)
    index, draws = (index[:, None], [-1]) if index.shape.rank else (index, [])
    noise = {}
    for weights in _group_passes(shapes):
        halves = [_half_size(shapes[weight]) for weight in weights]
        elements = np.concatenate([np.arange(half, dtype=np.uint32) for half in halves])
        ids = np.uint32(weights[0]) if len(weights) == 1 else np.repeat(np.array(weights, np.uint32), halves)
        words = threefry((_to_word(seed), tf.constant(ids)), (index, tf.constant(elements)))
        parts = (tf.split(values, halves, axis=-1) if len(halves) > 1 else [values] for values in pair(*words))
        for weight, *both in zip(weights, *parts, strict=True):
            size = math.prod(shapes[weight])
            noise[weight] = tf.reshape(tf.concat(both, axis=-1)[..., :size], [*draws, *shapes[weight]])
    return noise


def _group_passes(shapes: Mapping[int, tuple[int, ...]]) -> list[list[int]]:
    """Groups the ids so that one pass of the generator serves each group: fewer operations, and no larger tensors."""
    passes: list[list[int]] = []
    room = 0
    for weight, shape in shapes.items():
        if not passes or _half_size(shape) > room:
            passes.append([])
            room = _PASS
        passes[-1].append(weight)
        room -= _half_size(shape)
    return passes


def _half_size(shape: tuple[int, ...]) -> int:
    return max(1, -(-math.prod(shape) // 2))


def _to_word(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value, tf.int32), tf.uint32)


def _rotate(word: tf.Tensor, by: int) -> tf.Tensor:
    left = word * tf.constant(1 << by, tf.uint32)
    right = tf.bitwise.right_shift(word, tf.constant(32 - by, tf.uint32))
    return tf.bitwise.bitwise_xor(left, right)


def _to_unit(word: tf.Tensor) -> tf.Tensor:
    """Returns the middle of one of 2^23 equal cells of (0, 1): exact in float32, never 0, never 1."""
    cell = tf.cast(tf.cast(tf.bitwise.right_shift(word, tf.constant(9, tf.uint32)), tf.int32), tf.float32)
    return cell * 2.0**-23 + 2.0**-24
