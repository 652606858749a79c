"""The pool: many draws evaluated on some images, the long reference that the draws of a bank stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.trainer.variational.handlers import use_handler

POOL = 1024
# How many entries of a map count.
_MAX_ENTRIES = 16

Pool = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Per head: mean [draws, images, …] and aleatoric uncertainty [draws, images, …]."""

EvaluateDraws = Callable[[npt.NDArray[np.float32], Iterable[int]], Pool]
"""Evaluates the draws of some indices on some images."""


def size_of_pool(pool: Pool) -> int:
    """Returns the number of draws in a pool."""
    return len(next(iter(pool.values()))[0])


def compile_draws(model: Exportable, images: npt.NDArray[np.float32], seed: int) -> EvaluateDraws:
    """Returns a function of images and indices that evaluates draws (seed, index); of maps only some entries.

    images: any, [count, *input.shape]; the function takes any number of this shape, and is traced once.
    """
    specs = tf.nest.map_structure(
        lambda feature: tf.TensorSpec([None, *feature.shape[1:]], feature.dtype), model.shared_features(images[:1])
    )

    @tf.function(autograph=False, input_signature=[specs, tf.TensorSpec([], tf.int32)])
    def evaluate(features: Any, index: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        with use_handler(model.draw_handler(tf.constant(seed), index)):
            moments = model.moments_from(features)
        return {
            head.name: tuple(thin_positions(values, len(model.positions(head))) for values in moments[head.name][:2])
            for head in model.heads
        }

    def evaluate_draws(images: npt.NDArray[np.float32], indices: Iterable[int]) -> Pool:
        features = model.shared_features(tf.constant(images))
        arrays: dict[str, tuple[list[Any], list[Any]]] = {head.name: ([], []) for head in model.heads}
        for index in indices:
            for name, (mean, aleatoric) in evaluate(features, tf.constant(index)).items():
                arrays[name][0].append(mean.numpy())
                arrays[name][1].append(aleatoric.numpy())
        return {name: (np.stack(means), np.stack(aleatorics)) for name, (means, aleatorics) in arrays.items()}

    return evaluate_draws


def count_within(seconds: float, clock: Callable[[], float]) -> Iterator[int]:
    """Yields the indices of a pool, as many as are used within the time, and at least one."""
    end = clock() + seconds
    for index in range(POOL):
        yield index
        if clock() > end:
            return


def thin_positions(values: Any, sides: int) -> Any:
    """Returns evenly spread positions of a map, [batch, entries, …]; `sides` is the number of its sides.

    values: a tensor, or an array of NumPy.
    """
    if not sides:
        return values
    if isinstance(values, np.ndarray):
        flat = values.reshape(len(values), -1, *values.shape[1 + sides :])
        return flat[:, :: max(1, flat.shape[1] // _MAX_ENTRIES)]
    flat = tf.reshape(values, [tf.shape(values)[0], -1, *values.shape[1 + sides :]])
    return flat[:, :: tf.maximum(1, tf.shape(flat)[1] // _MAX_ENTRIES)]
