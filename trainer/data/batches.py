"""Batches for TensorFlow: seeded order, gathered from memory in parallel, augmented in the graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.trainer.config.settings import Augmentation
from probrt.trainer.data.augment import augment
from probrt.trainer.data.examples import Examples
from probrt.trainer.heads import AnyHead


class Batch(TypedDict):
    """Images [batch, *input.shape], float32, and each head's targets [batch, …]."""

    images: tf.Tensor
    targets: dict[str, tf.Tensor]


def training_batches(
    examples: Examples,
    *,
    batch: int,
    seed: int,
    steps: range,
    augmentation: Augmentation,
    heads: Sequence[AnyHead],
    input: Input,
) -> tf.data.Dataset:
    """Shuffled, augmented `Batch`es of up to `batch` examples, one per step, over as many epochs as that takes.

    An epoch holds every example once; its last batch may be short. Order and augmentation depend on seed and step
    alone, so `steps` can begin anywhere.
    """
    steps_per_epoch = math.ceil(len(examples) / batch)

    @functools.lru_cache(2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(examples))

    def rows(step: int) -> np.ndarray:
        epoch, place = divmod(step, steps_per_epoch)
        return order(epoch)[place * batch : (place + 1) * batch]

    def make_batch(step: tf.Tensor) -> Batch:
        key = tf.stack([seed, tf.cast(step, tf.int32)])
        gathered = _gather(examples, step, rows)
        images, targets = augment(
            gathered["images"], gathered["targets"], augmentation, heads=heads, input=input, key=key
        )
        return {"images": images, "targets": targets}

    numbers = tf.data.Dataset.range(steps.start, steps.stop)
    return numbers.map(make_batch, num_parallel_calls=2, deterministic=True).prefetch(4)


def evaluation_batches(examples: Examples, batch: int) -> tf.data.Dataset:
    """`Batch`es in order, not augmented."""
    numbers = tf.data.Dataset.range(math.ceil(len(examples) / batch))

    def rows(index: int) -> slice:
        return slice(index * batch, (index + 1) * batch)

    return numbers.map(lambda index: _gather(examples, index, rows), num_parallel_calls=2).prefetch(4)


def _gather(examples: Examples, index: tf.Tensor, rows: Callable[[int], np.ndarray | slice]) -> Batch:
    """Copies the rows of batch `index`; images as float32."""
    arrays = [examples.images, *examples.targets.values()]

    def copy_rows(index: np.ndarray) -> list[np.ndarray]:
        chosen = rows(int(index))
        return [np.ascontiguousarray(array[chosen]) for array in arrays]

    values = tf.numpy_function(copy_rows, [index], [tf.as_dtype(array.dtype) for array in arrays])
    for value, array in zip(values, arrays, strict=True):
        value.set_shape([None, *array.shape[1:]])
    images, *targets = values
    return {"images": tf.cast(images, tf.float32), "targets": dict(zip(examples.targets, targets, strict=True))}
