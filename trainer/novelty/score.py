"""The novelty of pooled features, in plain ops that every format has.

Per stage, the features are standardised and whitened, and the distance to the nearest prototype is taken. The score is
the weighted sum of the logarithms of these distances: 0 for an average calibration image, in their standard
deviations. `fit.py` finds all the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.trainer.novelty.stages import StageRef

Floats = npt.NDArray[np.float32]

# Standardised features are cut off here, so that no square is infinite for any finite image.
LIMIT = 1e6
# Added to a squared distance per feature: its logarithm stays finite, and rounding cannot move it.
FLOOR = 1e-4


@dataclass(frozen=True)
class StageDistance:
    """The distance of one stage's features [batch, features] to the nearest prototype.

    centre, inverse_deviation: of each feature over the training images, [features].
    directions: to whitened coordinates, [features, k]; each column is an eigenvector v of the correlations, divided by
        the root of 1 + its eigenvalue.
    prototypes: in whitened coordinates, [prototypes, k].
    spreads: 1 + eigenvalue of each direction, [k].
    residual: the weight of what lies outside the directions: 1 / (1 + the mean of the other eigenvalues), or 0 if the
        directions span all features.
    """

    centre: Floats
    inverse_deviation: Floats
    directions: Floats
    prototypes: Floats
    spreads: Floats
    residual: float

    def measure(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the squared distance per feature, plus FLOOR, [batch]."""
        units = tf.clip_by_value((features - self.centre) * self.inverse_deviation, -LIMIT, LIMIT)
        whitened = tf.matmul(units, self.directions)
        # |z - p|² = |z|² + (|p|² - 2 z·p): a matrix product instead of an array of all differences.
        lengths = tf.constant(np.square(self.prototypes).sum(axis=1))
        nearest = tf.reduce_min(lengths - 2.0 * tf.matmul(whitened, self.prototypes.T), axis=1)
        squares = tf.reduce_sum(tf.square(whitened), axis=1) + nearest
        if self.residual:
            inside = tf.reduce_sum(tf.square(whitened) * self.spreads, axis=1)
            outside = tf.reduce_sum(tf.square(units), axis=1) - inside
            squares += self.residual * tf.maximum(outside, 0.0)
        return tf.maximum(squares, 0.0) / float(len(self.centre)) + FLOOR


@dataclass(frozen=True)
class PositionNovelty:
    """How a model computes the novelty of each position of a two-dimensional image.

    stages: those of one resolution. distances: of the features of one position, of each stage.
    weights: of the logarithm of each distance, [stages]. offset: is taken from the weighted sum.
    """

    stages: tuple[StageRef, ...]
    distances: tuple[StageDistance, ...]
    weights: Floats
    offset: float

    def score(self, stages: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the scores [batch, height, width], float32, of stages [batch, height, width, channels].

        0 for an average position of the calibration images, in the standard deviations of those positions.
        """
        points = [tf.reshape(tf.cast(stage, tf.float32), [-1, stage.shape[-1]]) for stage in stages]
        sides = tf.shape(stages[0])[:3]
        return tf.reshape(_add_logs(self.distances, self.weights, points) - self.offset, sides)


@dataclass(frozen=True)
class Novelty:
    """How a model computes the novelty of an image.

    stages: their names. distances: of each. weights: of the logarithm of each distance, [stages].
    offset: is taken from the weighted sum.
    scores: of the calibration images, rising, [images].
    width: the steps of the p-value are slopes of this width.
    fitted: the number of training images behind the distances.
    map: of each position; None if the model has no two-dimensional head per position, or leaves the map out.
    """

    stages: tuple[StageRef, ...]
    distances: tuple[StageDistance, ...]
    weights: Floats
    offset: float
    scores: Floats
    width: float
    fitted: int
    map: PositionNovelty | None = None

    @property
    def summary(self) -> str:
        """What it compares, for people."""
        return (
            f"compares {len(self.stages)} stages with {self.fitted:,} training images; "
            f"p-values from {len(self.scores):,} validation images, {1 / (len(self.scores) + 1):.2g} at least"
            + ("; maps of positions" if self.map else "")
        )

    def score(self, pooled: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the score of pooled features, one [batch, features] per stage: float32 [batch]."""
        return _add_logs(self.distances, self.weights, pooled) - self.offset

    def p_value(self, score: tf.Tensor) -> tf.Tensor:
        """Returns the conformal p-value of scores [batch] (Vovk, Gammerman and Shafer 2005, section 2.2).

        (1 + sum over the n calibration scores c of clip(1 + (c - score) / width, 0, 1)) / (n + 1). A calibration image
        that is at least as novel counts 1, so the value is never below the exact one, (1 + those) / (n + 1). Among
        images like the calibration images, at most a share a has a value of at most a. The slopes keep the value
        continuous: rounding between engines cannot make it jump.
        """
        steps = (self.scores[None, :] - score[:, None]) * (1.0 / self.width) + 1.0
        counts = tf.reduce_sum(tf.clip_by_value(steps, 0.0, 1.0), axis=1)
        return (counts + 1.0) * (1.0 / (len(self.scores) + 1.0))


def _add_logs(distances: Sequence[StageDistance], weights: Floats, features: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the weighted sum of the log distances of features, one [rows, features] per stage: [rows]."""
    logs = [tf.math.log(distance.measure(stage)) for distance, stage in zip(distances, features, strict=True)]
    return tf.add_n([weight * log for weight, log in zip(weights.tolist(), logs, strict=True)])
