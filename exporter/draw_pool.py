"""The pool: many draws evaluated on some images, the long reference that the draws of a bank stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.trainer.variational.handlers import DrawHandler, use_handler

POOL = 1024
# How many entries of a map count.
_MAX_ENTRIES = 16

Pool = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Per head: mean [draws, images, …] and aleatoric uncertainty [draws, images, …]."""


def size_of_pool(pool: Pool) -> int:
    """Returns the number of draws in a pool."""
    return len(next(iter(pool.values()))[0])


def draw_pool(
    model: Exportable, images: npt.NDArray[np.float32], seed: int, seconds: float, clock: Callable[[], float]
) -> Pool:
    """Evaluates as many draws as fit into the time; of maps only some entries."""
    features = model.shared_features(tf.constant(images))

    @tf.function(autograph=False)
    def evaluate_draw(index: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        with use_handler(DrawHandler(seed, index)):
            moments = model.moments_from(features)
        return {
            head.name: tuple(thin_positions(values, len(model.positions(head))) for values in moments[head.name][:2])
            for head in model.heads
        }

    evaluate_draw(tf.constant(0))  # tracing does not count
    end = clock() + seconds
    arrays: dict[str, tuple[list[Any], list[Any]]] = {head.name: ([], []) for head in model.heads}
    for index in range(POOL):
        for name, (mean, aleatoric) in evaluate_draw(tf.constant(index)).items():
            arrays[name][0].append(mean.numpy())
            arrays[name][1].append(aleatoric.numpy())
        if clock() > end:
            break
    return {name: (np.stack(means), np.stack(aleatorics)) for name, (means, aleatorics) in arrays.items()}


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
