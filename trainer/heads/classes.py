"""The kind "class": one class of several."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, Self

import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.bundle.manifest import Kind
from probrt.runtime.calibration.conformal import score_improbability, score_rank
from probrt.trainer.heads.base import Answer, Head, Positive
from probrt.trainer.heads.formulas import Shapes, Sides, mean_over_known, quantity_shapes, split_entropy, x_log_x

# The value of a label picture that means "not labelled".
_VOID = 255


class ClassHead(Head, frozen=True, kw_only=True):
    """A head whose target is one of `labels`, in order, as the table writes them.

    `mean` is [batch, classes], uncertainties are [batch], in nats. Per position the target is a file of class
    numbers, 0 the first label; 255 in a picture and -1 or NaN in an array mean that a position has no label.

    class_weights: of the classes in the loss, in the order of the labels. "balanced" is examples / (classes x examples
        of the class). Probabilities are then those of data with as many examples as weights say.
    """

    kind: ClassVar[Kind] = "class"
    metric_name: ClassVar[str] = "accuracy"
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "temperature"
    position_method: ClassVar[Literal["lac", "scaled"]] = "lac"
    accepts_class_folders: ClassVar[bool] = True

    labels: Annotated[list[str], Meta(min_length=2)]
    class_weights: Literal["balanced"] | list[Positive] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.class_weights, list) and len(self.class_weights) != len(self.labels):
            raise ValueError(f"class_weights: {len(self.class_weights)} for {len(self.labels)} labels; give one each")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.labels)

    def split_uncertainty(
        self, mean: tf.Tensor, aleatoric: tf.Tensor, spread: Callable[[], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del spread
        return split_entropy(self.entropy(mean), aleatoric)

    def entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Entropy in nats over the last axis."""
        return -tf.reduce_sum(x_log_x(probabilities), axis=-1)

    def parse_cells(self, cells: Sequence[str]) -> np.ndarray:
        cell = cells[0].strip()
        if not cell:
            return self.missing_target()
        if cell not in self.labels and re.fullmatch(r"-?\d+\.0+", cell):
            cell = cell.partition(".")[0]  # programs write whole numbers so where other cells are empty
        if cell not in self.labels:
            raise ValueError(f"class {cell!r} is none of {', '.join(self.labels)}")
        return np.array(self.labels.index(cell), np.int32)

    def parse_mask(self, values: np.ndarray, high: float) -> np.ndarray:
        classes = values[..., 0]
        void = ~np.isfinite(classes) | (classes == -1) | ((classes == _VOID) & (high >= _VOID))
        classes = np.where(void, -1, classes)
        known = classes[~void]
        if known.size and (known.min() < 0 or known.max() >= len(self.labels) or (known % 1).any()):
            wrong = known[(known < 0) | (known >= len(self.labels)) | (known % 1 != 0)][0]
            raise ValueError(f"class number {wrong:g} is none of 0 to {len(self.labels) - 1}")
        return classes.astype(np.int32)

    def missing_target(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full(positions, -1, np.int32)

    def is_known(self, target: tf.Tensor) -> tf.Tensor:
        return tf.greater_equal(target, 0)

    def fill_missing(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        return tf.where(known, target, tf.zeros_like(target))

    def count_classes(self, targets: np.ndarray) -> dict[str, int]:
        counts = np.bincount(targets[targets >= 0].ravel(), minlength=len(self.labels))
        return dict(zip(self.labels, counts.tolist(), strict=True))

    def standardise(self, targets: np.ndarray) -> Self:
        """Returns the head with a number for each class in place of "balanced"; a class without examples has 1."""
        if self.class_weights != "balanced":
            return self
        counts = np.array(list(self.count_classes(targets).values()))
        weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return msgspec.structs.replace(self, class_weights=np.where(counts > 0, weights, 1.0).tolist())

    def fit_log_prob(self, channels: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        if self.class_weights is None:
            return self.log_prob(channels, target)
        if self.class_weights == "balanced":
            raise ValueError(f"{self.name}: class_weights are not known before `standardise` has seen the targets")
        weights = tf.gather(tf.constant(self.class_weights), self.fill_missing(target, self.is_known(target)))
        weighted = weights * self.log_prob_per_position(channels, target)
        return tf.reduce_sum(weighted, axis=list(range(1, len(weighted.shape))))

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        right = tf.cast(tf.argmax(mean, axis=-1, output_type=target.dtype) == target, tf.float32)
        return mean_over_known(right, self.is_known(target))

    def find_errors(self, mean: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = target >= 0
        return known & (mean.argmax(axis=-1) != target), known

    def describe_target(self, target: np.ndarray) -> str:
        return self.labels[int(target)] if target >= 0 else ""

    def describe_mean(self, mean: np.ndarray) -> str:
        best = int(mean.argmax())
        return f"{self.labels[best]} ({mean[best]:.3f})"

    def draw_mean(self, mean: np.ndarray) -> np.ndarray:
        classes: np.ndarray = mean.argmax(axis=-1)[..., None]
        return classes / (len(self.labels) - 1)

    def conformal_scores(self, answer: Answer, target: np.ndarray) -> dict[str, np.ndarray]:
        """`lac` first, whose sets are the smallest; then `aps`, whose sets adapt better to each image."""
        probabilities = answer["mean"].astype(np.float64)
        return {"lac": score_improbability(probabilities, target), "aps": score_rank(probabilities, target)}

    def position_scores(self, answer: Answer, target: np.ndarray) -> np.ndarray:
        classes = np.maximum(target, 0)[..., None].astype(np.int64)
        true_class = np.take_along_axis(answer["mean"], classes, axis=-1)[..., 0]
        scores: np.ndarray = np.where(target >= 0, 1.0 - true_class, np.nan)
        return scores.reshape(len(target), -1).astype(np.float32)

    def output_shapes(self, positions: Sides) -> Shapes:
        return quantity_shapes([*positions, len(self.labels)], positions)
