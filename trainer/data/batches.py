"""Batches for TensorFlow: seeded order, gathered from memory in parallel, augmented in the graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.trainer.config.settings import Augmentation
from probrt.trainer.data.augment import augmented
from probrt.trainer.data.examples import Examples
from probrt.trainer.heads import AnyHead


def batches(
    examples: Examples,
    batch: int,
    seed: int,
    augmentation: Augmentation,
    heads: Sequence[AnyHead],
    input: Input,
    steps: range,
) -> tf.data.Dataset:
    """Shuffled, augmented batches {"images", "targets"}, one per step, through as many epochs as that takes.

    An epoch holds every example once, its last batch may be short. Order and changes are named by seed and step, so
    they depend on nothing before, and `steps` can begin anywhere.
    """
    per_epoch = math.ceil(len(examples) / batch)

    @functools.lru_cache(2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(examples))

    def rows(step: int) -> np.ndarray:
        epoch, number = divmod(step, per_epoch)
        return order(epoch)[number * batch : (number + 1) * batch]

    def made(step: tf.Tensor) -> dict:
        one = _gathered(examples, step, rows)
        return augmented(one, augmentation, heads, input, tf.stack([seed, tf.cast(step, tf.int32)]))

    numbers = tf.data.Dataset.range(steps.start, steps.stop)
    return numbers.map(made, num_parallel_calls=2, deterministic=True).prefetch(4)


def evaluation_batches(examples: Examples, batch: int) -> tf.data.Dataset:
    """Batches in order, not augmented."""
    numbers = tf.data.Dataset.range(math.ceil(len(examples) / batch))

    def rows(number: int) -> slice:
        return slice(number * batch, (number + 1) * batch)

    return numbers.map(lambda number: _gathered(examples, number, rows), num_parallel_calls=2).prefetch(4)


def _gathered(examples: Examples, step: tf.Tensor, rows: Callable[[int], np.ndarray | slice]) -> dict:
    """The rows of a step, images as float32."""
    arrays = [examples.images, *examples.targets.values()]

    def taken(number: np.ndarray) -> list[np.ndarray]:
        chosen = rows(int(number))
        return [np.ascontiguousarray(array[chosen]) for array in arrays]

    values = tf.numpy_function(taken, [step], [tf.as_dtype(array.dtype) for array in arrays])
    for value, array in zip(values, arrays, strict=True):
        value.set_shape([None, *array.shape[1:]])
    images, *targets = values
    return {"images": tf.cast(images, tf.float32), "targets": dict(zip(examples.targets, targets, strict=True))}
