"""Examples from arrays in memory, and the number of examples of the data that Keras takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer.data.examples import Examples
from probrt.trainer.heads import AnyHead

Targets = Mapping[str, Any]  # arrays by head


def make_examples(x: np.ndarray, y: Targets, heads: Sequence[AnyHead]) -> Examples:
    """Returns arrays as examples; targets of the shape and type that the heads have in a table."""
    targets = {}
    for head in heads:
        if head.name in y:
            missing = head.missing_target(np.shape(x)[1:-1] if head.per_position else ())
            targets[head.name] = np.asarray(y[head.name]).astype(missing.dtype).reshape(len(x), *missing.shape)
    return Examples(tuple(map(str, range(len(x)))), np.asarray(x), targets)


def digest_examples(splits: Iterable[Examples]) -> str:
    """Returns a digest of images and targets: SHA-256 over their bytes, in order."""
    digest = hashlib.sha256()
    for examples in splits:
        for values in (examples.images, *(examples.targets[name] for name in sorted(examples.targets))):
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def count_examples(data: Any) -> int:
    """Returns the number of examples of arrays, a dataset of known size, or a PyDataset; ValueError if unknown."""
    if isinstance(data, keras.utils.PyDataset):
        return int(data.num_batches or 0) * len(tf.nest.flatten(data[0])[0]) or _refuse_count()
    if isinstance(data, tf.data.Dataset):
        batches = int(data.cardinality())
        return batches * len(tf.nest.flatten(next(iter(data)))[0]) if batches > 0 else _refuse_count()
    return len(data) if hasattr(data, "__len__") else _refuse_count()


def _refuse_count() -> int:
    raise ValueError("the data do not tell how many examples they have: give train_count, which divides the KL")
