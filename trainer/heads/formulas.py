"""Formulas and shapes that several heads share, in ops that every export format has."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Sides = Sequence[int | None]
Shapes = dict[str, list[int | None]]


def quantity_shapes(mean: Sides, uncertainty: Sides) -> Shapes:
    """The shapes of the four quantities that every head has."""
    return {"mean": list(mean), **{name: list(uncertainty) for name in ("total", "aleatoric", "epistemic")}}


def parse_number(cell: str) -> float:
    """Parses a cell of a table as a number; ValueError, with what would help, if it is none."""
    try:
        return float(cell)
    except ValueError:
        remedy = "; write it with a decimal point" if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell) else ""
        raise ValueError(f"is {cell!r}, not a number{remedy}") from None


def format_values(values: np.ndarray) -> str:
    """Formats the outputs of one example, four digits each."""
    return ", ".join(f"{value:.4g}" for value in values)


def split_entropy(total: tf.Tensor, aleatoric: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the entropy of the mean, `total`, and the mutual information (Depeweg et al. 2018)."""
    # Rounding may put the entropy of the mean a hair below the mean entropy.
    return total, tf.maximum(total - aleatoric, 0.0)


def mean_over_known(score: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """The average of [batch, *positions] over an example's known positions, for the examples that have any."""
    axes = list(range(1, len(score.shape)))
    count = tf.reduce_sum(tf.cast(known, tf.float32), axes)
    sums = tf.reduce_sum(tf.where(known, score, 0.0), axes)
    return tf.boolean_mask(sums / tf.maximum(count, 1.0), count > 0)


def x_log_x(x: tf.Tensor) -> tf.Tensor:
    """x ln x, 0 at 0."""
    # 1e-30 keeps the logarithm finite and changes nothing that float32 can hold.
    return x * tf.math.log(tf.maximum(x, 1e-30))


def softplus(x: tf.Tensor) -> tf.Tensor:
    """ln(1 + e^x), in ops that every format has."""
    return tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))
