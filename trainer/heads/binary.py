"""The kind "binary": independent yes or no per label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Kind
from probrt.trainer.heads.base import Answer, Head
from probrt.trainer.heads.formulas import Shapes, Sides, quantity_shapes, split_entropy, x_log_x


class BinaryHead(Head, frozen=True, kw_only=True):
    """A head of independent yes (1) or no (0) per label; every quantity is [batch, labels], uncertainties in nats.

    labels: names of the outputs, each a column of the table; one, named like the head, unless given.
    Per position the target is a mask file: above half of what its type holds is yes.
    """

    kind: ClassVar[Kind] = "binary"
    metric_name: ClassVar[str] = "IoU"
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "temperature"
    position_method: ClassVar[Literal["lac", "scaled"]] = "lac"

    labels: list[str] = []

    @property
    def size(self) -> int:
        """Number of labels."""
        return max(1, len(self.labels))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.labels) or (self.name,)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,) if self.per_position or not self.labels else tuple(self.labels)

    def split_uncertainty(
        self, mean: tf.Tensor, aleatoric: tf.Tensor, spread: Callable[[], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del spread
        return split_entropy(self.entropy(mean), aleatoric)

    def entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Entropy in nats of each label."""
        return -(x_log_x(probabilities) + x_log_x(1.0 - probabilities))

    def parse_mask(self, values: np.ndarray, high: float) -> np.ndarray:
        if values.shape[-1] not in (1, self.size):
            raise ValueError(f"has {values.shape[-1]} channels, needs {self.size}")
        known = np.isfinite(values)
        return np.where(known, values > high / 2, np.nan).astype(np.float32)

    def missing_target(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full([*positions, self.size], np.nan, np.float32)

    def check_support(self, values: np.ndarray) -> None:
        wrong = values[np.isfinite(values) & (values != 0) & (values != 1)]
        if wrong.size or np.isinf(values).any():
            raise ValueError(f"is {wrong[0] if wrong.size else np.inf:g}, must be 0 or 1")

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(mean.shape)))
        predicted, true = mean > 0.5, target > 0.5
        both = tf.reduce_sum(tf.cast(predicted & true, tf.float32), axes)
        either = tf.reduce_sum(tf.cast(predicted | true, tf.float32), axes)
        known = tf.reduce_all(tf.math.is_finite(target), axes)
        return tf.boolean_mask(tf.where(either > 0, both / tf.maximum(either, 1.0), 1.0), known)

    def find_errors(self, mean: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.isfinite(target)
        return known & ((mean > 0.5) != (target > 0.5)), known

    def conformal_scores(self, answer: Answer, target: np.ndarray) -> dict[str, np.ndarray]:
        """None: the row of a pooled binary head holds no set."""
        del answer, target
        return {}

    def position_scores(self, answer: Answer, target: np.ndarray) -> np.ndarray:
        mean, truth = answer["mean"].reshape(len(target), -1), target.reshape(len(target), -1)
        scores: np.ndarray = np.where(np.isnan(truth), np.nan, np.abs(truth - mean))
        return scores.astype(np.float32)

    def output_shapes(self, positions: Sides) -> Shapes:
        return quantity_shapes([*positions, self.size], [*positions, self.size])
