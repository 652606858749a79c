"""What a SavedModel's signature does with the rows of a batch: it checks each one and spares the others.

A bad row answers NaN. A bad row has a value that is not finite, or one outside the input's range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.graphs import NamedTensors
from probrt.runtime.bundle.manifest import Input


def ensure_sides(model: Exportable, images: tf.Tensor) -> tf.Tensor:
    """Returns the images; InvalidArgument for other sides than the model's: a session does not check the signature."""
    return tf.ensure_shape(images, [None, *model.input.shape])


def expand_to_rows(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Broadcasts a vector of length 1 or batch to length batch."""
    return tf.broadcast_to(pad_empty(values), tf.shape(images)[:1])


def pad_empty(values: tf.Tensor) -> tf.Tensor:
    """Returns the rows, or one row of zeros if there are none: convolutions fail on an empty batch."""
    missing = tf.maximum(0, 1 - tf.shape(values)[0])
    return tf.pad(values, [[0, missing], *[[0, 0]] * (len(values.shape) - 1)])


def first_rows(outputs: NamedTensors, rows: tf.Tensor) -> NamedTensors:
    """Returns the first rows of each output."""
    return {name: value[:rows] for name, value in outputs.items()}


def good_rows(images: tf.Tensor, input: Input) -> tf.Tensor:
    """Which images have only finite values inside the input's range, bool [batch]."""
    good = tf.math.is_finite(images)
    if input.range is not None:
        good &= (images >= input.range[0]) & (images <= input.range[1])
    return tf.reduce_all(good, axis=list(range(1, len(images.shape))))


def map_rows(function: Callable[[tf.Tensor], tf.Tensor], nested: Any) -> Any:
    """Applies a function to every tensor of a nested structure; dimension 0 of each is the batch."""
    return tf.nest.map_structure(function, nested)


def clear_rows(images: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """Sets the rows that are not good to 0."""
    return _where_rows(good, images, tf.zeros_like(images))


def set_nan_rows(outputs: NamedTensors, good: tf.Tensor) -> NamedTensors:
    """Sets the rows that are not good to NaN."""
    nan = tf.constant(np.nan, tf.float32)
    return {name: _where_rows(good, value, nan * tf.ones_like(value)) for name, value in outputs.items()}


def _where_rows(rows: tf.Tensor, values: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Chooses row by row between two tensors; `rows` is bool [batch]."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (len(values.shape) - 1)), values, others)
