"""Confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

import numpy as np

from probrt.trainer.evaluate.report import ClassScore


def count_confusion(target: np.ndarray, predicted: np.ndarray, known: np.ndarray, size: int) -> np.ndarray:
    """Counts pairs of classes over all positions: rows are the true classes, columns the predicted ones, [size, size].

    target, predicted: class numbers; known: where there is a target; arrays of one shape.
    """
    pairs = target[known].astype(np.int64) * size + predicted[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def score_classes(
    labels: tuple[str, ...], hits: np.ndarray, true: np.ndarray, predicted: np.ndarray
) -> list[ClassScore]:
    """Scores each class (van Rijsbergen 1979, chapter 7); hits, true, predicted: counts, each [classes]."""

    def divide(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    return [
        ClassScore(
            label=label,
            count=int(true[k]),
            precision=divide(hits[k], predicted[k]),
            recall=divide(hits[k], true[k]),
            f1=divide(2 * hits[k], true[k] + predicted[k]),
        )
        for k, label in enumerate(labels)
    ]
